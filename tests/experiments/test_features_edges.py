"""Functions of experiments/features.py and edges.py against references, and their results."""

import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import edges
import features
from common.study import Progress
from jaxconv import InputError, data, filters, ops

pytestmark = pytest.mark.usefixtures("promoting")
needs_skimage = pytest.mark.skipif(
    importlib.util.find_spec("skimage") is None, reason="the experiments extra is not installed"
)


def hog_by_loops(image, cell):
    """Compute HOG as in scikit-image: each pixel has one of 9 orientations, a block has 2×2 cells."""
    gray = image[..., 0] / 255
    height, width = gray.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, 9))
    for i, j in np.ndindex(rows * cell, columns * cell):
        dy = gray[i + 1, j] - gray[i - 1, j] if 0 < i < height - 1 else 0
        dx = gray[i, j + 1] - gray[i, j - 1] if 0 < j < width - 1 else 0
        angle = math.degrees(math.atan2(dy, dx)) % 180
        cells[i // cell, j // cell, int(angle // 20)] += math.hypot(dy, dx) / cell**2
    blocks = []
    for i, j in np.ndindex(rows - 1, columns - 1):
        block = cells[i : i + 2, j : j + 2].ravel()
        block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
        blocks.append(block / np.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(blocks)


@needs_skimage
def test_000_05_hog_matches_loops(rng):
    images = rng.integers(0, 256, (2, 13, 11, 1), dtype=np.uint8)
    descriptors = features.hog(images, 3)
    assert descriptors.shape == (2, 3 * 2 * 2 * 2 * 9)
    for image, row in zip(images, descriptors, strict=True):
        np.testing.assert_allclose(row, hog_by_loops(image, 3), atol=1e-5)


def test_hog_without_skimage_names_extra(monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, "skimage.feature", None)
    with pytest.raises(InputError, match=r'HOG needs scikit-image: pip install "jaxconv\[experiments\]"'):
        features.hog(np.zeros((1, 8, 8, 1), np.uint8), 2)


def test_000_03_color_image_30_by_30_has_2700_pixels():
    """And 000-04, 000-05: as many edges; 128 numbers at each SIFT keypoint, with a spacing of one cell."""
    images = np.zeros((2, 30, 30, 3), np.uint8)
    names = ("pixels", "edges", "SIFT")
    shapes = {name: features.flatten_features(features.FEATURES[name](images, 4)).shape for name in names}
    assert shapes == {"pixels": (2, 2700), "edges": (2, 2700), "SIFT": (2, 4 * 4 * 128)}


def test_000_06_three_layers_have_weights_and_gradients(rng):
    """Two convolutions and a classifier: each has a kernel and a bias, all with a gradient."""
    model = features.convnet()
    params, state = model.init(jax.random.key(0), (9, 8, 1))
    x, labels = jnp.asarray(rng.uniform(size=(20, 9, 8, 1)), jnp.float32), jnp.arange(20) % 10

    def loss(params):
        return ops.softmax_cross_entropy(model.apply(params, state, x)[0], labels).mean()

    gradients = jax.grad(loss)(params)
    assert {name: sorted(group) for name, group in gradients.items()} == {
        name: ["bias", "kernel"] for name in ("conv1", "conv2", "dense1")
    }
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (7, 9, 3)])
def test_dense_network_matches_parameter_count(input_shape):
    target = 25_000
    params, _ = features.dense_network(input_shape, target).init(jax.random.key(0), input_shape)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert abs(size - target) <= (math.prod(input_shape) + 11) / 2  # half the parameters of a unit


def test_learned_features_are_inputs_of_last_layer(rng):
    model = features.convnet()
    params, state = model.init(jax.random.key(0), (8, 9, 1))
    images = rng.integers(0, 256, (5, 8, 9, 1), dtype=np.uint8)
    inputs = features.learned_features(features.TrainedNetworks(model, [(params, state)], [], [], [], 0.0), images, 2)
    logits, _ = model.apply(params, state, jnp.asarray(images / np.float32(255)))
    last = params["dense1"]
    np.testing.assert_allclose(inputs @ np.asarray(last["kernel"]) + np.asarray(last["bias"]), logits, atol=1e-5)


def test_scale_features_uses_training_statistics(rng):
    parts = {"train": rng.normal(3, 2, (50, 4)) * [1, 2, 3, 4], "test": rng.normal(size=(7, 4))}
    scaled = features.scale_features(parts)
    np.testing.assert_allclose(scaled["train"].mean(axis=0), 0, atol=1e-12)
    assert (scaled["train"] ** 2).sum(axis=1).mean() == pytest.approx(1)
    ratios = (scaled["test"][1:] - scaled["test"][0]) / (parts["test"][1:] - parts["test"][0])
    np.testing.assert_allclose(ratios, ratios[0, 0])


def test_select_classifier_uses_validation_accuracy():
    """Fake classifiers, each correct on one split only."""

    class CorrectOnOneSplit:
        def __init__(self, strength):
            self.split = {1.0: "train", 2.0: "validation", 3.0: "test"}[strength]

        def fit(self, rows, labels):
            return self

        def score(self, rows, labels):
            return float(rows is rows_by_part[self.split])

    parts = {part: features.Split(np.zeros(1), np.zeros(1)) for part in features.PARTS}
    rows_by_part = {part: np.zeros((1, 6)) for part in features.PARTS}
    selected = features.select_classifier(CorrectOnOneSplit, (1.0, 2.0, 3.0), rows_by_part, parts)
    assert (selected["chosen"], selected["validation"], selected["test"], selected["length"]) == (2.0, 1, 0, 6)


def test_too_many_samples_per_seed_raise():
    with pytest.raises(InputError, match=r"too few for 500 of each of 3 seeds: use samples=") as error:
        features.measure(features.Config(datasets=("digits",), samples=500), Progress())
    max_samples = int(str(error.value).rsplit("=", 1)[1])
    assert 3 * max_samples <= len(data.load("digits").train.labels) < 3 * (max_samples + 1)


@needs_skimage
def test_features_smoke_run():
    config = features.Config(smoke=True, num_seeds=2).reduced()
    with Progress() as progress:
        result = features.measure(config, progress)
    digits = result.results["digits"]
    assert set(digits) == {"linear SVM", "naive Bayes", "softmax", "whole network"}
    for kind in ("linear SVM", "naive Bayes", "softmax"):
        assert list(digits[kind]) == ["pixels", "edges", "HOG", "SIFT", "learned"]
        for values in digits[kind].values():
            assert all(len(values[part]) == 2 and min(values[part]) > 0.5 for part in features.PARTS)
    best = max(digits["naive Bayes"]["SIFT"]["validation"])
    assert 0 < best <= 1 and "SIFT 0.9" in features.summarize_results(result.results)
    assert len(result.figures["features"].axes) == 4


def test_003_08_boxes_and_002_07_step_edges():
    """And 002-14, 002-16, 002-17."""
    responses = {name: edges.peak_response(filters.box_detector(image)) for name, image in edges.boxes().items()}
    assert list(responses.values()) == [48, 60, 72, 38, 38, 38, 38, 24, -72]
    bright = [0, 0, 0, 225, 225, 0, 0, 0]
    assert edges.step_edges() == {
        "bright to dark": bright,
        "dark to bright": [-value for value in bright],
        "red only": [value // 3 for value in bright],
        "above one another": bright,
    }


def test_photograph_is_local_and_in_color():
    photo = np.asarray(edges.photograph())
    assert photo.shape == (1, 192, 192, 3) and photo.dtype == np.float32 and 0 <= photo.min() < photo.max() <= 1
    assert np.abs(photo[..., 0] - photo[..., 2]).mean() > 0.05


def test_002_15_learned_kernel_matches_least_squares(rng):
    """Gradient descent gives the least-squares solution over all windows."""
    x = rng.normal(size=(1, 14, 12, 1)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x[0, :, :, 0], (3, 3)).reshape(-1, 9)
    for kernel in (filters.SOBEL_X, rng.normal(size=(3, 3))):
        target = (windows @ kernel.ravel()).reshape(1, 12, 10, 1)
        noisy = target + rng.normal(size=target.shape)
        for y in (target, noisy):
            kernels, residual = edges.learn(
                edges.one_kernel, 1, 400, 0.1, jax.random.key(3), jnp.asarray(x), jnp.asarray(y, jnp.float32)
            )
            matrix = np.column_stack([windows, np.ones(len(windows))])
            solution, *_ = np.linalg.lstsq(matrix, y.ravel(), rcond=None)
            np.testing.assert_allclose(np.ravel(kernels[-1]), solution[:9], atol=1e-3)
            expected = ((matrix @ solution - y.ravel()) ** 2).mean() / y.var()
            assert float(residual) == pytest.approx(expected, abs=1e-5)
            assert kernels.shape == (401, 3, 3, 1, 1)
        np.testing.assert_array_equal(kernels[0, :, :, 0, 0], jax.random.normal(jax.random.key(3), (3, 3)))


def test_gradient_magnitude_needs_two_kernels(rng):
    x = jnp.asarray(rng.normal(size=(1, 20, 22, 1)), jnp.float32)
    magnitude = filters.sobel(x, padding="VALID")
    _, one = edges.learn(edges.one_kernel, 1, 300, 0.1, jax.random.key(0), x, magnitude)
    kernels, two = edges.learn(edges.two_kernel_magnitude, 2, 600, 0.1, jax.random.key(0), x, magnitude)
    assert float(one) > 0.9 and float(two) < 1e-4
    pair, sobel = (
        np.reshape(kernel_pair, (9, 2))
        for kernel_pair in (kernels[-1], np.stack([filters.SOBEL_X, filters.SOBEL_Y], -1))
    )
    np.testing.assert_allclose(pair @ pair.T, sobel @ sobel.T, atol=0.02)  # equal up to a rotation of the pair


@pytest.mark.parametrize(
    ("errors", "step"), [([1, 0.1, 1e-4], 2), ([1e-4, 1, 1e-4, 1e-5], 2), ([1, 1e-4, 1], None), ([0, 0], 0)]
)
def test_first_converged_step(errors, step):
    assert edges.first_converged_step(np.array(errors)) == step


def test_edges_summary_reports_unlearned_kernel():
    with Progress() as progress:
        result = edges.measure(edges.Config(smoke=True, num_seeds=1, steps=3), progress)
    summary = edges.summarize_results(result.results)
    assert (
        "not at all from the photograph" in summary and "A solid 5×5 box answers 72, any other at most 60." in summary
    )
    assert result.results["pixels_at_the_peak"] == 1 and result.results["slope_of_flat"] == 0
    assert result.results["l1_over_l2"] == pytest.approx(2**0.5)
    assert result.results["of_flat"]["blur"] == 8 and result.results["of_flat"]["Laplacian"] == 0
