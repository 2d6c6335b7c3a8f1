"""Pooling: a reduction over the same sliding window that convolution uses, each channel on its own.

Pooling has no parameters. It is written with the taps of the window, unrolled, so that every argument (dilation,
overhanging windows) has every derivative; a window of k taps makes k slices, and one of hundreds takes long to compile:
for a window as large as the image use the global forms. Windows side by side, as most are, need no slices: a reshape
gives them axes of their own. Everything is added up in at least float32, gradients of overlapping windows too.
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
from jaxconv.ops.max_gradients import TIES, first_largest, largest, largest_of_blocks
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.sliding_window import pad, taps
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
    """The largest value under each window: ``y[n, p, c] = max_u x[n, p·stride + u·dilation − low, c]``.

    Padding never wins. A NaN under the window gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        window_shape: taps, an int or one a dimension.
        stride: pixels from one window to the next; by default the window's size, so that windows do not overlap.
        padding: any form that :func:`jaxconv.shapes.resolve_padding` takes.
        dilation: pixels from one tap to the next.
        ceil_mode: let a last window hang over the end rather than leave pixels out.
        ties: who gets the gradient where several pixels are the largest: ``"first"``, all of it to the first of
            them in reading order, as in ``lax`` and PyTorch; ``"split"``, an equal share to each, which treats
            alike what is alike (a flat image, the zeros after a relu). Several NaNs tie too.

    Raises:
        InputError: x without spatial axes, a window larger than the padded input, one that sees only padding, or
            an unknown ``ties``.
        DtypeError: x is bool or complex.

    Lecture rows 000-11, 002-28.

    >>> x = jnp.array([[1., 2., 5., 3.], [4., 0., 1., 2.]])[None, :, :, None]
    >>> max_pool(x, 2)[0, :, :, 0]
    Array([[4., 5.]], dtype=float32)

    Two pixels tie, and the two rules divide their gradient:

    >>> x = jnp.array([7., 1., 7.])[None, :, None]
    >>> jax.grad(lambda x: max_pool(x, 3).sum())(x)[0, :, 0]
    Array([1., 0., 0.], dtype=float32)
    >>> jax.grad(lambda x: max_pool(x, 3, ties="split").sum())(x)[0, :, 0]
    Array([0.5, 0. , 0.5], dtype=float32)
    """
    x = checks.as_array(x=x)
    ordered(x)
    checks.one_of("ties", ties, TIES)
    slide = _lay(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    if _side_by_side(slide, x):
        blocks = over_devices(lambda x: largest_of_blocks(_blocks(x, slide), ties), numerics.upcast(x))
        return blocks.astype(x.dtype)
    slices = [pixels for _, pixels in taps(pad(numerics.upcast(x), slide, lowest), slide)]
    real = inside(slide, x)
    if ties == "first":
        return first_largest(slices, real).astype(x.dtype)
    return largest(jnp.stack(slices), jnp.stack(real), ties).astype(x.dtype)


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
    """The mean under each window: ``y[n, p, c] = (1 / count[p]) Σ_u x[n, p·stride + u·dilation − low, c]``.

    The sum is taken in at least float32, whatever x is.

    Args:
        x, window_shape, stride, padding, dilation, ceil_mode: as in :func:`max_pool`, but x must be floating.
        count_include_pad: divide by all the taps, padding too; by default only by those that see a real pixel, so
            that a constant image stays constant up to its border.

    Raises:
        InputError: as :func:`max_pool`.
        DtypeError: x holds integers.

    Lecture rows 000-12, 002-29.

    >>> avg_pool(jnp.array([1., 2., 5., 4.])[None, :, None], 2)[0, :, 0]
    Array([1.5, 4.5], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    checks.boolean("count_include_pad", count_include_pad)
    slide = _lay(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    count = counts(slide, x.shape[1:-1], include_pad=count_include_pad)[None, ..., None]
    total = functools.reduce(operator.add, (pixels for _, pixels in taps(pad(numerics.upcast(x), slide, 0), slide)))
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
    """The p-norm of each window: ``y[n, q, c] = (Σ_u |x[n, q·stride + u·dilation − low, c]|^p)^(1/p)``.

    Between two others: p = 1 is the sum of absolute values, and as p grows the norm becomes their maximum. Padding
    adds nothing. Where a window is all zeros the norm has a kink, and its derivative is given as 0.

    PyTorch leaves the absolute value out, so there negative pixels cancel positive ones when p is odd.

    Args:
        x, window_shape, stride, padding, dilation, ceil_mode: as in :func:`max_pool`, but x must be floating.
        p: at least 1, and finite.

    Raises:
        InputError: as :func:`max_pool`, or a p that makes no norm.
        DtypeError: x holds integers or complex numbers.

    Source: Sermanet, Chintala & LeCun, 2012, https://arxiv.org/abs/1204.3968.

    >>> lp_pool(jnp.array([3., -4., 0., 0.])[None, :, None], 2)[0, :, 0]
    Array([5., 0.], dtype=float32)
    >>> jax.grad(lambda x: lp_pool(x, 2).sum())(jnp.array([3., -4., 0., 0.])[None, :, None])[0, :, 0]
    Array([ 0.6, -0.8,  0. ,  0. ], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    ordered(x)
    p = _order(p)
    slide = _lay(x, Window.for_pooling(window_shape, stride, padding, dilation), ceil_mode)
    slices = [pixels for _, pixels in taps(pad(numerics.upcast(x), slide, 0), slide)]
    # |x|^p of 1e30 is more than float32 can hold, and of 1e-30 less: measure each window in units of its largest
    # pixel. The norm is homogeneous, unit · norm(x / unit) = norm(x) whatever the unit is, so it is a constant to
    # every derivative.
    largest = lax.stop_gradient(functools.reduce(jnp.maximum, map(jnp.abs, slices)))
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    total = functools.reduce(operator.add, (_power(pixels / unit, p) for pixels in slices))
    # The root has no finite slope at 0: take that of 1 there, and none of it.
    dark = largest == 0
    return jnp.where(dark, 0, unit * jnp.where(dark, 1, total) ** (1 / p)).astype(x.dtype)


def _side_by_side(slide: ResolvedWindow, x: jax.Array) -> bool:
    """Whether each pixel is seen by one window at most, and no window sees anything else."""
    fits = all(out * f <= n for out, f, n in zip(slide.out_size, slide.size, x.shape[1:-1], strict=True))
    return fits and slide.stride == slide.size and max(slide.dilation) == 1 and not any(map(any, slide.padding))


def _blocks(x: jax.Array, slide: ResolvedWindow) -> jax.Array:
    """The windows as axes of their own, ``(N, out, window, out, window, …, C)``: no pixel moves."""
    ends = [out * size for out, size in zip(slide.out_size, slide.size, strict=True)]
    x = lax.slice(x, (0,) * x.ndim, (x.shape[0], *ends, x.shape[-1]))
    return x.reshape(x.shape[0], *itertools.chain(*zip(slide.out_size, slide.size, strict=True)), x.shape[-1])


def inside(slide: ResolvedWindow, x: jax.Array) -> list[jax.Array]:
    """For each tap, at which places it meets a pixel of x and not padding: ``(1, *out, 1)`` each."""
    real = jnp.ones((1, *x.shape[1:-1], 1), bool)
    return [met for _, met in taps(pad(real, slide, False), slide)]


def spatial_axes(x: jax.Array) -> tuple[int, ...]:
    """The axes between batch and channels, of which there must be some, with pixels."""
    if x.ndim < 3:
        raise InputError(f"x {x.shape} should be (N, *spatial, C): add the batch axis, x[None], or the channel axis")
    if 0 in x.shape[1:]:
        raise InputError(f"x {x.shape} should be (N, *spatial, C) with at least one pixel")
    return tuple(range(1, x.ndim - 1))


def ordered(x: jax.Array) -> None:
    """Refuse what has no largest value."""
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise DtypeError(f"x is {x.dtype}, which has no largest value; convert it first, x.astype(jnp.float32)")


def _power(x: jax.Array, p: float) -> jax.Array:
    """``|x|^p``, with derivatives of 0 at 0 where it has none."""
    if p % 2 == 0:
        return x ** int(p)  # smooth: an absolute value would hide the second derivative at 0
    zero = x == 0
    return jnp.where(zero, 0, jnp.where(zero, 1, jnp.abs(x)) ** p)


def _order(p: float) -> float:
    if not checks.is_number(p) or not p >= 1:
        raise InputError(f"p={p!r} makes no norm; it should be a number of at least 1")
    if p == math.inf:
        raise InputError("p=inf is the largest absolute value: write max_pool(jnp.abs(x), window)")
    return float(p)


def _lay(x: jax.Array, window: Window, ceil_mode: bool) -> ResolvedWindow:
    spatial_axes(x)
    checks.boolean("ceil_mode", ceil_mode)
    slide = resolve_window(window, x.shape[1:-1], ceil_mode=ceil_mode)
    if counts(slide, x.shape[1:-1], include_pad=False).min() == 0:
        raise InputError(f"padding {slide.padding} is so wide that a window {slide.size} sees nothing else")
    return slide


def counts(slide: ResolvedWindow, size: tuple[int, ...], *, include_pad: bool) -> np.ndarray:
    """How many taps of each window see a real pixel (or padding too, but never what hangs over the end)."""
    number = np.ones((), int)
    for pixels, n, (low, high) in zip(tap_indices(slide), size, slide.padding, strict=True):
        first, end = (-low, n + high) if include_pad else (0, n)
        number = np.multiply.outer(number, ((pixels >= first) & (pixels < end)).sum(axis=1))
    return number


@named_errors
def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """The mean of each feature map, whatever its size: ``y[n, c] = mean_p x[n, p, c]``.

    The sum is taken in at least float32. Lecture row 003-19.

    >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    return jnp.mean(numerics.upcast(x), axis=spatial_axes(x)).astype(x.dtype)


@named_errors
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
    x = checks.as_array(x=x)
    ordered(x)
    checks.one_of("ties", ties, TIES)
    spatial_axes(x)
    pixels = jnp.moveaxis(_raveled(x), 1, 0)
    return largest(pixels, jnp.ones((1, 1, 1), bool), ties).astype(x.dtype)


@named_errors
def adaptive_avg_pool(x: Float[Array, "n *spatial c"], output_size: IntOrInts) -> Float[Array, "n *out c"]:
    """The mean of ``output_size`` windows that cover the image evenly; window q sees pixels ``⌊q·n/out⌋ … ⌈(q+1)·n/out⌉
    − 1``.

    These are PyTorch's windows. They overlap by a pixel where out does not divide n, and repeat pixels where out is
    larger. The sum is taken in at least float32.

    Args:
        x: ``(N, *spatial, C)``.
        output_size: the size wanted, an int or one a dimension.

    Raises:
        InputError: x without spatial axes, or an ``output_size`` that is no size.
        DtypeError: x holds integers.

    >>> adaptive_avg_pool(jnp.arange(5.)[None, :, None], 2)[0, :, 0]       # pixels 0 1 2 and 2 3 4
    Array([1., 3.], dtype=float32)
    """
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    y = numerics.upcast(x)
    for axis, (pixels, seen) in enumerate(_windows(x, output_size), start=1):
        # Chosen, not multiplied by a matrix of weights: 0 · NaN would carry a NaN into windows that do not see it.
        y = jnp.take(y, pixels, axis=axis, mode="clip")
        others = tuple(a for a in range(y.ndim) if a not in (axis, axis + 1))
        y = jnp.mean(y, axis=axis + 1, where=np.expand_dims(seen, others))
    return y.astype(x.dtype)


@named_errors
def adaptive_max_pool(
    x: Num[Array, "n *spatial c"], output_size: IntOrInts, *, ties: str = "first"
) -> Num[Array, "n *out c"]:
    """The largest value of ``output_size`` windows that cover the image evenly, those of :func:`adaptive_avg_pool`.

    A NaN gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        output_size: the size wanted, an int or one a dimension.
        ties: who gets the gradient where several pixels are the largest, as in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: as :func:`adaptive_avg_pool`, or an unknown ``ties``.
        DtypeError: x is bool or complex.

    >>> adaptive_max_pool(jnp.array([4., 1., 0., 2., 3.])[None, :, None], 2)[0, :, 0]
    Array([4., 3.], dtype=float32)
    """
    x = checks.as_array(x=x)
    ordered(x)
    checks.one_of("ties", ties, TIES)
    windows = _windows(x, output_size)
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
    return numerics.upcast(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _windows(x: jax.Array, out: IntOrInts) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each dimension the pixels of every window, ``(out, pixels)``, and which of them count.

    Windows differ in length by at most one; in a shorter one the last pixel stands again, and does not count.
    """
    axes = spatial_axes(x)
    sizes = canonicalize_sizes(out, len(axes), "out")
    countable("the output", sizes)
    windows = []
    for n, size in zip(x.shape[1:-1], sizes, strict=True):
        places = np.arange(size)
        first, end = places * n // size, -(-(places + 1) * n // size)
        pixels = first[:, None] + np.arange((end - first).max())
        windows.append((np.minimum(pixels, end[:, None] - 1), pixels < end[:, None]))
    return windows
