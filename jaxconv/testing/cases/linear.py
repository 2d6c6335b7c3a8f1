"""Convolutions: every lowering, and the gradients derived by hand."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax

from jaxconv import checks, ops
from jaxconv.errors import said_by
from jaxconv.ops import backward
from jaxconv.ops.convolution.transposed import TRANSPOSE_LOWERINGS
from jaxconv.shapes import per_dimension
from jaxconv.testing.cases.base import Asked, Contest, Entry, random_parameters, random_x, with_gradient


def _convolution(asked: Asked, lowerings: Sequence[str], **options: Any) -> Contest:
    channels = checks.per_group(asked.op, asked.shape, asked.groups)
    with said_by(asked.op):
        window = per_dimension(asked.kernel, len(asked.shape) - 2, "kernel")
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

    functions["by hand"] = with_gradient(functions["explicit"], by_hand)
    return Contest(functions, args, ("x", "kernel", "bias"))


def _conv(asked: Asked) -> Contest:
    return _convolution(asked, [*ops.LOWERINGS, "auto"], pad_mode=asked.pad_mode, flip=asked.flip)


def _conv_transpose(asked: Asked) -> Contest:
    return _convolution(asked, list(TRANSPOSE_LOWERINGS), output_padding=asked.output_padding)


USES = frozenset({"features", "kernel", "stride", "padding", "dilation", "groups"})
CONVOLUTIONS = {
    "conv": Entry(_conv, USES | {"pad_mode", "flip"}, spatial=True),
    "conv_transpose": Entry(_conv_transpose, USES | {"output_padding"}, spatial=True),
}
