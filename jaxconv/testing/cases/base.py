"""Types of the comparison cases of ops, and their random arrays."""

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
    """Options of a case; each op uses those that apply to it."""

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
    """Entry of the table of cases.

    Attributes:
        make: function from the options to the case.
        uses: names of the options that it uses, besides op, input_shape, dtype and seed.
        spatial: True if x must have spatial axes.
        input_shape: default shape of x.
    """

    make: Callable[[OpCaseOptions], OpCase]
    uses: frozenset[str]
    spatial: bool
    input_shape: tuple[int, ...] = (8, 28, 28, 3)


def with_custom_gradient(forward: Callable[..., jax.Array], gradient: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Return ``forward`` with a custom gradient: ``gradient(*args, dy) -> (d_arg1, d_arg2, …)``.

    The arguments of a call are positional; arguments that the call omits are not passed to ``gradient``.

    >>> doubled = with_custom_gradient(lambda x: x * x, lambda x, dy: (4 * x * dy,))                 # twice too large
    >>> jax.grad(doubled)(3.0)
    Array(12., dtype=float32, weak_type=True)
    """
    # The lambda hides the defaults of forward, which custom_vjp would pass to the gradient.
    function = jax.custom_vjp(lambda *args: forward(*args))
    function.defvjp(lambda *args: (forward(*args), args), lambda args, dy: tuple(gradient(*args, dy)))
    return functools.wraps(forward)(lambda *args: function(*args))


def unary_case(
    options: OpCaseOptions,
    functions: Mapping[str, Callable[..., jax.Array]],
    gradient: Callable[..., jax.Array],
    name: str = "x",
) -> OpCase:
    """Return a case of functions of x, and ``manual``: the first function with the gradient ``(x, dy) -> dx``."""
    reference = next(iter(functions.values()))
    manual = with_custom_gradient(reference, lambda x, dy: (gradient(x, dy),))
    return OpCase({**functions, "manual": manual}, (random_x(options),), (name,))


def random_x(options: OpCaseOptions) -> jax.Array:
    """Return a normally distributed x, rounded to integers if ``kinks``."""
    x = np.random.default_rng(options.seed).normal(size=options.input_shape)
    return jnp.asarray(np.round(2 * x) if options.kinks else x, options.dtype)


def random_parameters(options: OpCaseOptions, *shapes: Sequence[int]) -> list[jax.Array]:
    """Return normally distributed arrays of the given shapes."""
    rng = np.random.default_rng(options.seed + 1)
    return [jnp.asarray(rng.normal(size=shape), options.dtype) for shape in shapes]
