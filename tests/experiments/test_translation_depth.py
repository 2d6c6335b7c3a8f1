"""Functions of the experiments on translation, depth, weight sharing, robustness and lowerings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compare_gradients
import invariance
import residual
import robustness
import translation
from jaxconv import InputError, data, explain, models
from jaxconv.testing import Comparison, compare_all
from jaxconv.testing.comparison import Timing


def test_downsample_takes_block_means(rng):
    images = rng.integers(0, 256, (3, 6, 4, 2), np.uint8)
    downsampled = residual.downsample(images, 2)
    assert downsampled.shape == (3, 3, 2, 2) and downsampled.dtype == np.uint8
    for n, i, j, c in np.ndindex(*downsampled.shape):
        assert abs(downsampled[n, i, j, c] - images[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].mean()) <= 0.5
    np.testing.assert_array_equal(residual.downsample(images, 1), images)
    with pytest.raises(InputError, match="shrink=4 should divide the height and width of the images, 6 and 4"):
        residual.downsample(images, 4)


def test_zero_block_is_identity(monkeypatch):
    """Row 003-21: also for negative values and gradients. A block with the default initialization is not."""
    assert residual.zero_block(8, (6, 4, 3)) == {"from_identity": 0, "gradient_from_identity": 0}
    resnet = models.resnet
    monkeypatch.setattr(models, "resnet", lambda depth, zero_init_residual: resnet(depth))
    default = residual.zero_block(8, (6, 4, 3))
    assert default["from_identity"] > 1 and default["gradient_from_identity"] > 0.1


def test_gradient_norms_are_in_layer_order(rng):
    model = models.resnet(14)
    params, state = residual.init(model, 0, (8, 8, 1))
    batch = rng.random((4, 8, 8, 1)).astype(np.float32), np.arange(4)
    norms = residual.gradient_norms(model)(params, state, *batch, train=False)
    expected = explain.gradient_norms(model, params, state, *batch, train=False)
    assert list(norms) == list(range(1, 15))
    np.testing.assert_allclose(list(norms.values()), list(expected.values()), rtol=1e-4)
    assert residual.first_by_last({1: 6.0, 2: 5.0, 3: 3.0, 4: 100.0}) == 2


@pytest.mark.parametrize(("kind", "shortcuts"), [("plain", 0), ("residual", 6)])
def test_sigmoid_network_depth_and_shortcuts(kind, shortcuts):
    model = residual.sigmoid_network(8, kind)
    params, _ = model.init(jax.random.key(0), (4, 4, 1))
    assert sum("kernel" in jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)) == 8
    assert sum(name.startswith("res") for name in params) == shortcuts


def test_equivariance_errors_vanish_for_circular_padding(rng):
    """Rows 001-04, 004-03; lecture erratum 13: convolution is equivariant, not invariant."""
    errors = translation.equivariance_errors(rng.integers(0, 256, (3, 6, 8, 1), np.uint8))
    exact = [name for name, error in errors.items() if error < 1e-6]
    assert exact == [
        "convolution, circular padding, by 1",
        "then pooled, by 2",
        "convolution, global mean, by 1",
    ]
    assert min(error for name, error in errors.items() if name not in exact) > 0.01


def test_permute_applies_one_permutation_to_all_images(rng):
    images, labels = rng.integers(0, 256, (3, 2, 5, 2), np.uint8), np.arange(3, dtype=np.int32)
    order = rng.permutation(10)
    permuted = invariance.permute(data.Split(images, labels), order)
    for n, i, j in np.ndindex(3, 2, 5):
        a, b = divmod(order[5 * i + j], 5)
        np.testing.assert_array_equal(permuted.images[n, i, j], images[n, a, b])
    np.testing.assert_array_equal(permuted.labels, labels)


def test_accuracy_excludes_identity_severity():
    identity = explain.CORRUPTIONS["rotation"].identity
    assert robustness.accuracy("rotation", [(identity, 1.0), (10.0, 0.5), (20.0, 0.25)]) == 0.375
    assert robustness.mean_curve([[(0.0, 1.0), (1.0, 0.5)], [(0.0, 0.5), (1.0, 0.0)]]) == [(0.0, 0.75), (1.0, 0.25)]
    assert robustness.overall({"distorted": {"a": [0.5, 0.75], "b": [0.25, 0.25]}}) == [0.375, 0.5]


def test_robustness_summary_names_lost_distortions():
    def network(accuracy, **distorted):
        return {"test_accuracy": [accuracy], "distorted": {name: [value] for name, value in distorted.items()}}

    cnn, mlp = network(0.99, blur=0.5, noise=0.9), network(0.97, blur=0.6, noise=0.4)
    assert robustness.summarize_results({"cnn": cnn, "mlp": mlp}).endswith(
        "cnn is the best against all of them but blur."
    )
    assert robustness.summarize_results({"cnn": cnn}).endswith(
        "over 2 distortions: cnn 0.700. cnn is the best against all of them."
    )


@pytest.fixture
def compared():
    with jax.enable_x64(True):
        x = jnp.arange(3.0)
        functions = {"cube": lambda x: x**3, "product": lambda x: x * x * x, "wrong": lambda x: x**3 + 1.04e-3}
        return compare_gradients.summarize(compare_all(functions, x, num_repeats=1))


def test_summarize_has_largest_error(compared):
    assert not compared["agree"] and compared["error"]["cube"] is None and compared["error"]["product"] < 1e-12
    assert compared["error"]["wrong"] == pytest.approx(1.04e-3 / 8)  # of the largest entry, 2³
    assert set(compared["milliseconds"]) == {"cube", "product", "wrong"}
    timed = compare_gradients.summarize(
        Comparison("a", "float64", "cpu", (), {"a": Timing(forward=1e-3, forward_backward=4e-3)})
    )
    assert timed == {"agree": True, "error": {"a": None}, "milliseconds": {"a": 4.0}}
    summary = compare_gradients.summarize_results({"powers": compared})
    assert summary == "Of 3 implementations on powers, they differ for powers: the largest relative error is 1.3e-04."
    assert "all agree" in compare_gradients.summarize_results({"powers": compared | {"agree": True}})


def test_docs_table_is_replaced_between_marks(compared, tmp_path, monkeypatch):
    monkeypatch.setattr(compare_gradients, "PROJECT", tmp_path)
    (tmp_path / compare_gradients.PICTURE).parent.mkdir(parents=True)
    (tmp_path / "new.png").write_bytes(b"picture")
    first, last = compare_gradients.MARKS
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/gradients.md").write_text(f"before\n{first}\n| old |\n{last}\nafter\n")
    compared["milliseconds"] = {"cube": 1.25, "wrong": 20.0}
    table = compare_gradients.markdown({"powers": compared, "others": compared})
    compare_gradients.update_docs(table, tmp_path / "new.png")
    rows = (tmp_path / "docs/gradients.md").read_text().splitlines()
    assert rows[:2] == ["before", first] and rows[-2:] == [last, "after"]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:-2]]
    assert cells[0] == ["", "powers: error", "time", "others: error", "time"] and cells[1] == ["---"] * 5
    assert cells[2] == ["cube", *["reference", "1.2 ms"] * 2] and cells[4] == ["wrong", *["1e-04", "20.0 ms"] * 2]
    assert cells[3][0] == "product" and cells[3][2] == ""
    assert (tmp_path / compare_gradients.PICTURE).read_bytes() == b"picture"


def test_heads_share_convolution_shapes():
    shapes = {}
    for head in translation.HEADS:
        params, _ = translation.network(head, 5, 10).init(jax.random.key(0), (28, 28, 1))
        shapes[head] = jax.tree.map(jnp.shape, {name: params[name] for name in ("conv1", "conv2")})
        assert params[sorted(params)[-1]]["kernel"].shape[1] == 10
    assert shapes["flatten"] == shapes["global mean"]
