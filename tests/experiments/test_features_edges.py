"""The parts of experiments/features.py and edges.py, each by another way; and what they leave behind."""

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
    """Dalal & Triggs's as scikit-image has it: each pixel counts for one of 9 directions, a block is 2×2 cells."""
    grey = image[..., 0] / 255
    height, width = grey.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, 9))
    for i, j in np.ndindex(rows * cell, columns * cell):
        down = grey[i + 1, j] - grey[i - 1, j] if 0 < i < height - 1 else 0
        right = grey[i, j + 1] - grey[i, j - 1] if 0 < j < width - 1 else 0
        angle = math.degrees(math.atan2(down, right)) % 180
        cells[i // cell, j // cell, int(angle // 20)] += math.hypot(down, right) / cell**2
    found = []
    for i, j in np.ndindex(rows - 1, columns - 1):
        block = cells[i : i + 2, j : j + 2].ravel()
        block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
        found.append(block / np.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(found)


@needs_skimage
def test_000_05_hog_is_its_formula(rng):
    images = rng.integers(0, 256, (2, 13, 11, 1), dtype=np.uint8)
    found = features.hog(images, 3)
    assert found.shape == (2, 3 * 2 * 2 * 2 * 9)
    for image, row in zip(images, found, strict=True):
        np.testing.assert_allclose(row, hog_by_loops(image, 3), atol=1e-5)


def test_hog_without_scikit_image_names_the_extra(monkeypatch):
    monkeypatch.setitem(importlib.sys.modules, "skimage.feature", None)
    with pytest.raises(InputError, match=r'HOG needs scikit-image: pip install "jaxconv\[experiments\]"'):
        features.hog(np.zeros((1, 8, 8, 1), np.uint8), 2)


def test_000_03_a_colour_image_of_30_by_30_has_2700_pixels():
    """And 000-04, 000-05: as many edges; 128 numbers at each of SIFT's key-points, which are a cell apart."""
    images = np.zeros((2, 30, 30, 3), np.uint8)
    names = ("pixels", "edges", "SIFT")
    shapes = {name: features.flatten_features(features.FEATURES[name](images, 4)).shape for name in names}
    assert shapes == {"pixels": (2, 2700), "edges": (2, 2700), "SIFT": (2, 4 * 4 * 128)}


def test_000_06_three_layers_are_three_sets_of_weights_and_all_are_taught(rng):
    """Two layers that learn the representation and a classifier: a kernel and a bias each, all with a gradient."""
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
def test_the_dense_network_has_as_many_parameters(input_shape):
    wanted = 25_000
    params, _ = features.dense_network(input_shape, wanted).init(jax.random.key(0), input_shape)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert abs(size - wanted) <= (math.prod(input_shape) + 11) / 2  # half of what one unit more would have


def test_learned_features_are_what_the_last_layer_is_given(rng):
    model = features.convnet()
    params, state = model.init(jax.random.key(0), (8, 9, 1))
    images = rng.integers(0, 256, (5, 8, 9, 1), dtype=np.uint8)
    found = features.learned_features(features.TrainedNetworks(model, [(params, state)], [], [], [], 0.0), images, 2)
    logits, _ = model.apply(params, state, jnp.asarray(images / np.float32(255)))
    last = params["dense1"]
    np.testing.assert_allclose(found @ np.asarray(last["kernel"]) + np.asarray(last["bias"]), logits, atol=1e-5)


def test_features_are_scaled_by_one_number_that_the_training_images_give(rng):
    parts = {"train": rng.normal(3, 2, (50, 4)) * [1, 2, 3, 4], "test": rng.normal(size=(7, 4))}
    found = features.scale_features(parts)
    np.testing.assert_allclose(found["train"].mean(axis=0), 0, atol=1e-12)
    assert (found["train"] ** 2).sum(axis=1).mean() == pytest.approx(1)
    ratios = (found["test"][1:] - found["test"][0]) / (parts["test"][1:] - parts["test"][0])
    np.testing.assert_allclose(ratios, ratios[0, 0])


def test_what_is_best_on_validation_images_is_chosen():
    """Classifiers that are right about some parts only."""

    class Knows:
        def __init__(self, strength):
            self.right = {1.0: "train", 2.0: "validation", 3.0: "test"}[strength]

        def fit(self, rows, labels):
            return self

        def score(self, rows, labels):
            return float(rows is given[self.right])

    parts = {part: features.Split(np.zeros(1), np.zeros(1)) for part in features.PARTS}
    given = {part: np.zeros((1, 6)) for part in features.PARTS}
    found = features.select_classifier(Knows, (1.0, 2.0, 3.0), given, parts)
    assert (found["chosen"], found["validation"], found["test"], found["length"]) == (2.0, 1, 0, 6)


def test_seeds_have_training_images_of_their_own():
    with pytest.raises(InputError, match=r"too few for 500 of each of 3 seeds: use samples=") as told:
        features.measure(features.Config(datasets=("digits",), samples=500), Progress())
    most = int(str(told.value).rsplit("=", 1)[1])
    assert 3 * most <= len(data.load("digits").train.labels) < 3 * (most + 1)


@needs_skimage
def test_features_in_small_tells_what_its_results_hold():
    config = features.Config(smoke=True, num_seeds=2).reduced()
    with Progress() as progress:
        found = features.measure(config, progress)
    digits = found.results["digits"]
    assert set(digits) == {"linear SVM", "naive Bayes", "softmax", "whole network"}
    for kind in ("linear SVM", "naive Bayes", "softmax"):
        assert list(digits[kind]) == ["pixels", "edges", "HOG", "SIFT", "learned"]
        for each in digits[kind].values():
            assert all(len(each[part]) == 2 and min(each[part]) > 0.5 for part in features.PARTS)
    best = max(digits["naive Bayes"]["SIFT"]["validation"])
    assert 0 < best <= 1 and "SIFT 0.9" in features.summarize_results(found.results)
    assert len(found.figures["features"].axes) == 4


def test_003_08_the_boxes_and_002_07_the_step_edges_answer_as_the_lectures_say():
    """And 002-14, 002-16, 002-17."""
    answers = {name: edges.peak_response(filters.box_detector(image)) for name, image in edges.boxes().items()}
    assert list(answers.values()) == [48, 60, 72, 38, 38, 38, 38, 24, -72]
    bright = [0, 0, 0, 225, 225, 0, 0, 0]
    assert edges.step_edges() == {
        "bright to dark": bright,
        "dark to bright": [-each for each in bright],
        "red only": [each // 3 for each in bright],
        "above one another": bright,
    }


def test_the_photograph_is_there_without_a_network_and_in_colour():
    photo = np.asarray(edges.photograph())
    assert photo.shape == (1, 192, 192, 3) and photo.dtype == np.float32 and 0 <= photo.min() < photo.max() <= 1
    assert np.abs(photo[..., 0] - photo[..., 2]).mean() > 0.05


def test_002_15_sobel_is_learned_from_what_it_makes_and_so_is_any_kernel(rng):
    """By gradient descent as by least squares over all windows."""
    x = rng.normal(size=(1, 14, 12, 1)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x[0, :, :, 0], (3, 3)).reshape(-1, 9)
    for kernel in (filters.SOBEL_X, rng.normal(size=(3, 3))):
        target = (windows @ kernel.ravel()).reshape(1, 12, 10, 1)
        noisy = target + rng.normal(size=target.shape)
        for wanted in (target, noisy):
            kernels, left = edges.learn(
                edges.one_kernel, 1, 400, 0.1, jax.random.key(3), jnp.asarray(x), jnp.asarray(wanted, jnp.float32)
            )
            matrix = np.column_stack([windows, np.ones(len(windows))])
            solved, *_ = np.linalg.lstsq(matrix, wanted.ravel(), rcond=None)
            np.testing.assert_allclose(np.ravel(kernels[-1]), solved[:9], atol=1e-3)
            rest = ((matrix @ solved - wanted.ravel()) ** 2).mean() / wanted.var()
            assert float(left) == pytest.approx(rest, abs=1e-5)
            assert kernels.shape == (401, 3, 3, 1, 1)
        np.testing.assert_array_equal(kernels[0, :, :, 0, 0], jax.random.normal(jax.random.key(3), (3, 3)))


def test_a_length_is_no_kernels_but_two_kernels_and_a_root_learn_it(rng):
    x = jnp.asarray(rng.normal(size=(1, 20, 22, 1)), jnp.float32)
    length = filters.sobel(x, padding="VALID")
    _, one = edges.learn(edges.one_kernel, 1, 300, 0.1, jax.random.key(0), x, length)
    kernels, two = edges.learn(edges.two_kernel_magnitude, 2, 600, 0.1, jax.random.key(0), x, length)
    assert float(one) > 0.9 and float(two) < 1e-4
    pair, sobel = (np.reshape(each, (9, 2)) for each in (kernels[-1], np.stack([filters.SOBEL_X, filters.SOBEL_Y], -1)))
    np.testing.assert_allclose(pair @ pair.T, sobel @ sobel.T, atol=0.02)  # Sobel's two, turned by some angle


@pytest.mark.parametrize(
    ("errors", "step"), [([1, 0.1, 1e-4], 2), ([1e-4, 1, 1e-4, 1e-5], 2), ([1, 1e-4, 1], None), ([0, 0], 0)]
)
def test_a_kernel_is_close_once_it_stays_close(errors, step):
    assert edges.first_converged_step(np.array(errors)) == step


def test_what_was_not_learned_is_said():
    with Progress() as progress:
        found = edges.measure(edges.Config(smoke=True, num_seeds=1, steps=3), progress)
    said = edges.summarize_results(found.results)
    assert "not at all from the photograph" in said and "A solid 5×5 box answers 72, any other at most 60." in said
    assert found.results["pixels_at_the_peak"] == 1 and found.results["slope_of_flat"] == 0
    assert found.results["l1_over_l2"] == pytest.approx(2**0.5)
    assert found.results["of_flat"]["blur"] == 8 and found.results["of_flat"]["Laplacian"] == 0
