"""Dropout layers: random in training, the identity at inference."""

from collections.abc import Callable

import jax

from jaxconv import checks, ops
from jaxconv.errors import named_errors
from jaxconv.layers.base import Layer, Tree, makes_layer
from jaxconv.layers.facts import POINTWISE


@makes_layer
@named_errors
def Dropout(rate: float, *, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.dropout` in training, the identity at inference.

    Args:
        rate: fraction of the values that is dropped.

    >>> Dropout(0.5).apply({}, {}, jax.numpy.ones((1, 3)))[0]
    Array([[1., 1., 1.]], dtype=float32)
    """
    checks.dropout_rate(rate)
    return _training_only("dropout", ops.dropout, rate, name)


@makes_layer
@named_errors
def SpatialDropout(rate: float, *, name: str | None = None) -> Layer:
    """:func:`jaxconv.ops.spatial_dropout`, which drops whole channels, in training; the identity at inference.

    Args:
        rate: fraction of the channels that is dropped.

    >>> y, _ = SpatialDropout(0.5).apply({}, {}, jax.numpy.ones((1, 2, 2, 4)), train=True, key=jax.random.key(0))
    >>> set(y.sum(axis=(1, 2))[0].tolist())
    {0.0, 8.0}
    """
    checks.dropout_rate(rate)
    return _training_only("spatial_dropout", ops.spatial_dropout, rate, name)


def _training_only(kind: str, op: Callable[..., jax.Array], rate: float, name: str | None) -> Layer:
    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        return (op(x, key, rate) if train else x), state

    facts = POINTWISE._replace(identity_at_inference=True)
    return Layer(kind, lambda key, input_shape: ({}, {}), apply, name=name, facts=facts)
