"""Time jaxconv's training step, as a jitted call and as the compiled loop of ``fit``, and count its FLOPs."""

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
BATCHES = {"mnist_cnn": 256}  # examples per step, where they differ from BATCH
BATCH = 128
IMAGES = 50_000  # images on the device, from which an epoch gathers its batches; as many as CIFAR-10 has
MAX_STEPS_PER_EXECUTION = 50  # fit takes more only for small batches
MIN_ROUND_SECONDS = 0.3  # so that the resolution of the clock and the dispatch do not matter


class Runner(NamedTuple):
    """Network in training.

    Attributes:
        sizes: number of entries of each parameter, in any order.
        steps: runs the given number of steps, waits for them, and returns the loss of the last step or execution.
        chunk: steps per execution; the number of steps must be a multiple of it.
    """

    sizes: list[int]
    steps: Callable[[int], float]
    chunk: int = 1


class StepTimes(NamedTuple):
    """Times of one training step of a network in one framework: medians and extremes over rounds."""

    model: str
    framework: str
    mode: str  # "step", one step per call, or "epoch", many steps per call
    batch: int
    median_ms: float
    min_ms: float
    max_ms: float
    images_per_second: float
    gflops: float  # per second
    first_step_s: float  # including compilation

    @property
    def name(self) -> str:
        return display_name(self.framework, self.mode)


def batch_of(model: str) -> int:
    """Return the default number of examples per step of a model.

    >>> batch_of("mnist_cnn"), batch_of("lenet5")
    (256, 128)
    """
    return BATCHES.get(model, BATCH)


def display_name(framework: str, mode: str) -> str:
    """Return the name of a framework and mode; only jaxconv has two modes.

    >>> display_name("jaxconv", "epoch"), display_name("torch", "step")
    ('jaxconv epoch', 'torch')
    """
    return f"{framework} {mode}" if framework == JAXCONV else framework


def random_batch(input_shape: tuple[int, ...], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images ``(N, H, W, C)`` of floats in [0, 1) and labels ``(N,)``, the same for every framework."""
    rng = np.random.default_rng(0)
    return rng.random((batch, *input_shape), np.float32), rng.integers(0, CLASSES, batch).astype(np.int32)


def build(model: str, batch: int, *, mode: str = "step", images: int = IMAGES) -> Runner:
    """Return the runner of mode ``step`` or ``epoch``."""
    return epoch(model, batch, images) if mode == "epoch" else step(model, batch)


def step(model: str, batch: int) -> Runner:
    """Return a runner that calls the jitted training step."""
    spec = models.get_model(model)
    net, optimizer = spec.create(num_classes=CLASSES), optax.adam(LEARNING_RATE)
    train_state = train.create_train_state(net, optimizer, jax.random.key(0), spec.input_shape)
    train_step = train.make_train_step(net, optimizer)
    key, examples = jax.random.key(1), train.Batch(*map(jnp.asarray, random_batch(spec.input_shape, batch)))

    def steps(count: int) -> float:
        nonlocal train_state
        for _ in range(count):
            train_state, metrics = train_step(train_state, examples, key)
        jax.block_until_ready(train_state)
        return float(metrics.sums["loss"]) / batch

    return Runner(_parameter_sizes(train_state), steps)


def epoch(model: str, batch: int, images: int) -> Runner:
    """Return a runner of the compiled training loop, with ``images`` images on the device."""
    spec = models.get_model(model)
    net, optimizer = spec.create(num_classes=CLASSES), optax.adam(LEARNING_RATE)
    train_state = train.create_train_state(net, optimizer, jax.random.key(0), spec.input_shape)
    plan = train.plan_epoch(images, batch, spec.input_shape)
    steps_per_execution = min(plan.steps_per_execution, MAX_STEPS_PER_EXECUTION)
    executions = math.ceil(plan.steps_per_epoch / steps_per_execution)
    plan = plan._replace(  # all executions and batches are complete
        steps_per_execution=steps_per_execution,
        executions=executions,
        num_examples=executions * steps_per_execution * batch,
        steps_per_epoch=executions * steps_per_execution,
    )
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (plan.num_examples, *spec.input_shape), np.uint8)
    labels = rng.integers(0, CLASSES, plan.num_examples).astype(np.int32)
    loader = DeviceLoader(pixels, labels, plan, functools.partial(Single(0).batch_indices, plan), None)
    function = make_execution(train.make_train_step(net, optimizer, jit=False), loader.fetch)
    run_execution = train.CompiledFunction("the training function", function, donate_argnums=0)
    batch_indices = itertools.chain.from_iterable(loader.executions(epoch, 0) for epoch in itertools.count(1))
    key, active = jax.random.key(1), jnp.asarray(True)

    def steps(count: int) -> float:
        nonlocal train_state
        for _ in range(count // steps_per_execution):
            train_state, metrics = run_execution(train_state, key, active, next(batch_indices), *loader.data)
        jax.block_until_ready(train_state)
        return float(metrics.sums["loss"] / metrics.count)

    return Runner(_parameter_sizes(train_state), steps, steps_per_execution)


def _parameter_sizes(train_state: train.TrainState) -> list[int]:
    return [leaf.size for leaf in jax.tree.leaves(train_state.params)]


def flops_of_step(model: str, batch: int) -> float:
    """Return the additions and multiplications of one training step.

    Each product of the forward pass has one product in the gradient of the kernel and one in the gradient of the
    input, which the first layer does not need: ``2 · batch · (3 · macs − macs of the first layer)``. Only
    convolutions and dense layers are counted.

    >>> flops_of_step("mnist_cnn", 1) == 2 * (3 * 2794240 - 26 * 26 * 32 * 9)
    True
    """
    spec = models.get_model(model)
    work = [row.macs for row in summarize(spec.create(num_classes=CLASSES), spec.input_shape).rows if row.macs]
    return 2.0 * batch * (3 * sum(work) - work[0])


def busy_warning() -> str | None:
    """Return a warning if other processes load the machine; None if not, or if the load is not known."""
    if not hasattr(os, "getloadavg"):
        return None
    num_running = os.getloadavg()[0]  # processes, averaged over the last minute
    if num_running < 0.5:
        return None
    return f"the machine is busy ({num_running:.1f} processes on {runtime.cpu_count()} cores): times may mislead"


def machine_info() -> dict[str, Any]:
    """Return the properties of this machine that times depend on, for the JSON file of the times."""
    return {
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "threads": runtime.cpu_count(),
        "instruction_set": runtime.instruction_set(),
        "emulated": runtime.instruction_set_is_emulated(),
    }


def peak_line(gflops: float) -> str:
    """Format the result of :func:`sgemm_gflops`; add a note if XLA is limited to fewer instructions."""
    line = f"peak: {gflops:.1f} GFLOP/s (numpy's product of two 2048×2048 float32 matrices)"
    note = f"; XLA is limited to {runtime.instruction_set()}"
    return line + (note if runtime.instruction_set_is_emulated() else "")


def sgemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    """Return the GFLOP/s of numpy's float32 matrix product, the best of ``repeats``, as the peak of the machine."""
    a = np.random.default_rng(0).random((size, size), np.float32)
    best = float("inf")
    for _ in range(repeats):
        start_time = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start_time)
    return 2 * size**3 / best / 1e9


def time_steps(
    model: str, batch: int, *, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> list[StepTimes]:
    """Time jaxconv's training step in both modes, in interleaved rounds.

    Args:
        model: name of a model.
        batch: images per step.
        rounds: number of rounds; each mode runs once per round.
        progress: called with a description of each step.

    Returns:
        The times of the modes ``step`` and ``epoch``.
    """
    runners = {mode: build(model, batch, mode=mode) for mode in ("step", "epoch")}
    first_steps = {}
    for mode, runner in runners.items():
        progress(f"compiling {mode}")
        start_time = time.perf_counter()
        runner.steps(runner.chunk)
        first_steps[mode] = time.perf_counter() - start_time
    calls = {mode: functools.partial(runner.steps, runner.chunk) for mode, runner in runners.items()}
    timings = in_turns(calls, repeats=rounds, least=MIN_ROUND_SECONDS, progress=progress)
    seconds = {mode: [call / runners[mode].chunk for call in timings[mode]] for mode in runners}
    flops = flops_of_step(model, batch)
    return [step_times(JAXCONV, mode, model, batch, seconds[mode], first_steps[mode], flops) for mode in runners]


def step_times(
    framework: str, mode: str, model: str, batch: int, seconds: Sequence[float], first_step_s: float, flops: float
) -> StepTimes:
    """Summarize the seconds of a step over rounds; a step has ``flops`` operations."""
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
    """Format the times of one model, with a column of relative times if ``relative`` is not empty."""
    headings = ["median ms", "min", "max", "images/s", "GFLOP/s", *([f"× {relative_to}"] if relative else [])]
    title = f"{rows[0].model}: a training step of {rows[0].batch} images"
    table = new_table(title, "framework", "mode", numbers=[*headings, "first step s"])
    for row in rows:
        cells = [f"{ms:.2f}" for ms in (row.median_ms, row.min_ms, row.max_ms)]
        cells += [f"{row.images_per_second:,.0f}", f"{row.gflops:.1f}"]
        cells += [f"{relative[row.name]:.2f}"] if relative else []
        table.add_row(row.framework, row.mode, *cells, f"{row.first_step_s:.1f}")
    return as_text(table)
