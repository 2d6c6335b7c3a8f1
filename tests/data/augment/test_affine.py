"""Affine transformations, compared with scipy and with exact rotations, and distributions of random ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxconv import InputError
from jaxconv.data import augment

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).uniform(size=(3, 8, 11, 2)).astype(np.float32)
warp = jax.jit(augment.affine_transform)


@pytest.mark.parametrize("degrees", [30.0, -75.0, 180.0, 200.0])
def test_affine_transform_degrees_equals_scipy_rotate(degrees):
    expected = ndimage.rotate(IMAGES, degrees, axes=(2, 1), reshape=False, order=1, mode="grid-constant")
    np.testing.assert_allclose(warp(IMAGES, degrees=degrees), expected, atol=1e-5)


def test_affine_transform_rotates_counter_clockwise():
    square = IMAGES[:, :, :8]
    np.testing.assert_allclose(warp(square, degrees=90.0), np.rot90(square, axes=(1, 2)), atol=1e-5)


@pytest.mark.parametrize(("down", "right"), [(2.0, -3.0), (-1.0, 0.0), (0.25, 1.75)])
def test_affine_transform_translate_equals_scipy_shift(down, right):
    expected = ndimage.shift(IMAGES, (0, down, right, 0), order=1, mode="grid-constant")
    np.testing.assert_allclose(warp(IMAGES, translate=(down, right)), expected, atol=1e-6)


def test_affine_transform_per_image_options_equal_scipy():
    rng = np.random.default_rng(1)
    options = {
        "degrees": rng.uniform(-180, 180, 3),
        "scale": rng.uniform(0.5, 2, 3),
        "shear": rng.uniform(-40, 40, 3),
        "down": rng.uniform(-2, 2, 3),
        "right": rng.uniform(-2, 2, 3),
    }
    float32_options = {name: value.astype(np.float32) for name, value in options.items()}
    translate = float32_options.pop("down"), float32_options.pop("right")
    y = warp(IMAGES, **float32_options, translate=translate)
    center = np.array([3.5, 5.0])
    for n in range(3):
        degrees, scale, shear, down, right = (value[n] for value in options.values())
        cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        matrix = np.array([[cos, -sin], [sin, cos]]) @ (scale * np.array([[1, 0], [np.tan(np.deg2rad(shear)), 1]]))
        inverse = np.linalg.inv(matrix)
        for c in range(2):
            offset = center - inverse @ (center + np.array([down, right]))
            expected = ndimage.affine_transform(IMAGES[n, ..., c], inverse, offset, order=1, mode="grid-constant")
            np.testing.assert_allclose(y[n, ..., c], expected, atol=1e-5)


def test_affine_transform_defaults_are_identity():
    np.testing.assert_array_equal(warp(IMAGES), IMAGES)
    np.testing.assert_array_equal(augment.random_affine()(KEY, IMAGES), IMAGES)


def test_affine_transform_is_exact_on_large_image():
    ramp = jnp.broadcast_to(jnp.arange(1024.0)[None, None, :, None], (1, 3, 1024, 1))
    y = warp(ramp, translate=(0, 0.5))[0, 1, 1:, 0]
    np.testing.assert_array_equal(y, np.arange(1, 1024) - 0.5)


def transformed_centroids(function, count=400):
    """Centroids (down, right of the center) and sums of transformed images of a line to the right of the center."""
    images = np.zeros((count, 41, 41, 1), np.float32)
    images[:, 20, 26:38] = 1
    y = np.asarray(jax.jit(function)(KEY, images))[..., 0].astype(np.float64)
    i, j = np.mgrid[-20:21, -20:21]
    total = y.sum((1, 2))
    return (y * i).sum((1, 2)) / total, (y * j).sum((1, 2)) / total, total


def test_random_rotation_angles_are_uniform():
    i, j, _ = transformed_centroids(augment.random_rotation(40))
    degrees = np.rad2deg(np.arctan2(-i, j))
    assert -41 < degrees.min() < -38 and 38 < degrees.max() < 41
    counts, _ = np.histogram(degrees, bins=8, range=(-41, 41))
    assert ((counts - 50) ** 2 / 50).sum() < 7 + 6 * np.sqrt(14)


def test_random_affine_scale_and_translation_ranges():
    _, j, _ = transformed_centroids(augment.random_affine(scale=(0.5, 1.5)))
    scale = j / 11.5  # 11.5: centroid of the original line
    assert 0.47 < scale.min() < 0.53 and 1.2 < scale.max() < 1.51  # large lines are clipped at the border
    i, j, _ = transformed_centroids(augment.random_affine(translate=2))
    assert abs(i.mean()) < 0.3 and abs((j - 11.5).mean()) < 0.3
    assert -2.01 < i.min() < -1.9 and 1.9 < i.max() < 2.01
    assert abs(np.corrcoef(i, j)[0, 1]) < 0.25  # the axes are independent


def test_random_affine_shear_range():
    images = np.zeros((200, 21, 21, 1), np.float32)
    images[:, :, 10] = 1  # a vertical line
    y = np.asarray(jax.jit(augment.random_affine(shear=30))(KEY, images))[..., 0]
    columns = (y * np.arange(21)).sum(2) / y.sum(2)
    degrees = np.rad2deg(np.arctan((columns[:, 20] - columns[:, 0]) / 20))
    assert -30.5 < degrees.min() < -28 and 28 < degrees.max() < 30.5
    np.testing.assert_allclose(columns[:, 10], 10, atol=1e-4)


def test_affine_transform_invalid_options_raise():
    with pytest.raises(
        InputError, match=r"affine_transform: degrees \(2,\) should be a number, or one for each of 3 images"
    ):
        augment.affine_transform(IMAGES, degrees=np.zeros(2, np.float32))
    with pytest.raises(InputError, match="affine_transform: scale=0 should be above 0"):
        augment.affine_transform(IMAGES, scale=0)
