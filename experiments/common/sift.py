"""Descriptors made by hand: what classifiers were given before features were learned, written as convolutions.

They are networks with nothing to learn: a convolution with kernels made by hand, a non-linearity, a convolution that
pools, a norm (Mahendran & Vedaldi, 2015, https://arxiv.org/abs/1412.0035, section 4, do so with SIFT and HOG).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxconv import checks, filters, ops
from jaxconv.errors import InputError, named_errors

__all__ = ["dense_sift", "orientation_maps"]

CELLS = 4  # a descriptor has 4×4 of them
CLIP = 0.2  # no entry of a descriptor is larger than this, before its length is made 1 again
SLOPE = np.array([[-0.5, 0, 0.5]])  # the slope along a row, from the pixels to the left and to the right


@named_errors
def orientation_maps(x: Float[Array, "n h w c"], orientations: int = 8) -> Float[Array, "n h w orientations"]:
    """How steep the image is, sorted by the direction in which it gets brighter.

        (h, v) = how much brighter per pixel, to the right and downwards;    θ = atan2(v, h)
        y[n, i, j, o] = √(h² + v²) · max(0, 1 − |θ − 2π·o / orientations| · orientations / 2π)

    Differences of angles are taken the short way round, so each slope is divided between the two directions next to
    its own. Direction 0 is to the right and the next ones turn downwards. Beyond its border the image goes on as it
    ends there; of several channels the mean is taken.

    Args:
        x: the images.
        orientations: how many directions, all the way round.

    Raises:
        InputError: x is not ``(N, H, W, C)``, or fewer than 2 directions.
        DtypeError: x holds integers.

    >>> brighter_downwards = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 2, 1))
    >>> orientation_maps(brighter_downwards)[0, 1, 0]
    Array([0., 0., 1., 0., 0., 0., 0., 0.], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.rank(x, 4, "(N, H, W, C)")
    checks.floating_dtype(x=x)
    checks.at_least(2, orientations=orientations)
    grey = x.mean(axis=-1, keepdims=True)
    h, v = filters.apply_filter(grey, SLOPE), filters.apply_filter(grey, SLOPE.T)
    square = h**2 + v**2
    flat = square == 0  # neither √ nor atan2 has a derivative there, and NaN times 0 would be NaN
    steep = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, square)))
    turns = jnp.arctan2(v, jnp.where(flat, 1, h)) / (2 * jnp.pi)  # of a full circle
    apart = orientations * turns - jnp.arange(orientations, dtype=x.dtype)[None, None, None, :]
    around = jnp.abs(apart - orientations * jnp.round(apart / orientations))
    return steep * jnp.maximum(0, 1 - around)


@named_errors
def dense_sift(
    x: Float[Array, "n h w c"], *, cell: int = 4, stride: int | None = None, eps: float = 1e-6
) -> Float[Array, "n rows columns 128"]:
    """SIFT's descriptor of the patch at every key-point of a grid: "SIFT is a convolution".

        z[n, r, s, i, j, o] = Σ_p  maps[n, stride·(r, s) + p, o] · gauss(p) · near_i(p_y) · near_j(p_x)
        y = unit(min(unit(z), 0.2)),    unit(z) = z / √(Σ z² + eps²), of each key-point's 128 numbers

    The maps are :func:`orientation_maps`. A patch is 4×4 cells, and each cell is the sum of the slopes near its centre,
    ``near_i(p) = max(0, 1 − |p − centre_i| / cell)``, for each of 8 directions. A Gaussian whose σ is half the patch's
    side makes those in the middle of the patch count most. So z is one convolution of each map, with 16 filters as
    large as a patch. Cutting at 0.2 keeps a few steep edges from deciding all (Lowe, 2004,
    https://doi.org/10.1023/B:VISI.0000029664.99615.94, section 6.1).

    Of Lowe's SIFT this is the descriptor alone, upright and of one size: key-points are wherever a patch fits into the
    image, none is looked for. What a cell sees beyond the border is no slope.

    Args:
        x: the images.
        cell: the side of a cell in pixels; a patch's is four times that.
        stride: from one key-point to the next, in pixels; by default a cell.
        eps: the length of z below which a patch counts as flat: there y is about 0.

    Returns:
        For each key-point 4·4·8 = 128 numbers from 0 to 1, in the order of cell rows, cell columns, directions.

    Raises:
        InputError: x is not ``(N, H, W, C)``, a patch is larger than the image, or no such cell, stride or eps.
        DtypeError: x holds integers.

    Lecture row 000-05.

    >>> y = dense_sift(jax.random.uniform(jax.random.key(0), (2, 28, 24, 1)))
    >>> y.shape, bool(jnp.allclose((y**2).sum(axis=-1), 1, atol=1e-3))
    ((2, 4, 3, 128), True)
    """
    x = checks.as_array(x=x)
    checks.rank(x, 4, "(N, H, W, C)")
    checks.floating_dtype(x=x)
    stride = cell if stride is None else stride
    checks.at_least(1, cell=cell, stride=stride)
    checks.real("eps", eps, above=0)
    if CELLS * cell > min(x.shape[1:3]):
        raise InputError(
            f"a patch of 4×4 cells of {cell}×{cell} pixels does not fit into an image of {x.shape[1:3]}: "
            "take a smaller cell, or larger images"
        )
    maps = orientation_maps(x)
    n, height, width, orientations = maps.shape
    # Every map is an image of its own to the convolution: (N·8, H, W, 1). For kernels this large lax is the fastest.
    each = jnp.moveaxis(maps, -1, 1).reshape(n * orientations, height, width, 1)
    kernel = jnp.asarray(_cell_kernel(cell), x.dtype)
    z = ops.conv(each, kernel, stride=stride, padding=cell // 2, impl="lax", precision="highest")
    rows, columns, cells = z.shape[1:]
    z = jnp.moveaxis(z.reshape(n, orientations, rows, columns, cells), 1, -1)
    return _unit(jnp.minimum(_unit(z.reshape(n, rows, columns, -1), eps), CLIP), eps)


def _cell_kernel(cell: int) -> np.ndarray:
    """What each pixel of a patch, and of half a cell around it, counts in each of its cells: ``(P, P, 1, 16)``."""
    side = CELLS * cell
    pixels = np.arange(-(cell // 2), side + cell // 2)
    centres = cell * np.arange(CELLS) + (cell - 1) / 2
    near = np.maximum(0, 1 - np.abs(pixels[:, None] - centres) / cell)
    gauss = np.exp(-0.5 * ((pixels - (side - 1) / 2) / (side / 2)) ** 2)
    line = gauss[:, None] * near  # both are products of a part along each axis
    return np.einsum("yi,xj->yxij", line, line).reshape(len(pixels), len(pixels), 1, CELLS**2)


def _unit(z: jax.Array, eps: float) -> jax.Array:
    return z / jnp.sqrt((z**2).sum(axis=-1, keepdims=True) + eps**2)
