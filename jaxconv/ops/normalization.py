"""Normalisation: subtract a mean, divide by a deviation, scale and shift. The ops differ in what they average over.

    batch_norm          each channel over the batch and every pixel (in a file of its own)
    layer_norm          each pixel over its channels
    group_norm          each group of channels of an example, over its pixels and channels
    instance_norm       each channel of an example over its pixels
    rms_norm            as layer_norm, but nothing is subtracted

The four here see one example at a time and are the same in training and after. All of it is computed in at least
float32, and the statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean is large.
A constant comes out as 0, and numbers of any size that the dtype has as what they are: see standardize.py.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.ops.standardization import standardize


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
    x = batched("layer_norm", x)
    several("layer_norm", x, x.shape[-1], "channel")
    y = standardized("layer_norm", checks.widened(x), (x.ndim - 1,), eps)
    return learned("layer_norm", y, scale, bias).astype(x.dtype)


def group_norm(
    x: Float[Array, "n *spatial c"],
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
) -> Float[Array, "n *spatial c"]:
    """Normalise every group of channels of an example over its pixels and channels.

        y[n, p, c] = (x[n, p, c] − mean[n, g]) / √(var[n, g] + eps) · scale[c] + bias[c],   g = c // (C // groups)

    With ``groups=1`` it is the layer norm of that paper, with ``groups=C`` the instance norm.

    Args:
        x: ``(N, *spatial, C)``, or rows of values ``(N, C)``.
        scale, bias: learned, one a channel; left out, 1 and 0.
        groups: into how many equal shares the channels are split, first ones first.
        eps: keeps a constant group finite.

    Raises:
        InputError: groups that do not divide C, a group of a single value, a scale or bias of another size.
        DtypeError: x holds integers.

    Source: Wu & He, 2018, https://arxiv.org/abs/1803.08494.

    >>> group_norm(jnp.array([[1., 3., 5., 5.]]), groups=2)
    Array([[-0.999995,  0.999995,  0.      ,  0.      ]], dtype=float32)
    """
    x = batched("group_norm", x)
    checks.dividing("group_norm", groups, x.shape[-1], f"channels of x {x.shape}")
    several("group_norm", x, math.prod(x.shape[1:]) // groups, "value")
    grouped = checks.widened(x).reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    y = standardized("group_norm", grouped, (*range(1, x.ndim - 1), x.ndim), eps).reshape(x.shape)
    return learned("group_norm", y, scale, bias).astype(x.dtype)


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
    x = batched("instance_norm", x)
    several("instance_norm", x, math.prod(x.shape[1:-1]), "pixel")
    y = standardized("instance_norm", checks.widened(x), tuple(range(1, x.ndim - 1)), eps)
    return learned("instance_norm", y, scale, bias).astype(x.dtype)


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
    x = batched("rms_norm", x)
    y = standardized("rms_norm", checks.widened(x), (x.ndim - 1,), eps, centred=False)
    return learned("rms_norm", y, scale, None).astype(x.dtype)


def batched(op: str, x: Array) -> jax.Array:
    """x as an array of floats with a batch axis."""
    x = checks.array(op, "x", x)
    checks.floating(op, x=x)
    if x.ndim < 2:
        raise InputError(f"{op}: x {x.shape} should be (N, *spatial, C): add the batch axis, x[None]")
    return x


def several(op: str, x: jax.Array, count: int, what: str) -> None:
    """Refuse statistics of a single value: less its own mean it is 0, whatever it was."""
    if count < 2:
        raise InputError(
            f"{op}: of x {x.shape} each mean is over {count} {what}; of fewer than 2 nothing but the bias would be left"
        )


def standardized(op: str, x: jax.Array, axes: tuple[int, ...], eps: Any, *, centred: bool = True) -> jax.Array:
    """``(x − mean) / √(var + eps)``, of x that is widened."""
    return standardize(x, checks.constant(op, "eps", eps, x.dtype), None, axes, centred).normal


def learned(op: str, y: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """``y · scale + bias``, in y's dtype, which is widened."""
    if scale is not None:
        checks.vector(op, "scale", scale, y.shape[-1])
        y = y * row(scale, y).astype(y.dtype)
    if bias is not None:
        checks.vector(op, "bias", bias, y.shape[-1])
        y = y + row(bias, y).astype(y.dtype)
    return y


def row(array: Array, x: jax.Array) -> jax.Array:
    """One entry a channel, in as many axes as x."""
    return jnp.asarray(array).reshape((1,) * (x.ndim - 1) + (-1,))
