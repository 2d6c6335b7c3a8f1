"""Time jaxconv's training step, as a jitted call and as the compiled loop of ``fit``, and count its arithmetic."""

import itertools
import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import models, runtime, train
from jaxconv.bench.peers import CLASSES, LEARNING_RATE, Runner, random_batch
from jaxconv.explain import summarize
from jaxconv.train.loaders import Resident
from jaxconv.train.loop import make_chunk

IMAGES = 50_000  # on the device, of which an epoch gathers its batches: as many as CIFAR-10 has
LONGEST = 50  # steps of a chunk; only of batches smaller than usual would fit take more


def build(model: str, batch: int, *, mode: str = "step", images: int = IMAGES) -> Runner:
    """Mode ``step`` or ``epoch``."""
    return epoch(model, batch, images) if mode == "epoch" else step(model, batch)


def step(model: str, batch: int) -> Runner:
    entry = models.find(model)
    net, optimizer = entry.make(CLASSES), optax.adam(LEARNING_RATE)
    ts = train.init_state(net, optimizer, jax.random.key(0), entry.in_shape)
    train_step = train.make_train_step(net, optimizer, jax.random.key(1))
    examples = train.Batch(*map(jnp.asarray, random_batch(entry.in_shape, batch)))

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count):
            ts, metrics = train_step(ts, examples)
        jax.block_until_ready(ts)
        return float(metrics.loss) / batch

    return Runner(_sizes(ts), steps)


def epoch(model: str, batch: int, images: int) -> Runner:
    entry = models.find(model)
    net, optimizer = entry.make(CLASSES), optax.adam(LEARNING_RATE)
    ts = train.init_state(net, optimizer, jax.random.key(0), entry.in_shape)
    cut = train.plan(images, batch, entry.in_shape)
    chunk = min(cut.chunk, LONGEST)
    cut = cut._replace(chunk=chunk, chunks=math.ceil(cut.steps / chunk))
    cut = cut._replace(examples=cut.chunks * chunk * batch, steps=cut.chunks * chunk)  # whole chunks of whole batches
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (cut.examples, *entry.in_shape), np.uint8)
    labels = rng.integers(0, CLASSES, cut.examples).astype(np.int32)
    feed = Resident(pixels, labels, cut, 0, None)
    function = make_chunk(train.make_step(net, optimizer), feed.fetch)
    advance = train.Program("the training chunk", function, donate_argnums=0)
    orders = itertools.chain.from_iterable(feed.chunks(epoch, 0) for epoch in itertools.count(1))
    key, live = jax.random.key(1), jnp.asarray(True)

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count // chunk):
            ts, metrics = advance(ts, key, live, next(orders), *feed.data)
        jax.block_until_ready(ts)
        return float(metrics.loss / metrics.examples)

    return Runner(_sizes(ts), steps, chunk)


def _sizes(ts: train.TrainState) -> list[int]:
    return [leaf.size for leaf in jax.tree.leaves(ts.params)]


def flops_of_step(model: str, batch: int) -> float:
    """Additions and multiplications of one training step.

    Every product of the forward pass has one for the gradient by the kernel and one for the gradient by the input,
    which the first layer does not need: ``2 · batch · (3 · multiply_adds − those of the first layer)``. What is
    neither convolution nor dense is not counted.

    >>> flops_of_step("mnist_cnn", 1) == 2 * (3 * 2794240 - 26 * 26 * 32 * 9)
    True
    """
    entry = models.find(model)
    work = [row.multiply_adds for row in summarize(entry.make(CLASSES), entry.in_shape).rows if row.multiply_adds]
    return 2.0 * batch * (3 * sum(work) - work[0])


def load() -> str | None:
    """What to say if others are using the machine now; None if it is quiet, or does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    running = os.getloadavg()[0]  # processes, on average over the last minute
    if running < 0.5:
        return None
    return f"the machine is busy ({running:.1f} processes on {runtime.cores()} cores): times may mislead"


def machine() -> dict[str, Any]:
    """What the times that are written to a file depend on."""
    return {
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "threads": runtime.cores(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
    }


def ceiling_line(gflops: float) -> str:
    """Say in words what :func:`sgemm_gflops` measured, and whether XLA is held to fewer instructions."""
    line = f"the machine's ceiling: {gflops:.1f} GFLOP/s (numpy's product of two 2048×2048 float32 matrices)"
    held = f"; XLA is held to {runtime.instruction_set()}, which is emulated"
    return line + (held if runtime.instruction_set_is_emulated() else "")


def sgemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Billions of operations a second of numpy's float32 matrix product, the best of some: the machine's ceiling."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9
