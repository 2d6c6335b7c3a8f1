"""Pooling: a reduction of each channel over the sliding window that convolution uses.

Pooling has no parameters. The loop over kernel offsets is unrolled, so that every option (dilation, ``ceil_mode``) has
derivatives of any order. A window of k pixels makes k slices, so hundreds of pixels are slow to compile: for a window
as large as the image use the global forms. Non-overlapping windows need no slices, because a reshape gives them axes
of their own. Sums are in at least float32, including the gradients of overlapping windows.
"""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Num

from jaxconv import checks
from jaxconv.errors import DtypeError, InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.max_gradients import TIES, elementwise_max, max_over_candidates, windowed_max
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.sliding_window import pad, tap_slices
from jaxconv.shapes import (
    IntOrInts,
    Padding,
    ResolvedWindow,
    Window,
    canonicalize_sizes,
    countable,
    resolve_window,
    tap_indices,
)


@named_errors
def max_pool(
    x: Num[Array, "n *spatial c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> Num[Array, "n *out c"]:
    """Max pooling: ``y[n, p, c] = max_u x[n, p·stride + u·dilation − low, c]``.

    Padding counts as −∞. A NaN in the window gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        window_shape: size of the window, an int or one per dimension.
        stride: distance between windows in pixels; by default the size of the window, so that windows do not overlap.
        padding: any form that :func:`jaxconv.shapes.resolve_padding` takes.
        dilation: distance between the pixels of a window.
        ceil_mode: round the output size up; the last window may then exceed the input.
        ties: distribution of the gradient over equal maxima: ``"first"``, all to the first in row-major order, as in
            ``lax`` and PyTorch; ``"split"``, equal fractions to all, which keeps symmetries (a constant image, the
            zeros after a relu). Several NaNs tie too.

    Raises:
        InputError: if x has no spatial axes, the window is larger than the padded input or contains only padding, or
            ``ties`` is unknown.
        DtypeError: if x is bool or complex.

    Lecture rows 000-11, 002-28.

    >>> x = jnp.array([[1., 2., 5., 3.], [4., 0., 1., 2.]])[None, :, :, None]
    >>> max_pool(x, 2)[0, :, :, 0]
    Array([[4., 5.]], dtype=float32)

    The gradient of two tied pixels under both rules:

    >>> x = jnp.array([7., 1., 7.])[None, :, None]
    >>> jax.grad(lambda x: max_pool(x, 3).sum())(x)[0, :, 0]
    Array([1., 0., 0.], dtype=float32)
    >>> jax.grad(lambda x: max_pool(x, 3, ties="split").sum())(x)[0, :, 0]
    Array([0.5, 0. , 0.5], dtype=float32)
    """
    x = checks.as_array(x=x)
    check_ordered_dtype(x)
    checks.one_of("ties", ties, TIES)
    window = _resolve_window(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    if _is_non_overlapping(window, x):
        blocks = over_devices(lambda x: windowed_max(_split_into_windows(x, window), ties), numerics.upcast(x))
        return blocks.astype(x.dtype)
    slices = [pixels for _, pixels in tap_slices(pad(numerics.upcast(x), window, lowest), window)]
    masks = valid_masks(window, x)
    if ties == "first":
        return elementwise_max(slices, masks).astype(x.dtype)
    return max_over_candidates(jnp.stack(slices), jnp.stack(masks), ties).astype(x.dtype)


@named_errors
def avg_pool(
    x: Float[Array, "n *spatial c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Float[Array, "n *out c"]:
    """Average pooling: ``y[n, p, c] = (1 / count[p]) Σ_u x[n, p·stride + u·dilation − low, c]``.

    The sum is in at least float32.

    Args:
        x, window_shape, stride, padding, dilation, ceil_mode: as in :func:`max_pool`, but x must be floating.
        count_include_pad: divide by the size of the window including padding; by default padding is not counted, so
            that a constant image stays constant up to its border.

    Raises:
        InputError: as for :func:`max_pool`.
        DtypeError: if x holds integers.

    Lecture rows 000-12, 002-29.

    >>> avg_pool(jnp.array([1., 2., 5., 4.])[None, :, None], 2)[0, :, 0]
    Array([1.5, 4.5], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    checks.boolean("count_include_pad", count_include_pad)
    window = _resolve_window(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    count = window_counts(window, x.shape[1:-1], include_pad=count_include_pad)[None, ..., None]
    padded = pad(numerics.upcast(x), window, 0)
    total = functools.reduce(operator.add, (pixels for _, pixels in tap_slices(padded, window)))
    return (total / jnp.asarray(count, total.dtype)).astype(x.dtype)


@named_errors
def lp_pool(
    x: Float[Array, "n *spatial c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    p: float = 2.0,
) -> Float[Array, "n *out c"]:
    """L^p pooling: ``y[n, q, c] = (Σ_u |x[n, q·stride + u·dilation − low, c]|^p)^(1/p)``.

    p = 1 is the sum of absolute values; for p → ∞ the norm tends to their maximum. Padding counts as 0. At a window of
    zeros, where the norm has a kink, the derivative is defined as 0.

    PyTorch omits the absolute value, so for odd p its negative pixels cancel positive ones.

    Args:
        x, window_shape, stride, padding, dilation, ceil_mode: as in :func:`max_pool`, but x must be floating.
        p: order of the norm, finite and at least 1.

    Raises:
        InputError: as for :func:`max_pool`, or if ``p`` is below 1 or infinite.
        DtypeError: if x holds integers or complex numbers.

    Source: Sermanet, Chintala & LeCun, 2012, https://arxiv.org/abs/1204.3968.

    >>> lp_pool(jnp.array([3., -4., 0., 0.])[None, :, None], 2)[0, :, 0]
    Array([5., 0.], dtype=float32)
    >>> jax.grad(lambda x: lp_pool(x, 2).sum())(jnp.array([3., -4., 0., 0.])[None, :, None])[0, :, 0]
    Array([ 0.6, -0.8,  0. ,  0. ], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    check_ordered_dtype(x)
    p = _validate_exponent(p)
    window = _resolve_window(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    slices = [pixels for _, pixels in tap_slices(pad(numerics.upcast(x), window, 0), window)]
    # |x|^p overflows float32 for 1e30 and underflows for 1e-30, so divide each window by its largest absolute value.
    # The norm is homogeneous, scale · norm(x / scale) = norm(x) for any scale, so the scale is a constant to every
    # derivative.
    largest_abs = lax.stop_gradient(functools.reduce(jnp.maximum, map(jnp.abs, slices)))
    scale = jnp.where((largest_abs > 0) & jnp.isfinite(largest_abs), largest_abs, 1)
    total = functools.reduce(operator.add, (_power(pixels / scale, p) for pixels in slices))
    # The root has no finite slope at 0: evaluate it at 1 there and discard the result.
    all_zero = largest_abs == 0
    return jnp.where(all_zero, 0, scale * jnp.where(all_zero, 1, total) ** (1 / p)).astype(x.dtype)


def _is_non_overlapping(window: ResolvedWindow, x: jax.Array) -> bool:
    """Return True if windows do not overlap and contain no padding."""
    fits = all(out * f <= n for out, f, n in zip(window.out_size, window.size, x.shape[1:-1], strict=True))
    return fits and window.stride == window.size and max(window.dilation) == 1 and not any(map(any, window.padding))


def _split_into_windows(x: jax.Array, window: ResolvedWindow) -> jax.Array:
    """Reshape x so that windows have axes of their own: ``(N, out, window, out, window, …, C)``."""
    ends = [out * size for out, size in zip(window.out_size, window.size, strict=True)]
    x = lax.slice(x, (0,) * x.ndim, (x.shape[0], *ends, x.shape[-1]))
    return x.reshape(x.shape[0], *itertools.chain(*zip(window.out_size, window.size, strict=True)), x.shape[-1])


def valid_masks(window: ResolvedWindow, x: jax.Array) -> list[jax.Array]:
    """Masks of the window positions whose pixel is not padding, ``(1, *out, 1)`` for each kernel offset."""
    valid_mask = jnp.ones((1, *x.shape[1:-1], 1), bool)
    return [overlap for _, overlap in tap_slices(pad(valid_mask, window, False), window)]


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """Return the axes between batch and channels; raise InputError if there are none, or no pixels."""
    if x.ndim < 3:
        raise InputError(f"x {x.shape} should be (N, *spatial, C): add the batch axis, x[None], or the channel axis")
    if 0 in x.shape[1:]:
        raise InputError(f"x {x.shape} should be (N, *spatial, C) with at least one pixel")
    return tuple(range(1, x.ndim - 1))


def check_ordered_dtype(x: jax.Array) -> None:
    """Raise DtypeError for dtypes without an order."""
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise DtypeError(f"x is {x.dtype}, which has no largest value; convert it first, x.astype(jnp.float32)")


def _power(x: jax.Array, p: float) -> jax.Array:
    """Compute ``|x|^p``; derivatives that do not exist at 0 are 0."""
    if p % 2 == 0:
        return x ** int(p)  # smooth, whereas an absolute value would lose the second derivative at 0
    zero = x == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, jnp.abs(x)) ** p)


def _validate_exponent(p: float) -> float:
    if not checks.is_number(p) or not p >= 1:
        raise InputError(f"p must be a number >= 1, got {p!r}")
    if p == math.inf:
        raise InputError("p must be finite; for p=inf use max_pool(jnp.abs(x), window_shape)")
    return float(p)


def _resolve_window(x: jax.Array, window: Window, ceil_mode: bool) -> ResolvedWindow:
    spatial_axes(x)
    checks.boolean("ceil_mode", ceil_mode)
    resolved = resolve_window(window, x.shape[1:-1], ceil_mode=ceil_mode)
    if window_counts(resolved, x.shape[1:-1], include_pad=False).min() == 0:
        raise InputError(
            f"padding {resolved.padding} is too large: a window of size {resolved.size} contains only padding; pad less"
        )
    return resolved


def window_counts(window: ResolvedWindow, size: tuple[int, ...], *, include_pad: bool) -> np.ndarray:
    """Count the pixels of each window, optionally with padding; ``ceil_mode`` adds none."""
    count = np.ones((), int)
    for pixels, n, (low, high) in zip(tap_indices(window), size, window.padding, strict=True):
        start, end = (-low, n + high) if include_pad else (0, n)
        count = np.multiply.outer(count, ((pixels >= start) & (pixels < end)).sum(axis=1))
    return count


@named_errors
def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """Global average pooling, the mean of each feature map: ``y[n, c] = mean_p x[n, p, c]``.

    The sum is in at least float32. Lecture row 003-19.

    >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    return jnp.mean(numerics.upcast(x), axis=spatial_axes(x)).astype(x.dtype)


@named_errors
def global_max_pool(x: Num[Array, "n *spatial c"], *, ties: str = "first") -> Num[Array, "n c"]:
    """Global max pooling, the maximum of each feature map: ``y[n, c] = max_p x[n, p, c]``. A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        ties: distribution of the gradient over equal maxima, as in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: if x has no pixels, or ``ties`` is unknown.
        DtypeError: if x is bool or complex.

    >>> global_max_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[6., 7.]], dtype=float32)
    """
    x = checks.as_array(x=x)
    check_ordered_dtype(x)
    checks.one_of("ties", ties, TIES)
    spatial_axes(x)
    pixels = jnp.moveaxis(_raveled(x), 1, 0)
    return max_over_candidates(pixels, jnp.ones((1, 1, 1), bool), ties).astype(x.dtype)


@named_errors
def adaptive_avg_pool(x: Float[Array, "n *spatial c"], output_size: IntOrInts) -> Float[Array, "n *out c"]:
    """Adaptive average pooling: the mean of each of ``output_size`` windows that cover the image evenly.

    Window q contains the pixels ``⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1``, as in PyTorch. Windows overlap by a pixel if
    out does not divide n, and repeat pixels if out > n. The sum is in at least float32.

    Args:
        x: ``(N, *spatial, C)``.
        output_size: spatial size of the output, an int or one per dimension.

    Raises:
        InputError: if x has no spatial axes, or ``output_size`` is not a size.
        DtypeError: if x holds integers.

    >>> adaptive_avg_pool(jnp.arange(5.)[None, :, None], 2)[0, :, 0]       # pixels 0 1 2 and 2 3 4
    Array([1., 3.], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    y = numerics.upcast(x)
    for axis, (pixels, valid_mask) in enumerate(_adaptive_windows(x, output_size), start=1):
        # Index instead of multiplying by a weight matrix: 0 · NaN would spread a NaN to windows that do not contain it.
        y = jnp.take(y, pixels, axis=axis, mode="clip")
        other_axes = tuple(a for a in range(y.ndim) if a not in (axis, axis + 1))
        y = jnp.mean(y, axis=axis + 1, where=np.expand_dims(valid_mask, other_axes))
    return y.astype(x.dtype)


@named_errors
def adaptive_max_pool(
    x: Num[Array, "n *spatial c"], output_size: IntOrInts, *, ties: str = "first"
) -> Num[Array, "n *out c"]:
    """Adaptive max pooling: the maximum of each window of :func:`adaptive_avg_pool`.

    A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        output_size: spatial size of the output, an int or one per dimension.
        ties: distribution of the gradient over equal maxima, as in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: as for :func:`adaptive_avg_pool`, or if ``ties`` is unknown.
        DtypeError: if x is bool or complex.

    >>> adaptive_max_pool(jnp.array([4., 1., 0., 2., 3.])[None, :, None], 2)[0, :, 0]
    Array([4., 3.], dtype=float32)
    """
    x = checks.as_array(x=x)
    check_ordered_dtype(x)
    checks.one_of("ties", ties, TIES)
    windows = _adaptive_windows(x, output_size)
    ndim = len(windows)

    def expand(i: int, array: np.ndarray) -> np.ndarray:
        """Expand ``(out, pixels)`` of dimension i to ``(*pixels, *out)`` of all dimensions."""
        return np.expand_dims(array.T, tuple(axis for axis in range(2 * ndim) if axis not in (i, ndim + i)))

    indices = [expand(i, pixels) for i, (pixels, _) in enumerate(windows)]
    valid_mask = functools.reduce(np.logical_and, [expand(i, valid) for i, (_, valid) in enumerate(windows)])
    flat = np.ravel_multi_index(indices, x.shape[1:-1]).reshape(-1, *valid_mask.shape[ndim:])
    y = jnp.take(_raveled(x), flat, axis=1, mode="clip")
    candidate_mask = jnp.asarray(valid_mask.reshape(-1, 1, *valid_mask.shape[ndim:], 1))
    return max_over_candidates(jnp.moveaxis(y, 1, 0), candidate_mask, ties).astype(x.dtype)


def _raveled(x: jax.Array) -> jax.Array:
    """Upcast x and merge its spatial axes: ``(N, pixels, C)``."""
    return numerics.upcast(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _adaptive_windows(x: jax.Array, out: IntOrInts) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixel indices of every window, ``(out, pixels)``, and the mask of valid ones, for each dimension.

    Windows differ in length by at most one; shorter ones repeat their last pixel, which the mask excludes.
    """
    axes = spatial_axes(x)
    sizes = canonicalize_sizes(out, len(axes), "out")
    countable("the output", sizes)
    windows = []
    for n, size in zip(x.shape[1:-1], sizes, strict=True):
        positions = np.arange(size)
        start, end = positions * n // size, -(-(positions + 1) * n // size)
        pixels = start[:, None] + np.arange((end - start).max())
        windows.append((np.minimum(pixels, end[:, None] - 1), pixels < end[:, None]))
    return windows
