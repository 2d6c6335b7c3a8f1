"""Attributions by gradients and by occlusion, each against loops, differences or a theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import AvgPool, Conv, Dense, InputError, MaxPool, explain, flatten, relu, serial
from jaxconv.explain.attribution import ATTRIBUTION_METHODS, applicable_methods
from jaxconv.train import fit


def small():
    return serial(Conv(4, 3, padding="SAME"), relu, MaxPool(2), Conv(5, 2), relu, flatten, Dense(3))


@pytest.fixture
def net(rng):
    model = small()
    params, state = model.init(jax.random.key(0), (6, 8, 2))
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape).astype(p.dtype), params)  # biases that are not 0
    return model, params, state, rng.uniform(size=(3, 6, 8, 2)).astype(np.float32)


def probabilities(model, params, state, x):
    logits = np.asarray(model.apply(params, state, jnp.asarray(x))[0], np.float64)
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize(("patch", "stride"), [((2, 3), (2, 2)), (3, 1)])
def test_occlusion_is_pasting_each_patch_and_asking_again(net, patch, stride):
    model, params, state, x = net
    label = np.array([2, 0, 1])
    ph, pw = np.broadcast_to(patch, 2)
    sh, sw = np.broadcast_to(stride, 2)
    # Every stride, and at the far border: (6 − 2) / 2 is whole, (8 − 3) / 2 is not.
    rows, columns = (
        list(range(0, n - p + 1, s)) + ([n - p] if (n - p) % s else []) for n, p, s in [(6, ph, sh), (8, pw, sw)]
    )
    before = probabilities(model, params, state, x)[range(3), label]
    pasted = []
    for i in rows:
        for j in columns:
            covered = x.copy()
            covered[:, i : i + ph, j : j + pw] = 0.3
            pasted.append(covered)
    after = probabilities(model, params, state, np.concatenate(pasted))
    after = after[range(3 * len(pasted)), np.tile(label, len(pasted))]
    after = after.reshape(len(rows), len(columns), 3)
    sums, counts = np.zeros((3, 6, 8)), np.zeros((6, 8))
    for a, i in enumerate(rows):
        for b, j in enumerate(columns):
            sums[:, i : i + ph, j : j + pw] += (before - after[a, b])[:, None, None]
            counts[i : i + ph, j : j + pw] += 1
    found = explain.occlusion(
        model, params, state, x, label, window_shape=patch, stride=stride, baseline=0.3, batch_size=7
    )
    np.testing.assert_allclose(found.base_scores, before, rtol=1e-5)
    np.testing.assert_allclose(found.occluded_scores, after.transpose(2, 0, 1), rtol=1e-5)
    np.testing.assert_allclose(found.attributions, sums / counts, atol=1e-6)


def test_occlusion_asks_about_the_class_of_the_whole_image_and_of_a_score_takes_the_score(net):
    model, params, state, x = net
    found = explain.occlusion(model, params, state, x)
    assert (
        found.occluded_scores.shape == (3, 6, 7) and found.attributions.shape == x.shape[:3]
    )  # patches of (1, 2), one a pixel
    likeliest = probabilities(model, params, state, x).argmax(1)
    again = explain.occlusion(model, params, state, x, likeliest)
    np.testing.assert_array_equal(found.occluded_scores, again.occluded_scores)
    score = lambda y: 3 * y[:, 1]  # noqa: E731
    of_score = explain.occlusion(model, params, state, x, target_fn=score)
    np.testing.assert_allclose(of_score.base_scores, 3 * model.apply(params, state, x)[0][:, 1], rtol=1e-6)
    of_filter = explain.occlusion(
        model, params, state, x, layer="conv1", target_fn=explain.max_activation(2), window_shape=6
    )
    maps = explain.feature_maps(model, params, state, x)["conv1"]
    np.testing.assert_allclose(of_filter.base_scores, maps[..., 2].max((1, 2)), rtol=1e-6)


def corner_task(rng, n):
    """Noise, and a bright square in one of the four corners, which is the class."""
    images = rng.uniform(0.3, 0.6, size=(n, 16, 16, 1))
    label = rng.integers(0, 4, n)
    square = np.zeros((n, 16, 16), bool)
    for k, c in enumerate(label):
        i, j = 1 + 8 * (c // 2), 1 + 8 * (c % 2)
        square[k, i : i + 6, j : j + 6] = True
    images[square] = rng.uniform(0.85, 1.0, size=(square.sum(), 1))
    return (255 * images).astype(np.uint8), label.astype(np.int32), square


def test_occlusion_finds_the_object_in_a_corner(rng, promoting):  # row 003-26
    images, label, square = corner_task(rng, 480)
    model = serial(Conv(6, 3, padding="SAME"), relu, AvgPool(8), flatten, Dense(4))
    train, validation, test = slice(0, 320), slice(320, 400), slice(400, 480)
    fitted = fit(
        *(model, (images[train], label[train]), (images[validation], label[validation])),
        **{"optimizer": optax.adam(0.01), "epochs": 6, "batch_size": 32},
    )
    found = explain.occlusion(model, fitted.params, fitted.state, images[test], label[test], window_shape=2, stride=1)
    drop, square = np.asarray(found.attributions), square[test]
    hot = drop >= drop.max((1, 2), keepdims=True) / 2
    # Intersection over union, of the pixels with at least half of the largest drop and those of the square.
    overlap = (hot & square).sum((1, 2)) / (hot | square).sum((1, 2))
    assert overlap.mean() >= 0.9


def test_saliency_is_the_slope_by_each_pixel(x64, rng):
    model = small()
    params, state = jax.tree.map(lambda p: p.astype(jnp.float64), model.init(jax.random.key(0), (4, 4, 1)))
    x, label = rng.uniform(size=(2, 4, 4, 1)), np.array([1, 2])
    wanted = np.zeros_like(x)
    for n, i, j in np.ndindex(2, 4, 4):
        moved = [x.copy(), x.copy()]
        moved[0][n, i, j], moved[1][n, i, j] = x[n, i, j] + 1e-6, x[n, i, j] - 1e-6
        up, down = (model.apply(params, state, jnp.asarray(m))[0][n, label[n]] for m in moved)
        wanted[n, i, j] = (up - down) / 2e-6
    got = explain.saliency(model, params, state, x, label)
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(
        explain.input_x_gradient(model, params, state, x, label), x * wanted, rtol=1e-6, atol=1e-8
    )
    assert np.abs(wanted).min(axis=0).max() > 0.01


def test_smooth_grad_is_the_mean_of_gradients_with_noise_of_each_images_range(net):
    model, params, state, x = net
    x = x * np.array([1, 2, 4], np.float32)[:, None, None, None]
    likeliest = probabilities(model, params, state, x).argmax(1)
    ask = lambda **options: explain.smoothgrad(model, params, state, x, key=jax.random.key(3), **options)  # noqa: E731
    plain = explain.saliency(model, params, state, x)
    np.testing.assert_allclose(ask(noise_scale=0.0, num_samples=2), plain, rtol=1e-5, atol=1e-6)
    deviation = 0.5 * (x.max((1, 2, 3)) - x.min((1, 2, 3)))
    noisy = [
        x + deviation[:, None, None, None] * np.asarray(jax.random.normal(key, x.shape))
        for key in jax.random.split(jax.random.key(3), 4)
    ]
    wanted = np.mean([explain.saliency(model, params, state, each, likeliest) for each in noisy], axis=0)
    np.testing.assert_allclose(ask(noise_scale=0.5, num_samples=4), wanted, rtol=1e-4, atol=1e-6)
    assert np.abs(wanted - plain).max() > 0.1


def test_integrated_gradients_of_a_line_are_exact(rng):
    model = serial(flatten, Dense(3))
    params, _ = model.init(jax.random.key(0), (2, 3, 2))
    x = rng.normal(size=(4, 2, 3, 2)).astype(np.float32)
    for baseline in (0.25, rng.normal(size=(2, 3, 2)).astype(np.float32), rng.normal(size=x.shape).astype(np.float32)):
        found = explain.integrated_gradients(model, params, {}, x, [0, 1, 2, 1], baseline=baseline, num_steps=3)
        weights = np.asarray(params["dense1"]["kernel"])[:, [0, 1, 2, 1]].T.reshape(x.shape)
        np.testing.assert_allclose(found.attribution, weights * (x - baseline), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            found.output_difference, (weights * (x - baseline)).sum((1, 2, 3)), rtol=1e-4, atol=1e-5
        )
        assert np.asarray(found.convergence_delta).max() < 1e-4


def test_integrated_gradients_of_squares_are_exact_at_the_middles_of_steps(rng):
    x, b = (rng.normal(size=(2, 3, 4, 1)).astype(np.float32) for _ in range(2))
    squares = serial(lambda x: x * x, flatten)
    ask = {"target_fn": lambda y: y.sum(axis=1), "baseline": b, "num_steps": 2}
    found = explain.integrated_gradients(squares, {}, {}, x, **ask)
    np.testing.assert_allclose(found.attribution, x * x - b * b, rtol=1e-4, atol=1e-5)


def test_the_class_stays_that_of_the_image_where_a_patch_noise_or_the_baseline_has_another():
    model = serial(flatten, Dense(2))
    params = {"dense1": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}
    x = jnp.array([1.0, 0.2]).reshape(1, 1, 2, 1)  # class 0, but class 1 without its first pixel
    found = explain.occlusion(model, params, {}, x, window_shape=1, baseline=0.0)
    np.testing.assert_allclose(found.occluded_scores[0, 0], 1 / (1 + np.exp([0.2, -1.0])), rtol=1e-5)
    noisy = explain.smoothgrad(model, params, {}, x, key=jax.random.key(0), noise_scale=5.0, num_samples=8)
    np.testing.assert_array_equal(noisy.ravel(), [1, 0])
    integrated = explain.integrated_gradients(model, params, {}, x, baseline=x[:, :, ::-1])
    np.testing.assert_allclose(integrated.output_difference, [0.8], rtol=1e-5)


def test_integrated_gradients_add_up_to_the_difference_of_a_network(net):
    model, params, state, x = net
    found = explain.integrated_gradients(model, params, state, x, 1, baseline=0.1)
    at = lambda x: np.asarray(model.apply(params, state, jnp.asarray(x))[0])[:, 1]  # noqa: E731
    wanted = at(x) - at(np.full_like(x, 0.1))
    np.testing.assert_allclose(found.output_difference, wanted, rtol=1e-4)
    sums = np.asarray(found.attribution).sum((1, 2, 3))
    np.testing.assert_allclose(sums, wanted, rtol=0.01)
    np.testing.assert_allclose(found.convergence_delta, np.abs(sums - wanted) / np.abs(wanted), atol=1e-4)
    nothing = explain.integrated_gradients(model, params, state, x, 1, baseline=x)
    assert not np.any(nothing.attribution) and not np.any(nothing.convergence_delta)
    rough = explain.integrated_gradients(model, params, state, x, 1, baseline=0.1, num_steps=1)
    assert (
        np.asarray(rough.convergence_delta).max() > 5 * np.asarray(found.convergence_delta).max()
    )  # the gap tells when steps are too few


def test_every_method_gives_heat_on_the_image_and_compiles(net):
    model, params, state, x = net
    images = (255 * x).astype(np.uint8)
    methods = applicable_methods(model, (6, 8, 2))
    assert list(methods) == [name for name in ATTRIBUTION_METHODS if name != "class_activation_map"]
    ask = lambda params, images: {name: f(model, params, state, images, 1) for name, f in methods.items()}  # noqa: E731
    for name, heat in jax.jit(ask)(params, images).items():
        assert heat.shape == (3, 6, 8) and np.asarray(heat).min() >= 0 and np.asarray(heat).max() > 0, name
        assert np.isfinite(heat).all(), name
    direct = explain.saliency(model, params, state, images, 1)
    np.testing.assert_allclose(
        ATTRIBUTION_METHODS["saliency"](model, params, state, images, 1), np.abs(direct).max(-1), rtol=1e-5
    )
    with pytest.raises(InputError, match="has no scores of classes"):
        applicable_methods(serial(flatten, Dense(1)), (4, 4, 1))


def test_a_map_is_enlarged_between_its_places(rng):
    wide = np.asarray(explain.upsample_map(np.array([[[0.0, 4.0]]], np.float32), (1, 8)))
    # Places lie in the middle of their halves, at 1.5 and 5.5 of 8 pixels.
    np.testing.assert_allclose(wide[0, 0], np.interp(np.arange(8), [1.5, 5.5], [0, 4]), rtol=1e-6)


@pytest.mark.parametrize(
    ("said", "ask"),
    [
        (
            r"occlusion: patch \(7, 7\) is larger than the images, \(6, 8\)",
            lambda n: explain.occlusion(*n, window_shape=7),
        ),
        (
            r"occlusion: stride \(3, 3\) is larger .* uncovered",
            lambda n: explain.occlusion(*n, window_shape=2, stride=3),
        ),
        (r"occlusion: patch 0: give an int of at least 1", lambda n: explain.occlusion(*n, window_shape=0)),
        (r"occlusion: batch_size=0 should be", lambda n: explain.occlusion(*n, batch_size=0)),
        (r"occlusion: images \(6, 8, 2\) should be \(N, H, W, C\)", lambda n: explain.occlusion(*n[:3], n[3][0])),
        (r"occlusion: label 3 is none of the 3 classes", lambda n: explain.occlusion(*n, 3)),
        (r"occlusion: unknown layer 'conv7'", lambda n: explain.occlusion(*n, layer="conv7")),
        (r"saliency: images \(0, 6, 8, 2\) hold none", lambda n: explain.saliency(*n[:3], n[3][:0])),
        (r"saliency: label -1 is none of", lambda n: jax.jit(lambda x: explain.saliency(*n[:3], x, -1))(n[3])),
        (r"saliency: an output \(3, 6, 8, 4\) has no scores", lambda n: explain.saliency(*n, layer="conv1")),
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
            r"integrated_gradients: baseline \(6, 8\) should be a number, one image \(6, 8, 2\), or",
            lambda n: explain.integrated_gradients(*n, baseline=np.zeros((6, 8))),
        ),
        (r"to_heatmap: an attribution \(6, 8\) should be", lambda n: explain.to_heatmap(np.ones((6, 8)))),
        (r"upsample_map: a map \(6, 8\) should be", lambda n: explain.upsample_map(np.ones((6, 8)), 12)),
    ],
)
def test_what_cannot_be_is_told(net, said, ask):
    with pytest.raises(InputError, match=said):
        ask(net)
