"""Compute hand-crafted image descriptors (dense SIFT), written as convolutions.

A descriptor is a network without learned parameters: a convolution with fixed kernels, a nonlinearity, a pooling
convolution and a normalization (Mahendran & Vedaldi, 2015, https://arxiv.org/abs/1412.0035, section 4, write SIFT and
HOG in this way).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxconv import checks, filters, ops
from jaxconv.errors import InputError, named_errors

__all__ = ["dense_sift", "orientation_maps"]

CELLS = 4  # a descriptor has 4×4 cells
CLIP = 0.2  # upper bound of the entries, before the descriptor is normalized again
SLOPE = np.array([[-0.5, 0, 0.5]])  # central difference along a row


@named_errors
def orientation_maps(x: Float[Array, "n h w c"], orientations: int = 8) -> Float[Array, "n h w orientations"]:
    """Compute the gradient magnitude of the image, assigned to bins of gradient orientation.

        (h, v) = gradient of the brightness, to the right and downwards;    θ = atan2(v, h)
        y[n, i, j, o] = √(h² + v²) · max(0, 1 − |θ − 2π·o / orientations| · orientations / 2π)

    Differences of angles are periodic, so each gradient is interpolated between the two nearest orientations.
    Orientation 0 points to the right, and the next ones turn downwards. The border is replicated, and channels are
    averaged.

    Args:
        x: images.
        orientations: number of orientations in a full circle.

    Raises:
        InputError: if x is not ``(N, H, W, C)``, or ``orientations < 2``.
        DtypeError: if x holds integers.

    >>> ramp = jnp.arange(3.0)[None, :, None, None] * jnp.ones((1, 3, 2, 1))    # brighter downwards
    >>> orientation_maps(ramp)[0, 1, 0]
    Array([0., 0., 1., 0., 0., 0., 0., 0.], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.rank(x, 4, "(N, H, W, C)")
    checks.floating_dtype(x=x)
    checks.at_least(2, orientations=orientations)
    gray = x.mean(axis=-1, keepdims=True)
    h, v = filters.apply_filter(gray, SLOPE), filters.apply_filter(gray, SLOPE.T)
    squared = h**2 + v**2
    is_flat = squared == 0  # √ and atan2 are not differentiable there, and NaN times 0 is NaN
    magnitude = jnp.where(is_flat, 0, jnp.sqrt(jnp.where(is_flat, 1, squared)))
    angle = jnp.arctan2(v, jnp.where(is_flat, 1, h)) / (2 * jnp.pi)  # fraction of a full circle
    difference = orientations * angle - jnp.arange(orientations, dtype=x.dtype)[None, None, None, :]
    periodic = jnp.abs(difference - orientations * jnp.round(difference / orientations))
    return magnitude * jnp.maximum(0, 1 - periodic)


@named_errors
def dense_sift(
    x: Float[Array, "n h w c"], *, cell: int = 4, stride: int | None = None, eps: float = 1e-6
) -> Float[Array, "n rows columns 128"]:
    """Compute the SIFT descriptor of the patch at every keypoint of a regular grid, as a convolution.

        z[n, r, s, i, j, o] = Σ_p  maps[n, stride·(r, s) + p, o] · gauss(p) · near_i(p_y) · near_j(p_x)
        y = unit(min(unit(z), 0.2)),    unit(z) = z / √(Σ z² + eps²), over the 128 entries of a keypoint

    The maps are :func:`orientation_maps`. A patch has 4×4 cells. Each cell sums the gradients near its center, weighted
    by ``near_i(p) = max(0, 1 − |p − center_i| / cell)``, for each of 8 orientations. A Gaussian whose σ is half the
    side of the patch weights the center of the patch most. So z is a convolution of each map with 16 filters of
    the size of a patch. Clipping at 0.2 limits the influence of a few steep edges (Lowe, 2004,
    https://doi.org/10.1023/B:VISI.0000029664.99615.94, section 6.1).

    This is the descriptor of Lowe's SIFT alone, with a fixed orientation and scale. There is no keypoint detection:
    keypoints are all positions of the grid at which a patch fits into the image. The gradient beyond the border is 0.

    Args:
        x: images.
        cell: side of a cell in pixels; the side of a patch is four times as long.
        stride: distance of keypoints in pixels; by default ``cell``.
        eps: norm of z below which a patch counts as flat, so that y is about 0.

    Returns:
        4·4·8 = 128 numbers from 0 to 1 per keypoint, in the order of cell rows, cell columns and orientations.

    Raises:
        InputError: if x is not ``(N, H, W, C)``, a patch is larger than the image, or an option is out of range.
        DtypeError: if x holds integers.

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
            "use a smaller cell or larger images"
        )
    maps = orientation_maps(x)
    n, height, width, orientations = maps.shape
    # Fold the orientations into the batch: (N·8, H, W, 1). For kernels this large lax is the fastest.
    images = jnp.moveaxis(maps, -1, 1).reshape(n * orientations, height, width, 1)
    kernel = jnp.asarray(_cell_kernel(cell), x.dtype)
    z = ops.conv(images, kernel, stride=stride, padding=cell // 2, impl="lax", precision="highest")
    rows, columns, cells = z.shape[1:]
    z = jnp.moveaxis(z.reshape(n, orientations, rows, columns, cells), 1, -1)
    return _normalize(jnp.minimum(_normalize(z.reshape(n, rows, columns, -1), eps), CLIP), eps)


def _cell_kernel(cell: int) -> np.ndarray:
    """Return the weights of pixels in the cells of a patch, with a margin of half a cell: ``(P, P, 1, 16)``."""
    side = CELLS * cell
    pixels = np.arange(-(cell // 2), side + cell // 2)
    centers = cell * np.arange(CELLS) + (cell - 1) / 2
    near = np.maximum(0, 1 - np.abs(pixels[:, None] - centers) / cell)
    gauss = np.exp(-0.5 * ((pixels - (side - 1) / 2) / (side / 2)) ** 2)
    profile = gauss[:, None] * near  # the weights are separable
    return np.einsum("yi,xj->yxij", profile, profile).reshape(len(pixels), len(pixels), 1, CELLS**2)


def _normalize(z: jax.Array, eps: float) -> jax.Array:
    return z / jnp.sqrt((z**2).sum(axis=-1, keepdims=True) + eps**2)
