"""Loaders: the order of an epoch, and its batches from device memory or from a stream."""

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

Order = Callable[[int], np.ndarray]  # epoch -> (executions, [networks,] steps, B), as epoch_indices returns
NUM_THREADS = 2  # of a stream; each reads the examples of one execution at a time


class RandomAccessSource(Protocol):
    """Dataset whose images are read one at a time, on access."""

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def image_shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[np.ndarray, int]: ...


class EpochPlan(NamedTuple):
    """Division of an epoch into steps of equal batch size, and of the steps into executions of equal length.

    An execution is one call of the compiled training function, which runs ``steps_per_execution`` steps.
    """

    num_examples: int
    batch_size: int
    steps_per_epoch: int
    steps_per_execution: int
    executions: int  # per epoch


class DeviceLoader:
    """Loader of examples in device memory: only the indices of each epoch are transferred.

    Args:
        images, labels: the training examples.
        plan: division of an epoch into executions.
        order: function from epoch to example indices; with several networks, one order per network.
        mesh: devices; each holds all examples, and batches are sharded over them.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, plan: EpochPlan, order: Order, mesh: Mesh | None
    ) -> None:
        self.plan, self.order, self.mesh = plan, order, mesh
        self.data = distributed.replicate(mesh, (images, label_array(labels)))

    @staticmethod
    def fetch(indices: jax.Array, images: jax.Array, labels: jax.Array) -> Batch:
        return gather_batch(images, labels, indices)

    def executions(self, epoch: int, start: int, state: Any = None) -> Iterator[Any]:
        """Yield the example indices of each execution of an epoch, from number ``start`` on."""
        local = distributed.local_batch_slice(self.plan.batch_size)
        for indices in self.order(epoch)[start:]:
            yield distributed.shard(self.mesh, indices[..., local], axis=indices.ndim - 1)

    def get_state(self) -> None:
        """Return None: the order depends on seed and epoch only."""


class StreamingLoader:
    """Loader of streamed examples: Grain reads them in background threads and prefetches a few executions.

    In a program of several processes, each process reads only its slice of every batch. The order is that of
    :class:`DeviceLoader`.

    Args:
        source: the examples. Its method ``take(indices) -> images`` is used if it has one.
        plan: division of an epoch into executions.
        order: function from epoch to example indices.
        mesh: devices over which batches are sharded.
        scale: divisor of the pixels, for the range check of the first execution.

    Raises:
        InputError: while reading, if Grain is not installed, a pixel of the first execution is not finite, or the
            source raises it.
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
        self.is_checked = False
        self.iterator: Any = None

    @staticmethod
    def fetch(batch: Batch) -> Batch:
        return batch

    def executions(self, epoch: int, start: int, state: Any = None) -> Iterator[Batch]:
        """Yield the batches of each execution of an epoch, from number ``start`` or from a saved state on."""
        try:
            import grain.python as grain
        except ImportError:
            raise InputError('streaming requires Grain: pip install "jaxconv[streaming]"') from None

        local = distributed.local_batch_slice(self.plan.batch_size)
        source = _ExecutionSource(self.source, self.order(epoch)[..., local])
        options = grain.ReadOptions(num_threads=NUM_THREADS, prefetch_buffer_size=NUM_THREADS)
        self.iterator = iter(grain.MapDataset.source(source).to_iter_dataset(options))
        self.iterator.set_state(state or {"next_index": start})
        for arrays in self.iterator:
            if not self.is_checked:  # later executions are checked only if a step produces non-finite values
                images = arrays[0].reshape(-1, *arrays[0].shape[2:])
                check_pixels("fit", "the training images read first", images, self.scale)
                self.is_checked = True
            yield distributed.shard(self.mesh, Batch(*arrays), axis=1)

    def get_state(self) -> Any:
        """Return Grain's state, from which reading can resume."""
        return self.iterator.get_state() if self.iterator else None


class _ExecutionSource:
    """Random-access source whose item is all batches of one execution; Grain's threads read from it."""

    def __init__(self, source: RandomAccessSource, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        indices, mask = _split_padding(self.indices[index])
        flat = indices.ravel()
        take = getattr(self.source, "take", None)
        images = take(flat) if take else np.stack([self.source[int(i)][0] for i in flat])
        return images.reshape(*indices.shape, *images.shape[1:]), label_array(self.source.labels[indices]), mask


def epoch_indices(plan: EpochPlan, seed: int, epoch: int) -> np.ndarray:
    """Return the :func:`batch_indices` of an epoch, ``(executions, steps_per_execution, B)``."""
    order = epoch_permutation(seed, epoch, plan.num_examples)
    return batch_indices(order, plan.batch_size, plan.executions * plan.steps_per_execution).reshape(
        plan.executions, plan.steps_per_execution, plan.batch_size
    )


PIXELS_PER_EXECUTION = 2**22  # so that an execution takes about a second


def plan_epoch(count: int, batch_size: int, input_shape: tuple[int, ...]) -> EpochPlan:
    """Divide an epoch of ``count`` examples into executions of equal length and at most about four million pixels.

    >>> plan_epoch(50_000, 256, (28, 28, 1))
    EpochPlan(num_examples=50000, batch_size=256, steps_per_epoch=196, steps_per_execution=20, executions=10)
    """
    steps = math.ceil(count / batch_size)
    max_steps = max(1, PIXELS_PER_EXECUTION // (batch_size * math.prod(input_shape)))
    executions = math.ceil(steps / max_steps)
    return EpochPlan(count, batch_size, steps, math.ceil(steps / executions), executions)


def epoch_permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the examples in an epoch, a permutation that depends on seed and epoch only.

    >>> first, repeated, second = (epoch_permutation(0, epoch, 4).tolist() for epoch in (1, 1, 2))
    >>> first == repeated != second
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_indices(order: np.ndarray, batch_size: int, steps: int) -> np.ndarray:
    """Return an order as batches, ``(steps, batch_size)`` int32, padded with examples from the start.

    A padding example i is encoded as ``~i``, which is negative, and is masked in the batch.

    >>> batch_indices(np.array([2, 0, 1]), batch_size=2, steps=2)
    array([[ 2,  0],
           [ 1, -3]], dtype=int32)
    """
    padded = np.resize(order, steps * batch_size).astype(np.int32)
    padded[len(order) :] = ~padded[len(order) :]
    return padded.reshape(steps, batch_size)


def _split_padding(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the example indices of :func:`batch_indices`, and the mask that is False for padding."""
    mask = indices >= 0
    return np.where(mask, indices, ~indices), mask


def gather_batch(images: jax.Array, labels: jax.Array, indices: jax.Array) -> Batch:
    """Return the batch of one row of :func:`batch_indices`, gathered from examples on the device."""
    mask = indices >= 0
    index = jnp.where(mask, indices, ~indices)
    return Batch(jnp.take(images, index, axis=0, mode="clip"), jnp.take(labels, index, axis=0, mode="clip"), mask)


def iterate_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """Yield every example once, in batches of equal size; the last batch is padded and its padding masked.

    Integer labels are converted to int32 and floats to float32, so that all batches have the same types.

    >>> last = list(iterate_batches(np.ones((5, 2, 2, 1), np.uint8), np.arange(5), 3))[-1]
    >>> last.image.shape, last.label.tolist(), last.mask.tolist()
    ((3, 2, 2, 1), [3, 4, 0], [True, True, False])
    """
    order = np.arange(len(images)) if order is None else order
    for row in batch_indices(order, batch_size, math.ceil(len(order) / batch_size)):
        indices, mask = _split_padding(row)
        yield Batch(images[indices], label_array(labels[indices]), mask)
