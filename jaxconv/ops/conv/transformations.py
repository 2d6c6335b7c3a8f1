"""What jax's transformations make of the passes of a convolution: ``vmap``, ``checkpoint`` and ``jet``.

``vmap`` stays among the three passes. An index more on two of the factors joins the index which only these two have
(n, c or o); an index more on all three joins the groups, which all three have.

``checkpoint`` keeps the result of a pass where its policy keeps that of lax's convolution, so that
``checkpoint_policies.dots_saveable`` means the same for both.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxconv._compat import batching, give_jet_of_products, keep_where_kept
from jaxconv.ops.convolution.primitives import FACTORS, PRIMITIVES, Form, others, run, shape_of


def register(wanted: str) -> None:
    """Give jax the rules of one pass."""
    batching.primitive_batchers[PRIMITIVES[wanted]] = partial(_batch, wanted)
    give_jet_of_products(PRIMITIVES[wanted])
    keep_where_kept(PRIMITIVES[wanted], lax.conv_general_dilated_p)


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
