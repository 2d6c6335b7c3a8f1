"""How long gradients and steps are, against jax.grad of a loss written out; and histograms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, explain, flatten, models, relu, residual, serial
from jaxconv.ops import sigmoid


@pytest.fixture
def built(rng):
    model = serial(Conv(3, 3), BatchNorm(), relu, residual(Conv(3, 3, padding="SAME")), flatten, Dense(4))
    params, state = model.init(jax.random.key(0), (5, 6, 2))
    return model, params, state, rng.normal(size=(6, 5, 6, 2)).astype(np.float32), np.array([0, 3, 1, 2, 2, 0])


def gradient(model, params, state, x, labels, train):
    def loss(params):
        logits = model.apply(params, state, x, train=train)[0]
        return -jnp.mean(jnp.stack([jax.nn.log_softmax(z)[label] for z, label in zip(logits, labels)]))

    return jax.grad(loss)(params)


@pytest.mark.parametrize("train", [True, False])
def test_norms_are_those_of_the_gradient(built, train):
    wanted = gradient(*built, train)
    found = explain.gradient_norms(*built, train=train)
    assert list(found) == ["conv1", "res1/body/conv1", "dense1"]
    for name, norm in found.items():
        of = wanted["res1"]["body"]["conv1"] if "/" in name else wanted[name]
        np.testing.assert_allclose(norm, np.linalg.norm(np.ravel(of["kernel"])), rtol=1e-4)


def test_updates_are_measured_by_what_they_change(built):
    params = built[1]
    wanted = gradient(*built, True)
    found = explain.update_ratios(*built, optimizer=optax.sgd(0.2))
    for name in ("conv1", "dense1"):
        delta, kernel = (np.linalg.norm(np.ravel(tree[name]["kernel"])) for tree in (wanted, params))
        np.testing.assert_allclose(found[name], 0.2 * delta / kernel, rtol=1e-4)
    signs = explain.update_ratios(*built, optimizer=optax.sign_sgd(0.01))  # each number moves by 0.01
    kernel = np.asarray(params["conv1"]["kernel"])
    np.testing.assert_allclose(signs["conv1"], 0.01 * np.sqrt(kernel.size) / np.linalg.norm(kernel), rtol=1e-5)
    momentum = optax.sgd(0.2, momentum=0.9)
    later = momentum.update(wanted, momentum.init(params), params)[1]
    second = explain.update_ratios(*built, optimizer=momentum, opt_state=later)
    np.testing.assert_allclose(second["conv1"], 1.9 * found["conv1"], rtol=1e-4)


def test_gradients_whose_squares_are_0_in_float32_are_still_measured():
    model = serial(lambda x: x * 1e-30, flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    found = explain.gradient_norms(model, params, state, np.ones((1, 2, 2, 1), np.float32), [0])
    np.testing.assert_allclose(found["dense1"], 1e-30 * np.sqrt(8) / 2, rtol=1e-4)


def test_dropout_wants_its_key(built):
    model = serial(flatten, Dropout(0.5), Dense(2))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    x, labels = np.ones((2, 2, 2, 1), np.float32), [0, 1]
    with pytest.raises(InputError, match=r"dropout1: dropout.* key"):
        explain.gradient_norms(model, params, state, x, labels)
    assert explain.gradient_norms(model, params, state, x, labels, key=jax.random.key(0))["dense1"] > 0
    assert explain.gradient_norms(model, params, state, x, labels, train=False)["dense1"] > 0


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        (r"gradient_norms: labels \(5,\) should be one for each of the 6 images", [0] * 5),
        (r"gradient_norms: label 4 is none of the 4 classes", [0, 1, 2, 3, 4, 0]),
        (r"gradient_norms: label float32\(6,\) should be a class number", np.zeros(6, np.float32)),
    ],
)
def test_labels_that_do_not_go_with_the_images_are_refused(built, said, labels):
    with pytest.raises(InputError, match=said):
        explain.gradient_norms(*built[:4], labels)


def test_histograms_count_every_number_once(rng):
    kernel, feature_map = rng.normal(size=(3, 3, 2, 4)).astype(np.float32), rng.random((2, 5)).astype(np.float32)
    kernel.flat[:3] = np.nan, np.inf, -np.inf
    found = explain.histograms({"conv2": {"kernel": kernel}, "conv1": jnp.asarray(feature_map, jnp.bfloat16)}, bins=7)
    assert list(found) == ["conv2/kernel", "conv1"]
    first = found["conv2/kernel"]
    assert (first.nan, first.inf, first.counts.sum()) == (1, 2, kernel.size - 3) and len(first.edges) == 8
    finite = kernel[np.isfinite(kernel)]
    for count, low, high in zip(first.counts[:-1], first.edges, first.edges[1:]):
        assert count == ((finite >= low) & (finite < high)).sum()
    assert (first.edges[0], first.edges[-1]) == (finite.min(), finite.max())
    assert explain.histograms({"a": feature_map}, bins=[0.0, 0.5, 2.0])["a"].counts.tolist() == [
        (feature_map < 0.5).sum(),
        (feature_map >= 0.5).sum(),
    ]
    nothing = explain.histograms({"a": np.full(3, np.nan)})["a"]
    assert nothing.nan == 3 and nothing.counts.sum() == 0


@pytest.mark.parametrize(
    ("said", "arrays", "bins"),
    [
        ("histograms: bins=0 should be an int of at least 1", {"a": np.ones(2)}, 0),
        (
            r"histograms: bins=\[1.0, 0.0\] should be a number of bins, or edges that go up",
            {"a": np.ones(2)},
            [1.0, 0.0],
        ),
        ("histograms: dicts of arrays are wanted", {}, 5),
        ("histograms: dicts of arrays are wanted", np.ones(2), 5),
    ],
)
def test_no_bins_and_no_arrays_are_refused(said, arrays, bins):
    with pytest.raises(InputError, match=said):
        explain.histograms(arrays, bins=bins)


def ends(model, input_shape, images, labels):
    """The first layer's gradient by the last one's."""
    params, state = model.init(jax.random.key(0), input_shape)
    norms = list(explain.gradient_norms(model, params, state, images, labels).values())
    return float(norms[0] / norms[-1])


def test_gradients_vanish_in_a_plain_stack_of_sigmoids_and_not_with_shortcuts(rng):
    """Lecture row 003-22. The slope of a sigmoid is at most ¼, which a layer leaves if its kernel turns only."""
    images, labels = rng.random((8, 4, 4, 1)).astype(np.float32), np.arange(8) % 3
    turning = Dense(16, kernel_init=jax.nn.initializers.orthogonal())
    plain = {n: serial(flatten, *[turning, sigmoid] * n, Dense(3)) for n in (4, 8)}
    vanished = {n: ends(model, (4, 4, 1), images, labels) for n, model in plain.items()}
    assert vanished[8] < 0.25**4 * vanished[4] < 0.25**4 * 0.05
    shortcuts = serial(flatten, *[residual(turning, sigmoid)] * 8, Dense(3))
    assert ends(shortcuts, (4, 4, 1), images, labels) > 100 * vanished[8]


def test_with_batch_norm_it_is_not_that_they_vanish_without_shortcuts_they_explode(rng):
    """Lecture row 003-22: He et al., 2015, say of their plain networks (section 4.1) that batch norm keeps gradients
    from vanishing. It does more: at the start they grow from the last layer to the first (the more the deeper), as
    Yang et al., 2019 (https://arxiv.org/abs/1902.08129) derive; shortcuts stop that."""
    images, labels = rng.random((8, 8, 8, 1)).astype(np.float32), np.arange(8)
    plain, shortcuts = (ends(models.resnet(14, plain=plain), (8, 8, 1), images, labels) for plain in (True, False))
    assert plain > 2 and shortcuts < 1  # 3.6 and 0.7 where this was written
