"""The three passes of a convolution: one sum, seen from three sides.

    T(x, kernel, y) = Σ_n Σ_p Σ_u Σ_c Σ_o  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o] · y[n, p, o]

T is linear in each of its three factors. Leave one of them out, and what it would be multiplied with is

    y        the convolution of x with the kernel                   (the forward pass)
    kernel   the correlation of x with the gradient by y            (the kernel's gradient)
    x        the full convolution of the gradient by y with it      (the input's gradient)

Each is a primitive of jax: bilinear in the two factors it is given, and its transposes are the other two. So every
derivative of a convolution, forward or backward and of any order, is again one of the three, and each can be compiled
in the way that is fastest for it. (The gradients of a lowering written with lax are what lax makes of them, and a
``custom_vjp`` has no forward mode.)

:mod:`transformations` has what ``vmap``, ``checkpoint`` and ``jet`` make of them.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv._compat import Primitive, ad, mlir
from jaxconv.shapes import ResolvedWindow

FACTORS = ("x", "kernel", "y")


class Form(NamedTuple):
    """What the passes of one convolution have in common."""

    window: ResolvedWindow
    size: tuple[int, ...]  # pixels of x, which its window alone does not tell
    groups: int
    dtypes: tuple[jnp.dtype, jnp.dtype, jnp.dtype]  # of x, kernel and y
    precision: lax.PrecisionLike


Lowering = Callable[[jax.Array, jax.Array, Form], jax.Array]


def others(wanted: str) -> tuple[str, str]:
    """The two factors that a pass is given, in their order.

    >>> others("kernel")
    ('x', 'y')
    """
    first, second = (name for name in FACTORS if name != wanted)
    return first, second


def shape_of(wanted: str, first: tuple[int, ...], second: tuple[int, ...], form: Form) -> tuple[int, ...]:
    """The shape of one factor, by those of the other two."""
    if wanted == "y":
        return (first[0], *form.window.out, second[-1])
    if wanted == "kernel":
        return (*form.window.size, first[-1] // form.groups, second[-1])
    return (second[0], *form.size, first[-2] * form.groups)


def run(wanted: str, first: jax.Array, second: jax.Array, form: Form) -> jax.Array:
    """The pass that gives ``wanted``, of the other two factors."""
    return PRIMITIVES[wanted].bind(first, second, form=form)


def lower(wanted: str, lowering: Lowering, platform: str | None = None) -> None:
    """Have a pass compiled so on a platform, or on all that have no lowering of their own.

    The lowering gets both factors in the narrower of their dtypes. Nothing is lost by that: the wider one is a
    gradient of what was rounded to the narrower dtype, or is going to be.
    """

    def rounded(first: jax.Array, second: jax.Array, *, form: Form) -> jax.Array:
        narrow = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
        return lowering(first.astype(narrow), second.astype(narrow), form).astype(_dtype(wanted, form))

    mlir.register_lowering(PRIMITIVES[wanted], mlir.lower_fun(rounded, multiple_results=False), platform=platform)


def _dtype(wanted: str, form: Form) -> jnp.dtype:
    return form.dtypes[FACTORS.index(wanted)]


def _abstract(wanted: str, first: Any, second: Any, form: Form) -> jax.core.ShapedArray:
    like = second if wanted == "x" else first
    sharding = like.sharding.update(spec=(None,) * like.ndim)
    shape = shape_of(wanted, first.shape, second.shape, form)
    return first.update(shape, _dtype(wanted, form), sharding=sharding, weak_type=False)


def _transpose(wanted: str, missing: str) -> Callable[..., jax.Array]:
    """The gradient of a pass by one of its factors: the cotangent stands for what was wanted."""

    def rule(cotangent: jax.Array, *given: Any, form: Form) -> jax.Array:
        factors = dict(zip(others(wanted), given, strict=True)) | {wanted: cotangent}
        first, second = (factors[name] for name in others(missing))
        return run(missing, first, second, form)

    return rule


def _compiled(program: Callable[..., jax.Array], *factors: jax.Array, form: Form) -> jax.Array:
    """A pass on its own, which is compiled even under ``jax.disable_jit``, as are those of lax."""
    with jax.disable_jit(False):
        return program(*factors, form=form)


def _make(wanted: str) -> Primitive:
    primitive = Primitive(f"conv_{wanted}")
    primitive.def_abstract_eval(partial(_abstract, wanted))
    primitive.def_impl(partial(_compiled, jax.jit(primitive.bind, static_argnames="form")))
    ad.defbilinear(primitive, *(_transpose(wanted, missing) for missing in others(wanted)))
    return primitive


PRIMITIVES = {wanted: _make(wanted) for wanted in FACTORS}
