"""Back through a pooling: "upsample" dy to the size of x, each number to the pixels that made its output.

What differs is the share of each pixel: all or nothing for max, even for the mean, by size for the L^p norm.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import named_errors
from jaxconv.ops import numerics
from jaxconv.ops import pooling as forward
from jaxconv.ops.pooling import global_avg_pool as forward_global
from jaxconv.ops.sliding_window import pad, put, taps
from jaxconv.shapes import IntOrInts, Padding, ResolvedWindow, Window, resolve_window


@named_errors(name="backward.max_pool")
def max_pool(
    x: Float[Array, "n *spatial c"],
    dy: Float[Array, "n *out c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    ties: str = "first",
) -> Float[Array, "n *spatial c"]:
    """dy goes to the pixel that won, and to no other: ``dx[q] = Σ over the windows that q won of dy[p]``.

    Args:
        x: what went in.
        dy: the loss's gradient by the pooled image, of its shape.
        window_shape, stride, padding, dilation, ceil_mode, ties: as they were in :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: dy has not the shape of the op's output, or whatever the op itself would refuse.

    Lecture rows 001-24, 001-25.

    >>> x = jnp.array([[1., 2., 5., 3.], [4., 0., 1., 5.]])[None, :, :, None]
    >>> max_pool(x, jnp.array([[10., 20.]])[None, :, :, None], 2)[0, :, :, 0]
    Array([[ 0.,  0., 20.,  0.],
           [10.,  0.,  0.,  0.]], dtype=float32)
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "ties": ties,
    }
    x, dy, slide = _lay("max_pool", x, dy, window_shape, **options)
    y = forward.max_pool(x, window_shape, **options)
    wide = numerics.upcast(dy)
    slices = (pixels for _, pixels in taps(pad(x, slide, -jnp.inf), slide))
    winners = [
        ((pixels == y) | jnp.isnan(pixels)) & real
        for pixels, real in zip(slices, forward.inside(slide, x), strict=True)
    ]
    if ties == "first":
        taken = [jnp.zeros_like(winners[0])]
        for won in winners:
            taken.append(taken[-1] | won)
        shares = [(won & ~before).astype(wide.dtype) for won, before in zip(winners, taken[:-1], strict=True)]
    else:
        shares = [won.astype(wide.dtype) for won in winners]
        shares = [share / sum(shares) for share in shares]
    return _upsample([share * wide for share in shares], slide, x)


@named_errors(name="backward.avg_pool")
def avg_pool(
    x: Float[Array, "n *spatial c"],
    dy: Float[Array, "n *out c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Float[Array, "n *spatial c"]:
    """dy is spread evenly over the window: ``dx[q] = Σ over the windows that see q of dy[p] / count[p]``.

    Args and errors as for :func:`max_pool`. Lecture row 001-25, where every share is 1/m.

    >>> avg_pool(jnp.ones((1, 4, 1)), jnp.array([6., 10.])[None, :, None], 2)[0, :, 0]
    Array([3., 3., 5., 5.], dtype=float32)
    """
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    x, dy, slide = _lay("avg_pool", x, dy, window_shape, count_include_pad=count_include_pad, **options)
    counts = forward.counts(slide, x.shape[1:-1], include_pad=count_include_pad)
    wide = numerics.upcast(dy)
    spread = wide / jnp.asarray(counts[None, ..., None], wide.dtype)
    return _upsample([spread] * int(np.prod(slide.size)), slide, x)


@named_errors(name="backward.lp_pool")
def lp_pool(
    x: Float[Array, "n *spatial c"],
    dy: Float[Array, "n *out c"],
    window_shape: IntOrInts,
    *,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    p: float = 2.0,
) -> Float[Array, "n *spatial c"]:
    """dy is shared by how much each pixel had of the norm: ``dx[q] = Σ dy[p] · sign(x[q]) · (|x[q]| / y[p])^(p − 1)``.

    A window of zeros passes nothing back. Args and errors as for :func:`max_pool`. Lecture row 001-25.

    >>> lp_pool(jnp.array([3., -4., 0., 0.])[None, :, None], jnp.array([10., 10.])[None, :, None], 2)[0, :, 0]
    Array([ 6., -8.,  0.,  0.], dtype=float32)
    """
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "p": p,
    }
    x, dy, slide = _lay("lp_pool", x, dy, window_shape, **options)
    wide, wide_dy = numerics.upcast(x), numerics.upcast(dy)
    y = forward.lp_pool(wide, window_shape, **options)
    y = jnp.where(y == 0, 1, y)
    spread = [jnp.sign(v) * (jnp.abs(v) / y) ** (p - 1) * wide_dy for _, v in taps(pad(wide, slide), slide)]
    return _upsample(spread, slide, x)


@named_errors(name="backward.global_avg_pool")
def global_avg_pool(x: Float[Array, "n *spatial c"], dy: Float[Array, "n c"]) -> Float[Array, "n *spatial c"]:
    """Every pixel has the same share: ``dx[n, q, c] = dy[n, c] / pixels``.

    >>> global_avg_pool(jnp.ones((1, 2, 2, 1)), jnp.array([[8.]]))[0, :, :, 0]
    Array([[2., 2.],
           [2., 2.]], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_global, x))
    pixels = int(np.prod(x.shape[1:-1]))
    return jnp.broadcast_to(jnp.expand_dims(dy, range(1, x.ndim - 1)) / pixels, x.shape)


def _lay(
    op: str, x: jax.Array, dy: jax.Array, window: IntOrInts, **options: Any
) -> tuple[jax.Array, jax.Array, ResolvedWindow]:
    """Both arrays, and the window as the forward op lays it, with the op's own errors for what it refuses."""
    x, dy = checks.as_arrays(x=x, dy=dy)
    y = jax.eval_shape(lambda: getattr(forward, op)(x, window, **options))
    checks.cotangent(dy, y)
    slide = Window.for_pooling(window, options["stride"], options["padding"], options["dilation"])
    return x, dy, resolve_window(slide, x.shape[1:-1], ceil_mode=options["ceil_mode"])


def _upsample(shares: list[jax.Array], slide: ResolvedWindow, x: jax.Array) -> jax.Array:
    """Put what each tap hands back where that tap met x, and add up where windows overlap."""
    dx = jnp.zeros((), jnp.result_type(shares[0]))
    for (u, _), share in zip(taps(pad(x, slide), slide), shares, strict=True):
        start = [tap * d - low for tap, d, (low, _) in zip(u, slide.dilation, slide.padding, strict=True)]
        dx += put(share, start, slide.stride, x.shape[1:-1])
    return dx.astype(x.dtype)
