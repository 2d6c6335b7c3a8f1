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

``vmap`` stays among the three passes. An additional index on two of the factors joins the index that only these two
have (n, c or o); an additional index on all three joins the groups, which all three have. ``checkpoint`` keeps the
result of a pass where its policy keeps that of lax's convolution, so that ``checkpoint_policies.dots_saveable`` means
the same for both.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv._compat import Primitive, ad, batching, mlir, register_bilinear_jet, register_checkpoint_rule
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
        return (first[0], *form.window.out_size, second[-1])
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


def register(wanted: str) -> None:
    """Give jax the rules of one pass."""
    batching.primitive_batchers[PRIMITIVES[wanted]] = partial(_batch, wanted)
    register_bilinear_jet(PRIMITIVES[wanted])
    register_checkpoint_rule(PRIMITIVES[wanted], lax.conv_general_dilated_p)


# Where a factor has which index; on an axis that holds two of them the groups come first.
AXES = {
    "x": {"n": 0, "g": -1, "c": -1},
    "kernel": {"c": -2, "g": -1, "o": -1},
    "y": {"n": 0, "g": -1, "o": -1},
}


def _batch(wanted: str, arrays: Sequence[jax.Array], axes: Sequence[int | None], *, form: Form) -> Any:
    names = others(wanted)
    batched = [name for name, axis in zip(names, axes, strict=True) if axis is not None] + [wanted]
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    first, second = [
        array.shape if axis is None else array.shape[:axis] + array.shape[axis + 1 :]
        for array, axis in zip(arrays, axes, strict=True)
    ]
    shape = shape_of(wanted, first, second, form)
    if size == 0:  # of no groups, or of no channels, there is no pass
        return jnp.zeros((0, *shape), form.dtypes[FACTORS.index(wanted)]), 0
    index = "g" if len(batched) == 3 else next(i for i in "nco" if all(i in AXES[name] for name in batched))
    factors = [
        array if axis is None else _join(name, index, jnp.moveaxis(array, axis, 0), form.groups)
        for name, array, axis in zip(names, arrays, axes, strict=True)
    ]
    joint = form._replace(groups=form.groups * size) if index == "g" else form
    return _part(wanted, index, run(wanted, factors[0], factors[1], joint), (size, *shape), form.groups), 0


def _join(name: str, index: str, array: jax.Array, groups: int) -> jax.Array:
    """Make the first axis part of one of a factor's own indices: ``(b, …, g·c, …)`` to ``(…, g·b·c, …)``."""
    size, *shape = array.shape
    axis, outer = _axis_of(name, index, len(shape), groups)
    before, after = shape[:axis], shape[axis + 1 :]
    array = array.reshape(size, *before, outer, shape[axis] // outer, *after)
    return jnp.moveaxis(array, 0, axis + 1).reshape(*before, size * shape[axis], *after)


def _part(name: str, index: str, array: jax.Array, to: tuple[int, ...], groups: int) -> jax.Array:
    """The way back of :func:`_join`, to an array of the shape ``to``."""
    size, *shape = to
    axis, outer = _axis_of(name, index, len(shape), groups)
    array = array.reshape(*shape[:axis], outer, size, shape[axis] // outer, *shape[axis + 1 :])
    return jnp.moveaxis(array, axis + 1, 0).reshape(to)


def _axis_of(name: str, index: str, ndim: int, groups: int) -> tuple[int, int]:
    """The axis of an index, and how many values the indices have that come before it on that axis."""
    axis = AXES[name][index] % ndim
    return axis, groups if index in "co" and axis == ndim - 1 else 1
