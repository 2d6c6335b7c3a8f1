"""Who gets the gradient of a maximum, where several are the largest.

``"first"``: the first of them in reading order gets all of it, as in ``lax`` and PyTorch. ``"split"``: each gets an
equal share, which treats alike what is alike (a flat image, the zeros after a relu).

Some candidates may be stand-ins: padding, or a pixel that stands again. They are never larger than all real ones, and
must have no part in the gradient even where they are as large: that is why the derivatives are written out here.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

TIES = ("first", "split")


def largest(x: jax.Array, real: jax.Array, ties: str) -> jax.Array:
    """The maximum along the first axis.

    Args:
        x: ``(candidates, …)``.
        real: as x, or with sizes of 1; False for stand-ins. With ``"first"`` they must not come first.
        ties: one of :data:`TIES`.

    >>> x, real = jnp.array([7., 1., 7.]), jnp.array([True, True, True])
    >>> [jax.grad(lambda x: largest(x, real, ties))(x).tolist() for ties in TIES]
    [[1.0, 0.0, 0.0], [0.5, 0.0, 0.5]]
    """
    if ties == "first":
        return jnp.take_along_axis(x, jnp.argmax(x, axis=0, keepdims=True), axis=0)[0]
    return _shared(x, real) if jnp.issubdtype(x.dtype, jnp.floating) else x.max(axis=0)


@jax.custom_jvp
def _shared(x: jax.Array, real: jax.Array) -> jax.Array:
    return x.max(axis=0)


@_shared.defjvp
def _shared_jvp(primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]) -> tuple[jax.Array, jax.Array]:
    x, real = primals
    y = _shared(x, real)
    won = (((x == y[None]) | jnp.isnan(x)) & real).astype(x.dtype)
    return y, (won / won.sum(axis=0, keepdims=True) * tangents[0]).sum(axis=0)


def first_largest(x: Sequence[jax.Array], real: Sequence[jax.Array]) -> jax.Array:
    """:func:`largest` with ``"first"``, of candidates that are arrays of their own, so that none is copied.

    >>> candidates = [jnp.array([-jnp.inf, 1.]), jnp.array([-jnp.inf, 1.])]
    >>> padding_and_pixel = [jnp.array([False, True]), jnp.array([True, True])]
    >>> jax.grad(lambda x: first_largest(x, padding_and_pixel).sum())(candidates)
    [Array([0., 1.], dtype=float32), Array([1., 0.], dtype=float32)]
    """
    return _first(list(x), list(real)) if jnp.issubdtype(x[0].dtype, jnp.floating) else _winner(x, real)[0]


def _winner(x: Sequence[jax.Array], real: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """The largest of each entry, and the number of the candidate that it is."""
    best, seen, number = x[0], real[0], jnp.zeros(x[0].shape, jnp.int32)
    for i, (candidate, counts) in enumerate(zip(x[1:], real[1:], strict=True), start=1):
        # Strictly greater, so that the first of equals keeps its place. But no number beats a NaN, and whatever is
        # real, −∞ too, beats a stand-in.
        better = (candidate > best) | (jnp.isnan(candidate) & ~jnp.isnan(best)) | (counts & ~seen)
        best, seen, number = jnp.where(better, candidate, best), seen | counts, jnp.where(better, i, number)
    return best, number


@jax.custom_jvp
def _first(x: list[jax.Array], real: list[jax.Array]) -> jax.Array:
    return _winner(x, real)[0]


@_first.defjvp
def _first_jvp(primals: tuple[list[jax.Array], Any], tangents: tuple[list[jax.Array], Any]) -> Any:
    # By number: the derivative of the chain of choices itself is a chain for each candidate, and XLA's time to compile
    # it grows with the square of the number of taps.
    y, number = _winner(*primals)
    return y, functools.reduce(operator.add, (jnp.where(number == i, dx, 0) for i, dx in enumerate(tangents[0])))


def largest_of_blocks(x: jax.Array, ties: str) -> jax.Array:
    """:func:`largest` of windows side by side, without stand-ins: over the window axes of a reshaped image.

    Everything is compared with its window's maximum at once, so that XLA makes one loop of it for all taps.

    Args:
        x: ``(N, out, window, out, window, …, C)``.
        ties: one of :data:`TIES`.

    >>> x = jnp.array([7., 1., 7., 7.]).reshape(1, 2, 2, 1)
    >>> [jax.grad(lambda x: largest_of_blocks(x, ties).sum())(x).ravel().tolist() for ties in TIES]
    [[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.5, 0.5]]
    """
    return _of_blocks(ties, x) if jnp.issubdtype(x.dtype, jnp.floating) else x.max(_windows(x))


def _windows(x: jax.Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim - 1, 2))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_blocks(ties: str, x: jax.Array) -> jax.Array:
    return x.max(_windows(x))


@_of_blocks.defjvp
def _of_blocks_jvp(ties: str, primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,), axes = primals, tangents, _windows(primals[0])
    y = x.max(axes, keepdims=True)
    won = (x == y) | jnp.isnan(x)
    if ties == "split":
        share = won.astype(x.dtype)
        return y.squeeze(axes), (share / share.sum(axes, keepdims=True) * dx).sum(axes)
    sizes = [n if axis in axes else 1 for axis, n in enumerate(x.shape)]
    number = jnp.arange(math.prod(sizes), dtype=jnp.int32).reshape(sizes)
    first = jnp.where(won, number, number.size).min(axes, keepdims=True)
    return y.squeeze(axes), jnp.where(number == first, dx, 0).sum(axes)
