"""All that jaxconv uses of jax outside its public reference, and all that differs between versions of jax.

No other file of the package names a version of jax or imports from these modules: what a new jax moves or renames is
mended here. The oldest jax that the tests pass on is the lower bound in pyproject.toml.
"""

import functools
import importlib.metadata
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import Saveable
from jax.experimental import jet
from jax.extend.core import ClosedJaxpr as ClosedJaxpr  # type: ignore[attr-defined, unused-ignore]
from jax.extend.core import Jaxpr as Jaxpr
from jax.extend.core import Literal as Literal
from jax.extend.core import Primitive as Primitive
from jax.extend.core import jaxpr_as_fun as jaxpr_as_fun
from jax.interpreters import ad as ad
from jax.interpreters import batching as batching
from jax.interpreters import mlir as mlir
from jax.interpreters import partial_eval


def jaxlib_version() -> str:
    """The version of the installed jaxlib, such as ``"0.12.0.1"``: XLA is in it."""
    return importlib.metadata.version("jaxlib")


def version_numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, to compare it with another.

    >>> version_numbers("0.12.0.1") > version_numbers("0.9.2")
    True
    """
    return tuple(map(int, re.findall(r"\d+", version)))


def cached_programs_raise_false_alarms() -> bool:
    """Return whether XLA warns of crashes, in 2,500 characters, for each program that it reads from the cache.

    jaxlib before 0.10.2 does on some Intel processors, because it takes LLVM's hints for their instructions.
    """
    return version_numbers(jaxlib_version()) < (0, 10, 2)


def varying_axes(array: Any) -> frozenset[str]:
    """The axes of the mesh over which an array differs from device to device, inside ``jax.shard_map``.

    jax before 0.10 has it as ``vma``.

    >>> sorted(varying_axes(jax.numpy.ones(3)))
    []
    """
    kind: Any = jax.typeof(array)
    return frozenset(kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma)


def closed_jaxpr(value: Any) -> ClosedJaxpr | None:
    """A parameter of an equation as a program with its constants; None if it is no program.

    Since jax 0.12 the two classes are one, so it is the constants that count, and not the class.
    """
    if isinstance(value, ClosedJaxpr):
        return value
    return ClosedJaxpr(value, ()) if isinstance(value, Jaxpr) else None


@functools.cache
def half_precision_convolution_has_a_gradient() -> bool:
    """Return whether lax differentiates a bfloat16 convolution added up in float32; before jax 0.10 it does not."""

    def wide(x: jax.Array) -> jax.Array:
        return jax.lax.conv(x, jnp.ones((1, 1, 1), x.dtype), (1,), "VALID", preferred_element_type=jnp.float32).sum()

    try:
        jax.eval_shape(jax.grad(wide), jax.ShapeDtypeStruct((1, 1, 1), jnp.bfloat16))
    except TypeError:
        return False
    return True


def give_jet_of_products(primitive: Primitive) -> None:
    """Have ``jax.experimental.jet`` take a primitive of two factors for what it is: linear in each of them."""
    rules: Any = jet.jet_rules
    rules[primitive] = functools.partial(rules[jax.lax.mul_p].func, primitive)


def keep_where_kept(primitive: Primitive, like: Primitive) -> None:
    """Have ``jax.checkpoint`` keep what a primitive gives wherever its policy keeps what ``like`` gives.

    Policies compare primitives with those of lax. What a policy would move to another memory is computed again.
    """

    def rule(policy: Any, unknown: Any, available: Any, equation: Any) -> tuple[Any, ...]:
        """Return the equations of the forward and of the backward pass, and what the second takes of the first."""
        missing = [
            x for x, there in zip(equation.invars, available, strict=True) if not there and not isinstance(x, Literal)
        ]
        if any(unknown):
            return None, equation, [True], [True], missing
        types = [x.aval for x in equation.invars]
        if any(policy(each, *types, **equation.params) in (True, Saveable) for each in (primitive, like)):
            return equation, None, [False], [False], []
        return equation, equation, [False], [True], missing

    rules: Any = partial_eval.partial_eval_jaxpr_custom_rules
    rules[primitive] = rule


def type_text(array: Any) -> str:
    """The type of an array in jax's short notation.

    >>> type_text(jax.numpy.ones((2, 3)))
    'float32[2,3]'
    """
    return jax.typeof(array).str_short()


def compilation_cache_dir() -> str | None:
    """The folder where jax keeps compiled programs, or None."""
    config: Any = jax.config
    return config.jax_compilation_cache_dir
