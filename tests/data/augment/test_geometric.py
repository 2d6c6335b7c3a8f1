"""Flips, translations, crops and test-time views: the set of possible results and their distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.data import augment

KEY = jax.random.key(0)


def images_of(shape, seed=0):
    """Images of distinct values in (0, 1], so that a value identifies the pixel it came from."""
    rng = np.random.default_rng(seed)
    count = np.prod(shape)
    return ((rng.permutation(count) + 1) / count).reshape(shape).astype(np.float32)


def assert_uniform(counts, num_draws):
    """Chi-squared test: the statistic is at most 6 standard deviations above its mean."""
    counts = np.asarray(list(counts), float)
    expected = num_draws / len(counts)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert counts.sum() == num_draws and chi2 < (len(counts) - 1) + 6 * np.sqrt(2 * (len(counts) - 1)), counts


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_random_horizontal_flip_flips_fraction_p(p):
    images, count = images_of((1, 3, 4, 2)), 2000
    y = np.asarray(augment.random_horizontal_flip(p)(KEY, np.repeat(images, count, axis=0)))
    flipped = (y == images[:, :, ::-1]).all((1, 2, 3))
    assert ((y == images).all((1, 2, 3)) | flipped).all()
    assert abs(flipped.mean() - p) <= 5 * np.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "symmetric", "circular"])
def test_random_translation_is_uniform(padding_mode):
    numpy_mode = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(padding_mode, padding_mode)
    image, count = images_of((5, 6, 2)), 3000
    padded = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode=numpy_mode)
    allowed = {padded[a : a + 5, b : b + 6].tobytes(): (a, b) for a, b in itertools.product(range(3), range(5))}
    assert len(allowed) == 15 and allowed[image.tobytes()] == (1, 2)
    y = np.asarray(
        augment.random_translation((1, 2), padding_mode=padding_mode)(KEY, np.repeat(image[None], count, axis=0))
    )
    counts = dict.fromkeys(allowed.values(), 0)
    for translated in y:
        counts[allowed[translated.tobytes()]] += 1
    assert_uniform(counts.values(), count)


def test_random_translation_circular_equals_roll():
    images = images_of((20, 5, 4, 1))
    y = augment.random_translation(2, padding_mode="circular")(KEY, images)
    for before, after in zip(images, np.asarray(y)):
        rolls = [np.roll(before, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3)]
        assert any((after == roll).all() for roll in rolls)


@pytest.mark.parametrize(("size", "padding"), [((3, 4), 0), (5, (1, 2)), ((2, 7), (0, 2))])
def test_random_crop_is_uniform(size, padding):
    image, count = images_of((5, 4, 2)), 2000
    height, width = np.broadcast_to(size, 2)
    rows, columns = np.broadcast_to(padding, 2)
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    allowed = [
        padded[a : a + height, b : b + width].tobytes()
        for a in range(5 + 2 * rows - height + 1)
        for b in range(4 + 2 * columns - width + 1)
    ]
    y = augment.random_crop(size, padding=padding)(KEY, np.repeat(image[None], count, axis=0))
    assert y.shape == (count, height, width, 2)
    observed = [crop.tobytes() for crop in np.asarray(y)]
    assert set(observed) == set(allowed)
    assert_uniform([observed.count(crop) for crop in allowed], count)


def test_compose_uses_independent_keys():
    images = np.repeat(images_of((1, 3, 4, 1)), 1000, axis=0)
    y = np.asarray(augment.compose(augment.random_horizontal_flip(), augment.random_horizontal_flip())(KEY, images))
    flipped = (y == images[:, :, ::-1]).all((1, 2, 3)).mean()  # with one key for both flips it would be 0
    assert abs(flipped - 0.5) < 5 * np.sqrt(0.25 / 1000)
    np.testing.assert_array_equal(augment.compose()(KEY, images), images)


def test_compose_applies_in_order():
    images = images_of((4, 5, 4, 1))
    crop_then_translate = augment.compose(augment.random_crop(3), augment.random_translation(2))
    assert crop_then_translate(KEY, images).shape == (4, 3, 3, 1)
    with pytest.raises(InputError, match="crop: size"):
        augment.compose(augment.random_crop(3), augment.random_crop(4))(KEY, images)


@pytest.mark.parametrize(
    ("options", "views"),
    [
        ({}, [(0, 0, False), (0, 0, True)]),
        ({"flip": False}, [(0, 0, False)]),
        ({"flip": False, "translate": (1, 2)}, [(0, 0, 0), (-1, -2, 0), (-1, 2, 0), (1, -2, 0), (1, 2, 0)]),
        ({"translate": (0, 1)}, [(0, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, -1, 1), (0, 1, 1)]),
        (
            {"translate": 1, "padding_mode": "circular"},
            [(a, b, f) for f in (0, 1) for a in (-1, 0, 1) for b in (-1, 0, 1)],
        ),
    ],
)
def test_test_time_views_equal_translations_and_flips(options, views):
    images = images_of((2, 5, 4, 3))
    y = np.asarray(jax.jit(augment.test_time_views(**options))(images))

    def translated(down, right, mirrored):
        if options.get("padding_mode") == "circular":
            view = np.roll(images, (down, right), (1, 2))
        else:
            view = np.zeros_like(images)
            for i, j in itertools.product(range(5), range(4)):
                if 0 <= i - down < 5 and 0 <= j - right < 4:
                    view[:, i, j] = images[:, i - down, j - right]
        return view[:, :, ::-1] if mirrored else view

    if options.get("padding_mode") == "circular":  # only the diagonals
        views = [view for view in views if abs(view[0]) == abs(view[1])]
    expected = [translated(*view) for view in views]
    np.testing.assert_array_equal(y[0], images)
    assert sorted(view.tobytes() for view in y) == sorted(view.tobytes() for view in expected)


def test_test_time_views_invalid_options_raise():
    for options, message in [
        ({"flip": 1}, "test_time_views: flip=1 should be True or False"),
        ({"translate": 4}, r"test_time_views: \(4, 4\) pixels of padding must be smaller than the image, \(4, 5\)"),
        ({"translate": -1}, "test_time_views: translate -1: give"),
        ({"padding_mode": "wrap"}, "test_time_views: unknown padding_mode 'wrap'"),
    ]:
        with pytest.raises(InputError, match=message):
            jax.eval_shape(augment.test_time_views(**options), jax.ShapeDtypeStruct((2, 4, 5, 1), jnp.float32))
