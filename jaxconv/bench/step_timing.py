"""Time jaxconv's training step, as a jitted call and as the compiled loop of ``fit``, and count its arithmetic."""

import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import models, runtime, train
from jaxconv.explain import summarize
from jaxconv.train.engine import make_execution
from jaxconv.train.loaders import DeviceLoader
from jaxconv.train.multi_seed import Single
from jaxconv.utils.tables import as_text, new_table
from jaxconv.utils.timing import in_turns

JAXCONV = "jaxconv"
LEARNING_RATE = 1e-3
CLASSES = 10
BATCHES = {"mnist_cnn": 256}  # examples a step; of any other model
BATCH = 128
IMAGES = 50_000  # on the device, of which an epoch gathers its batches: as many as CIFAR-10 has
LONGEST = 50  # steps of a chunk; only of batches smaller than usual would fit take more
MIN_ROUND_SECONDS = 0.3  # so that neither the clock nor the request matters


class Runner(NamedTuple):
    """A network that learns.

    Attributes:
        sizes: how many numbers each of its parameters holds, in any order.
        steps: makes so many steps, waits until they are done, and returns the loss of the last (of a call, where that
            makes many).
        chunk: steps of one call of the library; ``steps`` makes a multiple of it.
    """

    sizes: list[int]
    steps: Callable[[int], float]
    chunk: int = 1


class StepTimes(NamedTuple):
    """Times of one training step of a network in one framework: medians and extremes over rounds."""

    model: str
    framework: str
    mode: str  # "step", a call a step, or "epoch", many steps a call
    batch: int
    median_ms: float
    min_ms: float
    max_ms: float
    images_per_second: float
    gflops: float  # a second
    first_step_s: float  # with compilation

    @property
    def name(self) -> str:
        return display_name(self.framework, self.mode)


def batch_of(model: str) -> int:
    """Examples a step of a model, where nobody says otherwise.

    >>> batch_of("mnist_cnn"), batch_of("lenet5")
    (256, 128)
    """
    return BATCHES.get(model, BATCH)


def display_name(framework: str, mode: str) -> str:
    """Name of a way to train; only jaxconv has two modes.

    >>> display_name("jaxconv", "epoch"), display_name("torch", "step")
    ('jaxconv epoch', 'torch')
    """
    return f"{framework} {mode}" if framework == JAXCONV else framework


def random_batch(input_shape: tuple[int, ...], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Images ``(N, H, W, C)`` of floats from 0 to 1 and labels ``(N,)``, the same for every peer."""
    rng = np.random.default_rng(0)
    return rng.random((batch, *input_shape), np.float32), rng.integers(0, CLASSES, batch).astype(np.int32)


def build(model: str, batch: int, *, mode: str = "step", images: int = IMAGES) -> Runner:
    """Mode ``step`` or ``epoch``."""
    return epoch(model, batch, images) if mode == "epoch" else step(model, batch)


def step(model: str, batch: int) -> Runner:
    spec = models.get_model(model)
    net, optimizer = spec.create(num_classes=CLASSES), optax.adam(LEARNING_RATE)
    ts = train.create_train_state(net, optimizer, jax.random.key(0), spec.input_shape)
    train_step = train.make_train_step(net, optimizer)
    key, examples = jax.random.key(1), train.Batch(*map(jnp.asarray, random_batch(spec.input_shape, batch)))

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count):
            ts, metrics = train_step(ts, examples, key)
        jax.block_until_ready(ts)
        return float(metrics.sums["loss"]) / batch

    return Runner(_sizes(ts), steps)


def epoch(model: str, batch: int, images: int) -> Runner:
    spec = models.get_model(model)
    net, optimizer = spec.create(num_classes=CLASSES), optax.adam(LEARNING_RATE)
    ts = train.create_train_state(net, optimizer, jax.random.key(0), spec.input_shape)
    cut = train.plan_epoch(images, batch, spec.input_shape)
    chunk = min(cut.steps_per_execution, LONGEST)
    cut = cut._replace(steps_per_execution=chunk, executions=math.ceil(cut.steps_per_epoch / chunk))
    cut = cut._replace(
        num_examples=cut.executions * chunk * batch, steps_per_epoch=cut.executions * chunk
    )  # whole chunks of whole batches
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (cut.num_examples, *spec.input_shape), np.uint8)
    labels = rng.integers(0, CLASSES, cut.num_examples).astype(np.int32)
    feed = DeviceLoader(pixels, labels, cut, functools.partial(Single(0).batch_indices, cut), None)
    function = make_execution(train.make_train_step(net, optimizer, jit=False), feed.fetch)
    advance = train.CompiledFunction("the training function", function, donate_argnums=0)
    orders = itertools.chain.from_iterable(feed.executions(epoch, 0) for epoch in itertools.count(1))
    key, live = jax.random.key(1), jnp.asarray(True)

    def steps(count: int) -> float:
        nonlocal ts
        for _ in range(count // chunk):
            ts, metrics = advance(ts, key, live, next(orders), *feed.data)
        jax.block_until_ready(ts)
        return float(metrics.sums["loss"] / metrics.count)

    return Runner(_sizes(ts), steps, chunk)


def _sizes(ts: train.TrainState) -> list[int]:
    return [leaf.size for leaf in jax.tree.leaves(ts.params)]


def flops_of_step(model: str, batch: int) -> float:
    """Additions and multiplications of one training step.

    Every product of the forward pass has one for the gradient by the kernel and one for the gradient by the input,
    which the first layer does not need: ``2 · batch · (3 · macs − those of the first layer)``. What is
    neither convolution nor dense is not counted.

    >>> flops_of_step("mnist_cnn", 1) == 2 * (3 * 2794240 - 26 * 26 * 32 * 9)
    True
    """
    spec = models.get_model(model)
    work = [row.macs for row in summarize(spec.create(num_classes=CLASSES), spec.input_shape).rows if row.macs]
    return 2.0 * batch * (3 * sum(work) - work[0])


def busy_warning() -> str | None:
    """Return a warning if other processes use the machine now; None if it is quiet, or does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    running = os.getloadavg()[0]  # processes, on average over the last minute
    if running < 0.5:
        return None
    return f"the machine is busy ({running:.1f} processes on {runtime.cpu_count()} cores): times may mislead"


def machine_info() -> dict[str, Any]:
    """Return the facts on this machine that times depend on, for the file that holds them."""
    return {
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "threads": runtime.cpu_count(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
    }


def peak_line(gflops: float) -> str:
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


def time_steps(
    model: str, batch: int, *, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> list[StepTimes]:
    """Time jaxconv's training step in both modes, which take turns.

    Args:
        model: name of a model.
        batch: images a step.
        rounds: number of rounds; each mode has one turn in a round.
        progress: called with what is going on.

    Returns:
        The times of the modes ``step`` and ``epoch``.
    """
    runners = {mode: build(model, batch, mode=mode) for mode in ("step", "epoch")}
    first = {}
    for mode, runner in runners.items():
        progress(f"compiling {mode}")
        start = time.perf_counter()
        runner.steps(runner.chunk)
        first[mode] = time.perf_counter() - start
    calls = {mode: functools.partial(runner.steps, runner.chunk) for mode, runner in runners.items()}
    measured = in_turns(calls, repeats=rounds, least=MIN_ROUND_SECONDS, progress=progress)
    seconds = {mode: [call / runners[mode].chunk for call in measured[mode]] for mode in runners}
    flops = flops_of_step(model, batch)
    return [step_times(JAXCONV, mode, model, batch, seconds[mode], first[mode], flops) for mode in runners]


def step_times(
    framework: str, mode: str, model: str, batch: int, seconds: Sequence[float], first_step_s: float, flops: float
) -> StepTimes:
    """Summarize the seconds of a step over rounds, where a step is ``flops`` operations."""
    median = statistics.median(seconds)
    return StepTimes(
        model,
        framework,
        mode,
        batch,
        median_ms=median * 1e3,
        min_ms=min(seconds) * 1e3,
        max_ms=max(seconds) * 1e3,
        images_per_second=batch / median,
        gflops=flops / median / 1e9,
        first_step_s=first_step_s,
    )


def times_table(rows: Sequence[StepTimes], relative: Mapping[str, float] = {}, relative_to: str = "") -> str:
    """Table of the times of one model, with a column of relative times if there are any."""
    headings = ["median ms", "min", "max", "images/s", "GFLOP/s", *([f"× {relative_to}"] if relative else [])]
    title = f"{rows[0].model}: a training step of {rows[0].batch} images"
    table = new_table(title, "framework", "mode", numbers=[*headings, "first step s"])
    for row in rows:
        cells = [f"{ms:.2f}" for ms in (row.median_ms, row.min_ms, row.max_ms)]
        cells += [f"{row.images_per_second:,.0f}", f"{row.gflops:.1f}"]
        cells += [f"{relative[row.name]:.2f}"] if relative else []
        table.add_row(row.framework, row.mode, *cells, f"{row.first_step_s:.1f}")
    return as_text(table)
