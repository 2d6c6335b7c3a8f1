"""Cases of convolutions, dense layers, activations and the cross-entropy loss."""

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


def _convolution(options: OpCaseOptions, lowerings: Sequence[str], **kwargs: Any) -> OpCase:
    """Return the case of a convolution by several lowerings, with its hand-derived gradient."""
    with error_context(options.op):
        channels = checks.channels_per_group(options.input_shape, options.groups)
        window = canonicalize_sizes(options.kernel_size, len(options.input_shape) - 2, "kernel_size")
    args = (random_x(options), *random_parameters(options, (*window, channels, options.features), (options.features,)))
    kwargs |= {
        "stride": 1 if options.stride is None else options.stride,
        "padding": options.padding,
        "dilation": options.dilation,
        "groups": options.groups,
    }
    op, gradient = getattr(ops, options.op), getattr(backward, options.op)
    functions: dict[str, Callable[..., jax.Array]] = {
        impl: partial(op, impl=impl, precision="highest", **kwargs) for impl in lowerings
    }

    def manual(x: jax.Array, kernel: jax.Array, bias: jax.Array, dy: jax.Array) -> Any:
        return gradient(x, kernel, dy, **kwargs)

    functions["manual"] = with_custom_gradient(functions["explicit"], manual)
    return OpCase(functions, args, ("x", "kernel", "bias"))


def _conv(options: OpCaseOptions) -> OpCase:
    return _convolution(
        options, [*ops.LOWERINGS, "auto"], padding_mode=options.padding_mode, flip_kernel=options.flip_kernel
    )


def _conv_transpose(options: OpCaseOptions) -> OpCase:
    return _convolution(options, list(TRANSPOSE_LOWERINGS), output_padding=options.output_padding)


USES = frozenset({"features", "kernel_size", "stride", "padding", "dilation", "groups"})
CONVOLUTIONS = {
    "conv": OpCaseSpec(_conv, USES | {"padding_mode", "flip_kernel"}, spatial=True),
    "conv_transpose": OpCaseSpec(_conv_transpose, USES | {"output_padding"}, spatial=True),
}


def _dense(options: OpCaseOptions) -> OpCase:
    parameters = random_parameters(options, (options.input_shape[1], options.features), (options.features,))
    functions: dict[str, Callable[..., jax.Array]] = {
        "matmul": partial(ops.dense, precision="highest"),
        "sum": lambda x, kernel, bias: (x[:, :, None] * kernel[None]).sum(axis=1) + bias[None],
        "manual": with_custom_gradient(
            partial(ops.dense, precision="highest"), lambda x, kernel, bias, dy: backward.dense(x, kernel, dy)
        ),
    }
    return OpCase(functions, (random_x(options), *parameters), ("x", "kernel", "bias"))


def _loss(options: OpCaseOptions) -> OpCase:
    label = jnp.asarray(
        np.random.default_rng(options.seed + 1).integers(0, options.input_shape[1], options.input_shape[0]), jnp.int32
    )
    target = jax.nn.one_hot(label, options.input_shape[1], dtype=options.dtype)
    functions: dict[str, Callable[..., jax.Array]] = {
        "optax": lambda logits: ops.softmax_cross_entropy(logits, label),
        "-log softmax": lambda logits: -(target * jnp.log(jax.nn.softmax(logits))).sum(axis=1),
    }
    return unary_case(
        options, functions, lambda logits, dy: backward.softmax_cross_entropy(logits, label, dy), name="logits"
    )


def _elementwise(functions: Mapping[str, Callable[..., jax.Array]], gradient: Callable[..., jax.Array]) -> OpCaseSpec:
    return OpCaseSpec(lambda options: unary_case(options, functions, gradient), frozenset({"kinks"}), spatial=False)


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
