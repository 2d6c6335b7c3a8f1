"""Gradients of pooling: "upsample" dy to the size of x, each value to the pixels of its window.

The ops differ in the weight of each pixel: 1 or 0 for max, equal for the mean, by magnitude for the L^p norm.
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
from jaxconv.ops.sliding_window import pad, scatter_strided, tap_slices
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
    """Pass dy to the maximum of each window: ``dx[q] = Σ dy[p]`` over the windows p with their maximum at q.

    Args:
        x: input of the op.
        dy: gradient of the loss with respect to the pooled image, of its shape.
        window_shape, stride, padding, dilation, ceil_mode, ties: options passed to :func:`jaxconv.ops.max_pool`.

    Raises:
        InputError: if dy does not have the shape of the output, or :func:`jaxconv.ops.max_pool` raises it.

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
    x, dy, window = _validate_and_resolve("max_pool", x, dy, window_shape, **options)
    y = forward.max_pool(x, window_shape, **options)
    dy_upcast = numerics.upcast(dy)
    slices = (pixels for _, pixels in tap_slices(pad(x, window, -jnp.inf), window))
    argmax_masks = [
        ((pixels == y) | jnp.isnan(pixels)) & valid_mask
        for pixels, valid_mask in zip(slices, forward.valid_masks(window, x), strict=True)
    ]
    if ties == "first":
        taken = [jnp.zeros_like(argmax_masks[0])]
        for is_max in argmax_masks:
            taken.append(taken[-1] | is_max)
        masks = [is_max & ~earlier for is_max, earlier in zip(argmax_masks, taken[:-1], strict=True)]
        gradient_weights = [mask.astype(dy_upcast.dtype) for mask in masks]
    else:
        counts = [is_max.astype(dy_upcast.dtype) for is_max in argmax_masks]
        gradient_weights = [count / sum(counts) for count in counts]
    return _upsample([weight * dy_upcast for weight in gradient_weights], window, x)


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
    """Distribute dy evenly over each window: ``dx[q] = Σ dy[p] / count[p]`` over the windows p that contain q.

    Arguments and errors as for :func:`max_pool`. Lecture row 001-25, where every weight is 1/m.

    >>> avg_pool(jnp.ones((1, 4, 1)), jnp.array([6., 10.])[None, :, None], 2)[0, :, 0]
    Array([3., 3., 5., 5.], dtype=float32)
    """
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    x, dy, window = _validate_and_resolve(
        "avg_pool", x, dy, window_shape, count_include_pad=count_include_pad, **options
    )
    counts = forward.window_counts(window, x.shape[1:-1], include_pad=count_include_pad)
    dy_upcast = numerics.upcast(dy)
    gradient = dy_upcast / jnp.asarray(counts[None, ..., None], dy_upcast.dtype)
    return _upsample([gradient] * int(np.prod(window.size)), window, x)


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
    """Multiply dy by the derivative of the norm: ``dx[q] = Σ dy[p] · sign(x[q]) · (|x[q]| / y[p])^(p − 1)``.

    The gradient of a window of zeros is 0. Arguments and errors as for :func:`max_pool`. Lecture row 001-25.

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
    x, dy, window = _validate_and_resolve("lp_pool", x, dy, window_shape, **options)
    x_upcast, dy_upcast = numerics.upcast(x), numerics.upcast(dy)
    y = forward.lp_pool(x_upcast, window_shape, **options)
    y = jnp.where(y == 0, 1, y)
    slices = (pixels for _, pixels in tap_slices(pad(x_upcast, window), window))
    gradients = [jnp.sign(v) * (jnp.abs(v) / y) ** (p - 1) * dy_upcast for v in slices]
    return _upsample(gradients, window, x)


@named_errors(name="backward.global_avg_pool")
def global_avg_pool(x: Float[Array, "n *spatial c"], dy: Float[Array, "n c"]) -> Float[Array, "n *spatial c"]:
    """Distribute dy evenly over each feature map: ``dx[n, q, c] = dy[n, c] / pixels``.

    >>> global_avg_pool(jnp.ones((1, 2, 2, 1)), jnp.array([[8.]]))[0, :, :, 0]
    Array([[2., 2.],
           [2., 2.]], dtype=float32)
    """
    x, dy = checks.as_arrays(x=x, dy=dy)
    checks.cotangent(dy, jax.eval_shape(forward_global, x))
    pixels = int(np.prod(x.shape[1:-1]))
    return jnp.broadcast_to(jnp.expand_dims(dy, range(1, x.ndim - 1)) / pixels, x.shape)


def _validate_and_resolve(
    op: str, x: jax.Array, dy: jax.Array, window_shape: IntOrInts, **options: Any
) -> tuple[jax.Array, jax.Array, ResolvedWindow]:
    """Return the arrays and the resolved window, after the validation of the forward op."""
    x, dy = checks.as_arrays(x=x, dy=dy)
    y = jax.eval_shape(lambda: getattr(forward, op)(x, window_shape, **options))
    checks.cotangent(dy, y)
    window = Window.for_pooling(window_shape, options["stride"], options["padding"], options["dilation"])
    return x, dy, resolve_window(window, x.shape[1:-1], ceil_mode=options["ceil_mode"])


def _upsample(gradients: list[jax.Array], window: ResolvedWindow, x: jax.Array) -> jax.Array:
    """Sum the gradients of all kernel offsets, each placed at the pixels of its slice."""
    dx = jnp.zeros((), jnp.result_type(gradients[0]))
    for (u, _), gradient in zip(tap_slices(pad(x, window), window), gradients, strict=True):
        start = [offset * d - low for offset, d, (low, _) in zip(u, window.dilation, window.padding, strict=True)]
        dx += scatter_strided(gradient, start, window.stride, x.shape[1:-1])
    return dx.astype(x.dtype)
