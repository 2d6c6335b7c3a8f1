"""What a contest is, what it is asked for, and the random arrays that it is held with."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.shapes import IntOrInts, Padding


class OpCase(NamedTuple):
    """Implementations of one function, the reference first, and arguments for all of them."""

    functions: Mapping[str, Callable[..., jax.Array]]
    args: tuple[Any, ...]
    names: tuple[str, ...]


class OpCaseOptions(NamedTuple):
    """What a contest is asked for; each op takes from it what it needs."""

    op: str
    input_shape: tuple[int, ...]
    features: int
    kernel_size: IntOrInts
    stride: IntOrInts | None
    padding: Padding
    output_padding: IntOrInts
    dilation: IntOrInts
    groups: int
    padding_mode: str
    flip_kernel: bool
    p: float
    kinks: bool
    dtype: Any
    seed: int


class OpCaseSpec(NamedTuple):
    """A line in the table of contests.

    Attributes:
        make: the contest that is asked for.
        uses: what it looks at, beside op, shape, dtype and seed.
        spatial: whether x must have spatial axes.
        input_shape: shape of x, unless another is asked for.
    """

    make: Callable[[OpCaseOptions], OpCase]
    uses: frozenset[str]
    spatial: bool
    input_shape: tuple[int, ...] = (8, 28, 28, 3)


def with_custom_gradient(forward: Callable[..., jax.Array], gradient: Callable[..., Any]) -> Callable[..., jax.Array]:
    """A function whose gradient is the one given: ``gradient(*args, dy) -> (d_arg1, d_arg2, …)``.

    The args are those of the call, all of them positional; what it leaves out, the gradient is not given either.

    >>> doubled = with_custom_gradient(lambda x: x * x, lambda x, dy: (4 * x * dy,))                 # twice too large
    >>> jax.grad(doubled)(3.0)
    Array(12., dtype=float32, weak_type=True)
    """
    # custom_vjp fills in the defaults of a function that has any, and would give the gradient those too.
    function = jax.custom_vjp(lambda *args: forward(*args))
    function.defvjp(lambda *args: (forward(*args), args), lambda args, dy: tuple(gradient(*args, dy)))
    return functools.wraps(forward)(lambda *args: function(*args))


def unary_case(
    asked: OpCaseOptions,
    functions: Mapping[str, Callable[..., jax.Array]],
    gradient: Callable[..., jax.Array],
    name: str = "x",
) -> OpCase:
    """Functions of x alone, and the first of them with the gradient given, ``(x, dy) -> dx``."""
    first = next(iter(functions.values()))
    by_hand = with_custom_gradient(first, lambda x, dy: (gradient(x, dy),))
    return OpCase({**functions, "manual": by_hand}, (random_x(asked),), (name,))


def random_x(asked: OpCaseOptions) -> jax.Array:
    x = np.random.default_rng(asked.seed).normal(size=asked.input_shape)
    return jnp.asarray(np.round(2 * x) if asked.kinks else x, asked.dtype)


def random_parameters(asked: OpCaseOptions, *shapes: Sequence[int]) -> list[jax.Array]:
    rng = np.random.default_rng(asked.seed + 1)
    return [jnp.asarray(rng.normal(size=shape), asked.dtype) for shape in shapes]
