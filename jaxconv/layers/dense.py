"""The fully connected layer."""

import functools

import jax

from jaxconv import ops
from jaxconv.errors import InputError
from jaxconv.layers.base import Layer, Shape, Tree, stateless
from jaxconv.layers.factory import makes_layer
from jaxconv.layers.initializers import HE_NORMAL, Initializer, kernel_and_bias, kernel_names


@makes_layer
def Dense(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = HE_NORMAL,
    precision: jax.lax.PrecisionLike = None,
    name: str | None = None,
) -> Layer:
    """:func:`jaxconv.ops.dense` with a kernel from all inputs to ``features`` outputs.

    >>> params, _ = Dense(64).init(jax.random.key(0), (576,))
    >>> sum(p.size for p in params.values())                             # lecture row 004-19
    36928
    """

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        if len(in_shape) != 1:
            raise InputError(
                f"Dense: in_shape {in_shape} should be one row of values, without the batch axis: put flatten before it"
            )
        return kernel_and_bias("Dense", kernel_init, key, (*in_shape, features), use_bias), {}

    op = functools.partial(ops.dense, precision=precision)
    return stateless("dense", op, init, kernel_names(use_bias), name=name)
