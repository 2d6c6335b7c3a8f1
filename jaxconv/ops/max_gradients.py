"""Gradients of a maximum, and their distribution over tied candidates.

``"first"``: the first maximum in row-major order gets the whole gradient, as in ``lax`` and PyTorch. ``"split"``: tied
candidates get equal fractions, which keeps symmetries (a constant image, the zeros after a relu).

Some candidates may be invalid: padding, or a repeated pixel. They never exceed all valid ones, but may equal them, and
must then get no gradient. This is why the derivatives are written out here.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

TIES = ("first", "split")


def max_over_candidates(x: jax.Array, valid_mask: jax.Array, ties: str) -> jax.Array:
    """Maximum along the first axis.

    Args:
        x: ``(candidates, …)``.
        valid_mask: True for valid candidates; of a shape that broadcasts to that of x. With ``ties="first"`` the first
            candidate must be valid.
        ties: one of :data:`TIES`.

    >>> x, valid_mask = jnp.array([7., 1., 7.]), jnp.array([True, True, True])
    >>> [jax.grad(lambda x: max_over_candidates(x, valid_mask, ties))(x).tolist() for ties in TIES]
    [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    if ties == "first":
        return jnp.take_along_axis(x, jnp.argmax(x, axis=0, keepdims=True), axis=0)[0]
    return _max_split_ties(x, valid_mask) if jnp.issubdtype(x.dtype, jnp.floating) else x.max(axis=0)


@jax.custom_jvp
def _max_split_ties(x: jax.Array, valid_mask: jax.Array) -> jax.Array:
    return x.max(axis=0)


@_max_split_ties.defjvp
def _max_split_ties_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    x, valid_mask = primals
    y = _max_split_ties(x, valid_mask)
    is_max = (((x == y[None]) | jnp.isnan(x)) & valid_mask).astype(x.dtype)
    return y, (is_max / is_max.sum(axis=0, keepdims=True) * tangents[0]).sum(axis=0)


def elementwise_max(x: Sequence[jax.Array], valid_masks: Sequence[jax.Array]) -> jax.Array:
    """:func:`max_over_candidates` with ``ties="first"`` for a list of arrays, which avoids stacking them.

    >>> candidates = [jnp.array([-jnp.inf, 1.]), jnp.array([-jnp.inf, 1.])]
    >>> valid_masks = [jnp.array([False, True]), jnp.array([True, True])]
    >>> jax.grad(lambda x: elementwise_max(x, valid_masks).sum())(candidates)
    [Array([0., 1.], dtype=float32), Array([1., 0.], dtype=float32)]
    """
    if jnp.issubdtype(x[0].dtype, jnp.floating):
        return _first_max(list(x), list(valid_masks))
    return _max_and_index(x, valid_masks)[0]


def _max_and_index(x: Sequence[jax.Array], valid_masks: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Maximum of each entry, and the index of the candidate that attains it."""
    best, any_valid, index = x[0], valid_masks[0], jnp.zeros(x[0].shape, jnp.int32)
    for i, (candidate, valid) in enumerate(zip(x[1:], valid_masks[1:], strict=True), start=1):
        # Strictly greater, so that the first of equal candidates is kept. A NaN replaces every number, and a valid
        # candidate, even −∞, replaces an invalid one.
        better = (candidate > best) | (jnp.isnan(candidate) & ~jnp.isnan(best)) | (valid & ~any_valid)
        best, any_valid, index = jnp.where(better, candidate, best), any_valid | valid, jnp.where(better, i, index)
    return best, index


@jax.custom_jvp
def _first_max(x: list[jax.Array], valid_masks: list[jax.Array]) -> jax.Array:
    return _max_and_index(x, valid_masks)[0]


@_first_max.defjvp
def _first_max_jvp(primals: tuple[list[jax.Array], Any], tangents: tuple[list[jax.Array], Any]) -> Any:
    # Select tangents by index. Differentiating the chain of `where` instead would give one chain per candidate, and
    # compile time would grow with the square of the number of candidates.
    y, index = _max_and_index(*primals)
    return y, functools.reduce(operator.add, (jnp.where(index == i, dx, 0) for i, dx in enumerate(tangents[0])))


def windowed_max(x: jax.Array, ties: str) -> jax.Array:
    """Maximum over the window axes of a reshaped image: non-overlapping windows, all candidates valid.

    All elements are compared with the maximum of their window at once, which XLA compiles to a single loop.

    Args:
        x: ``(N, out, window, out, window, …, C)``.
        ties: one of :data:`TIES`.

    >>> x = jnp.array([7., 1., 7., 7.]).reshape(1, 2, 2, 1)
    >>> [jax.grad(lambda x: windowed_max(x, ties).sum())(x).ravel().tolist() for ties in TIES]
    [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.5, 0.5]]
    """
    return _windowed_max(ties, x) if jnp.issubdtype(x.dtype, jnp.floating) else x.max(_window_axes(x))


def _window_axes(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim - 1, 2))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _windowed_max(ties: str, x: jax.Array) -> jax.Array:
    return x.max(_window_axes(x))


@_windowed_max.defjvp
def _windowed_max_jvp(ties: str, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,), axes = primals, tangents, _window_axes(primals[0])
    y = x.max(axes, keepdims=True)
    is_max = (x == y) | jnp.isnan(x)
    if ties == "split":
        is_max_float = is_max.astype(x.dtype)
        return y.squeeze(axes), (is_max_float / is_max_float.sum(axes, keepdims=True) * dx).sum(axes)
    sizes = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
    index = jnp.arange(math.prod(sizes), dtype=jnp.int32).reshape(sizes)
    first = jnp.where(is_max, index, index.size).min(axes, keepdims=True)
    return y.squeeze(axes), jnp.where(index == first, dx, 0).sum(axes)
