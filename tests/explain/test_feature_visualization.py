"""Feature visualization: optimized images and dataset patches; and the randomization test of attributions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import spearmanr

from jaxconv import Conv, Dense, InputError, MaxPool, data, explain, flatten, plot, relu, serial
from jaxconv.train import fit

CONVS = serial(Conv(3, 3, padding="SAME"), relu, MaxPool(2), Conv(4, 2), flatten, Dense(2))


def test_maximize_activation_of_linear_filter_is_optimal(rng, promoting):
    kernel = rng.uniform(0.2, 1, size=(3, 4, 2, 2)).astype(np.float32) * rng.choice([-1, 1], size=(3, 4, 2, 2))
    params = {"conv1": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.ones(2)}}
    model, options = serial(Conv(2, (3, 4))), {"layer": "conv1", "num_steps": 60, "blur": 0, "jitter": 0}
    images = explain.maximize_activation(model, params, {}, (6, 7, 2), key=jax.random.key(0), **options)
    assert images.shape == (2, 6, 7, 2)
    for k in range(2):
        activations = np.asarray(model.apply(params, {}, images[k : k + 1])[0])[0, ..., k]
        i, j = np.unravel_index(activations.argmax(), activations.shape)
        np.testing.assert_allclose(images[k, i : i + 3, j : j + 4], kernel[..., k] > 0, atol=1e-6)
        maximum = 1 + np.maximum(kernel[..., k], 0).sum()  # over all images
        np.testing.assert_allclose(activations.max(), maximum, rtol=1e-5)


def test_maximize_activation_exceeds_random_images(rng, promoting):  # rows 003-09, 004-04
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    for layer, channels in (("conv2", (3, 1)), ("dense1", None)):
        images = explain.maximize_activation(
            *(CONVS, params, state, (8, 8, 1)), layer=layer, channels=channels, key=jax.random.key(1), num_steps=60
        )
        noise = rng.uniform(size=(200, 8, 8, 1)).astype(np.float32)
        activations = lambda x: np.asarray(explain.feature_maps(CONVS, params, state, x, layers=(layer,))[layer])  # noqa: B023, E731
        assert np.asarray(images).min() >= 0 and np.asarray(images).max() <= 1
        for row, k in enumerate(channels or (0, 1)):
            random_maxima = activations(noise)[..., k].reshape(200, -1).max(1)
            assert activations(images)[row, ..., k].max() > random_maxima.max()


def brute_force(images, kernel, count):
    """Return the top (activation, image, position) of each filter of a 2-D SAME convolution, largest first."""
    kh, kw, _, filters = kernel.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    results = []
    for k in range(filters):
        best = []
        for n in range(len(images)):
            activations = [
                ((padded[n, i : i + kh, j : j + kw] * kernel[..., k]).sum(), -i, -j)
                for i, j in np.ndindex(images.shape[1:3])
            ]
            value, i, j = max(activations)
            best.append((value, n, (-i, -j)))
        results.append(sorted(best, key=lambda entry: (-entry[0], entry[1]))[:count])
    return results


def test_top_activating_patches_match_brute_force(rng):  # rows 003-09, 004-04
    images = rng.integers(0, 256, size=(11, 5, 6, 2), dtype=np.uint8)
    images[:, 0, 0] = 255  # some of the maxima are at a corner
    model = serial(Conv(3, 3, padding="SAME"))
    kernel = rng.normal(size=(3, 3, 2, 3)).astype(np.float32)
    kernel[1:, 1:, :, 0] += 2
    params = {"conv1": {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(3)}}
    top = explain.top_activating_patches(
        model, params, {}, images, layer="conv1", channels=[2, 0], count=4, batch_size=4
    )
    assert top.patches.shape == (2, 4, 3, 3, 2) and top.patches.dtype == np.uint8
    expected = brute_force(images / 255, kernel.astype(np.float64), 4)
    num_outside = 0
    for row, k in enumerate((2, 0)):
        for column, (value, n, (i, j)) in enumerate(expected[k]):
            assert top.index[row, column] == n and top.position[row, column].tolist() == [i, j]
            np.testing.assert_allclose(top.activation[row, column], value, rtol=1e-4)
            for u, v in np.ndindex(3, 3):
                y, x = i - 1 + u, j - 1 + v
                inside = 0 <= y < 5 and 0 <= x < 6
                assert top.patches[row, column, u, v].tolist() == (images[n, y, x].tolist() if inside else [0, 0])
                num_outside += not inside
    assert num_outside > 3


def test_patches_contain_full_receptive_field(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    images = rng.uniform(size=(6, 8, 8, 1)).astype(np.float32)
    result = explain.top_activating_patches(CONVS, params, state, images, layer="conv2", count=2)
    assert result.patches.shape == (4, 2, 6, 6, 1) and result.patches.dtype == np.float32
    # The activation does not depend on pixels outside the patch.
    for k, c in np.ndindex(4, 2):
        image = rng.uniform(size=(8, 8, 1)).astype(np.float32)
        (top, bottom), (left, right) = explain.receptive_field_of(CONVS, (8, 8, 1), "conv2").bounds(
            result.position[k, c]
        )
        for i in range(max(top, 0), min(bottom, 8)):
            for j in range(max(left, 0), min(right, 8)):
                image[i, j] = result.patches[k, c, i - top, j - left]
        y = explain.feature_maps(CONVS, params, state, image[None], layers=("conv2",))["conv2"]
        np.testing.assert_allclose(y[(0, *result.position[k, c], k)], result.activation[k, c], rtol=1e-4, atol=1e-5)
    full_images = explain.top_activating_patches(CONVS, params, state, images, layer="dense1", channels=[1], count=6)
    assert full_images.position.shape == (1, 6, 0)
    np.testing.assert_array_equal(full_images.patches[0], images[full_images.index[0]])
    assert (np.diff(full_images.activation[0]) <= 0).all()


def test_plots_show_attributions_and_patches(rng):
    images = rng.uniform(size=(2, 6, 5, 3)).astype(np.float32)
    figure = plot.attributions(images, {"grad_cam": np.ones((2, 6, 5)), "occlusion": np.zeros((2, 6, 5))}, ["cat"])
    assert [axes.get_title() for axes in figure.axes] == ["image", "grad cam", "occlusion", "", "", ""]
    np.testing.assert_array_equal(figure.axes[3].images[0].get_array(), np.round(255 * images[1]).astype(np.uint8))
    with pytest.raises(InputError, match=r"attributions: heat of grad_cam \(2, 3, 3\) should be \(2, 6, 5\)"):
        plot.attributions(images, {"grad_cam": np.ones((2, 3, 3))})
    with pytest.raises(InputError, match=r"attributions: images \(0, 6, 5, 3\) should be at least one"):
        plot.attributions(images[:0], {})
    patches = explain.ActivatingPatches(
        images[None], np.zeros((1, 2), int), np.zeros((1, 2, 2), int), np.array([[3.14159, 2.0]])
    )
    figure = plot.activating_patches(patches, "conv1", names=["edges"])
    assert [axes.get_xlabel() for axes in figure.axes] == ["3.14", "2"] and figure.axes[0].get_ylabel() == "edges"


def train_on_digits():
    model = serial(Conv(8, 3, padding="SAME"), relu, MaxPool(2), Conv(8, 3), relu, flatten, Dense(10))
    digits = data.load("digits")
    return (
        model,
        digits,
        fit(*(model, digits.train, digits.validation), optimizer=optax.adam(0.01), epochs=4, batch_size=32),
    )


def test_randomization_changes_saliency_of_trained_network(promoting):
    model, digits, fitted = train_on_digits()
    images = np.asarray(digits.test[0][:40])
    saliency = jax.jit(explain.saliency, static_argnums=0)
    args = (model, fitted.params, fitted.state, images)
    steps = explain.model_randomization_test(saliency, *args, key=jax.random.key(5))
    assert [step.layer for step in steps] == ["dense1", "conv2", "conv1"]
    assert steps[-1].correlation < 0.5
    constant = lambda model, params, state, images, target: np.asarray(images) * 1.0  # noqa: E731
    for step in explain.model_randomization_test(constant, *args, key=jax.random.key(5)):
        assert step.correlation == pytest.approx(1)


def test_randomization_proceeds_from_last_layer(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    x, calls = rng.uniform(size=(3, 8, 8, 1)).astype(np.float32), []

    def attribute(model, params, state, images, target):
        calls.append((params, np.asarray(target)))
        return rng.normal(size=(3, 4, 4))

    steps = explain.model_randomization_test(attribute, CONVS, params, state, x, key=jax.random.key(7))
    random_params, _ = CONVS.init(jax.random.key(7), (8, 8, 1))
    order = ["dense1", "conv2", "conv1"]
    assert [step.layer for step in steps] == order and len(calls) == 4
    predicted = np.asarray(CONVS.apply(params, state, x)[0]).argmax(1)
    for k, (call_params, target) in enumerate(calls):
        np.testing.assert_array_equal(target, predicted)
        for name in order:
            source = random_params if name in order[:k] else params
            np.testing.assert_array_equal(call_params[name]["kernel"], source[name]["kernel"])


def test_randomization_correlation_is_spearman(rng):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    x = np.zeros((3, 8, 8, 1), np.float32)
    attributions = [np.round(rng.normal(size=(3, 5, 5)), 1) for _ in range(3)]  # rounding creates ties
    attributions.append(np.ones((3, 5, 5)))
    iterator = iter(attributions)
    steps = explain.model_randomization_test(
        lambda *args: next(iterator), CONVS, params, state, x, key=jax.random.key(7)
    )
    for step, randomized in zip(steps[:2], attributions[1:3]):
        expected = [
            spearmanr(np.abs(attributions[0][n]).ravel(), np.abs(randomized[n]).ravel()).statistic for n in range(3)
        ]
        assert step.correlation == pytest.approx(np.mean(expected))
    assert steps[2].correlation == 0


@pytest.mark.parametrize(
    ("message", "name", "options"),
    [
        (r"maximize_activation: unknown layer 'conv9'", "max", {"layer": "conv9"}),
        (
            r"maximize_activation: channels must be from 0 to 3 for layer conv2, got 4",
            "max",
            {"layer": "conv2", "channels": [4]},
        ),
        (r"maximize_activation: num_steps=0 should be", "max", {"layer": "conv2", "num_steps": 0}),
        (r"maximize_activation: blur=2 should be from 0 to 1", "max", {"layer": "conv2", "blur": 2}),
        (r"maximize_activation: jitter=-1 should be", "max", {"layer": "conv2", "jitter": -1}),
        (r"top_activating_patches: unknown layer", "near", {"layer": "relu7"}),
        (r"top_activating_patches: count=0 should be", "near", {"layer": "conv1", "count": 0}),
        (
            r"top_activating_patches: count must be at most the number of images, 3, got 4",
            "near",
            {"layer": "conv1", "count": 4},
        ),
        (
            r"top_activating_patches: channels must be from 0 to 2 .* got -1",
            "near",
            {"layer": "conv1", "channels": [-1], "count": 1},
        ),
        (
            r"top_activating_patches: channels must be from 0 to 2 .* got none",
            "near",
            {"layer": "conv1", "channels": [], "count": 1},
        ),
    ],
)
def test_feature_visualization_invalid_arguments_raise(message, name, options):
    params, state = CONVS.init(jax.random.key(0), (8, 8, 1))
    with pytest.raises(InputError, match=message):
        if name == "max":
            explain.maximize_activation(CONVS, params, state, (8, 8, 1), key=jax.random.key(0), **options)
        else:
            explain.top_activating_patches(CONVS, params, state, np.zeros((3, 8, 8, 1), np.uint8), **options)


def test_randomization_without_params_raises():
    model = serial(relu, flatten)
    with pytest.raises(InputError, match="model_randomization_test: the model has no layer with params"):
        explain.model_randomization_test(
            explain.saliency, model, {}, {}, np.ones((1, 2, 2, 1), np.float32), key=jax.random.key(0)
        )
    with pytest.raises(
        InputError, match=r"top_activating_patches: images must be .* with N >= 1, got shape \(0, 8, 8, 1\)"
    ):
        explain.top_activating_patches(model, {}, {}, np.zeros((0, 8, 8, 1), np.uint8), layer="relu1")
