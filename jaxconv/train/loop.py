"""The training loop: epochs, early stopping, checkpoints, and many steps as one compiled program."""

import functools
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxconv import distributed, runtime
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer, as_layer
from jaxconv.train.argument_checks import (
    Examples,
    Parts,
    check_data,
    check_labels,
    check_options,
    check_settings,
    check_start,
    parts_of,
)
from jaxconv.train.compiled_function import Program
from jaxconv.train.diagnostics import broken, warn_of_dead
from jaxconv.train.early_stopping import EarlyStopping
from jaxconv.train.evaluation import Evaluator, Scores, evaluator_of
from jaxconv.train.loaders import Plan, Resident, Source, Streamed, plan
from jaxconv.train.loggers import Progress
from jaxconv.train.optimizers import check_optimizer
from jaxconv.train.pixels import check_scale
from jaxconv.train.snapshots import Position, Snapshot
from jaxconv.train.state import Batch, TrainState, init_state, root_keys
from jaxconv.train.train_step import Metrics, Step, make_step
from jaxconv.utils.signatures import checked_call

BEST_ACCURACY = EarlyStopping(patience=None, monitor="val_accuracy")


class Fitted(NamedTuple):
    """What training leaves: the best network it came by, and how it got there. Of several seeds, arrays and lists."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record an epoch
    best_epoch: Any
    steps: int
    train_seconds: float  # in steps, without compiling and validating
    compile_seconds: float
    programs: dict[str, Program]  # train and eval, with how often and for how long they were compiled
    last: TrainState  # after the last step
    evaluator: Evaluator  # compiled, for the test set


@checked_call
def fit(
    model: Layer,
    train: Examples | Source | Parts,
    validation: Examples | None = None,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int = 128,
    seed: int | Sequence[int] = 0,
    stopping: EarlyStopping = BEST_ACCURACY,
    mesh: Mesh | None = None,
    scale: float | None = None,
    compiled: bool = True,
    progress: bool = False,
    on_epoch: Callable[[dict[str, Any], Snapshot, bool], None] | None = None,
    on_pause: Callable[[Snapshot], None] | None = None,
    pause_seconds: float = 600.0,
    start: Snapshot | None = None,
    **options: Any,
) -> Fitted:
    """Fit a model to examples, and keep the parameters of the epoch that was best on the validation set.

    An epoch is one compiled program, run in chunks of many steps: the examples lie on the device, where they are
    gathered, augmented and learned from. Seed, epoch and step decide every random choice, so the same call gives the
    same parameters, bit for bit on CPU, in one go or in several. Each program is compiled once, which is not counted
    as training; an input of another shape is then an error, not a silent second compilation.

    A layer that dies is told with a ``DeadLayerWarning`` (:mod:`jaxconv.errors`), once, and stands under ``dead`` in
    the record of every epoch in which it is: a relu or relu6 whose output is 0 for every validation image. Lecture
    row 003-24.

    Args:
        model: made by :func:`jaxconv.serial` or :mod:`jaxconv.models`; its parameters are made here.
        train: ``(images, labels)``, ``(N, H, W, C)`` uint8 or float and ``(N,)`` class numbers; or examples that are
            read when they are needed, ``source[i]`` being an image and its label: they are streamed. Series
            ``(N, T, C)`` and volumes ``(N, D, H, W, C)`` are taken too, here and by evaluate and predict. Or a data
            set of :mod:`jaxconv.data`, or another object that has the parts ``train`` and ``validation``.
        validation: ``(images, labels)``; by default the data set's.
        optimizer: from optax, or :func:`jaxconv.train.make_optimizer`.
        epochs: how often to go through the training examples.
        batch_size: examples a step; the last batch is padded, and its padding masked.
        seed: of the parameters, the order of the data, dropout and augmentation. Several seeds train as many networks
            at once, each as it would be alone; every array of the result then has a first axis for them. One that
            has stopped stands still while the others go on.
        stopping: which epoch is the best, and when to stop before the last one. By default the best has the highest
            validation accuracy, and among equals the lowest loss.
        mesh: of devices that share every batch, from :func:`jaxconv.distributed.mesh`.
        scale: what the pixels are divided by; by default bytes by 255, and floats are taken as they are, and a
            ``RangeWarning`` tells if they do not go from 0 to 1.
        compiled: False runs one step at a time, to look into; the numbers are the same but for rounding.
        progress: show a progress bar.
        on_epoch: called after every epoch with its record, a snapshot that may be kept, and whether it is the best so
            far.
        on_pause: called with a snapshot between two chunks, every ``pause_seconds``.
        start: a snapshot of the same run to go on from, instead of the beginning.
        options: of the step, as for :func:`jaxconv.train.make_step`: augment, mix, label_smoothing, dtype,
            accumulate, average.

    Raises:
        InputError: examples, sizes or labels that cannot work, pixels that are not finite, a start that is of another
            run, or a step that made something infinite or no number.

    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> labels = (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> data = images, labels
    >>> fitted = fit(models.mlp(num_classes=2), data, data, optimizer=optax.adam(1e-2), epochs=9, batch_size=16)
    >>> fitted.history[-1]["val_accuracy"] > 0.9, fitted.programs["train"].compilations
    (True, 1)
    """
    with error_context("fit"):
        model = as_layer(model)
        check_optimizer(optimizer)
        check_scale(scale)
    check_options(options, OPTIONS)
    seed = check_settings(epochs, batch_size, seed)
    train, validation = parts_of(train, validation)
    count, in_shape, labels = check_data(train, validation, batch_size, scale)
    distributed.check(mesh, batch_size, "fit")
    mesh = distributed.with_auto_axes(mesh)
    several = not isinstance(seed, int)
    if several and not compiled:
        raise InputError("compiled=False trains one seed at a time").from_source("fit")

    init_key, key = root_keys(seed)
    average = options.get("average") is not None
    init = functools.partial(init_state, model, optimizer, in_shape=in_shape, average=average)
    cut = plan(count, batch_size, in_shape)
    if start is None:
        ts = jax.jit(init, compiler_options=runtime.hasty_options())(init_key)
        start = Snapshot(ts, ts.network, Position())
    else:
        check_start(start, jax.eval_shape(init, init_key), cut)
    params, state = jax.tree.map(lambda leaf: leaf[0], start.best) if several else start.best
    for each in (labels, validation[1]):
        with error_context("fit"):
            check_labels(model, params, state, in_shape, each)
    key, ts, best = distributed.replicate(mesh, _copy((key, start.train_state, start.best)))
    fresh = (stopping.start(),) * init_key.size
    at = start.position._replace(plan=cut, stopping=start.position.stopping or fresh)

    feed = Resident(*train, cut, seed, mesh) if isinstance(train, tuple) else Streamed(train, cut, seed, mesh, scale)
    options["scale"] = scale
    step = make_step(model, optimizer, **options)
    advance: Program | Chunk = make_plain(step, feed.fetch)
    if compiled:
        chunk = make_chunk(step, feed.fetch)
        over = (0, 0, 0, 0, *[None] * len(feed.data))
        advance = Program("the training chunk", jax.vmap(chunk, over) if several else chunk, donate_argnums=0)
    networks = init_key.size if several else None
    kind = str(validation[0].dtype)
    evaluator = evaluator_of(model, batch_size, in_shape, kind, networks, mesh, ts.network, scale)
    held, compiled_before = list(evaluator.batches(*validation)), evaluator.program.seconds

    with Progress(epochs, cut, at, show=progress) as bar:
        while at.epoch < epochs and not all(each.stopped for each in at.stopping):
            running = np.array([not each.stopped for each in at.stopping])
            live = distributed.replicate(mesh, running if several else running[0])
            paused = time.perf_counter()
            chunks = _chunks(advance, ts, key, live, feed, at, bar)
            for ts, at in chunks:
                if on_pause is None or at.chunk == cut.chunks:
                    continue
                if distributed.first_says(time.perf_counter() - paused > pause_seconds):  # their clocks may differ
                    if not _sound(ts, at, cut):
                        break  # there is nothing to save
                    on_pause(Snapshot(_copy(ts), best, at))
                    paused = time.perf_counter()
            if not _sound(ts, at, cut):
                raise broken(make_step(model, optimizer, **options, guard=False), ts, key, feed, at)
            params, state = ts.network
            record = _record(at, ts, cut, evaluator(params, state, held, alive=True))
            warn_of_dead(record, at.history)
            at, better = _judged(at, record, stopping)
            if better.any():
                best = _where(better, ts.network, best) if several else _copy(ts.network)
            bar.epoch(record, bool(better.any()))
            if on_epoch is not None:
                on_epoch(record, Snapshot(_copy(ts), best, at), bool(better.any()))
    best_epochs = [each.epoch for each in at.stopping]
    programs = {"eval": evaluator.program}
    if isinstance(advance, Program):
        programs["train"] = advance
    params, state = best
    return Fitted(
        params,
        state,
        history=list(at.history),
        best_epoch=best_epochs if several else best_epochs[0],
        steps=int(jnp.max(ts.step)),
        train_seconds=at.seconds,
        compile_seconds=sum(program.seconds for program in programs.values()) - compiled_before,
        programs=programs,
        last=ts,
        evaluator=evaluator,
    )


OPTIONS = [name for name in inspect.signature(fit).parameters if name != "options"]


def _copy(tree: Any) -> Any:
    """The same arrays in memory of their own: a chunk uses that of the train state again."""
    return jax.tree.map(jnp.copy, tree)


Chunk = Callable[..., tuple[TrainState, Metrics]]


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
        at = at._replace(chunk=at.chunk + 1, reader=feed.position(), measured=(*at.measured, metrics))
        if at.chunk == feed.plan.chunks:
            jax.block_until_ready(ts)
        seconds = time.perf_counter() - started - (_compiling(advance) - compiling)
        at = at._replace(chunk_seconds=before + seconds)
        bar.chunk(at)
        given = time.perf_counter()
        yield ts, at
        started += time.perf_counter() - given  # a checkpoint may have been saved
        if len(at.measured) > 1 and not np.isfinite(jax.device_get(at.measured[-2])).all():
            break  # it went wrong there; the steps since then have changed nothing


def _compiling(advance: Program | Chunk) -> float:
    return advance.seconds if isinstance(advance, Program) else 0.0


def _sound(ts: TrainState, at: Position, cut: Plan) -> bool:
    """Whether every step so far was one: a step that would have made something infinite is not counted."""
    wanted = at.epoch * cut.steps + min(at.chunk * cut.chunk, cut.steps)
    made = np.reshape(ts.step, -1)
    return all(each.stopped or steps == wanted for steps, each in zip(made, at.stopping, strict=True))


def _record(at: Position, ts: TrainState, cut: Plan, scores: Scores) -> dict[str, Any]:
    """What an epoch is remembered by. Of several networks it has the means, and the record of each."""
    if not np.isfinite(scores.loss).all():
        loss = f"the validation loss of epoch {at.epoch + 1} is {np.max(scores.loss)}"
        raise InputError(f"{loss}; a lower learning rate may help").from_source("fit")
    loss, correct, examples = at.sums()
    numbers = {
        "loss": loss / examples,
        "accuracy": correct / examples,
        "val_loss": scores.loss,
        "val_accuracy": scores.accuracy,
    }
    record: dict[str, Any] = {"epoch": at.epoch + 1, "step": int(jnp.max(ts.step))}
    record |= {name: float(np.mean(value)) for name, value in numbers.items()}
    record |= _dead(scores)
    if np.ndim(loss):
        record["members"] = [
            {"epoch": at.epoch + 1} | {name: float(value[i]) for name, value in numbers.items()} | _dead(scores, i)
            for i in range(len(loss))
        ]
    networks = np.size(loss)
    rate = cut.examples * networks / at.chunk_seconds
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
        epoch=at.epoch + 1,
        history=(*at.history, record),
        stopping=tuple(state for state, _ in judged),
        seconds=at.seconds + at.chunk_seconds,
    )
    return following, np.array([better for _, better in judged])


def _where(chosen: np.ndarray, new: Any, old: Any) -> Any:
    """Of several networks, those that were chosen from new, the others from old."""
    return jax.tree.map(lambda a, b: jnp.where(chosen.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def make_chunk(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The function ``(train_state, key, live, xs, *data) -> (train_state, metrics)``, to be compiled.

    Args:
        step: from :func:`jaxconv.train.make_step`.
        fetch: ``(x, *data) -> batch``, for each x along the first axis of xs.

    Returns:
        A function whose metrics are the sums over all steps. After a step that went wrong it stands still, and all
        the time if it is not ``live``.
    """

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, Metrics]:
        start = ts.step

        def body(carry: tuple[jax.Array, TrainState], x: Any) -> tuple[tuple[jax.Array, TrainState], Metrics]:
            done, ts = carry
            ts, metrics = step(ts, fetch(x, *data), key, live & (ts.step == start + done))
            return (done + 1, ts), metrics

        (_, ts), metrics = jax.lax.scan(body, (jnp.zeros_like(start), ts), xs)
        return ts, jax.tree.map(lambda sums: jnp.sum(sums, axis=0), metrics)

    return chunk


def make_plain(step: Step, fetch: Callable[..., Batch]) -> Chunk:
    """The same without ``scan``: every step is a call of its own, between which Python can look at everything."""
    once = jax.jit(lambda ts, key, x, live, *data: step(ts, fetch(x, *data), key, live))

    def chunk(ts: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any) -> tuple[TrainState, Metrics]:
        start, sums = int(ts.step), []
        for i in range(len(jax.tree.leaves(xs)[0])):
            x = jax.tree.map(lambda array, i=i: array[i], xs)
            ts, metrics = once(ts, key, x, live & (ts.step == start + i), *data)
            sums.append(metrics)
        return ts, jax.tree.map(lambda *steps: sum(steps), *sums)

    return chunk
