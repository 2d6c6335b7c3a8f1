"""The order of the data, and its cutting into batches that all have one shape."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.train.state import Batch

VALUES_A_CHUNK = 2**22  # pixels that a compiled chunk goes through, so that it takes a second or so


class Plan(NamedTuple):
    """How an epoch is cut: into steps of one batch size, and these into chunks of one length."""

    examples: int
    batch_size: int
    steps: int  # in an epoch
    chunk: int  # steps in a chunk
    chunks: int  # in an epoch


def plan(count: int, batch_size: int, in_shape: tuple[int, ...]) -> Plan:
    """Chunks as long as go through about four million pixels, and as equal as can be.

    >>> plan(50_000, 256, (28, 28, 1))
    Plan(examples=50000, batch_size=256, steps=196, chunk=20, chunks=10)
    """
    steps = math.ceil(count / batch_size)
    longest = max(1, VALUES_A_CHUNK // (batch_size * math.prod(in_shape)))
    chunks = math.ceil(steps / longest)
    return Plan(count, batch_size, steps, math.ceil(steps / chunks), chunks)


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch sees its examples: a function of seed and epoch, of nothing that went before.

    >>> epoch_order(0, 1, 4).tolist() == epoch_order(0, 1, 4).tolist() != epoch_order(0, 2, 4).tolist()
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def rows(order: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """An order cut into batches: ``(steps, batch_size)`` int32. What is over is filled with examples from the start.

    A filling example i is written ``~i``, which is negative: it is there for the shape, and does not count.

    >>> rows(np.array([2, 0, 1]), batch_size=2, steps=2)
    array([[ 2,  0],
           [ 1, -3]], dtype=int32)
    """
    filled = np.resize(order, steps * batch_size).astype(np.int32)
    filled[len(order) :] = ~filled[len(order) :]
    return filled.reshape(steps, batch_size)


def gather(images: jax.Array, labels: jax.Array, row: jax.Array) -> Batch:
    """The batch of a row, from examples on the device."""
    mask = row >= 0
    index = jnp.where(mask, row, ~row)
    return Batch(jnp.take(images, index, axis=0, mode="clip"), jnp.take(labels, index, mode="clip"), mask)


def batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """Every example once, in batches of one size; the last is filled up, and its mask tells.

    Class numbers come in int32 whatever they are kept in, so that what is compiled for one batch takes all.

    >>> last = list(batches(np.ones((5, 2, 2, 1), np.uint8), np.arange(5), 3))[-1]
    >>> last.image.shape, last.label.tolist(), last.mask.tolist()
    ((3, 2, 2, 1), [3, 4, 0], [True, True, False])
    """
    order = np.arange(len(images)) if order is None else order
    for row in rows(order, batch_size, math.ceil(len(order) / batch_size)):
        index = np.where(row >= 0, row, ~row)
        yield Batch(images[index], labels[index].astype(np.int32), row >= 0)
