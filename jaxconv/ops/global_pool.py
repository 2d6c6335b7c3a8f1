"""Pooling to a size that is chosen, whatever the size of the image: one pixel (global), or a few (adaptive)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxconv.errors import InputError
from jaxconv.ops import checks
from jaxconv.ops.pool import ordered, spatial_axes
from jaxconv.shapes import Sizes, per_dimension


def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """The mean of each feature map, whatever its size: ``y[n, c] = mean_p x[n, p, c]``.

    The sum is taken in at least float32. Lecture row 003-19.

    >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)
    """
    x = jnp.asarray(x)
    checks.floating("global_avg_pool", x=x)
    return jnp.mean(checks.widened(x), axis=spatial_axes("global_avg_pool", x)).astype(x.dtype)


def global_max_pool(x: Num[Array, "n *spatial c"]) -> Num[Array, "n c"]:
    """The largest value of each feature map: ``y[n, c] = max_p x[n, p, c]``.

    Pixels that tie share the gradient equally, as in ``max_pool(…, ties="split")``. A NaN gives NaN.

    >>> global_max_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[6., 7.]], dtype=float32)
    """
    x = jnp.asarray(x)
    ordered("global_max_pool", x)
    return jnp.max(checks.widened(x), axis=spatial_axes("global_max_pool", x)).astype(x.dtype)


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
    x = jnp.asarray(x)
    checks.floating("adaptive_avg_pool", x=x)
    y = checks.widened(x)
    for axis, size in _sizes("adaptive_avg_pool", x, out):
        # Chosen, not multiplied by a matrix of weights: 0 · NaN would carry a NaN into windows that do not see it.
        pixels, seen = _windows(y, axis, size)
        y = jnp.mean(pixels, axis=axis + 1, where=seen)
    return y.astype(x.dtype)


def adaptive_max_pool(x: Num[Array, "n *spatial c"], out: Sizes) -> Num[Array, "n *out c"]:
    """The largest value of ``out`` windows that cover the image evenly, those of :func:`adaptive_avg_pool`.

    Where pixels of a window tie, the first of them in reading order gets the whole gradient. A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        out: the size wanted, an int or one a dimension.

    Raises:
        InputError: as :func:`adaptive_avg_pool`.
        DtypeError: x is bool or complex.

    >>> adaptive_max_pool(jnp.array([4., 1., 0., 2., 3.])[None, :, None], 2)[0, :, 0]
    Array([4., 3.], dtype=float32)
    """
    x = jnp.asarray(x)
    ordered("adaptive_max_pool", x)
    y = checks.widened(x)
    # The last axis first: the first of every row, then of those the first, is the first in reading order.
    for axis, size in reversed(_sizes("adaptive_max_pool", x, out)):
        pixels, _ = _windows(y, axis, size)
        best = jnp.argmax(pixels, axis=axis + 1, keepdims=True)
        y = jnp.take_along_axis(pixels, best, axis=axis + 1).squeeze(axis + 1)
    return y.astype(x.dtype)


def _sizes(op: str, x: jax.Array, out: Sizes) -> list[tuple[int, int]]:
    """``(axis, size wanted)`` of every spatial axis."""
    axes = spatial_axes(op, x)
    try:
        return list(zip(axes, per_dimension(out, len(axes), "out"), strict=True))
    except InputError as error:
        raise InputError(f"{op}: {error}") from None


def _windows(x: jax.Array, axis: int, out: int) -> tuple[jax.Array, np.ndarray]:
    """What each window sees along one axis, which becomes two: ``(…, out, pixels, …)``; and which pixels count.

    Windows differ in length by at most one; in a shorter one the last pixel stands again, and does not count.
    """
    n, places = x.shape[axis], np.arange(out)
    first, end = places * n // out, -(-(places + 1) * n // out)
    pixels = first[:, None] + np.arange((end - first).max())
    seen = (pixels < end[:, None]).reshape(1, *(1,) * (axis - 1), *pixels.shape, *(1,) * (x.ndim - axis - 1))
    return jnp.take(x, np.minimum(pixels, end[:, None] - 1), axis=axis, mode="clip"), seen
