"""Normalisation: subtract a mean, divide by a deviation, scale and shift. The ops differ in what they average over.

    batch_norm          each channel over the batch and every pixel (in a file of its own)
    layer_norm          each pixel over its channels
    group_norm          each group of channels of an example, over its pixels and channels
    instance_norm       each channel of an example over its pixels
    rms_norm            as layer_norm, but nothing is subtracted

The four here see one example at a time and are the same in training and after. All of it is computed in at least
float32, and the statistics in two passes: the one-pass form E[x²] − E[x]² loses all its digits when the mean is large.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconv.errors import InputError
from jaxconv.ops import checks


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
    wide = checks.widened(x)
    return normalize("layer_norm", wide, *_moments(wide, (-1,)), scale, bias, eps).astype(x.dtype)


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
    wide = checks.widened(x)
    return normalize("group_norm", wide, *_group_moments(wide, groups), scale, bias, eps).astype(x.dtype)


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
    wide = checks.widened(x)
    moments = _moments(wide, tuple(range(1, x.ndim - 1)))
    return normalize("instance_norm", wide, *moments, scale, bias, eps).astype(x.dtype)


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
    wide = checks.widened(x)
    mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return normalize("rms_norm", wide, None, mean_square, scale, None, eps).astype(x.dtype)


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


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over some axes, which stay as axes of size 1."""
    mean = jnp.mean(x, axis=axes, keepdims=True)
    return mean, jnp.mean(jnp.square(x - mean), axis=axes, keepdims=True)


def _group_moments(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Mean and variance of each group of channels over its pixels and channels, repeated for each of its channels."""
    share = x.shape[-1] // groups
    grouped = x.reshape(*x.shape[:-1], groups, share)
    mean, var = _moments(grouped, (*range(1, x.ndim - 1), x.ndim))
    return jnp.repeat(mean[..., 0], share, axis=-1), jnp.repeat(var[..., 0], share, axis=-1)


def normalize(
    op: str,
    x: jax.Array,
    mean: jax.Array | None,
    var: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    eps: float,
) -> jax.Array:
    """``(x − mean) / √(var + eps) · scale + bias``, in x's dtype, which is widened."""
    checks.number(op, "eps", eps, least=0)
    var = var.astype(x.dtype)
    factor = jax.lax.rsqrt(var + jnp.asarray(eps, x.dtype))
    if scale is not None:
        checks.vector(op, "scale", scale, x.shape[-1])
        factor = factor * row(scale, x).astype(x.dtype)
    y = (x if mean is None else x - mean.astype(x.dtype)) * factor
    if bias is not None:
        checks.vector(op, "bias", bias, x.shape[-1])
        y = y + row(bias, x).astype(x.dtype)
    return y


def row(array: Array, x: jax.Array) -> jax.Array:
    """One entry a channel, in as many axes as x."""
    return jnp.asarray(array).reshape((1,) * (x.ndim - 1) + (-1,))
