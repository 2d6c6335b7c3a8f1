"""The style of a picture: Gram matrices are what their sum says, and a painting comes closer to what it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from common.style_transfer import gram, style_transfer
from jaxconv import AvgPool, Conv, InputError, flatten, relu, serial
from jaxconv.explain import feature_maps


def reference_gram(maps):
    """Plain loops over images, pairs of features and places."""
    made = np.zeros((maps.shape[0], maps.shape[-1], maps.shape[-1]))
    for n in range(maps.shape[0]):
        places = [maps[n][p] for p in np.ndindex(maps.shape[1:-1])]
        for i in range(maps.shape[-1]):
            for j in range(maps.shape[-1]):
                made[n, i, j] = sum(place[i] * place[j] for place in places) / len(places)
    return made


@pytest.mark.parametrize("shape", [(2, 4, 7, 3), (1, 9, 5), (3, 2, 3, 4, 2)])
def test_gram_is_its_sum(rng, shape):
    maps = rng.normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(gram(jnp.asarray(maps)), reference_gram(maps), rtol=1e-5, atol=1e-6)


def test_gram_does_not_know_where(rng):
    maps = rng.normal(size=(1, 5, 6, 4)).astype(np.float32)
    moved = rng.permutation(maps.reshape(30, 4)).reshape(maps.shape)
    np.testing.assert_allclose(gram(jnp.asarray(maps)), gram(jnp.asarray(moved)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (2, 0, 3)])
def test_gram_wants_places(shape):
    with pytest.raises(InputError, match=r"gram: maps .* at least one spatial axis"):
        gram(jnp.zeros(shape))


@pytest.fixture(scope="module")
def network():
    model = serial(Conv(6, 3, padding="SAME"), relu, AvgPool(2), Conv(8, 3, padding="SAME"), relu)
    return model, *model.init(jax.random.key(0), (8, 8, 3))


LAYERS = {"content_layer": "relu2", "style_layers": ("relu1", "relu2")}


def pictures(rng):
    """Of different sizes, height and width."""
    return (rng.random(size, np.float32) for size in ((16, 12, 3), (20, 24, 3)))


def apart(x, y):
    return float(((x - y) ** 2).sum() / (y**2).sum())


def distances(network, image, content, style):
    """What the docstring says, layer by layer."""
    seen, kept, wanted = (feature_maps(*network, picture[None]) for picture in (image, content, style))
    styles = [
        apart(reference_gram(np.asarray(seen[name])), reference_gram(np.asarray(wanted[name])))
        for name in LAYERS["style_layers"]
    ]
    return apart(seen[LAYERS["content_layer"]], kept[LAYERS["content_layer"]]), sum(styles) / len(styles)


def test_a_painting_is_as_far_from_both_as_it_says(rng, network, promoting):
    content, style = pictures(rng)
    made = style_transfer(*network, content, style, **LAYERS, steps=5, learning_rate=0.1)
    np.testing.assert_allclose((made.content, made.style), distances(network, made.image, content, style), rtol=1e-3)
    np.testing.assert_allclose((0, made.style_before), distances(network, content, content, style), rtol=1e-3)


@pytest.mark.parametrize("scales", [1, 2])
def test_a_painting_comes_nearer_to_the_style_the_more_it_weighs(rng, network, promoting, scales):
    content, style = pictures(rng)
    faint, strong = (
        style_transfer(*network, content, style**3, **LAYERS, style_weight=weight, steps=60, scales=scales)
        for weight in (0.01, 100.0)
    )
    assert strong.style < 0.5 * faint.style and strong.style < 0.1 * strong.style_before
    assert faint.content < strong.content
    assert strong.image.shape == content.shape and 0 <= strong.image.min() and strong.image.max() <= 1


def test_bytes_are_pictures_too(rng, network, promoting):
    content, style = (np.round(255 * each).astype(np.uint8) for each in pictures(rng))
    made, wanted = (
        style_transfer(*network, *pair, **LAYERS, steps=2) for pair in ((content, style), (content / 255, style / 255))
    )
    np.testing.assert_allclose(made.image, wanted.image, atol=1e-5)


def test_its_own_style_leaves_a_picture_alone(rng, network, promoting):
    content, _ = pictures(rng)
    made = style_transfer(*network, content, content, **LAYERS, steps=3)
    assert (made.content, made.style, made.style_before) == (0, 0, 0)
    np.testing.assert_array_equal(made.image, content)


def test_smoothing_smooths_along_both_axes(rng, network, promoting):
    rows, columns = np.indices((16, 12)) // 2 % 2
    content = np.repeat((0.25 + 0.25 * rows + 0.25 * columns)[..., None], 3, axis=-1).astype(np.float32)
    made = style_transfer(*network, content, content[::-1], **LAYERS, style_weight=0.0, smoothing=1e4, steps=60)
    for axis in (0, 1):  # of stripes along each, nothing much is left
        assert np.asarray(made.image).mean(axis=axis).std() < 0.2 * content.mean(axis=axis).std()


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
def test_what_does_not_fit_is_refused(rng, network, change, message):
    content, style = pictures(rng)
    with pytest.raises(InputError, match=message):
        style_transfer(*network, **({"content": content, "style": style} | LAYERS | change))


def test_a_network_for_one_size_only_says_so(rng, promoting):
    model = serial(Conv(4, 3), relu, flatten)
    params, state = model.init(jax.random.key(0), (8, 8, 3))
    content, style = pictures(rng)
    made = style_transfer(model, params, state, content, style, content_layer="relu1", style_layers=("relu1",), steps=2)
    assert made.image.shape == content.shape
