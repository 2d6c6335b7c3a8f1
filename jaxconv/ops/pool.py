"""Pooling: a reduction over the same sliding window that convolution uses, each channel on its own.

Pooling has no parameters. It is written with the taps of the window, unrolled, so that every argument (dilation,
overhanging windows) has every derivative; a window of k taps makes k slices, so for a window as large as the
image use the global forms.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from jaxconv.errors import DtypeError, InputError
from jaxconv.ops import checks
from jaxconv.ops.window import taps
from jaxconv.shapes import Padding, ResolvedWindow, Sizes, Window, resolve, tap_pixels


def max_pool(
    x: Num[Array, "n *spatial c"],
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Num[Array, "n *out c"]:
    """The largest value under each window: ``y[n, p, c] = max_u x[n, p·stride + u·dilation − low, c]``.

    Padding never wins. Where several pixels tie, the whole gradient goes to the first of them in reading order, as
    in ``lax`` and PyTorch. A NaN under the window gives NaN.

    Args:
        x: ``(N, *spatial, C)``, of any real dtype.
        window: taps, an int or one a dimension.
        stride: pixels from one window to the next; by default the window's size, so that windows do not overlap.
        padding: any form that :func:`jaxconv.shapes.resolve_padding` takes.
        dilation: pixels from one tap to the next.
        ceil_mode: let a last window hang over the end rather than leave pixels out.

    Raises:
        InputError: x without spatial axes, a window larger than the padded input, or one that sees only padding.

    Lecture rows 000-11, 002-28.

    >>> x = jnp.array([[1., 2., 5., 3.], [4., 0., 1., 2.]])[None, :, :, None]
    >>> max_pool(x, 2)[0, :, :, 0]
    Array([[4., 5.]], dtype=float32)
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating) and not jnp.issubdtype(x.dtype, jnp.integer):
        raise DtypeError(
            f"max_pool: x is {x.dtype}, which has no largest value; convert it first, x.astype(jnp.float32)"
        )
    slide = _lay("max_pool", x, Window(window, _or(stride, window), padding, dilation), ceil_mode)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    (_, best), *rest = taps(_pad(x, slide, lowest), slide)
    for _, pixels in rest:
        # Strictly greater, so that the first of equals keeps its place (and its gradient); NaN always wins.
        best = jnp.where((pixels > best) | jnp.isnan(pixels), pixels, best)
    return best


def avg_pool(
    x: Float[Array, "n *spatial c"],
    window: Sizes,
    *,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Float[Array, "n *out c"]:
    """The mean under each window: ``y[n, p, c] = (1 / count[p]) Σ_u x[n, p·stride + u·dilation − low, c]``.

    The sum is taken in at least float32, whatever x is.

    Args:
        x, window, stride, padding, dilation, ceil_mode: as in :func:`max_pool`, but x must be floating.
        count_include_pad: divide by all the taps, padding too; by default only by those that see a real pixel, so
            that a constant image stays constant up to its border.

    Raises:
        InputError: as :func:`max_pool`.
        DtypeError: x holds integers.

    Lecture rows 000-12, 002-29.

    >>> avg_pool(jnp.array([1., 2., 5., 4.])[None, :, None], 2)[0, :, 0]
    Array([1.5, 4.5], dtype=float32)
    """
    x = jnp.asarray(x)
    checks.floating("avg_pool", x=x)
    slide = _lay("avg_pool", x, Window(window, _or(stride, window), padding, dilation), ceil_mode)
    count = _count(slide, x.shape[1:-1], count_include_pad)[None, ..., None]
    total = jnp.zeros((), checks.accumulator(x))
    for _, pixels in taps(_pad(x, slide, 0), slide):
        total += pixels.astype(total.dtype)
    return (total / jnp.asarray(count, total.dtype)).astype(x.dtype)


def global_avg_pool(x: Float[Array, "n *spatial c"]) -> Float[Array, "n c"]:
    """The mean of each feature map, whatever its size: ``y[n, c] = mean_p x[n, p, c]``. Lecture row 003-19.

    >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[3., 4.]], dtype=float32)
    """
    x = jnp.asarray(x)
    checks.floating("global_avg_pool", x=x)
    return jnp.mean(x, axis=_spatial("global_avg_pool", x))


def global_max_pool(x: Num[Array, "n *spatial c"]) -> Num[Array, "n c"]:
    """The largest value of each feature map: ``y[n, c] = max_p x[n, p, c]``. Ties share the gradient equally.

    >>> global_max_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
    Array([[6., 7.]], dtype=float32)
    """
    x = jnp.asarray(x)
    return jnp.max(x, axis=_spatial("global_max_pool", x))


def _or(stride: Sizes | None, window: Sizes) -> Sizes:
    return window if stride is None else stride


def _spatial(op: str, x: jax.Array) -> tuple[int, ...]:
    if x.ndim < 3 or 0 in x.shape[1:]:
        raise InputError(f"{op}: x {x.shape} should be (N, *spatial, C) with at least one pixel")
    return tuple(range(1, x.ndim - 1))


def _lay(op: str, x: jax.Array, window: Window, ceil_mode: bool) -> ResolvedWindow:
    _spatial(op, x)
    try:
        slide = resolve(window, x.shape[1:-1], ceil_mode=ceil_mode)
    except InputError as error:
        raise InputError(f"{op}: {error}") from None
    if _count(slide, x.shape[1:-1], include_pad=False).min() == 0:
        raise InputError(f"{op}: padding {slide.padding} is so wide that a window {slide.size} sees nothing else")
    return slide


def _count(slide: ResolvedWindow, size: tuple[int, ...], include_pad: bool) -> np.ndarray:
    """How many taps of each window see a real pixel (or padding too, but never what hangs over the end)."""
    counts = np.ones((), int)
    for pixels, n, (low, high) in zip(tap_pixels(slide), size, slide.padding, strict=True):
        first, end = (-low, n + high) if include_pad else (0, n)
        counts = np.multiply.outer(counts, ((pixels >= first) & (pixels < end)).sum(axis=1))
    return counts


def _pad(x: jax.Array, slide: ResolvedWindow, value: float) -> jax.Array:
    """Pad as asked, and on the high side as far as the last window reaches."""
    reach = [int(pixels.max()) + 1 for pixels in tap_pixels(slide)]
    sizes = zip(x.shape[1:-1], slide.padding, reach, strict=True)
    widths = [(low, max(high, end - n)) for n, (low, high), end in sizes]
    return jnp.pad(x, ((0, 0), *widths, (0, 0)), constant_values=value)
