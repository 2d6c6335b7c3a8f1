"""Style transfer: Gram matrices against loops, and distances of the result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.style_transfer import gram, style_transfer
from jaxconv import AvgPool, Conv, InputError, flatten, relu, serial
from jaxconv.explain import feature_maps


def reference_gram(maps):
    """Compute Gram matrices by loops over images, pairs of features and positions."""
    grams = np.zeros((maps.shape[0], maps.shape[-1], maps.shape[-1]))
    for n in range(maps.shape[0]):
        positions = [maps[n][p] for p in np.ndindex(maps.shape[1:-1])]
        for i in range(maps.shape[-1]):
            for j in range(maps.shape[-1]):
                grams[n, i, j] = sum(position[i] * position[j] for position in positions) / len(positions)
    return grams


@pytest.mark.parametrize("shape", [(2, 4, 7, 3), (1, 9, 5), (3, 2, 3, 4, 2)])
def test_gram_matches_loops(rng, shape):
    maps = rng.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(gram(jnp.asarray(maps)), reference_gram(maps), rtol=1e-5, atol=1e-6)


def test_gram_is_invariant_to_permuted_positions(rng):
    maps = rng.normal(size=(1, 5, 6, 4)).astype(np.float32)
    moved = rng.permutation(maps.reshape(30, 4)).reshape(maps.shape)
    np.testing.assert_allclose(gram(jnp.asarray(maps)), gram(jnp.asarray(moved)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (2, 0, 3)])
def test_gram_requires_spatial_axes(shape):
    with pytest.raises(InputError, match=r"gram: maps .* at least one spatial axis"):
        gram(jnp.zeros(shape))


@pytest.fixture(scope="module")
def network():
    model = serial(Conv(6, 3, padding="SAME"), relu, AvgPool(2), Conv(8, 3, padding="SAME"), relu)
    return model, *model.init(jax.random.key(0), (8, 8, 3))


LAYERS = {"content_layer": "relu2", "style_layers": ("relu1", "relu2")}


def images(rng):
    """Generate two images of different sizes."""
    return (rng.random(size, np.float32) for size in ((16, 12, 3), (20, 24, 3)))


def relative_distance(x, y):
    return float(((x - y) ** 2).sum() / (y**2).sum())


def distances(network, image, content, style):
    """Compute the distances of the docstring, layer by layer."""
    maps, content_maps, style_maps = (feature_maps(*network, x[None]) for x in (image, content, style))
    styles = [
        relative_distance(reference_gram(np.asarray(maps[name])), reference_gram(np.asarray(style_maps[name])))
        for name in LAYERS["style_layers"]
    ]
    layer = LAYERS["content_layer"]
    return relative_distance(maps[layer], content_maps[layer]), sum(styles) / len(styles)


def test_result_distances_match_reference(rng, network, promoting):
    content, style = images(rng)
    result = style_transfer(*network, content, style, **LAYERS, steps=5, learning_rate=0.1)
    np.testing.assert_allclose(
        (result.content, result.style), distances(network, result.image, content, style), rtol=1e-3
    )
    np.testing.assert_allclose((0, result.style_before), distances(network, content, content, style), rtol=1e-3)


@pytest.mark.parametrize("scales", [1, 2])
def test_larger_style_weight_reduces_style_distance(rng, network, promoting, scales):
    content, style = images(rng)
    low, high = (
        style_transfer(*network, content, style**3, **LAYERS, style_weight=weight, steps=60, scales=scales)
        for weight in (0.01, 100.0)
    )
    assert high.style < 0.5 * low.style and high.style < 0.1 * high.style_before
    assert low.content < high.content
    assert high.image.shape == content.shape and 0 <= high.image.min() and high.image.max() <= 1


def test_uint8_images_match_floats(rng, network, promoting):
    content, style = (np.round(255 * image).astype(np.uint8) for image in images(rng))
    of_uint8, of_floats = (
        style_transfer(*network, *pair, **LAYERS, steps=2) for pair in ((content, style), (content / 255, style / 255))
    )
    np.testing.assert_allclose(of_uint8.image, of_floats.image, atol=1e-5)


def test_own_style_leaves_image_unchanged(rng, network, promoting):
    content, _ = images(rng)
    result = style_transfer(*network, content, content, **LAYERS, steps=3)
    assert (result.content, result.style, result.style_before) == (0, 0, 0)
    np.testing.assert_array_equal(result.image, content)


def test_smoothing_acts_on_both_axes(rng, network, promoting):
    rows, columns = np.indices((16, 12)) // 2 % 2
    content = np.repeat((0.25 + 0.25 * rows + 0.25 * columns)[..., None], 3, axis=-1).astype(np.float32)
    result = style_transfer(*network, content, content[::-1], **LAYERS, style_weight=0.0, smoothing=1e4, steps=60)
    for axis in (0, 1):  # most of the stripes along each axis are gone
        assert np.asarray(result.image).mean(axis=axis).std() < 0.2 * content.mean(axis=axis).std()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_layer": "relu3"}, "style_transfer: unknown layer 'relu3': did you mean 'relu2'"),
        ({"style_layers": ("relu1", "pool")}, "style_transfer: unknown layer 'pool'"),
        ({"style_layers": ()}, "style_transfer: style_layers is empty"),
        ({"style": np.zeros((8, 8, 1), np.float32)}, r"style float32\(8, 8, 1\) should be one image"),
        ({"content": np.zeros((1, 8, 8, 3), np.float32)}, r"content float32\(1, 8, 8, 3\) should be one image"),
        ({"style_weight": -1.0}, "style_weight=-1.0 should be"),
        ({"smoothing": -1.0}, "smoothing=-1.0 should be"),
        ({"scales": 5}, r"content \(16, 12, 3\) is too small for scales=5"),
        ({"scales": 0}, "scales=0 should be"),
        ({"steps": 0}, "steps=0 should be"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 should be"),
    ],
)
def test_invalid_arguments_raise(rng, network, change, message):
    content, style = images(rng)
    with pytest.raises(InputError, match=message):
        style_transfer(*network, **({"content": content, "style": style} | LAYERS | change))


def test_layers_after_style_layers_accept_any_size(rng, promoting):
    model = serial(Conv(4, 3), relu, flatten)
    params, state = model.init(jax.random.key(0), (8, 8, 3))
    content, style = images(rng)
    result = style_transfer(
        model, params, state, content, style, content_layer="relu1", style_layers=("relu1",), steps=2
    )
    assert result.image.shape == content.shape
