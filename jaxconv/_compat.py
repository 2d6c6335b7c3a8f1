"""Compatibility with versions of jax, and access to parts of jax outside its public API reference.

No other file of the package tests the version of jax or imports from these modules, so a change in jax is handled here.
The lower bound in pyproject.toml is the oldest jax on which the tests pass.
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
    """Return the version of the installed jaxlib, which contains XLA; such as ``"0.12.0.1"``."""
    return importlib.metadata.version("jaxlib")


def version_numbers(version: str) -> tuple[int, ...]:
    """Parse a version into a tuple of ints, for comparison.

    >>> version_numbers("0.12.0.1") > version_numbers("0.9.2")
    True
    """
    return tuple(map(int, re.findall(r"\d+", version)))


def compilation_cache_warns_spuriously() -> bool:
    """Return True if XLA prints a false warning of 2,500 characters for every program loaded from the cache.

    jaxlib before 0.10.2 does so on some Intel processors, as it mistakes tuning hints of LLVM for instructions.
    """
    return version_numbers(jaxlib_version()) < (0, 10, 2)


def varying_axes(array: Any) -> frozenset[str]:
    """Return the mesh axes along which an array varies between devices, inside ``jax.shard_map``.

    The attribute is called ``vma`` before jax 0.10.

    >>> sorted(varying_axes(jax.numpy.ones(3)))
    []
    """
    aval: Any = jax.typeof(array)
    return frozenset(aval.manual_axis_type.varying if hasattr(aval, "manual_axis_type") else aval.vma)


def closed_jaxpr(value: Any) -> ClosedJaxpr | None:
    """Return an equation parameter as a ClosedJaxpr, a program with its constants; None for other values.

    jax 0.12 merged the classes Jaxpr and ClosedJaxpr, so both are accepted.
    """
    if isinstance(value, ClosedJaxpr):
        return value
    return ClosedJaxpr(value, ()) if isinstance(value, Jaxpr) else None


@functools.cache
def supports_mixed_precision_conv_gradient() -> bool:
    """Return True if lax can differentiate a bfloat16 convolution with float32 accumulation (jax 0.10 and later)."""

    def float32_sum(x: jax.Array) -> jax.Array:
        return jax.lax.conv(x, jnp.ones((1, 1, 1), x.dtype), (1,), "VALID", preferred_element_type=jnp.float32).sum()

    try:
        jax.eval_shape(jax.grad(float32_sum), jax.ShapeDtypeStruct((1, 1, 1), jnp.bfloat16))
    except TypeError:
        return False
    return True


def register_bilinear_jet(primitive: Primitive) -> None:
    """Register a primitive that is linear in both operands with ``jax.experimental.jet``, by the rule of products."""
    rules: Any = jet.jet_rules
    rules[primitive] = functools.partial(rules[jax.lax.mul_p].func, primitive)


def register_checkpoint_rule(primitive: Primitive, like: Primitive) -> None:
    """Make ``jax.checkpoint`` save the outputs of a primitive whenever its policy saves those of ``like``.

    Policies compare primitives with those of lax. Outputs that a policy would offload are recomputed.
    """

    def rule(policy: Any, unknown: Any, available: Any, equation: Any) -> tuple[Any, ...]:
        """Return the equations of the forward and of the backward pass, and the residuals between them."""
        missing = [
            x
            for x, is_available in zip(equation.invars, available, strict=True)
            if not is_available and not isinstance(x, Literal)
        ]
        if any(unknown):
            return None, equation, [True], [True], missing
        types = [x.aval for x in equation.invars]
        if any(policy(candidate, *types, **equation.params) in (True, Saveable) for candidate in (primitive, like)):
            return equation, None, [False], [False], []
        return equation, equation, [False], [True], missing

    rules: Any = partial_eval.partial_eval_jaxpr_custom_rules
    rules[primitive] = rule


def type_text(array: Any) -> str:
    """Return the type of an array in the short notation of jax.

    >>> type_text(jax.numpy.ones((2, 3)))
    'float32[2,3]'
    """
    return jax.typeof(array).str_short()


def compilation_cache_dir() -> str | None:
    """Return the directory of the persistent compilation cache of jax, or None."""
    config: Any = jax.config
    return config.jax_compilation_cache_dir
