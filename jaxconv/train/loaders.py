"""Loaders of batches: the order of an epoch, and its batches from device memory or from a stream."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxconv import distributed
from jaxconv.errors import InputError
from jaxconv.train.pixels import check_pixels
from jaxconv.train.state import Batch
from jaxconv.train.tasks import label_array

Order = Callable[[int], np.ndarray]  # epoch -> (chunks, [networks,] chunk, B), as epoch_rows makes it
READERS = 2  # threads that read a stream, each a chunk at a time


class RandomAccessSource(Protocol):
    """Examples that are read when they are asked for."""

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]: ...


class EpochPlan(NamedTuple):
    """How an epoch is cut: into steps of one batch size, and these into chunks of one length."""

    num_examples: int
    batch_size: int
    steps_per_epoch: int  # in an epoch
    steps_per_execution: int  # steps in a chunk
    executions: int  # in an epoch


class DeviceLoader:
    """Examples on the device: only the order of each epoch is moved there.

    Args:
        images, labels: all of them.
        plan: how an epoch is cut.
        order: indices of the examples, epoch by epoch; several networks have an order each.
        mesh: of devices, each of which holds all examples and takes its share of every batch.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, plan: EpochPlan, order: Order, mesh: Mesh | None
    ) -> None:
        self.plan, self.order, self.mesh = plan, order, mesh
        self.data = distributed.replicate(mesh, (images, label_array(labels)))

    @staticmethod
    def fetch(row: jax.Array, images: jax.Array, labels: jax.Array) -> Batch:
        return gather_batch(images, labels, row)

    def chunks(self, epoch: int, first: int, position: Any = None) -> Iterator[Any]:
        """What the chunks of an epoch need, from number ``first`` on."""
        part = distributed.local_batch_slice(self.plan.batch_size)
        for chunk in self.order(epoch)[first:]:
            yield distributed.shard(self.mesh, chunk[..., part], axis=chunk.ndim - 1)

    def get_state(self) -> None:
        """Nothing to remember: the order is a function of seed and epoch."""


class StreamingLoader:
    """Examples that are read by Grain, in threads beside the training, a few chunks ahead of it.

    In a program of several processes each reads only its share of every batch. The order is that of
    :class:`DeviceLoader`.

    Args:
        source: the examples. If it has ``take(indices) -> images``, that is used.
        plan: how an epoch is cut.
        order: indices of the examples, epoch by epoch.
        mesh: of devices, each of which takes its share of every batch.
        scale: what the pixels are divided by, for the check of the first ones.

    Raises:
        InputError: when it is read, no Grain, pixels that are not finite in the first chunk, or
            whatever the source raises.
    """

    data: tuple[Any, ...] = ()

    def __init__(
        self,
        source: RandomAccessSource,
        plan: EpochPlan,
        order: Order,
        mesh: Mesh | None,
        scale: float | None = None,
    ) -> None:
        self.source, self.plan, self.order, self.mesh, self.scale = source, plan, order, mesh, scale
        self.checked = False
        self.iterator: Any = None

    @staticmethod
    def fetch(batch: Batch) -> Batch:
        return batch

    def chunks(self, epoch: int, first: int, position: Any = None) -> Iterator[Batch]:
        """The chunks of an epoch, from number ``first`` on, or from a position that was noted."""
        try:
            import grain.python as grain
        except ImportError:
            raise InputError('streaming is done by Grain: pip install "jaxconv[streaming]"') from None

        part = distributed.local_batch_slice(self.plan.batch_size)
        reader = _Chunks(self.source, self.order(epoch)[..., part])
        options = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=READERS)
        self.iterator = iter(grain.MapDataset.source(reader).to_iter_dataset(options))
        self.iterator.set_state(position or {"next_index": first})
        for chunk in self.iterator:
            if not self.checked:  # the rest only if a step goes wrong
                images = chunk[0].reshape(-1, *chunk[0].shape[2:])
                check_pixels("fit", "the training images read first", images, self.scale)
                self.checked = True
            yield distributed.shard(self.mesh, Batch(*chunk), axis=1)

    def get_state(self) -> Any:
        """How far it has been read, to go on from."""
        return self.iterator.get_state() if self.iterator else None


class _Chunks:
    """The chunks of an epoch as a random-access source, which Grain reads from in threads."""

    def __init__(self, source: RandomAccessSource, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mask = self.rows[number] >= 0
        index = np.where(mask, self.rows[number], ~self.rows[number])
        flat = index.ravel()
        take = getattr(self.source, "take", None)
        images = take(flat) if take else np.stack([self.source[int(i)][0] for i in flat])
        return images.reshape(*index.shape, *images.shape[1:]), label_array(self.source.labels[index]), mask


def epoch_rows(plan: EpochPlan, seed: int, epoch: int) -> np.ndarray:
    """Return the batches of an epoch, chunk by chunk, as :func:`batch_indices` writes them: ``(chunks, chunk, B)``."""
    order = epoch_permutation(seed, epoch, plan.num_examples)
    return batch_indices(order, plan.batch_size, plan.executions * plan.steps_per_execution).reshape(
        plan.executions, plan.steps_per_execution, plan.batch_size
    )


VALUES_A_CHUNK = 2**22  # pixels that a compiled chunk goes through, so that it takes a second or so


def plan_epoch(count: int, batch_size: int, input_shape: tuple[int, ...]) -> EpochPlan:
    """Chunks as long as go through about four million pixels, and as equal as can be.

    >>> plan_epoch(50_000, 256, (28, 28, 1))
    EpochPlan(num_examples=50000, batch_size=256, steps_per_epoch=196, steps_per_execution=20, executions=10)
    """
    steps = math.ceil(count / batch_size)
    longest = max(1, VALUES_A_CHUNK // (batch_size * math.prod(input_shape)))
    chunks = math.ceil(steps / longest)
    return EpochPlan(count, batch_size, steps, math.ceil(steps / chunks), chunks)


def epoch_permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch sees its examples: a function of seed and epoch, of nothing that went before.

    >>> first, again, second = (epoch_permutation(0, epoch, 4).tolist() for epoch in (1, 1, 2))
    >>> first == again != second
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_indices(order: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """An order cut into batches: ``(steps, batch_size)`` int32. What is over is filled with examples from the start.

    A filling example i is written ``~i``, which is negative: it is there for the shape, and does not count.

    >>> batch_indices(np.array([2, 0, 1]), batch_size=2, steps=2)
    array([[ 2,  0],
           [ 1, -3]], dtype=int32)
    """
    filled = np.resize(order, steps * batch_size).astype(np.int32)
    filled[len(order) :] = ~filled[len(order) :]
    return filled.reshape(steps, batch_size)


def gather_batch(images: jax.Array, labels: jax.Array, row: jax.Array) -> Batch:
    """The batch of a row, from examples on the device."""
    mask = row >= 0
    index = jnp.where(mask, row, ~row)
    return Batch(jnp.take(images, index, axis=0, mode="clip"), jnp.take(labels, index, axis=0, mode="clip"), mask)


def iterate_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """Every example once, in batches of one size; the last is filled up, and its mask tells.

    Class numbers come in int32, and floats in float32, whatever they are kept in, so that what is compiled for one
    batch takes all.

    >>> last = list(iterate_batches(np.ones((5, 2, 2, 1), np.uint8), np.arange(5), 3))[-1]
    >>> last.image.shape, last.label.tolist(), last.mask.tolist()
    ((3, 2, 2, 1), [3, 4, 0], [True, True, False])
    """
    order = np.arange(len(images)) if order is None else order
    for row in batch_indices(order, batch_size, math.ceil(len(order) / batch_size)):
        index = np.where(row >= 0, row, ~row)
        yield Batch(images[index], label_array(labels[index]), row >= 0)
