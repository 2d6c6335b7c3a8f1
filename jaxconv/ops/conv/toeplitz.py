"""Convolution as a fully connected layer: one large matrix, nearly empty, whose few numbers repeat.

    y.ravel() = conv_matrix(kernel, in_shape) @ x.ravel()

Each output is a neuron connected to the pixels of its window and to no other (sparse connectivity), and all neurons
of one feature map have the same weights (weight sharing). The matrix of a one-dimensional convolution is constant
along its diagonals: a Toeplitz matrix. This lowering is for seeing, not for speed.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv import checks
from jaxconv.errors import InputError, said_by
from jaxconv.ops.sliding_window import tap_numbers
from jaxconv.shapes import ResolvedWindow, tap_pixels

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO

MOST_NUMBERS = 2**26  # each takes 20 bytes, with its row and column


def matrix(kernel: jax.Array, size: tuple[int, ...], window: ResolvedWindow, groups: int) -> "BCOO":
    """The matrix that takes an image of ``size`` pixels to its feature maps, both raveled."""
    from jax.experimental import sparse  # slow to load, and importing jaxconv should not pay for it

    *_, c, features = kernel.shape
    most = max(math.prod(window.out) * kernel.size, math.prod(size) * c * groups)
    if most > MOST_NUMBERS:
        raise InputError(
            f"the matrix of a kernel {kernel.shape} at {' × '.join(map(str, window.out))} places has up to {most:,} "
            f"numbers, or columns, and at most {MOST_NUMBERS:,} can be: take smaller images or another impl"
        )
    rows, columns, taps = (np.concatenate(part) for part in zip(*_meetings(window, size), strict=True))
    # Wherever a place and a pixel meet, each filter is connected to the channels of its group.
    o, k = np.arange(features)[None, :, None], np.arange(c)[None, None, :]
    neuron = rows[:, None, None] * features + o
    input = columns[:, None, None] * c * groups + o // (features // groups) * c + k
    where = np.stack(np.broadcast_arrays(neuron, input), axis=-1).reshape(-1, 2)
    weights = kernel.reshape(-1, c, features).transpose(0, 2, 1)[taps]
    shape = (math.prod(window.out) * features, math.prod(size) * c * groups)
    return sparse.BCOO((weights.ravel(), jnp.asarray(where, jnp.int32)), shape=shape)


def _meetings(window: ResolvedWindow, size: tuple[int, ...]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each tap, the places and the pixels that it joins, as flat indices; what falls on padding is no pixel."""
    pixels = tap_pixels(window)
    for tap in tap_numbers(window.size):
        places, met = [], []
        for axis, u in enumerate(tap):
            real = np.flatnonzero((pixels[axis][:, u] >= 0) & (pixels[axis][:, u] < size[axis]))
            places.append(real)
            met.append(pixels[axis][real, u])
        rows = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), window.out).ravel()
        columns = np.ravel_multi_index(np.meshgrid(*met, indexing="ij"), size).ravel()
        yield rows, columns, np.full(rows.size, np.ravel_multi_index(tap, window.size))


def toeplitz_conv(
    x: jax.Array, kernel: jax.Array, window: ResolvedWindow, *, groups: int, precision: lax.PrecisionLike
) -> jax.Array:
    x, kernel = checks.widened(x), checks.widened(kernel)
    with said_by("conv"):
        connections = matrix(kernel, x.shape[1:-1], window, groups)
    neurons, inputs = connections.indices.T
    pixels = x.reshape(x.shape[0], math.prod(x.shape[1:])).T
    # The product written out, because jax's own has no gradient on meshes of Explicit axes.
    y = jax.ops.segment_sum(connections.data[:, None] * pixels[inputs], neurons, connections.shape[0])
    return y.T.reshape(x.shape[0], *window.out, kernel.shape[-1])
