"""Normalization layers: a learned scale and bias per channel; ``BatchNorm`` has running statistics as well."""

import functools

import jax
import jax.numpy as jnp

from jaxconv import ops
from jaxconv.layers.base import Layer, Shape, Tree, check_entries, makes_layer, stateless
from jaxconv.layers.facts import POINTWISE
from jaxconv.layers.initializers import scale_and_bias
from jaxconv.ops.normalization import batch_norm_with_statistics


@makes_layer
def BatchNorm(*, momentum: float = 0.9, eps: float = 1e-5, use_scale: bool = True, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.batch_norm` with batch statistics in training and running statistics at inference.

    In training ``running ← momentum · running + (1 − momentum) · batch``, with the biased variance of the batch.

    Args:
        momentum: weight of the previous running value; 0.9 equals PyTorch's ``momentum=0.1``.
        eps: constant added to the variance; it keeps a constant channel finite.
        use_scale: learn a scale; set it to False before a convolution, whose kernel scales the channels anyway.

    >>> params, state = BatchNorm().init(jax.random.key(0), (8, 8, 4))
    >>> sorted(params), sorted(state)
    (['bias', 'scale'], ['mean', 'var'])
    """
    names = ("scale", "bias") if use_scale else ("bias",)

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, _ = scale_and_bias(key, input_shape)
        channels = input_shape[-1:]
        return {name: params[name] for name in names}, {
            "mean": jnp.zeros(channels, jnp.float32),
            "var": jnp.ones(channels, jnp.float32),
        }

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_entries("params", params, names)
        check_entries("state", state, ("mean", "var"))
        if not use_scale:
            params = {"scale": jnp.ones_like(params["bias"]), **params}
        if not train:
            return ops.batch_norm(x, **params, **state, eps=eps), state
        y, mean, var = batch_norm_with_statistics(x, **params, mask=mask, eps=eps)
        batch = {"mean": mean, "var": var}
        running = jax.tree.map(
            lambda running, batch: momentum * running + (1 - momentum) * batch.astype(running.dtype), state, batch
        )
        return y, running

    return Layer("bn", init, apply, name=name, facts=POINTWISE._replace(has_state=True))


@makes_layer
def LayerNorm(*, eps: float = 1e-5, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.layer_norm` with a learned scale and bias.

    >>> params, _ = LayerNorm().init(jax.random.key(0), (8, 8, 4))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (4,), 'scale': (4,)}
    """
    op = functools.partial(ops.layer_norm, eps=eps)
    return stateless("ln", op, scale_and_bias, ("scale", "bias"), name=name, facts=POINTWISE)


@makes_layer
def GroupNorm(num_groups: int, *, eps: float = 1e-5, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.group_norm` with a learned scale and bias.

    Args:
        num_groups: number of groups of equal size that the channels are split into; 32 in the paper.
        eps: constant added to the variance; it keeps a constant group finite.

    >>> layer = GroupNorm(2)
    >>> params, state = layer.init(jax.random.key(0), (4,))
    >>> layer.apply(params, state, jnp.array([[1., 3., 5., 5.]]))[0]
    Array([[-0.999995,  0.999995,  0.      ,  0.      ]], dtype=float32)
    """
    op = functools.partial(ops.group_norm, num_groups=num_groups, eps=eps)
    facts = POINTWISE._replace(keeps_positions=False)
    return stateless("gn", op, scale_and_bias, ("scale", "bias"), name=name, facts=facts)


@makes_layer
def InstanceNorm(*, eps: float = 1e-5, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.instance_norm` with a learned scale and bias.

    >>> params, _ = InstanceNorm().init(jax.random.key(0), (8, 8, 4))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (4,), 'scale': (4,)}
    """
    op, facts = functools.partial(ops.instance_norm, eps=eps), POINTWISE._replace(keeps_positions=False)
    return stateless("in", op, scale_and_bias, ("scale", "bias"), name=name, facts=facts)


@makes_layer
def RMSNorm(*, eps: float = 1e-6, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.rms_norm` with a learned scale; there is no bias.

    >>> params, _ = RMSNorm().init(jax.random.key(0), (8, 8, 4))
    >>> jax.tree.map(jnp.shape, params)
    {'scale': (4,)}
    """

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        return {"scale": jnp.ones(input_shape[-1:], jnp.float32)}, {}

    return stateless("rms", functools.partial(ops.rms_norm, eps=eps), init, ("scale",), name=name, facts=POINTWISE)
