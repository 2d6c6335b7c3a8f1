"""The three passes of a convolution as jax primitives.

    T(x, kernel, y) = Σ_n Σ_p Σ_u Σ_c Σ_o  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o] · y[n, p, o]

T is linear in each of its three factors. Its derivative with respect to one factor is the output of a pass:

    y        the convolution of x with the kernel                            (forward pass)
    kernel   the correlation of x with the gradient of y                     (gradient of the kernel)
    x        the full convolution of the gradient of y with the kernel       (gradient of the input)

Each pass is a jax primitive, bilinear in its two operands, and its transposes are the other two passes. So every
derivative of a convolution, in forward or reverse mode and of any order, is again one of the three, and each can be
lowered in the way that is fastest for it. (Gradients of a lowering in terms of lax are determined by lax, and a
``custom_vjp`` has no forward mode.)

``vmap`` of a pass is a pass too. A batch axis on two of the factors is merged into the index that only these two have
(n, c or o); a batch axis on all three is merged into the groups, which all three have. ``jax.checkpoint`` saves the
output of a pass if its policy saves that of lax's convolution, so ``checkpoint_policies.dots_saveable`` treats both
alike.
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


class ConvSpec(NamedTuple):
    """Parameters that the three passes of a convolution share."""

    window: ResolvedWindow
    size: tuple[int, ...]  # spatial size of x, which the window does not determine
    groups: int
    dtypes: tuple[jnp.dtype, jnp.dtype, jnp.dtype]  # of x, kernel and y
    precision: lax.PrecisionLike


Lowering = Callable[[jax.Array, jax.Array, ConvSpec], jax.Array]


def other_operands(output: str) -> tuple[str, str]:
    """Names of the two operands of a pass, in order.

    >>> other_operands("kernel")
    ('x', 'y')
    """
    lhs, rhs = (name for name in FACTORS if name != output)
    return lhs, rhs


def shape_of(output: str, lhs: tuple[int, ...], rhs: tuple[int, ...], spec: ConvSpec) -> tuple[int, ...]:
    """Shape of the output of a pass, from those of its operands."""
    if output == "y":
        return (lhs[0], *spec.window.out_size, rhs[-1])
    if output == "kernel":
        return (*spec.window.size, lhs[-1] // spec.groups, rhs[-1])
    return (rhs[0], *spec.size, lhs[-2] * spec.groups)


def apply_pass(output: str, lhs: jax.Array, rhs: jax.Array, spec: ConvSpec) -> jax.Array:
    """Compute the pass whose output is the factor ``output``."""
    return PRIMITIVES[output].bind(lhs, rhs, spec=spec)


def register_lowering(output: str, lowering: Lowering, platform: str | None = None) -> None:
    """Register the lowering of a pass for a platform, or for all platforms without their own lowering.

    Both operands are cast to the narrower of their dtypes. No precision is lost: the wider operand is the gradient of
    an array that is rounded to the narrower dtype, before or after.
    """

    def rounded(lhs: jax.Array, rhs: jax.Array, *, spec: ConvSpec) -> jax.Array:
        narrow = min(lhs.dtype, rhs.dtype, key=lambda dtype: dtype.itemsize)
        return lowering(lhs.astype(narrow), rhs.astype(narrow), spec).astype(_dtype(output, spec))

    mlir.register_lowering(PRIMITIVES[output], mlir.lower_fun(rounded, multiple_results=False), platform=platform)


def _dtype(output: str, spec: ConvSpec) -> jnp.dtype:
    return spec.dtypes[FACTORS.index(output)]


def _abstract(output: str, lhs: Any, rhs: Any, spec: ConvSpec) -> jax.core.ShapedArray:
    like = rhs if output == "x" else lhs
    sharding = like.sharding.update(spec=(None,) * like.ndim)
    shape = shape_of(output, lhs.shape, rhs.shape, spec)
    return lhs.update(shape, _dtype(output, spec), sharding=sharding, weak_type=False)


def _transpose(output: str, missing: str) -> Callable[..., jax.Array]:
    """Transpose of a pass in one operand: another pass, with the cotangent in the role of ``output``."""

    def rule(cotangent: jax.Array, *operands: Any, spec: ConvSpec) -> jax.Array:
        factors = dict(zip(other_operands(output), operands, strict=True)) | {output: cotangent}
        lhs, rhs = (factors[name] for name in other_operands(missing))
        return apply_pass(missing, lhs, rhs, spec)

    return rule


def _apply_compiled(compiled: Callable[..., jax.Array], *operands: jax.Array, spec: ConvSpec) -> jax.Array:
    """Apply a pass eagerly; it is compiled even under ``jax.disable_jit``, like the primitives of lax."""
    with jax.disable_jit(False):
        return compiled(*operands, spec=spec)


def _make_primitive(output: str) -> Primitive:
    primitive = Primitive(f"conv_{output}")
    primitive.def_abstract_eval(partial(_abstract, output))
    primitive.def_impl(partial(_apply_compiled, jax.jit(primitive.bind, static_argnames="spec")))
    ad.defbilinear(primitive, *(_transpose(output, missing) for missing in other_operands(output)))
    return primitive


PRIMITIVES = {output: _make_primitive(output) for output in FACTORS}


def register_rules(output: str) -> None:
    """Register the batching, jet and checkpoint rules of a pass."""
    batching.primitive_batchers[PRIMITIVES[output]] = partial(_batch, output)
    register_bilinear_jet(PRIMITIVES[output])
    register_checkpoint_rule(PRIMITIVES[output], lax.conv_general_dilated_p)


# Axis of each index in each factor; on an axis of two indices, the groups are the outer index.
AXES = {
    "x": {"n": 0, "g": -1, "c": -1},
    "kernel": {"c": -2, "g": -1, "o": -1},
    "y": {"n": 0, "g": -1, "o": -1},
}


def _batch(output: str, arrays: Sequence[jax.Array], axes: Sequence[int | None], *, spec: ConvSpec) -> Any:
    """Batching rule of a pass: merge the batch axis into another index, apply the pass, and split it off again."""
    names = other_operands(output)
    batched = [name for name, axis in zip(names, axes, strict=True) if axis is not None] + [output]
    size = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    lhs, rhs = [
        array.shape if axis is None else array.shape[:axis] + array.shape[axis + 1 :]
        for array, axis in zip(arrays, axes, strict=True)
    ]
    shape = shape_of(output, lhs, rhs, spec)
    if size == 0:  # a pass must have at least one group and one channel
        return jnp.zeros((0, *shape), spec.dtypes[FACTORS.index(output)]), 0
    index = "g" if len(batched) == 3 else next(i for i in "nco" if all(i in AXES[name] for name in batched))
    operands = [
        array if axis is None else _merge(name, index, jnp.moveaxis(array, axis, 0), spec.groups)
        for name, array, axis in zip(names, arrays, axes, strict=True)
    ]
    merged_spec = spec._replace(groups=spec.groups * size) if index == "g" else spec
    merged = apply_pass(output, operands[0], operands[1], merged_spec)
    return _split(output, index, merged, (size, *shape), spec.groups), 0


def _merge(name: str, index: str, array: jax.Array, groups: int) -> jax.Array:
    """Merge the leading batch axis into an index of a factor: ``(b, …, g·c, …)`` to ``(…, g·b·c, …)``."""
    size, *shape = array.shape
    axis, outer = _axis_of(name, index, len(shape), groups)
    leading, trailing = shape[:axis], shape[axis + 1 :]
    array = array.reshape(size, *leading, outer, shape[axis] // outer, *trailing)
    return jnp.moveaxis(array, 0, axis + 1).reshape(*leading, size * shape[axis], *trailing)


def _split(name: str, index: str, array: jax.Array, batched_shape: tuple[int, ...], groups: int) -> jax.Array:
    """Split the batch axis off again, the inverse of :func:`_merge`."""
    size, *shape = batched_shape
    axis, outer = _axis_of(name, index, len(shape), groups)
    array = array.reshape(*shape[:axis], outer, size, shape[axis] // outer, *shape[axis + 1 :])
    return jnp.moveaxis(array, axis + 1, 0).reshape(batched_shape)


def _axis_of(name: str, index: str, ndim: int, groups: int) -> tuple[int, int]:
    """Return the axis of an index, and the size of the outer index on that axis."""
    axis = AXES[name][index] % ndim
    return axis, groups if index in "co" and axis == ndim - 1 else 1
