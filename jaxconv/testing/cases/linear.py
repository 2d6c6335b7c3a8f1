"""Cases of linear operations (convolution, dense), of activations and of the loss."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks, ops
from jaxconv.errors import error_context
from jaxconv.ops import backward
from jaxconv.ops.convolution.transposed import TRANSPOSE_LOWERINGS
from jaxconv.shapes import canonicalize_sizes
from jaxconv.testing.cases.base import (
    OpCase,
    OpCaseOptions,
    OpCaseSpec,
    random_parameters,
    random_x,
    unary_case,
    with_custom_gradient,
)


def _convolution(asked: OpCaseOptions, lowerings: Sequence[str], **options: Any) -> OpCase:
    with error_context(asked.op):
        channels = checks.channels_per_group(asked.input_shape, asked.groups)
        window = canonicalize_sizes(asked.kernel_size, len(asked.input_shape) - 2, "kernel_size")
    args = (random_x(asked), *random_parameters(asked, (*window, channels, asked.features), (asked.features,)))
    options |= {
        "stride": 1 if asked.stride is None else asked.stride,
        "padding": asked.padding,
        "dilation": asked.dilation,
        "groups": asked.groups,
    }
    op, gradient = getattr(ops, asked.op), getattr(backward, asked.op)
    functions: dict[str, Callable[..., jax.Array]] = {
        impl: partial(op, impl=impl, precision="highest", **options) for impl in lowerings
    }

    def by_hand(x: jax.Array, kernel: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
        return gradient(x, kernel, dy, **options)

    functions["manual"] = with_custom_gradient(functions["explicit"], by_hand)
    return OpCase(functions, args, ("x", "kernel", "bias"))


def _conv(asked: OpCaseOptions) -> OpCase:
    return _convolution(asked, [*ops.LOWERINGS, "auto"], padding_mode=asked.padding_mode, flip_kernel=asked.flip_kernel)


def _conv_transpose(asked: OpCaseOptions) -> OpCase:
    return _convolution(asked, list(TRANSPOSE_LOWERINGS), output_padding=asked.output_padding)


USES = frozenset({"features", "kernel_size", "stride", "padding", "dilation", "groups"})
CONVOLUTIONS = {
    "conv": OpCaseSpec(_conv, USES | {"padding_mode", "flip_kernel"}, spatial=True),
    "conv_transpose": OpCaseSpec(_conv_transpose, USES | {"output_padding"}, spatial=True),
}


def _dense(asked: OpCaseOptions) -> OpCase:
    parameters = random_parameters(asked, (asked.input_shape[1], asked.features), (asked.features,))
    functions: dict[str, Callable[..., jax.Array]] = {
        "matmul": partial(ops.dense, precision="highest"),
        "sum": lambda x, kernel, bias: (x[:, :, None] * kernel[None]).sum(axis=1) + bias[None],
        "manual": with_custom_gradient(
            partial(ops.dense, precision="highest"), lambda x, kernel, bias, dy: backward.dense(x, kernel, dy)
        ),
    }
    return OpCase(functions, (random_x(asked), *parameters), ("x", "kernel", "bias"))


def _loss(asked: OpCaseOptions) -> OpCase:
    label = jnp.asarray(
        np.random.default_rng(asked.seed + 1).integers(0, asked.input_shape[1], asked.input_shape[0]), jnp.int32
    )
    true = jax.nn.one_hot(label, asked.input_shape[1], dtype=asked.dtype)
    functions: dict[str, Callable[..., jax.Array]] = {
        "optax": lambda logits: ops.softmax_cross_entropy(logits, label),
        "-log softmax": lambda logits: -(true * jnp.log(jax.nn.softmax(logits))).sum(axis=1),
    }
    return unary_case(
        asked, functions, lambda logits, dy: backward.softmax_cross_entropy(logits, label, dy), name="logits"
    )


def _elementwise(functions: Mapping[str, Callable[..., jax.Array]], gradient: Callable[..., jax.Array]) -> OpCaseSpec:
    return OpCaseSpec(lambda asked: unary_case(asked, functions, gradient), frozenset({"kinks"}), spatial=False)


DENSE = {
    "relu": _elementwise(
        {
            "jax.nn": ops.relu,
            "maximum": lambda x: jnp.maximum(x, jnp.zeros((), x.dtype)),
            "where": lambda x: jnp.where(x > 0, x, jnp.zeros((), x.dtype)),
        },
        backward.relu,
    ),
    "tanh": _elementwise({"jax.nn": ops.tanh, "exp": lambda x: 1 - 2 / (jnp.exp(2 * x) + 1)}, backward.tanh),
    "sigmoid": _elementwise({"jax.nn": ops.sigmoid, "exp": lambda x: 1 / (1 + jnp.exp(-x))}, backward.sigmoid),
    "dense": OpCaseSpec(_dense, frozenset({"features"}), spatial=False, input_shape=(64, 10)),
    "softmax_cross_entropy": OpCaseSpec(_loss, frozenset({"kinks"}), spatial=False, input_shape=(64, 10)),
}
