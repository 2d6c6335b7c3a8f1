"""Normalization: subtract a mean, divide by a deviation, scale and shift. The ops differ in the axes of the average.

    batch_norm           each channel over the batch and all pixels
    layer_norm           each pixel over its channels
    group_norm           each group of channels of an example, over its pixels and channels
    instance_norm        each channel of an example over its pixels
    rms_norm             as layer_norm, without subtracting the mean
    local_response_norm  each channel over its neighboring channels (AlexNet)

All but batch_norm treat examples independently and are the same in training and at inference. For batch_norm the
statistics are an argument, so there is no train or eval mode. Everything is computed in at least float32, and the
statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean is large. A constant input
gives 0 (:mod:`jaxconv.ops.standardization`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.numerics import broadcast_per_channel
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.standardization import channel_mean, d_variance, standardize


@named_errors
def layer_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    eps: float | Array = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalize each pixel over its channels: ``y[n, p] = (x[n, p] − mean) / √(var + eps) · scale + bias``.

    This is the layer norm of Flax and ConvNeXt. That of the paper, over a whole example, is
    ``group_norm(x, num_groups=1)``.

    Args:
        x: ``(N, *spatial, C)`` or ``(N, C)``.
        scale, bias: learned vectors ``(C,)``; default 1 and 0.
        eps: added to the variance, which keeps a constant pixel finite.

    Raises:
        InputError: if x has one channel, or scale or bias is not ``(C,)``.
        DtypeError: if x holds integers.

    Source: Ba, Kiros & Hinton, 2016, https://arxiv.org/abs/1607.06450.

    >>> layer_norm(jnp.array([[1., 3.]]))
    Array([[-0.999995,  0.999995]], dtype=float32)
    """
    x = as_float_batch(x)
    check_sample_size(x, x.shape[-1], "channel")
    y = subtract_mean_and_scale(numerics.upcast(x), (x.ndim - 1,), eps)
    return scale_and_shift(y, scale, bias).astype(x.dtype)


@named_errors
def group_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    num_groups: int,
    eps: float | Array = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalize each group of channels of an example over its pixels and channels.

        y[n, p, c] = (x[n, p, c] − mean[n, g]) / √(var[n, g] + eps) · scale[c] + bias[c],   g = c // (C // groups)

    With ``num_groups=1`` it is the layer norm of that paper, with ``num_groups=C`` the instance norm.

    Args:
        x: ``(N, *spatial, C)`` or ``(N, C)``.
        scale, bias: learned vectors ``(C,)``; default 1 and 0.
        num_groups: number of groups of equal size, each of consecutive channels.
        eps: added to the variance, which keeps a constant group finite.

    Raises:
        InputError: if ``num_groups`` does not divide C, a group has one value, or scale or bias is not ``(C,)``.
        DtypeError: if x holds integers.

    Source: Wu & He, 2018, https://arxiv.org/abs/1803.08494.

    >>> group_norm(jnp.array([[1., 3., 5., 5.]]), num_groups=2)
    Array([[-0.999995,  0.999995,  0.      ,  0.      ]], dtype=float32)
    """
    x = as_float_batch(x)
    checks.groups_divide(num_groups, x.shape[-1], f"channels of x {x.shape}", name="num_groups")
    check_sample_size(x, math.prod(x.shape[1:]) // num_groups, "value")
    grouped = numerics.upcast(x).reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    y = subtract_mean_and_scale(grouped, (*range(1, x.ndim - 1), x.ndim), eps).reshape(x.shape)
    return scale_and_shift(y, scale, bias).astype(x.dtype)


@named_errors
def instance_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    eps: float | Array = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalize each channel of an example over its pixels, which removes contrast and brightness.

        y[n, p, c] = (x[n, p, c] − mean[n, c]) / √(var[n, c] + eps) · scale[c] + bias[c]

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned vectors ``(C,)``; default 1 and 0.
        eps: added to the variance, which keeps a constant channel finite.

    Raises:
        InputError: if x has one pixel, or scale or bias is not ``(C,)``.
        DtypeError: if x holds integers.

    Source: Ulyanov, Vedaldi & Lempitsky, 2016, https://arxiv.org/abs/1607.08022.

    >>> instance_norm(jnp.array([[[1., 0.], [3., 0.]]]))[0, :, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    x = as_float_batch(x)
    check_sample_size(x, math.prod(x.shape[1:-1]), "pixel")
    y = subtract_mean_and_scale(numerics.upcast(x), tuple(range(1, x.ndim - 1)), eps)
    return scale_and_shift(y, scale, bias).astype(x.dtype)


@named_errors
def rms_norm(
    x: Float[Array, "n *spatial c"], scale: Float[Array, " c"] | None = None, *, eps: float | Array = 1e-6
) -> Float[Array, "n *spatial c"]:
    """Divide each pixel by the root mean square of its channels: ``y[n, p] = x[n, p] / √(mean_c x² + eps) · scale``.

    Args:
        x: ``(N, *spatial, C)`` or ``(N, C)``.
        scale: learned vector ``(C,)``; default 1.
        eps: added to the mean square, which keeps a pixel of zeros finite.

    Raises:
        InputError: if scale is not ``(C,)``.
        DtypeError: if x holds integers.

    Source: Zhang & Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    >>> rms_norm(jnp.array([[1., 7.]]), eps=0.)
    Array([[0.2, 1.4]], dtype=float32)
    """
    x = as_float_batch(x)
    y = subtract_mean_and_scale(numerics.upcast(x), (x.ndim - 1,), eps, centered=False)
    return scale_and_shift(y, scale, None).astype(x.dtype)


def as_float_batch(x: Array) -> jax.Array:
    """Convert x to an array; raise an error unless it is floating and has a batch axis."""
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    if x.ndim < 2:
        raise InputError(f"x {x.shape} should be (N, *spatial, C): add the batch axis, x[None]")
    return x


def check_sample_size(x: jax.Array, num_values: Any, unit: str) -> None:
    """Raise InputError for statistics of a single value: the output would be the bias for any x.

    ``num_values`` is an int, or a symbolic size under ``jax.export``.
    """
    if num_values < 2:
        raise InputError(
            f"x {x.shape} has {num_values} {unit} to average over; give at least 2, or the output is the bias alone"
        )


def subtract_mean_and_scale(x: jax.Array, axes: tuple[int, ...], eps: Any, *, centered: bool = True) -> jax.Array:
    """Compute ``(x − mean) / √(var + eps)`` for an upcast x."""
    return standardize(x, checks.constant("eps", eps, x.dtype), None, axes, centered).x_hat


def scale_and_shift(y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """Compute ``y · scale + bias`` for an upcast y, in its dtype."""
    if scale is not None:
        checks.per_channel_shape("scale", scale, y.shape[-1])
        y = y * per_channel(scale, y).astype(y.dtype)
    if bias is not None:
        checks.per_channel_shape("bias", bias, y.shape[-1])
        y = y + per_channel(bias, y).astype(y.dtype)
    return y


def per_channel(array: Array, x: jax.Array) -> jax.Array:
    """Reshape ``(C,)`` to broadcast against x."""
    return jnp.asarray(array).reshape((1,) * (x.ndim - 1) + (-1,))


OutputAndStatistics = tuple[jax.Array, jax.Array, jax.Array]  # the output, mean and variance


@named_errors
def batch_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"] | None = None,
    var: Float[Array, " c"] | None = None,
    *,
    mask: Bool[Array, " n"] | None = None,
    eps: float | Array = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalize each channel to mean ``bias`` and standard deviation ``scale``.

        y = (x − mean) / √(var + eps) · scale + bias

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned vectors ``(C,)``.
        mean, var: statistics ``(C,)``. Default: those of the batch, as in training. For inference pass the running
            statistics that :class:`jaxconv.layers.BatchNorm` maintains.
        mask: True for the examples that enter the batch statistics, as in :func:`batch_statistics`; the other examples
            are replaced by 0.
        eps: added to the variance, which keeps a constant channel finite.

    Raises:
        InputError: if only one of mean and var is given, a mask is given with them, the batch has one value per
            channel, or scale, bias, mean or var is not ``(C,)``.
        DtypeError: if x holds integers.

    Source: Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    >>> x = jnp.array([[1.], [3.]])
    >>> batch_norm(x, scale=jnp.ones(1), bias=jnp.zeros(1))[:, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    if (mean is None) != (var is None):
        raise InputError("give both mean and var, or neither")
    if mean is None or var is None:
        return batch_norm_with_statistics(x, scale, bias, mask=mask, eps=eps)[0]
    x = as_float_batch(x)
    if mask is not None:
        raise InputError("mask cannot be combined with mean and var: leave it out")
    vectors = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    x_upcast, eps_array, (scale, bias, mean, var) = _upcast_all(x, eps, vectors)
    slope = per_channel(lax.rsqrt(var + eps_array) * scale, x)
    return ((x_upcast - per_channel(mean, x)) * slope + per_channel(bias, x)).astype(x.dtype)


@named_errors(name="batch_norm")
def batch_norm_with_statistics(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, mask: jax.Array | None, eps: Any
) -> OutputAndStatistics:
    """:func:`batch_norm` with the statistics of the batch, and these, for :class:`jaxconv.layers.BatchNorm`."""
    x = as_float_batch(x)
    check_sample_size(x, math.prod(x.shape[:-1]), "value")
    x_upcast, eps_array, (scale, bias) = _upcast_all(x, eps, {"scale": scale, "bias": bias})
    x_upcast, valid_mask = _apply_mask(x_upcast, mask)
    masks = () if valid_mask is None else (valid_mask,)
    y, mean, var = over_devices(_normalize_with_batch_statistics, x_upcast, eps_array, scale, bias, *masks, vectors=2)
    return y.astype(x.dtype), mean, var


def _upcast_all(x: jax.Array, eps: Any, vectors: dict[str, Any]) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Upcast x, eps and the vectors of one value per channel."""
    for name, array in vectors.items():
        checks.per_channel_shape(name, array, x.shape[-1])
    x_upcast = numerics.upcast(x)
    eps_array = checks.constant("eps", eps, x_upcast.dtype)
    return x_upcast, eps_array, [jnp.asarray(array).astype(x_upcast.dtype) for array in vectors.values()]


@named_errors
def batch_statistics(
    x: Float[Array, "n *spatial c"], mask: Bool[Array, " n"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the batch and all pixels, in at least float32.

        mean[c] = mean of x[n, p, c],   var[c] = mean of (x[n, p, c] − mean[c])²

    Args:
        x: ``(N, *spatial, C)``.
        mask: True for the examples that enter the statistics. So a partial batch, padded to the common size, has the
            statistics of its real examples.

    Returns:
        Two vectors ``(C,)``. A variance that overflows the dtype, of numbers beyond 1e19 in float32, is infinite.

    Raises:
        InputError: if there is one value per channel, or the mask is not bool ``(N,)`` or is False everywhere.
        DtypeError: if x holds integers.

    >>> mean, var = batch_statistics(jnp.array([[1.], [3.], [99.]]), mask=jnp.array([True, True, False]))
    >>> float(mean[0]), float(var[0])
    (2.0, 1.0)
    """
    x = as_float_batch(x)
    check_sample_size(x, math.prod(x.shape[:-1]), "value")
    x_upcast, valid_mask = _apply_mask(numerics.upcast(x), mask)
    y = standardize(x_upcast, jnp.ones((), x_upcast.dtype), valid_mask)
    return y.mean, y.var


def _apply_mask(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """Zero the masked examples, whose NaN would reach the gradient (0 · NaN is NaN); also return the mask array."""
    if mask is None:
        return x, None
    array = checks.as_array(mask=mask)
    if array.shape != x.shape[:1] or array.dtype != bool:
        raise InputError(f"mask {array.dtype}{array.shape} should be bool({x.shape[0]},), one entry per example")
    if not isinstance(mask, jax.core.Tracer) and not np.asarray(mask).any():
        raise InputError("mask is False for every example, so there is nothing to average")
    return jnp.where(array.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), array


@jax.custom_jvp
def _normalize_with_batch_statistics(
    x: jax.Array, eps: jax.Array, scale: jax.Array, bias: jax.Array, valid_mask: jax.Array | None = None
) -> OutputAndStatistics:
    """Normalize x with its own statistics, and return these too."""
    y = standardize(x, eps, valid_mask)
    return _scaled(y.x_hat, scale, bias), y.mean, y.var


@_normalize_with_batch_statistics.defjvp
def _normalize_with_batch_statistics_jvp(
    primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[OutputAndStatistics, OutputAndStatistics]:
    """Differentiate x̂ = (x − mean) · factor, where mean and factor depend on x and eps:

        dy = slope · dx + x̂ · (dscale − slope · mean(x̂ · dx) − scale · ½ factor² · d_eps) + (dbias − slope · mean(dx))

    with ``slope = scale · factor``. The transpose of this form needs two sums over the batch, which the gradients of
    scale and bias need anyway; the chain rule through mean, variance and root needs four. The tangents of the
    statistics are those of :func:`jaxconv.ops.standardization.standardize`.
    """
    x, eps, scale, bias, valid_mask = primals
    dx, d_eps, d_scale, d_bias, _ = tangents
    y = standardize(x, eps, valid_mask)
    slope = scale * y.factor
    d_mean, mean_x_hat_dx = channel_mean(dx, valid_mask), channel_mean(y.x_hat * dx, valid_mask)
    d_scale = d_scale - slope * mean_x_hat_dx - slope * (y.factor * d_eps) / 2
    d_bias = d_bias - slope * d_mean
    d_y = broadcast_per_channel(slope, x) * dx + _scaled(y.x_hat, d_scale, d_bias)
    return (_scaled(y.x_hat, scale, bias), y.mean, y.var), (d_y, d_mean, d_variance(mean_x_hat_dx, y.factor))


def _scaled(x_hat: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return x_hat * broadcast_per_channel(scale, x_hat) + broadcast_per_channel(bias, x_hat)


MAX_SQUARABLE = 2.0**32  # larger numbers are scaled before they are squared


@named_errors
def local_response_norm(
    x: Float[Array, "n *spatial c"], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Float[Array, "n *spatial c"]:
    """Divide each channel by the activity of its neighboring channels at the same pixel, as in AlexNet.

        y[n, p, c] = x[n, p, c] / (k + alpha · Σ_{|j − c| ≤ size // 2} x[n, p, j]²)^beta

    Formula and constants are those of the paper. PyTorch and Caffe divide alpha by ``size``: there, ``alpha=5e-4``
    corresponds to 1e-4 here.

    Args:
        x: ``(N, *spatial, C)``; the sum is truncated at the first and the last channel.
        size: number of channels in the sum, including the channel itself; an even size acts as ``size + 1``.
        alpha, beta: factor and exponent of the normalization.
        k: offset, greater than 0, or a pixel of zeros would be divided by zero.

    Raises:
        InputError: if ``size < 1`` or ``k <= 0``.
        DtypeError: if x holds integers.

    Source: Krizhevsky, Sutskever & Hinton, 2012, section 3.3.

    >>> local_response_norm(jnp.array([[1., 2., 0., 4.]]), size=3, alpha=1., beta=1., k=1.)
    Array([[0.16666667, 0.33333334, 0.        , 0.23529412]], dtype=float32)
    """
    x = as_float_batch(x)
    checks.at_least(1, size=size)
    checks.real("alpha", alpha)
    checks.real("beta", beta)
    checks.real("k", k, above=0)
    x_upcast, channels = numerics.upcast(x), x.shape[-1]
    radius = min(size // 2, channels - 1)
    padded = jnp.pad(x_upcast, [(0, 0)] * (x.ndim - 1) + [(radius, radius)])
    neighbors = [padded[..., shift : shift + channels] for shift in range(2 * radius + 1)]
    # Squares of numbers above 2^64 overflow float32, so scale numerator and denominator by a power of two there.
    largest = functools.reduce(jnp.maximum, map(jnp.abs, neighbors))
    scale = lax.stop_gradient(jnp.where(largest < MAX_SQUARABLE, 1, 1 / _power_of_two(largest)))
    sum_of_squares = sum(jnp.square(neighbor * scale) for neighbor in neighbors)
    denominator = (k * scale * scale + alpha * sum_of_squares) ** beta
    return (x_upcast * scale * scale ** (2 * beta - 1) / denominator).astype(x.dtype)


def _power_of_two(size: jax.Array) -> jax.Array:
    """Power of two near ``size``, limited so that its reciprocal is representable."""
    limits = jnp.finfo(size.dtype)
    return jnp.minimum(lax.reduce_precision(size, limits.nexp, 0), 2.0 ** (limits.maxexp - 2))
