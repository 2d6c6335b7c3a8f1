"""Normalization: subtract a mean, divide by a deviation, scale and shift. The ops differ in what they average over.

    batch_norm           each channel over the batch and every pixel
    layer_norm           each pixel over its channels
    group_norm           each group of channels of an example, over its pixels and channels
    instance_norm        each channel of an example over its pixels
    rms_norm             as layer_norm, but nothing is subtracted
    local_response_norm  each channel over its neighbouring channels (AlexNet)

All but batch_norm see one example at a time and are the same in training and at inference. The statistics of a batch
and their use are two functions, so that nothing depends on a hidden mode. Everything is computed in at least float32,
the statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean is large. A constant
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
from jaxconv.ops.numerics import spread
from jaxconv.ops.sharding import over_devices
from jaxconv.ops.standardization import channel_mean, d_variance, standardize


@named_errors
def layer_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalise every pixel over its channels: ``y[n, p] = (x[n, p] − mean) / √(var + eps) · scale + bias``.

    This is Flax's and ConvNeXt's. The paper's, over all of an example, is ``group_norm(x, groups=1)``.

    Args:
        x: ``(N, *spatial, C)``, or rows of values ``(N, C)``.
        scale, bias: learned, one a channel; left out, 1 and 0.
        eps: keeps a constant pixel finite.

    Raises:
        InputError: a single channel, which is its own mean; a scale or bias of another size.
        DtypeError: x holds integers.

    Source: Ba, Kiros & Hinton, 2016, https://arxiv.org/abs/1607.06450.

    >>> layer_norm(jnp.array([[1., 3.]]))
    Array([[-0.999995,  0.999995]], dtype=float32)
    """
    x = batched(x)
    several(x, x.shape[-1], "channel")
    y = standardized(numerics.upcast(x), (x.ndim - 1,), eps)
    return learned(y, scale, bias).astype(x.dtype)


@named_errors
def group_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    num_groups: int,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalise every group of channels of an example over its pixels and channels.

        y[n, p, c] = (x[n, p, c] − mean[n, g]) / √(var[n, g] + eps) · scale[c] + bias[c],   g = c // (C // groups)

    With ``num_groups=1`` it is the layer norm of that paper, with ``num_groups=C`` the instance norm.

    Args:
        x: ``(N, *spatial, C)``, or rows of values ``(N, C)``.
        scale, bias: learned, one a channel; left out, 1 and 0.
        num_groups: into how many equal shares the channels are split, first ones first.
        eps: keeps a constant group finite.

    Raises:
        InputError: groups that do not divide C, a group of a single value, a scale or bias of another size.
        DtypeError: x holds integers.

    Source: Wu & He, 2018, https://arxiv.org/abs/1803.08494.

    >>> group_norm(jnp.array([[1., 3., 5., 5.]]), num_groups=2)
    Array([[-0.999995,  0.999995,  0.      ,  0.      ]], dtype=float32)
    """
    x = batched(x)
    checks.groups_divide(num_groups, x.shape[-1], f"channels of x {x.shape}", name="num_groups")
    several(x, math.prod(x.shape[1:]) // num_groups, "value")
    grouped = numerics.upcast(x).reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    y = standardized(grouped, (*range(1, x.ndim - 1), x.ndim), eps).reshape(x.shape)
    return learned(y, scale, bias).astype(x.dtype)


@named_errors
def instance_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalise every channel of an example over its pixels: its contrast and brightness are gone.

        y[n, p, c] = (x[n, p, c] − mean[n, c]) / √(var[n, c] + eps) · scale[c] + bias[c]

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned, one a channel; left out, 1 and 0.
        eps: keeps a constant channel finite.

    Raises:
        InputError: a single pixel, which is its own mean; a scale or bias of another size.
        DtypeError: x holds integers.

    Source: Ulyanov, Vedaldi & Lempitsky, 2016, https://arxiv.org/abs/1607.08022.

    >>> instance_norm(jnp.array([[[1., 0.], [3., 0.]]]))[0, :, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    x = batched(x)
    several(x, math.prod(x.shape[1:-1]), "pixel")
    y = standardized(numerics.upcast(x), tuple(range(1, x.ndim - 1)), eps)
    return learned(y, scale, bias).astype(x.dtype)


@named_errors
def rms_norm(
    x: Float[Array, "n *spatial c"], scale: Float[Array, " c"] | None = None, *, eps: float = 1e-6
) -> Float[Array, "n *spatial c"]:
    """Divide every pixel by the root mean square of its channels: ``y[n, p] = x[n, p] / √(mean_c x² + eps) · scale``.

    Args:
        x: ``(N, *spatial, C)``, or rows of values ``(N, C)``.
        scale: learned, one a channel; left out, 1.
        eps: keeps a pixel of zeros finite.

    Raises:
        InputError: a scale of another size.
        DtypeError: x holds integers.

    Source: Zhang & Sennrich, 2019, https://arxiv.org/abs/1910.07467.

    >>> rms_norm(jnp.array([[1., 7.]]), eps=0.)
    Array([[0.2, 1.4]], dtype=float32)
    """
    x = batched(x)
    y = standardized(numerics.upcast(x), (x.ndim - 1,), eps, centred=False)
    return learned(y, scale, None).astype(x.dtype)


def batched(x: Array) -> jax.Array:
    """x as an array of floats with a batch axis."""
    x = checks.as_array(x=x)
    checks.floating_dtype(x=x)
    if x.ndim < 2:
        raise InputError(f"x {x.shape} should be (N, *spatial, C): add the batch axis, x[None]")
    return x


def several(x: jax.Array, count: int, what: str) -> None:
    """Refuse statistics of a single value: less its own mean it is 0, whatever it was."""
    if count < 2:
        raise InputError(
            f"of x {x.shape} each mean is over {count} {what}; of fewer than 2 nothing but the bias would be left"
        )


def standardized(x: jax.Array, axes: tuple[int, ...], eps: Any, *, centred: bool = True) -> jax.Array:
    """``(x − mean) / √(var + eps)``, of x that is widened."""
    return standardize(x, checks.constant("eps", eps, x.dtype), None, axes, centred).normal


def learned(y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """``y · scale + bias``, in y's dtype, which is widened."""
    if scale is not None:
        checks.per_channel_shape("scale", scale, y.shape[-1])
        y = y * row(scale, y).astype(y.dtype)
    if bias is not None:
        checks.per_channel_shape("bias", bias, y.shape[-1])
        y = y + row(bias, y).astype(y.dtype)
    return y


def row(array: Array, x: jax.Array) -> jax.Array:
    """One entry a channel, in as many axes as x."""
    return jnp.asarray(array).reshape((1,) * (x.ndim - 1) + (-1,))


Normalised = tuple[jax.Array, jax.Array, jax.Array]  # the output, mean and variance


@named_errors
def batch_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"],
    bias: Float[Array, " c"],
    mean: Float[Array, " c"] | None = None,
    var: Float[Array, " c"] | None = None,
    *,
    mask: Bool[Array, " n"] | None = None,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Shift and scale each channel to mean ``bias`` and deviation ``scale``.

        y = (x − mean) / √(var + eps) · scale + bias

    Args:
        x: ``(N, *spatial, C)``.
        scale, bias: learned, one a channel.
        mean, var: the statistics to normalise with. Left out, they are this batch's own (as in training); for
            inference give the running ones, of which :class:`jaxconv.layers.BatchNorm` keeps account.
        mask: True for the examples that count in the batch's own statistics, as in :func:`batch_statistics`; the
            others come out as if they had been 0.
        eps: keeps a constant channel finite.

    Raises:
        InputError: mean without var, a mask with both, a single value a channel where the statistics are to be its
            own, a scale, bias, mean or var of another size.
        DtypeError: x holds integers.

    Source: Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167.

    >>> x = jnp.array([[1.], [3.]])
    >>> batch_norm(x, scale=jnp.ones(1), bias=jnp.zeros(1))[:, 0]
    Array([-0.999995,  0.999995], dtype=float32)
    """
    if (mean is None) != (var is None):
        raise InputError("give both mean and var, or neither")
    if mean is None or var is None:
        return batch_norm_with_statistics(x, scale, bias, mask=mask, eps=eps)[0]
    x = batched(x)
    if mask is not None:
        raise InputError("mask means nothing where mean and var are given: leave it out")
    vectors = {"scale": scale, "bias": bias, "mean": mean, "var": var}
    wide, small, (scale, bias, mean, var) = _widened(x, eps, vectors)
    return ((wide - row(mean, x)) * row(lax.rsqrt(var + small) * scale, x) + row(bias, x)).astype(x.dtype)


@named_errors(name="batch_norm")
def batch_norm_with_statistics(
    x: jax.Array, scale: jax.Array, bias: jax.Array, *, mask: jax.Array | None, eps: Any
) -> Normalised:
    """:func:`batch_norm` by the batch's own statistics, and these: what :class:`jaxconv.layers.BatchNorm` needs."""
    x = batched(x)
    several(x, math.prod(x.shape[:-1]), "value")
    wide, small, (scale, bias) = _widened(x, eps, {"scale": scale, "bias": bias})
    wide, counted = _counted(wide, mask)
    marks = () if counted is None else (counted,)
    y, mean, var = over_devices(_by_its_own, wide, small, scale, bias, *marks, vectors=2)
    return y.astype(x.dtype), mean, var


def _widened(x: jax.Array, eps: Any, vectors: dict[str, Any]) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """Everything in the dtype to compute in."""
    for name, array in vectors.items():
        checks.per_channel_shape(name, array, x.shape[-1])
    wide = numerics.upcast(x)
    small = checks.constant("eps", eps, wide.dtype)
    return wide, small, [jnp.asarray(array).astype(wide.dtype) for array in vectors.values()]


@named_errors
def batch_statistics(
    x: Float[Array, "n *spatial c"], mask: Bool[Array, " n"] | None = None
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and variance of each channel over the batch and every pixel, in at least float32.

        mean[c] = mean of x[n, p, c],   var[c] = mean of (x[n, p, c] − mean[c])²

    Args:
        x: ``(N, *spatial, C)``.
        mask: True for the examples that count. A short batch is padded to the common size and its padding masked,
            and then has the statistics that it would have alone.

    Returns:
        One number a channel in each. A variance beyond the dtype, of numbers beyond 1e19 in float32, is infinite.

    Raises:
        InputError: a single value a channel, which is its own mean; a mask that is not one bool an example, or that is
            False for all of them.
        DtypeError: x holds integers.

    >>> mean, var = batch_statistics(jnp.array([[1.], [3.], [99.]]), mask=jnp.array([True, True, False]))
    >>> float(mean[0]), float(var[0])
    (2.0, 1.0)
    """
    x = batched(x)
    several(x, math.prod(x.shape[:-1]), "value")
    wide, counted = _counted(numerics.upcast(x), mask)
    y = standardize(wide, jnp.ones((), wide.dtype), counted)
    return y.mean, y.var


def _counted(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """x without what does not count, for a NaN there would reach the gradient (0 · NaN is NaN); and where it counts."""
    if mask is None:
        return x, None
    array = checks.as_array(mask=mask)
    if array.shape != x.shape[:1] or array.dtype != bool:
        raise InputError(f"mask {array.dtype}{array.shape} should be bool({x.shape[0]},), one entry an example")
    if not isinstance(mask, jax.core.Tracer) and not np.asarray(mask).any():
        raise InputError("mask is False for every example, so there is nothing to take a mean over")
    return jnp.where(array.reshape((-1,) + (1,) * (x.ndim - 1)), x, 0), array


@jax.custom_jvp
def _by_its_own(
    x: jax.Array, eps: jax.Array, scale: jax.Array, bias: jax.Array, counted: jax.Array | None = None
) -> Normalised:
    """x normalised with its own statistics, and these."""
    y = standardize(x, eps, counted)
    return _scaled(y.normal, scale, bias), y.mean, y.var


@_by_its_own.defjvp
def _by_its_own_jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Normalised, Normalised]:
    """With x̂ = (x − mean) · factor, and since mean and factor move with x and eps:

        dy = slope · dx + x̂ · (dscale − slope · mean(x̂ · dx) − scale · ½ factor² · d_eps) + (dbias − slope · mean(dx))

    with ``slope = scale · factor``. Written so, its transpose takes two sums over the batch, those that scale and bias
    need anyway. The chain rule through mean, variance and root takes twice as many. The statistics move as for
    :func:`jaxconv.ops.standardization.standardize`.
    """
    x, eps, scale, bias, counted = primals
    dx, d_eps, d_scale, d_bias, _ = tangents
    y = standardize(x, eps, counted)
    slope, d_mean, along = scale * y.factor, channel_mean(dx, counted), channel_mean(y.normal * dx, counted)
    d_scale = d_scale - slope * along - slope * (y.factor * d_eps) / 2
    d_bias = d_bias - slope * d_mean
    d_y = spread(slope, x) * dx + _scaled(y.normal, d_scale, d_bias)
    return (_scaled(y.normal, scale, bias), y.mean, y.var), (d_y, d_mean, d_variance(along, y.factor))


def _scaled(normal: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return normal * spread(scale, normal) + spread(bias, normal)


REACH = 2.0**32  # a number up to it can be squared as it is


@named_errors
def local_response_norm(
    x: Float[Array, "n *spatial c"], *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Float[Array, "n *spatial c"]:
    """Divide every channel by what its neighbours say at the same pixel, as AlexNet does.

        y[n, p, c] = x[n, p, c] / (k + alpha · Σ_{|j − c| ≤ size // 2} x[n, p, j]²)^beta

    The formula and the constants are the paper's. PyTorch and Caffe divide alpha by ``size``: there write
    ``alpha=5e-4`` for this 1e-4.

    Args:
        x: ``(N, *spatial, C)``; the sum stops at the first and the last channel.
        size: how many channels the sum sees, itself included; an even one sees as many as the next.
        alpha, beta: how strongly, and how steeply.
        k: above 0, or a pixel of zeros is divided by zero.

    Raises:
        InputError: a size below 1, a k that is not above 0.
        DtypeError: x holds integers.

    Source: Krizhevsky, Sutskever & Hinton, 2012, section 3.3.

    >>> local_response_norm(jnp.array([[1., 2., 0., 4.]]), size=3, alpha=1., beta=1., k=1.)
    Array([[0.16666667, 0.33333334, 0.        , 0.23529412]], dtype=float32)
    """
    x = batched(x)
    checks.at_least(1, size=size)
    checks.real("alpha", alpha)
    checks.real("beta", beta)
    checks.real("k", k, above=0)
    wide, channels = numerics.upcast(x), x.shape[-1]
    reach = min(size // 2, channels - 1)
    padded = jnp.pad(wide, [(0, 0)] * (x.ndim - 1) + [(reach, reach)])
    neighbours = [padded[..., shift : shift + channels] for shift in range(2 * reach + 1)]
    # The square of a number beyond 2^64 is beyond float32. There both it and its divisor are scaled by a power of two.
    largest = functools.reduce(jnp.maximum, map(jnp.abs, neighbours))
    small = lax.stop_gradient(jnp.where(largest < REACH, 1, 1 / _power_of_two(largest)))
    total = sum(jnp.square(neighbour * small) for neighbour in neighbours)
    return (wide * small * small ** (2 * beta - 1) / (k * small * small + alpha * total) ** beta).astype(x.dtype)


def _power_of_two(size: jax.Array) -> jax.Array:
    """A power of two of about that size, whose reciprocal is a number too."""
    limits = jnp.finfo(size.dtype)
    return jnp.minimum(lax.reduce_precision(size, limits.nexp, 0), 2.0 ** (limits.maxexp - 2))
