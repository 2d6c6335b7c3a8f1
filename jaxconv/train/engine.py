"""The training loop of one network or several: epochs in compiled chunks, early stopping, checkpoints."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxconv import distributed, runtime
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer, as_layer
from jaxconv.train.argument_checks import Examples, check_data, check_fit_arguments, check_labels, check_resume_point
from jaxconv.train.compiled_function import CompiledFunction
from jaxconv.train.diagnostics import nonfinite_step_error, warn_dead_layers
from jaxconv.train.early_stopping import EarlyStopping
from jaxconv.train.evaluation import EvalResult, Evaluator, evaluator_of
from jaxconv.train.freezing import Trainable, mask_sha256
from jaxconv.train.loaders import DeviceLoader, EpochPlan, RandomAccessSource, StreamingLoader, plan_epoch
from jaxconv.train.loggers import Progress
from jaxconv.train.multi_seed import Copies, copied
from jaxconv.train.optimizers import check_optimizer
from jaxconv.train.pixels import check_scale
from jaxconv.train.snapshots import Snapshot, TrainProgress
from jaxconv.train.state import Batch, TrainState, create_train_state
from jaxconv.train.tasks import MetricSums, Task, reported
from jaxconv.train.train_step import Step, make_train_step

Chunk = Callable[..., tuple[TrainState, MetricSums]]


class Trained(NamedTuple):
    """End of a run of one network or several."""

    best: tuple[Any, Any]  # params and state
    at: TrainProgress
    last: TrainState
    compile_seconds: float
    compiled: dict[str, CompiledFunction]
    evaluator: Evaluator


def run(
    model: Layer,
    train: Examples | RandomAccessSource,
    validation: Examples,
    copies: Copies,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    early_stopping: EarlyStopping | None,
    mesh: Mesh | None,
    scale: float | None,
    jit: bool,
    progress_bar: bool,
    on_epoch_end: Callable[[dict[str, Any], Snapshot, bool], None] | None,
    on_checkpoint: Callable[[Snapshot], None] | None,
    checkpoint_seconds: float,
    resume_from: Snapshot | None,
    variables: tuple[Any, Any] | None,
    trainable: Trainable | None,
    task: Task,
    **options: Any,
) -> Trained:
    """Train one network or several."""
    with error_context("fit"):
        model = as_layer(model)
        check_optimizer(optimizer)
        check_scale(scale)
    check_fit_arguments(epochs, batch_size)
    count, input_shape, labels = check_data(train, validation, batch_size, scale)
    distributed.check_batch_divisible(mesh, batch_size, "fit")
    mesh = distributed.with_auto_axes(mesh)

    init_key, key = copies.keys()
    ema = options.get("ema_decay") is not None
    first = functools.partial(
        create_train_state, model, optimizer, input_shape=input_shape, ema=ema, trainable=trainable
    )
    init = copies.transform(lambda key, variables: first(key, variables=variables), (0, None))
    cut = plan_epoch(count, batch_size, input_shape)
    if resume_from is None:
        ts = jax.jit(init, compiler_options=runtime.fast_compile_options())(init_key, variables)
        resume_from = Snapshot(
            ts, ts.eval_variables, TrainProgress(trainable=mask_sha256(model, ts.params, ts.state, trainable))
        )
    else:
        like = jax.eval_shape(init, init_key, variables)
        check_resume_point(resume_from, like, cut, mask_sha256(model, like.params, like.state, trainable))
    params, state = copies.member(resume_from.best, 0)
    for each in (labels, validation[1]):
        with error_context("fit"):
            check_labels(model, params, state, input_shape, each, task)
    key, ts, best = distributed.replicate(mesh, copied((key, resume_from.train_state, resume_from.best)))
    early_stopping = EarlyStopping(None, task.monitor) if early_stopping is None else early_stopping
    fresh = (early_stopping.init(),) * init_key.size
    at = resume_from.progress._replace(plan=cut, early_stopping=resume_from.progress.early_stopping or fresh)

    order = functools.partial(copies.batch_indices, cut)
    feed = (
        DeviceLoader(*train, cut, order, mesh)
        if isinstance(train, tuple)
        else StreamingLoader(train, cut, order, mesh, scale)
    )
    options |= {"scale": scale, "trainable": trainable, "task": task}
    step = make_train_step(model, optimizer, jit=False, **options)
    advance: CompiledFunction | Chunk = make_plain(step, feed.fetch)
    if jit:
        chunk = make_chunk(step, feed.fetch)
        over = (0, 0, 0, 0, *[None] * len(feed.data))
        advance = CompiledFunction("the training chunk", copies.transform(chunk, over), donate_argnums=0)
    kind = str(validation[0].dtype)
    evaluator = evaluator_of(
        model, batch_size, input_shape, kind, copies.num_members, mesh, ts.eval_variables, scale, task
    )
    held, compiled_before = list(evaluator.batches(*validation)), evaluator.program.compile_seconds

    with Progress(epochs, cut, at, show=progress_bar, task=task) as bar:
        while at.epoch < epochs and not all(each.stopped for each in at.early_stopping):
            running = np.array([not each.stopped for each in at.early_stopping])
            live = distributed.replicate(mesh, running.reshape(init_key.shape))
            paused = time.perf_counter()
            chunks = _chunks(advance, ts, key, live, feed, at, bar)
            for ts, at in chunks:
                if on_checkpoint is None or at.execution == cut.executions:
                    continue
                is_due = time.perf_counter() - paused > checkpoint_seconds
                if distributed.broadcast_from_main(is_due):  # the processes' clocks may differ
                    if not _sound(ts, at, cut):
                        break  # there is nothing to save
                    on_checkpoint(Snapshot(copied(ts), best, at))
                    paused = time.perf_counter()
            if not _sound(ts, at, cut):
                unguarded = make_train_step(model, optimizer, jit=False, **options, skip_nonfinite=False)
                raise nonfinite_step_error(unguarded, ts, key, feed, at, copies)
            params, state = ts.eval_variables
            record = _record(at, ts, cut, evaluator(params, state, held, alive=True), copies, task)
            warn_dead_layers(record, at.history)
            at, better = _judged(at, record, early_stopping)
            if better.any():
                best = copies.select(better, ts.eval_variables, best)
            bar.epoch(record, bool(better.any()))
            if on_epoch_end is not None:
                on_epoch_end(record, Snapshot(copied(ts), best, at), bool(better.any()))
    programs = {"eval": evaluator.program}
    if isinstance(advance, CompiledFunction):
        programs["train"] = advance
    compile_seconds = sum(program.compile_seconds for program in programs.values()) - compiled_before
    return Trained(best, at, ts, compile_seconds, programs, evaluator)


def _chunks(
    advance: CompiledFunction | Chunk,
    ts: TrainState,
    key: jax.Array,
    live: jax.Array,
    feed: DeviceLoader | StreamingLoader,
    at: TrainProgress,
    bar: Progress,
) -> Iterator[tuple[TrainState, TrainProgress]]:
    """Go through the rest of an epoch, and tell after every chunk how far it has come.

    A chunk's numbers are looked at when the next one is under way, so that the device never waits for the host.
    """
    started, before, compiling = time.perf_counter(), at.chunk_seconds, _compiling(advance)
    for xs in feed.chunks(at.epoch + 1, at.execution, at.loader_state):
        ts, metrics = advance(ts, key, live, xs, *feed.data)
        measured = *at.metric_sums, metrics.sums | {"count": metrics.count}
        at = at._replace(execution=at.execution + 1, loader_state=feed.get_state(), metric_sums=measured)
        if at.execution == feed.plan.executions:
            jax.block_until_ready(ts)
        seconds = time.perf_counter() - started - (_compiling(advance) - compiling)
        at = at._replace(chunk_seconds=before + seconds)
        bar.chunk(at)
        given = time.perf_counter()
        yield ts, at
        started += time.perf_counter() - given  # a checkpoint may have been saved
        if len(at.metric_sums) > 1 and not np.isfinite(jax.device_get(at.metric_sums[-2]["loss"])).all():
            break  # it went wrong there; the steps since then have changed nothing


def _compiling(advance: CompiledFunction | Chunk) -> float:
    return advance.compile_seconds if isinstance(advance, CompiledFunction) else 0.0


def _sound(ts: TrainState, at: TrainProgress, cut: EpochPlan) -> bool:
    """Whether every step so far was one: a step that would have made something infinite is not counted."""
    wanted = at.epoch * cut.steps_per_epoch + min(at.execution * cut.steps_per_execution, cut.steps_per_epoch)
    made = np.reshape(ts.step, -1)
    return all(each.stopped or steps == wanted for steps, each in zip(made, at.early_stopping, strict=True))


def _record(
    at: TrainProgress, ts: TrainState, cut: EpochPlan, scores: EvalResult, copies: Copies, task: Task
) -> dict[str, Any]:
    """What an epoch is remembered by. Of several networks it has the means, and the record of each."""
    if not np.isfinite(scores.loss).all():
        loss = f"the validation loss of epoch {at.epoch + 1} is {np.max(scores.loss)}"
        raise InputError(f"{loss}; a lower learning rate may help").from_source("fit")
    validation = {"loss": scores.loss} | scores.metrics
    numbers = reported(task, at.sums()) | {f"val_{name}": value for name, value in validation.items()}
    record: dict[str, Any] = {"epoch": at.epoch + 1, "step": int(jnp.max(ts.step))}
    record |= {name: float(np.mean(value)) for name, value in numbers.items()}
    record |= _dead(scores)
    if copies.num_members is not None:
        record["per_seed"] = [
            {"epoch": at.epoch + 1} | {name: float(value[i]) for name, value in numbers.items()} | _dead(scores, i)
            for i in range(copies.num_members)
        ]
    rate = cut.num_examples * (copies.num_members or 1) / at.chunk_seconds
    return record | {"epoch_seconds": at.chunk_seconds, "images_per_second": rate}


def _dead(scores: EvalResult, network: int | None = None) -> dict[str, list[str]]:
    """The dead layers, where there are any; of several networks, those that are dead in any."""
    dead = scores.dead(network)
    return {"dead_layers": dead} if dead else {}


def _judged(
    at: TrainProgress, record: dict[str, Any], early_stopping: EarlyStopping
) -> tuple[TrainProgress, np.ndarray]:
    """The beginning of the next epoch, and which networks are better than ever; one that stopped is not."""
    judged = [
        (old, False) if old.stopped else early_stopping.update(old, each)
        for old, each in zip(at.early_stopping, record.get("per_seed", [record]), strict=True)
    ]
    following = TrainProgress(
        plan=at.plan,
        trainable=at.trainable,
        epoch=at.epoch + 1,
        history=(*at.history, record),
        early_stopping=tuple(state for state, _ in judged),
        seconds=at.seconds + at.chunk_seconds,
    )
    return following, np.array([better for _, better in judged])


def make_chunk(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The function ``(train_state, key, live, xs, *data) -> (train_state, metrics)``, to be compiled.

    Args:
        step: from :func:`jaxconv.train.make_train_step`.
        fetch: ``(x, *data) -> batch``, for each x along the first axis of xs.

    Returns:
        A function whose metrics are the sums over all steps. After a step that went wrong it stands still, and all
        the time if it is not ``live``.
    """

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, MetricSums]:
        start = ts.step

        def body(carry: tuple[jax.Array, TrainState], x: Any) -> tuple[tuple[jax.Array, TrainState], MetricSums]:
            done, ts = carry
            ts, metrics = step(ts, fetch(x, *data), key, live & (ts.step == start + done))
            return (done + 1, ts), metrics

        (_, ts), metrics = jax.lax.scan(body, (jnp.zeros_like(start), ts), xs)
        return ts, jax.tree.map(lambda sums: jnp.sum(sums, axis=0), metrics)

    return chunk


def make_plain(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The same without ``scan``: every step is a call of its own, between which Python can look at everything."""
    once = jax.jit(lambda ts, key, x, live, *data: step(ts, fetch(x, *data), key, live))

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, MetricSums]:
        start, sums = int(ts.step), []
        for i in range(len(jax.tree.leaves(xs)[0])):
            x = jax.tree.map(lambda array, i=i: array[i], xs)
            ts, metrics = once(ts, key, x, live & (ts.step == start + i), *data)
            sums.append(metrics)
        return ts, jax.tree.map(lambda *steps: sum(steps), *sums)

    return chunk
