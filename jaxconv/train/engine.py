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
from jaxconv.train.argument_checks import Examples, check_data, check_labels, check_settings, check_start
from jaxconv.train.compiled_function import Program
from jaxconv.train.diagnostics import broken, warn_of_dead
from jaxconv.train.early_stopping import EarlyStopping
from jaxconv.train.evaluation import Evaluator, Scores, evaluator_of
from jaxconv.train.freezing import Trainable, mask_sha256
from jaxconv.train.loaders import Plan, Resident, Source, Streamed, plan
from jaxconv.train.loggers import Progress
from jaxconv.train.multi_seed import Copies, copied
from jaxconv.train.optimizers import check_optimizer
from jaxconv.train.pixels import check_scale
from jaxconv.train.snapshots import Position, Snapshot
from jaxconv.train.state import Batch, TrainState, init_state
from jaxconv.train.tasks import MetricSums, Task, reported
from jaxconv.train.train_step import Step, make_step

Chunk = Callable[..., tuple[TrainState, MetricSums]]


class Trained(NamedTuple):
    """End of a run of one network or several."""

    best: tuple[Any, Any]  # params and state
    at: Position
    last: TrainState
    compile_seconds: float
    programs: dict[str, Program]
    evaluator: Evaluator


def run(
    model: Layer,
    train: Examples | Source,
    validation: Examples,
    copies: Copies,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int,
    stopping: EarlyStopping | None,
    mesh: Mesh | None,
    scale: float | None,
    compiled: bool,
    progress: bool,
    on_epoch: Callable[[dict[str, Any], Snapshot, bool], None] | None,
    on_pause: Callable[[Snapshot], None] | None,
    pause_seconds: float,
    start: Snapshot | None,
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
    check_settings(epochs, batch_size)
    count, in_shape, labels = check_data(train, validation, batch_size, scale)
    distributed.check(mesh, batch_size, "fit")
    mesh = distributed.with_auto_axes(mesh)

    init_key, key = copies.keys()
    average = options.get("average") is not None
    first = functools.partial(init_state, model, optimizer, in_shape=in_shape, average=average, trainable=trainable)
    init = copies.transform(lambda key, variables: first(key, variables=variables), (0, None))
    cut = plan(count, batch_size, in_shape)
    if start is None:
        ts = jax.jit(init, compiler_options=runtime.hasty_options())(init_key, variables)
        start = Snapshot(ts, ts.network, Position(trainable=mask_sha256(model, ts.params, ts.state, trainable)))
    else:
        like = jax.eval_shape(init, init_key, variables)
        check_start(start, like, cut, mask_sha256(model, like.params, like.state, trainable))
    params, state = copies.member(start.best, 0)
    for each in (labels, validation[1]):
        with error_context("fit"):
            check_labels(model, params, state, in_shape, each, task)
    key, ts, best = distributed.replicate(mesh, copied((key, start.train_state, start.best)))
    stopping = EarlyStopping(None, task.monitor) if stopping is None else stopping
    fresh = (stopping.start(),) * init_key.size
    at = start.position._replace(plan=cut, stopping=start.position.stopping or fresh)

    order = functools.partial(copies.batch_indices, cut)
    feed = Resident(*train, cut, order, mesh) if isinstance(train, tuple) else Streamed(train, cut, order, mesh, scale)
    options |= {"scale": scale, "trainable": trainable, "task": task}
    step = make_step(model, optimizer, **options)
    advance: Program | Chunk = make_plain(step, feed.fetch)
    if compiled:
        chunk = make_chunk(step, feed.fetch)
        over = (0, 0, 0, 0, *[None] * len(feed.data))
        advance = Program("the training chunk", copies.transform(chunk, over), donate_argnums=0)
    kind = str(validation[0].dtype)
    evaluator = evaluator_of(model, batch_size, in_shape, kind, copies.num_members, mesh, ts.network, scale, task)
    held, compiled_before = list(evaluator.batches(*validation)), evaluator.program.seconds

    with Progress(epochs, cut, at, show=progress, task=task) as bar:
        while at.epoch < epochs and not all(each.stopped for each in at.stopping):
            running = np.array([not each.stopped for each in at.stopping])
            live = distributed.replicate(mesh, running.reshape(init_key.shape))
            paused = time.perf_counter()
            chunks = _chunks(advance, ts, key, live, feed, at, bar)
            for ts, at in chunks:
                if on_pause is None or at.chunk == cut.chunks:
                    continue
                if distributed.first_says(time.perf_counter() - paused > pause_seconds):  # their clocks may differ
                    if not _sound(ts, at, cut):
                        break  # there is nothing to save
                    on_pause(Snapshot(copied(ts), best, at))
                    paused = time.perf_counter()
            if not _sound(ts, at, cut):
                raise broken(make_step(model, optimizer, **options, guard=False), ts, key, feed, at, copies)
            params, state = ts.network
            record = _record(at, ts, cut, evaluator(params, state, held, alive=True), copies, task)
            warn_of_dead(record, at.history)
            at, better = _judged(at, record, stopping)
            if better.any():
                best = copies.select(better, ts.network, best)
            bar.epoch(record, bool(better.any()))
            if on_epoch is not None:
                on_epoch(record, Snapshot(copied(ts), best, at), bool(better.any()))
    programs = {"eval": evaluator.program}
    if isinstance(advance, Program):
        programs["train"] = advance
    compile_seconds = sum(program.seconds for program in programs.values()) - compiled_before
    return Trained(best, at, ts, compile_seconds, programs, evaluator)


def _chunks(
    advance: Program | Chunk,
    ts: TrainState,
    key: jax.Array,
    live: jax.Array,
    feed: Resident | Streamed,
    at: Position,
    bar: Progress,
) -> Iterator[tuple[TrainState, Position]]:
    """Go through the rest of an epoch, and tell after every chunk how far it has come.

    A chunk's numbers are looked at when the next one is under way, so that the device never waits for the host.
    """
    started, before, compiling = time.perf_counter(), at.chunk_seconds, _compiling(advance)
    for xs in feed.chunks(at.epoch + 1, at.chunk, at.reader):
        ts, metrics = advance(ts, key, live, xs, *feed.data)
        measured = *at.measured, metrics.sums | {"count": metrics.count}
        at = at._replace(chunk=at.chunk + 1, reader=feed.position(), measured=measured)
        if at.chunk == feed.plan.chunks:
            jax.block_until_ready(ts)
        seconds = time.perf_counter() - started - (_compiling(advance) - compiling)
        at = at._replace(chunk_seconds=before + seconds)
        bar.chunk(at)
        given = time.perf_counter()
        yield ts, at
        started += time.perf_counter() - given  # a checkpoint may have been saved
        if len(at.measured) > 1 and not np.isfinite(jax.device_get(at.measured[-2]["loss"])).all():
            break  # it went wrong there; the steps since then have changed nothing


def _compiling(advance: Program | Chunk) -> float:
    return advance.seconds if isinstance(advance, Program) else 0.0


def _sound(ts: TrainState, at: Position, cut: Plan) -> bool:
    """Whether every step so far was one: a step that would have made something infinite is not counted."""
    wanted = at.epoch * cut.steps + min(at.chunk * cut.chunk, cut.steps)
    made = np.reshape(ts.step, -1)
    return all(each.stopped or steps == wanted for steps, each in zip(made, at.stopping, strict=True))


def _record(at: Position, ts: TrainState, cut: Plan, scores: Scores, copies: Copies, task: Task) -> dict[str, Any]:
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
        record["members"] = [
            {"epoch": at.epoch + 1} | {name: float(value[i]) for name, value in numbers.items()} | _dead(scores, i)
            for i in range(copies.num_members)
        ]
    rate = cut.examples * (copies.num_members or 1) / at.chunk_seconds
    return record | {"seconds": at.chunk_seconds, "images_per_second": rate}


def _dead(scores: Scores, network: int | None = None) -> dict[str, list[str]]:
    """The dead layers, where there are any; of several networks, those that are dead in any."""
    dead = scores.dead(network)
    return {"dead": dead} if dead else {}


def _judged(at: Position, record: dict[str, Any], stopping: EarlyStopping) -> tuple[Position, np.ndarray]:
    """The beginning of the next epoch, and which networks are better than ever; one that stopped is not."""
    judged = [
        (old, False) if old.stopped else stopping.update(old, each)
        for old, each in zip(at.stopping, record.get("members", [record]), strict=True)
    ]
    following = Position(
        plan=at.plan,
        trainable=at.trainable,
        epoch=at.epoch + 1,
        history=(*at.history, record),
        stopping=tuple(state for state, _ in judged),
        seconds=at.seconds + at.chunk_seconds,
    )
    return following, np.array([better for _, better in judged])


def make_chunk(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The function ``(train_state, key, live, xs, *data) -> (train_state, metrics)``, to be compiled.

    Args:
        step: from :func:`jaxconv.train.make_step`.
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
