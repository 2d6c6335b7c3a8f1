"""Pooling to a size that is chosen, whatever the size of the image: one pixel (global), or a few (adaptive)."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxconv import checks
from jaxconv.errors import known, said_by
from jaxconv.ops.max_gradients import TIES, largest
from jaxconv.ops.pooling import ordered, spatial_axes
from jaxconv.shapes import Sizes, countable, per_dimension


def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """The mean of each feature map, whatever its size: ``y[n, c] = mean_p x[n, p, c]``.

    The sum is taken in at least float32. Lecture row 003-19.

    >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)
    """
    x = checks.array("global_avg_pool", "x", x)
    checks.floating("global_avg_pool", x=x)
    return jnp.mean(checks.widened(x), axis=spatial_axes("global_avg_pool", x)).astype(x.dtype)


def global_max_pool(x: Num[Array, "n *spatial c"], *, ties: str = "first") -> Num[Array, "n c"]:
    """The largest value of each feature map: ``y[n, c] = max_p x[n, p, c]``. A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        ties: who gets the gradient where several pixels are the largest, as in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: x without pixels, or an unknown ``ties``.
        DtypeError: x is bool or complex.

    >>> global_max_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[6., 7.]], dtype=float32)
    """
    x = checks.array("global_max_pool", "x", x)
    ordered("global_max_pool", x)
    known("ties", ties, TIES, by="global_max_pool")
    spatial_axes("global_max_pool", x)
    pixels = jnp.moveaxis(_raveled(x), 1, 0)
    return largest(pixels, jnp.ones((1, 1, 1), bool), ties).astype(x.dtype)


def adaptive_avg_pool(x: Float[Array, "n *spatial c"], out: Sizes) -> Float[Array, "n *out c"]:
    """The mean of ``out`` windows that cover the image evenly; window q sees pixels ``⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1``.

    These are PyTorch's windows. They overlap by a pixel where out does not divide n, and repeat pixels where out is
    larger. The sum is taken in at least float32.

    Args:
        x: ``(N, *spatial, C)``.
        out: the size wanted, an int or one a dimension.

    Raises:
        InputError: x without spatial axes, or an ``out`` that is no size.
        DtypeError: x holds integers.

    >>> adaptive_avg_pool(jnp.arange(5.)[None, :, None], 2)[0, :, 0]       # pixels 0 1 2 and 2 3 4
    Array([1., 3.], dtype=float32)
    """
    x = checks.array("adaptive_avg_pool", "x", x)
    checks.floating("adaptive_avg_pool", x=x)
    y = checks.widened(x)
    for axis, (pixels, seen) in enumerate(_windows("adaptive_avg_pool", x, out), start=1):
        # Chosen, not multiplied by a matrix of weights: 0 · NaN would carry a NaN into windows that do not see it.
        y = jnp.take(y, pixels, axis=axis, mode="clip")
        others = tuple(a for a in range(y.ndim) if a not in (axis, axis + 1))
        y = jnp.mean(y, axis=axis + 1, where=np.expand_dims(seen, others))
    return y.astype(x.dtype)


def adaptive_max_pool(x: Num[Array, "n *spatial c"], out: Sizes, *, ties: str = "first") -> Num[Array, "n *out c"]:
    """The largest value of ``out`` windows that cover the image evenly, those of :func:`adaptive_avg_pool`.

    A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        out: the size wanted, an int or one a dimension.
        ties: who gets the gradient where several pixels are the largest, as in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: as :func:`adaptive_avg_pool`, or an unknown ``ties``.
        DtypeError: x is bool or complex.

    >>> adaptive_max_pool(jnp.array([4., 1., 0., 2., 3.])[None, :, None], 2)[0, :, 0]
    Array([4., 3.], dtype=float32)
    """
    x = checks.array("adaptive_max_pool", "x", x)
    ordered("adaptive_max_pool", x)
    known("ties", ties, TIES, by="adaptive_max_pool")
    windows = _windows("adaptive_max_pool", x, out)
    ndim = len(windows)

    def along(i: int, array: np.ndarray) -> np.ndarray:
        """From ``(out, pixels)`` of dimension i to ``(*pixels, *out)`` of all."""
        return np.expand_dims(array.T, tuple(axis for axis in range(2 * ndim) if axis not in (i, ndim + i)))

    met = [along(i, pixels) for i, (pixels, _) in enumerate(windows)]
    real = functools.reduce(np.logical_and, [along(i, seen) for i, (_, seen) in enumerate(windows)])
    flat = np.ravel_multi_index(met, x.shape[1:-1]).reshape(-1, *real.shape[ndim:])
    y = jnp.take(_raveled(x), flat, axis=1, mode="clip")
    counts = jnp.asarray(real.reshape(-1, 1, *real.shape[ndim:], 1))
    return largest(jnp.moveaxis(y, 1, 0), counts, ties).astype(x.dtype)


def _raveled(x: jax.Array) -> jax.Array:
    """``(N, pixels, C)``, in the dtype to compute in."""
    return checks.widened(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _windows(op: str, x: jax.Array, out: Sizes) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each dimension the pixels of every window, ``(out, pixels)``, and which of them count.

    Windows differ in length by at most one; in a shorter one the last pixel stands again, and does not count.
    """
    axes = spatial_axes(op, x)
    with said_by(op):
        sizes = per_dimension(out, len(axes), "out")
        countable("the output", sizes)
    windows = []
    for n, size in zip(x.shape[1:-1], sizes, strict=True):
        places = np.arange(size)
        first, end = places * n // size, -(-(places + 1) * n // size)
        pixels = first[:, None] + np.arange((end - first).max())
        windows.append((np.minimum(pixels, end[:, None] - 1), pixels < end[:, None]))
    return windows
