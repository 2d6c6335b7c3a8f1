"""Table of the ops that can be compared, and :func:`make_op_case`.

Each module of this package has a table of related ops; to add an op, add an entry to one of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, error_context
from jaxconv.shapes import IntOrInts, Padding, is_int
from jaxconv.testing.arguments import floating_dtype
from jaxconv.testing.cases.base import OpCase, OpCaseOptions, OpCaseSpec, with_custom_gradient
from jaxconv.testing.cases.linear import CONVOLUTIONS, DENSE
from jaxconv.testing.cases.normalization import NORMS
from jaxconv.testing.cases.pooling import POOLS

__all__ = ["OP_CASES", "OpCase", "make_op_case", "with_custom_gradient"]

OP_CASES: dict[str, OpCaseSpec] = CONVOLUTIONS | POOLS | NORMS | DENSE


def make_op_case(
    op: str,
    input_shape: Sequence[int] | None = None,
    *,
    features: int = 16,
    kernel_size: IntOrInts = 3,
    stride: IntOrInts | None = None,
    padding: Padding = "VALID",
    output_padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
    p: float = 2.0,
    kinks: bool = False,
    dtype: Any = jnp.float64,
    seed: int = 0,
) -> OpCase:
    """Return all implementations of an op, with random arguments, for :func:`jaxconv.testing.compare_all`.

    Args:
        op: a name in :data:`OP_CASES`.
        input_shape: shape of x, ``(N, *spatial, C)``, or ``(N, values)`` for dense layers and losses; by default that
            of the op's entry in :data:`OP_CASES`.
        features: output channels of a convolution or a dense layer.
        kernel_size: size of the kernel or the pooling window.
        stride: by default 1 for convolutions, and the window size for pools.
        padding, output_padding, dilation, groups, padding_mode, flip_kernel, p: options of the op.
        kinks: round x to integers, which creates zeros for relu and ties for pools.
        dtype: dtype of all arguments.
        seed: seed of the arguments.

    Raises:
        InputError: if the op is unknown or the arguments cannot be created. Errors of the op itself, such as a window
            larger than x, are raised when it is called.

    >>> sorted(make_op_case("relu", (2, 3)).functions)
    ['jax.nn', 'manual', 'maximum', 'where']
    """
    with error_context("compare"):
        checks.one_of("op", op, OP_CASES)
    entry = OP_CASES[op]
    input_shape = entry.input_shape if input_shape is None else input_shape
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence | np.ndarray) else (input_shape,)
    min_ndim, expected = (3, "(N, *spatial, C)") if entry.spatial else (2, "(N, values)")
    if len(sizes) < min_ndim or not all(is_int(n) and n >= 1 for n in sizes):
        raise InputError(f"input_shape {sizes} should be {expected}, every size at least 1").from_source(op)
    with error_context(op):
        checks.at_least(1, features=features)
        checks.at_least(0, seed=seed)
        checks.boolean("kinks", kinks)
        floating_dtype(dtype)
    options = (
        features,
        kernel_size,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        padding_mode,
        flip_kernel,
        p,
        kinks,
    )
    with jax.enable_x64(True):  # otherwise jax replaces float64 by float32 with a mere warning
        return entry.make(OpCaseOptions(op, sizes, *options, dtype, seed))
