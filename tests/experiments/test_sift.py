"""Dense SIFT against loops over pixels, cells and orientations."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from common import sift
from jaxconv import DtypeError, InputError


def gradients(x):
    """Yield position and gradient (right, down) of the mean of the channels, for every pixel."""
    gray = x.mean(-1)
    height, width = gray.shape
    for i, j in np.ndindex(height, width):
        right = (gray[i, min(j + 1, width - 1)] - gray[i, max(j - 1, 0)]) / 2
        down = (gray[min(i + 1, height - 1), j] - gray[max(i - 1, 0), j]) / 2
        yield i, j, right, down


def maps_by_loops(x, orientations):
    """Compute the maps of one image: each gradient is interpolated between two orientations."""
    y = np.zeros((*x.shape[:2], orientations))
    for i, j, right, down in gradients(x):
        direction = math.degrees(math.atan2(down, right)) % 360 / (360 / orientations)
        below, weight = math.floor(direction), direction - math.floor(direction)
        y[i, j, below % orientations] += (1 - weight) * math.hypot(right, down)
        y[i, j, (below + 1) % orientations] += weight * math.hypot(right, down)
    return y


def sift_by_loops(x, cell, stride):
    """Compute the descriptors of one image: every pixel adds its gradient to the cells near it."""
    maps, (height, width) = maps_by_loops(x, 8), x.shape[:2]
    tops, lefts = range(0, height - 4 * cell + 1, stride), range(0, width - 4 * cell + 1, stride)
    descriptors = np.zeros((len(tops), len(lefts), 4, 4, 8))
    for (r, top), (s, left) in itertools.product(enumerate(tops), enumerate(lefts)):
        for i, j in np.ndindex(height, width):
            # Distance from the center of the patch in pixels, and from that of its first cell in cells.
            down, right = i - (top + 2 * cell - 0.5), j - (left + 2 * cell - 0.5)
            gauss = math.exp(-(down**2 + right**2) / (2 * (2 * cell) ** 2))
            row, column = down / cell + 1.5, right / cell + 1.5
            for a, b in itertools.product(range(4), range(4)):
                weight = max(0, 1 - abs(row - a)) * max(0, 1 - abs(column - b))
                descriptors[r, s, a, b] += gauss * weight * maps[i, j]
    for index in np.ndindex(*descriptors.shape[:2]):
        y = descriptors[index] / np.linalg.norm(descriptors[index])
        y = np.minimum(y, 0.2)
        descriptors[index] = y / np.linalg.norm(y)
    return descriptors.reshape(*descriptors.shape[:2], 128)


@pytest.mark.parametrize(("shape", "orientations"), [((7, 6, 1), 8), ((4, 9, 3), 5)])
def test_orientation_maps_match_loops(x64, rng, shape, orientations):
    x = rng.normal(size=(2, *shape))
    y = sift.orientation_maps(x, orientations)
    for n in range(2):
        np.testing.assert_allclose(y[n], maps_by_loops(x[n], orientations), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "cell", "stride"),
    [((12, 10, 1), 2, None), ((14, 17, 3), 3, 2), ((9, 11, 1), 1, 3), ((18, 21, 2), 4, 5), ((16, 16, 1), 4, None)],
)
def test_dense_sift_matches_loops(x64, rng, shape, cell, stride):
    x = rng.uniform(size=(2, *shape))
    y = sift.dense_sift(x, cell=cell, stride=stride)
    assert y.shape[-1] == 128
    for n in range(2):
        np.testing.assert_allclose(y[n], sift_by_loops(x[n], cell, stride or cell), rtol=1e-9, atol=1e-10)


def test_steep_edges_are_clipped(x64, rng):
    """An image whose descriptor exceeds the clipping threshold of 0.2."""
    x = rng.uniform(size=(1, 16, 16, 1)) * 0.1
    x[:, :, 8:] += 1
    y = sift.dense_sift(x)[0, 0, 0]
    steep = np.sort(np.asarray(y))[-8:]
    np.testing.assert_allclose(steep, steep[0], rtol=1e-12)  # clipped to one value
    np.testing.assert_allclose(y, sift_by_loops(x[0], 4, 4)[0, 0], rtol=1e-9, atol=1e-10)


def test_descriptor_is_invariant_to_brightness_and_contrast(rng):
    x = rng.uniform(size=(1, 16, 18, 1)).astype(np.float32)
    y = sift.dense_sift(x)
    np.testing.assert_allclose(sift.dense_sift(0.25 * x + 0.5), y, atol=1e-5)
    turned = np.roll(np.asarray(y).reshape(-1, 4, 4, 8), 4, axis=-1)  # inverting the image inverts the gradients
    np.testing.assert_allclose(sift.dense_sift(1 - x).reshape(-1, 4, 4, 8), turned, atol=1e-5)


def test_transposed_image_permutes_cells_and_directions(rng):
    x = rng.uniform(size=(1, 16, 16, 1)).astype(np.float32)
    y = np.asarray(sift.dense_sift(x)).reshape(4, 4, 8)
    mirrored = np.asarray(sift.dense_sift(x.transpose(0, 2, 1, 3))).reshape(4, 4, 8)  # rows become columns
    directions = [(2 - o) % 8 for o in range(8)]
    np.testing.assert_allclose(mirrored, y.transpose(1, 0, 2)[..., directions], atol=1e-5)


def test_flat_image_has_zero_descriptor_and_finite_gradient():
    flat = jnp.full((1, 8, 9, 1), 0.5)
    assert (sift.dense_sift(flat, cell=2) == 0).all()
    gradient = jax.grad(lambda x: sift.dense_sift(x, cell=2).sum())(flat.at[0, 2, 3, 0].set(1.0))
    assert np.isfinite(gradient).all() and (gradient != 0).any()


def test_dense_sift_gradient_matches_finite_differences(x64, rng):
    x = jnp.asarray(rng.uniform(size=(1, 8, 9, 1)))
    weights = jnp.asarray(rng.normal(size=(1, 1, 1, 128)))
    check_grads(lambda x: (sift.dense_sift(x, cell=2) * weights).sum(), (x,), 1, modes=("rev",), eps=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_dense_sift_keeps_dtype_under_jit(rng, dtype):
    x = jnp.asarray(rng.uniform(size=(2, 8, 10, 1)), dtype)
    y = jax.jit(lambda x: sift.dense_sift(x, cell=2, eps=1e-3))(x)
    assert y.dtype == dtype and y.shape == (2, 1, 2, 128) and np.isfinite(y).all()


X = np.zeros((2, 15, 20, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sift.dense_sift(X),
            r"^dense_sift: a patch of 4×4 cells of 4×4 pixels does not fit .*\(15, 20\)",
        ),
        (lambda: sift.dense_sift(X[0]), r"^dense_sift: x \(15, 20, 1\) should have 4 axes, \(N, H, W, C\)"),
        (lambda: sift.dense_sift(X, cell=0), r"^dense_sift: cell=0 should be an int of at least 1"),
        (lambda: sift.dense_sift(X, cell=2, stride=0), r"^dense_sift: stride=0 should be an int of at least 1"),
        (lambda: sift.dense_sift(X, cell=2, eps=0), r"^dense_sift: eps=0 should be a number above 0"),
        (
            lambda: sift.orientation_maps(X, 1),
            "orientations=1 should be an int of at least 2",
        ),
        (lambda: sift.orientation_maps(X[0, 0]), r"^orientation_maps: x \(20, 1\) should have 4 axes"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("f", [sift.dense_sift, sift.orientation_maps])
def test_uint8_images_raise(f):
    with pytest.raises(DtypeError, match=r"x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"):
        f(X.astype(np.uint8))
