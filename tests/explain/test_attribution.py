"""Gradient attributions and occlusion, against loops, finite differences and theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import AvgPool, Conv, Dense, InputError, MaxPool, explain, flatten, relu, serial
from jaxconv.explain.attribution import ATTRIBUTION_METHODS, applicable_methods
from jaxconv.train import fit


def small_cnn():
    return serial(Conv(4, 3, padding="SAME"), relu, MaxPool(2), Conv(5, 2), relu, flatten, Dense(3))


@pytest.fixture
def net(rng):
    model = small_cnn()
    params, state = model.init(jax.random.key(0), (6, 8, 2))
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(p.dtype), params)  # nonzero biases
    return model, params, state, rng.uniform(size=(3, 6, 8, 2)).astype(np.float32)


def probabilities(model, params, state, x):
    logits = np.asarray(model.apply(params, state, jnp.asarray(x))[0], np.float64)
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize(("window", "stride"), [((2, 3), (2, 2)), (3, 1)])
def test_occlusion_matches_pasted_windows(net, window, stride):
    model, params, state, x = net
    labels = np.array([2, 0, 1])
    ph, pw = np.broadcast_to(window, 2)
    sh, sw = np.broadcast_to(stride, 2)
    # One window per stride, and one at the border: (6 − 2) / 2 is an integer, (8 − 3) / 2 is not.
    rows, columns = (
        list(range(0, n - p + 1, s)) + ([n - p] if (n - p) % s else []) for n, p, s in [(6, ph, sh), (8, pw, sw)]
    )
    base = probabilities(model, params, state, x)[range(3), labels]
    images = []
    for i in rows:
        for j in columns:
            image = x.copy()
            image[:, i : i + ph, j : j + pw] = 0.3
            images.append(image)
    occluded = probabilities(model, params, state, np.concatenate(images))
    occluded = occluded[range(3 * len(images)), np.tile(labels, len(images))]
    occluded = occluded.reshape(len(rows), len(columns), 3)
    sums, counts = np.zeros((3, 6, 8)), np.zeros((6, 8))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            sums[:, i : i + ph, j : j + pw] += (base - occluded[a, b])[:, None, None]
            counts[i : i + ph, j : j + pw] += 1
    result = explain.occlusion(
        model, params, state, x, labels, window_shape=window, stride=stride, baseline=0.3, batch_size=7
    )
    np.testing.assert_allclose(result.base_scores, base, rtol=1e-5)
    np.testing.assert_allclose(result.occluded_scores, occluded.transpose(2, 0, 1), rtol=1e-5)
    np.testing.assert_allclose(result.attributions, sums / counts, atol=1e-6)


def test_occlusion_targets_predicted_class_or_target_fn(net):
    model, params, state, x = net
    default = explain.occlusion(model, params, state, x)
    # The default window is (1, 2) with stride 1.
    assert default.occluded_scores.shape == (3, 6, 7) and default.attributions.shape == x.shape[:3]
    predicted = probabilities(model, params, state, x).argmax(1)
    explicit = explain.occlusion(model, params, state, x, predicted)
    np.testing.assert_array_equal(default.occluded_scores, explicit.occluded_scores)
    target_fn = lambda y: 3 * y[:, 1]  # noqa: E731
    with_target_fn = explain.occlusion(model, params, state, x, target_fn=target_fn)
    np.testing.assert_allclose(with_target_fn.base_scores, 3 * model.apply(params, state, x)[0][:, 1], rtol=1e-6)
    with_filter = explain.occlusion(
        model, params, state, x, layer="conv1", target_fn=explain.max_activation(2), window_shape=6
    )
    maps = explain.feature_maps(model, params, state, x)["conv1"]
    np.testing.assert_allclose(with_filter.base_scores, maps[..., 2].max((1, 2)), rtol=1e-6)


def corner_task(rng, n):
    """Return noise images with a bright square in one of four corners; the corner is the class."""
    images = rng.uniform(0.3, 0.6, size=(n, 16, 16, 1))
    labels = rng.integers(0, 4, n)
    square = np.zeros((n, 16, 16), bool)
    for k, c in enumerate(labels):
        i, j = 1 + 8 * (c // 2), 1 + 8 * (c % 2)
        square[k, i : i + 6, j : j + 6] = True
    images[square] = rng.uniform(0.85, 1.0, size=(square.sum(), 1))
    return (255 * images).astype(np.uint8), labels.astype(np.int32), square


def test_occlusion_localizes_object_in_corner(rng, promoting):  # row 003-26
    images, labels, square = corner_task(rng, 480)
    model = serial(Conv(6, 3, padding="SAME"), relu, AvgPool(8), flatten, Dense(4))
    train, validation, test = slice(0, 320), slice(320, 400), slice(400, 480)
    fitted = fit(
        *(model, (images[train], labels[train]), (images[validation], labels[validation])),
        **{"optimizer": optax.adam(0.01), "epochs": 6, "batch_size": 32},
    )
    result = explain.occlusion(model, fitted.params, fitted.state, images[test], labels[test], window_shape=2, stride=1)
    drop, square = np.asarray(result.attributions), square[test]
    salient = drop >= drop.max((1, 2), keepdims=True) / 2
    # Intersection over union of the square and the pixels with at least half of the largest drop.
    overlap = (salient & square).sum((1, 2)) / (salient | square).sum((1, 2))
    assert overlap.mean() >= 0.9


def test_saliency_matches_finite_differences(x64, rng):
    model = small_cnn()
    params, state = jax.tree.map(lambda p: p.astype(jnp.float64), model.init(jax.random.key(0), (4, 4, 1)))
    x, labels = rng.uniform(size=(2, 4, 4, 1)), np.array([1, 2])
    expected = np.zeros_like(x)
    for n, i, j in np.ndindex(2, 4, 4):
        shifted = [x.copy(), x.copy()]
        shifted[0][n, i, j], shifted[1][n, i, j] = x[n, i, j] + 1e-6, x[n, i, j] - 1e-6
        up, down = (model.apply(params, state, jnp.asarray(m))[0][n, labels[n]] for m in shifted)
        expected[n, i, j] = (up - down) / 2e-6
    actual = explain.saliency(model, params, state, x, labels)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        explain.input_x_gradient(model, params, state, x, labels), x * expected, rtol=1e-6, atol=1e-8
    )
    assert np.abs(expected).min(axis=0).max() > 0.01


def test_smoothgrad_is_mean_gradient_of_noisy_images(net):
    model, params, state, x = net
    x = x * np.array([1, 2, 4], np.float32)[:, None, None, None]
    predicted = probabilities(model, params, state, x).argmax(1)
    call = lambda **options: explain.smoothgrad(model, params, state, x, key=jax.random.key(3), **options)  # noqa: E731
    gradient = explain.saliency(model, params, state, x)
    np.testing.assert_allclose(call(noise_scale=0.0, num_samples=2), gradient, rtol=1e-5, atol=1e-6)
    deviation = 0.5 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))
    noisy = [
        x + deviation[:, None, None, None] * np.asarray(jax.random.normal(key, x.shape))
        for key in jax.random.split(jax.random.key(3), 4)
    ]
    expected = np.mean([explain.saliency(model, params, state, image, predicted) for image in noisy], axis=0)
    np.testing.assert_allclose(call(noise_scale=0.5, num_samples=4), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected - gradient).max() > 0.1


def test_integrated_gradients_linear_model_is_exact(rng):
    model = serial(flatten, Dense(3))
    params, _ = model.init(jax.random.key(0), (2, 3, 2))
    x = rng.normal(size=(4, 2, 3, 2)).astype(np.float32)
    for baseline in (0.25, rng.normal(size=(2, 3, 2)).astype(np.float32), rng.normal(size=x.shape).astype(np.float32)):
        result = explain.integrated_gradients(model, params, {}, x, [0, 1, 2, 1], baseline=baseline, num_steps=3)
        weights = np.asarray(params["dense1"]["kernel"])[:, [0, 1, 2, 1]].T.reshape(x.shape)
        np.testing.assert_allclose(result.attribution, weights * (x - baseline), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            result.output_difference, (weights * (x - baseline)).sum((1, 2, 3)), rtol=1e-4, atol=1e-5
        )
        assert np.asarray(result.convergence_delta).max() < 1e-4


def test_integrated_gradients_quadratic_is_exact_at_midpoints(rng):
    x, b = (rng.normal(size=(2, 3, 4, 1)).astype(np.float32) for _ in range(2))
    squares = serial(lambda x: x * x, flatten)
    options = {"target_fn": lambda y: y.sum(axis=1), "baseline": b, "num_steps": 2}
    result = explain.integrated_gradients(squares, {}, {}, x, **options)
    np.testing.assert_allclose(result.attribution, x * x - b * b, rtol=1e-4, atol=1e-5)


def test_target_class_is_that_of_unmodified_image():
    model = serial(flatten, Dense(2))
    params = {"dense1": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    x = jnp.array([1.0, 0.2]).reshape(1, 1, 2, 1)  # class 0; class 1 without the first pixel
    occluded = explain.occlusion(model, params, {}, x, window_shape=1, baseline=0.0)
    np.testing.assert_allclose(occluded.occluded_scores[0, 0], 1 / (1 + np.exp([0.2, -1.0])), rtol=1e-5)
    noisy = explain.smoothgrad(model, params, {}, x, key=jax.random.key(0), noise_scale=5.0, num_samples=8)
    np.testing.assert_array_equal(noisy.ravel(), [1, 0])
    integrated = explain.integrated_gradients(model, params, {}, x, baseline=x[:, :, ::-1])
    np.testing.assert_allclose(integrated.output_difference, [0.8], rtol=1e-5)


def test_integrated_gradients_sum_to_output_difference(net):
    model, params, state, x = net
    result = explain.integrated_gradients(model, params, state, x, 1, baseline=0.1)
    logit = lambda x: np.asarray(model.apply(params, state, jnp.asarray(x))[0])[:, 1]  # noqa: E731
    expected = logit(x) - logit(np.full_like(x, 0.1))
    np.testing.assert_allclose(result.output_difference, expected, rtol=1e-4)
    sums = np.asarray(result.attribution).sum((1, 2, 3))
    np.testing.assert_allclose(sums, expected, rtol=0.01)
    np.testing.assert_allclose(result.convergence_delta, np.abs(sums - expected) / np.abs(expected), atol=1e-4)
    zero = explain.integrated_gradients(model, params, state, x, 1, baseline=x)
    assert not np.any(zero.attribution) and not np.any(zero.convergence_delta)
    coarse = explain.integrated_gradients(model, params, state, x, 1, baseline=0.1, num_steps=1)
    # The convergence delta grows if there are too few steps.
    assert np.asarray(coarse.convergence_delta).max() > 5 * np.asarray(result.convergence_delta).max()


def test_attribution_methods_return_heatmaps_under_jit(net):
    model, params, state, x = net
    images = (255 * x).astype(np.uint8)
    methods = applicable_methods(model, (6, 8, 2))
    assert list(methods) == [name for name in ATTRIBUTION_METHODS if name != "class_activation_map"]
    call = lambda params, images: {name: f(model, params, state, images, 1) for name, f in methods.items()}  # noqa: E731
    for name, heatmap in jax.jit(call)(params, images).items():
        assert heatmap.shape == (3, 6, 8) and np.asarray(heatmap).min() >= 0 and np.asarray(heatmap).max() > 0, name
        assert np.isfinite(heatmap).all(), name
    gradient = explain.saliency(model, params, state, images, 1)
    np.testing.assert_allclose(
        ATTRIBUTION_METHODS["saliency"](model, params, state, images, 1), np.abs(gradient).max(-1), rtol=1e-5
    )
    with pytest.raises(InputError, match="has no class scores"):
        applicable_methods(serial(flatten, Dense(1)), (4, 4, 1))


def test_upsample_map_is_bilinear(rng):
    upsampled = np.asarray(explain.upsample_map(np.array([[[0.0, 4.0]]], np.float32), (1, 8)))
    # The two positions are at the centers of their halves, at 1.5 and 5.5 of 8 pixels.
    np.testing.assert_allclose(upsampled[0, 0], np.interp(np.arange(8), [1.5, 5.5], [0, 4]), rtol=1e-6)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"occlusion: window_shape \(7, 7\) must be at most the image size \(6, 8\)",
            lambda n: explain.occlusion(*n, window_shape=7),
        ),
        (
            r"occlusion: stride must be at most window_shape \(2, 2\), got \(3, 3\), .* uncovered",
            lambda n: explain.occlusion(*n, window_shape=2, stride=3),
        ),
        (r"occlusion: window_shape 0: give an int of at least 1", lambda n: explain.occlusion(*n, window_shape=0)),
        (r"occlusion: batch_size=0 should be", lambda n: explain.occlusion(*n, batch_size=0)),
        (r"occlusion: images \(6, 8, 2\) should be \(N, H, W, C\)", lambda n: explain.occlusion(*n[:3], n[3][0])),
        (r"occlusion: label 3 is none of the 3 classes", lambda n: explain.occlusion(*n, 3)),
        (r"occlusion: unknown layer 'conv7'", lambda n: explain.occlusion(*n, layer="conv7")),
        (
            r"saliency: images must be .* with N >= 1, got shape \(0, 6, 8, 2\)",
            lambda n: explain.saliency(*n[:3], n[3][:0]),
        ),
        (r"saliency: label -1 is none of", lambda n: jax.jit(lambda x: explain.saliency(*n[:3], x, -1))(n[3])),
        (r"saliency: the output \(3, 6, 8, 4\) has no class scores", lambda n: explain.saliency(*n, layer="conv1")),
        (
            r"smoothgrad: noise_scale=-0.1 should be",
            lambda n: explain.smoothgrad(*n, key=jax.random.key(0), noise_scale=-0.1),
        ),
        (
            r"smoothgrad: num_samples=0 should be",
            lambda n: explain.smoothgrad(*n, key=jax.random.key(0), num_samples=0),
        ),
        (r"integrated_gradients: num_steps=0 should be", lambda n: explain.integrated_gradients(*n, num_steps=0)),
        (
            r"integrated_gradients: baseline must be a number, one image \(6, 8, 2\), or .* got \(6, 8\)",
            lambda n: explain.integrated_gradients(*n, baseline=np.zeros((6, 8))),
        ),
        (
            r"to_heatmap: attribution must be \(N, H, W, C\), got \(6, 8\)",
            lambda n: explain.to_heatmap(np.ones((6, 8))),
        ),
        (
            r"upsample_map: coarse must be a map \(N, h, w\), got \(6, 8\)",
            lambda n: explain.upsample_map(np.ones((6, 8)), 12),
        ),
    ],
)
def test_attribution_invalid_arguments_raise(net, message, call):
    with pytest.raises(InputError, match=message):
        call(net)
