"""What to compare, ready made: for each op its implementations, and arguments of the shape asked for.

Each file has the ops of one kind, and a table of them; to add an op, add a line to a table.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, error_context
from jaxconv.shapes import Padding, Sizes, is_int
from jaxconv.testing.arguments import floating_dtype
from jaxconv.testing.cases.base import Asked, Contest, Entry, with_gradient
from jaxconv.testing.cases.linear import CONVOLUTIONS, DENSE
from jaxconv.testing.cases.normalization import NORMS
from jaxconv.testing.cases.pooling import POOLS

__all__ = ["CONTESTS", "Contest", "contest", "with_gradient"]

CONTESTS: dict[str, Entry] = CONVOLUTIONS | POOLS | NORMS | DENSE


def contest(
    op: str,
    shape: Sequence[int] | None = None,
    *,
    features: int = 16,
    kernel: Sizes = 3,
    stride: Sizes | None = None,
    padding: Padding = "VALID",
    output_padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    pad_mode: str = "zeros",
    flip: bool = False,
    p: float = 2.0,
    kinks: bool = False,
    dtype: Any = jnp.float64,
    seed: int = 0,
) -> Contest:
    """The implementations of an op that this library knows, with random arguments, for ``compare_all(*contest(…))``.

    Args:
        op: a name in :data:`CONTESTS`.
        shape: of x, ``(N, *spatial, C)``, or ``(N, values)`` for dense layers and losses; by default a usual one.
        features: filters of a convolution, outputs of a dense layer.
        kernel: taps of the kernel, or of the pooling window.
        stride: by default 1 for convolutions, and the window for pooling.
        padding, output_padding, dilation, groups, pad_mode, flip, p: as the op takes them.
        kinks: round x to whole numbers, so that relu meets zeros and pools meet ties.
        dtype: of all arguments.
        seed: of the arguments.

    Raises:
        InputError: an op that is not known, or arguments that cannot be made. What the op itself refuses, such as a
            window larger than x, it refuses when it is called.

    >>> sorted(contest("relu", (2, 3)).functions)
    ['by hand', 'jax.nn', 'maximum', 'where']
    """
    with error_context("compare"):
        checks.one_of("op", op, CONTESTS)
    entry = CONTESTS[op]
    shape = entry.shape if shape is None else shape
    sizes = tuple(shape) if isinstance(shape, Sequence | np.ndarray) else (shape,)
    least, wanted = (3, "(N, *spatial, C)") if entry.spatial else (2, "(N, values)")
    if len(sizes) < least or not all(is_int(n) and n >= 1 for n in sizes):
        raise InputError(f"shape {sizes} should be {wanted}, every size at least 1").from_source(op)
    with error_context(op):
        checks.at_least(1, features=features)
        checks.at_least(0, seed=seed)
        checks.boolean("kinks", kinks)
        floating_dtype(dtype)
    options = (features, kernel, stride, padding, output_padding, dilation, groups, pad_mode, flip, p, kinks)
    with jax.enable_x64(True):  # else float64 would be float32, with no more than a warning
        return entry.make(Asked(op, sizes, *options, dtype, seed))
