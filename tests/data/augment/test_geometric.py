"""Flips, shifts, crops and views: each is one of those allowed, and all of them occur alike."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.data import augment

KEY = jax.random.key(0)


def images_of(shape, seed=0):
    """Distinct values from 0 to 1, none of them 0, so that a pixel tells where it came from."""
    rng = np.random.default_rng(seed)
    count = np.prod(shape)
    return ((rng.permutation(count) + 1) / count).reshape(shape).astype(np.float32)


def evenly(counts, draws):
    """Every value about equally often: chi-squared, at most 6 standard deviations above its mean."""
    counts = np.asarray(list(counts), float)
    expected = draws / len(counts)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert counts.sum() == draws and chi2 < (len(counts) - 1) + 6 * np.sqrt(2 * (len(counts) - 1)), counts


@pytest.mark.parametrize("p", [0, 0.3, 0.5, 1])
def test_flip_mirrors_a_fraction_left_to_right(p):
    images, count = images_of((1, 3, 4, 2)), 2000
    y = np.asarray(augment.random_horizontal_flip(p)(KEY, np.repeat(images, count, axis=0)))
    flipped = (y == images[:, :, ::-1]).all((1, 2, 3))
    assert ((y == images).all((1, 2, 3)) | flipped).all()
    assert abs(flipped.mean() - p) <= 5 * np.sqrt(p * (1 - p) / count)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "symmetric", "circular"])
def test_every_shift_is_one_of_those_allowed_and_all_occur_alike(padding_mode):
    numpys = {"zeros": "constant", "replicate": "edge", "circular": "wrap"}.get(padding_mode, padding_mode)
    image, count = images_of((5, 6, 2)), 3000
    around = np.pad(image, ((1, 1), (2, 2), (0, 0)), mode=numpys)
    allowed = {around[a : a + 5, b : b + 6].tobytes(): (a, b) for a, b in itertools.product(range(3), range(5))}
    assert len(allowed) == 15 and allowed[image.tobytes()] == (1, 2)
    y = np.asarray(
        augment.random_translation((1, 2), padding_mode=padding_mode)(KEY, np.repeat(image[None], count, axis=0))
    )
    counts = dict.fromkeys(allowed.values(), 0)
    for each in y:
        counts[allowed[each.tobytes()]] += 1
    evenly(counts.values(), count)


def test_a_circular_shift_is_a_roll():
    images = images_of((20, 5, 4, 1))
    y = augment.random_translation(2, padding_mode="circular")(KEY, images)
    for before, after in zip(images, np.asarray(y)):
        rolls = [np.roll(before, (a, b), (0, 1)) for a in range(-2, 3) for b in range(-2, 3)]
        assert any((after == roll).all() for roll in rolls)


@pytest.mark.parametrize(("size", "padding"), [((3, 4), 0), (5, (1, 2)), ((2, 7), (0, 2))])
def test_every_crop_is_one_of_those_allowed_and_all_occur_alike(size, padding):
    image, count = images_of((5, 4, 2)), 2000
    height, width = np.broadcast_to(size, 2)
    rows, columns = np.broadcast_to(padding, 2)
    around = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    allowed = [
        around[a : a + height, b : b + width].tobytes()
        for a in range(5 + 2 * rows - height + 1)
        for b in range(4 + 2 * columns - width + 1)
    ]
    y = augment.random_crop(size, padding=padding)(KEY, np.repeat(image[None], count, axis=0))
    assert y.shape == (count, height, width, 2)
    seen = [each.tobytes() for each in np.asarray(y)]
    assert set(seen) == set(allowed)
    evenly([seen.count(each) for each in allowed], count)


def test_composed_parts_do_not_share_their_randomness():
    images = np.repeat(images_of((1, 3, 4, 1)), 1000, axis=0)
    y = np.asarray(augment.compose(augment.random_horizontal_flip(), augment.random_horizontal_flip())(KEY, images))
    flipped = (y == images[:, :, ::-1]).all((1, 2, 3)).mean()  # with one key for both, none would be
    assert abs(flipped - 0.5) < 5 * np.sqrt(0.25 / 1000)
    np.testing.assert_array_equal(augment.compose()(KEY, images), images)


def test_composed_parts_come_in_order():
    images = images_of((4, 5, 4, 1))
    small_then_shifted = augment.compose(augment.random_crop(3), augment.random_translation(2))
    assert small_then_shifted(KEY, images).shape == (4, 3, 3, 1)
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
def test_views_for_testing(options, views):
    images = images_of((2, 5, 4, 3))
    y = np.asarray(jax.jit(augment.test_time_views(**options))(images))

    def moved(down, right, mirrored):
        if options.get("padding_mode") == "circular":
            view = np.roll(images, (down, right), (1, 2))
        else:
            view = np.zeros_like(images)
            for i, j in itertools.product(range(5), range(4)):
                if 0 <= i - down < 5 and 0 <= j - right < 4:
                    view[:, i, j] = images[:, i - down, j - right]
        return view[:, :, ::-1] if mirrored else view

    wanted = [
        moved(*view) for view in views if options.get("padding_mode") != "circular" or abs(view[0]) == abs(view[1])
    ]
    np.testing.assert_array_equal(y[0], images)
    assert sorted(view.tobytes() for view in y) == sorted(view.tobytes() for view in wanted)


def test_views_that_will_not_do():
    for options, said in [
        ({"flip": 1}, "test_time_views: flip=1 should be True or False"),
        ({"translate": 4}, r"test_time_views: \(4, 4\) pixels on the sides of \(4, 5\)"),
        ({"translate": -1}, "test_time_views: translate -1: give"),
        ({"padding_mode": "wrap"}, "test_time_views: unknown padding_mode 'wrap'"),
    ]:
        with pytest.raises(InputError, match=said):
            jax.eval_shape(augment.test_time_views(**options), jax.ShapeDtypeStruct((2, 4, 5, 1), jnp.float32))
