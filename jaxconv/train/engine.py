"""Training loop of one network or several: compiled executions, early stopping, checkpoints."""

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
from jaxconv.train.multi_seed import Copies, copy_arrays
from jaxconv.train.optimizers import check_optimizer
from jaxconv.train.pixels import check_scale
from jaxconv.train.snapshots import Snapshot, TrainProgress
from jaxconv.train.state import Batch, TrainState, create_train_state
from jaxconv.train.tasks import MetricSums, Task, reported
from jaxconv.train.train_step import Step, make_train_step

Execution = Callable[..., tuple[TrainState, MetricSums]]


class Trained(NamedTuple):
    """Result of :func:`run`, with the network axis if there are several networks."""

    best: tuple[Any, Any]  # params and state of the best epoch
    progress: TrainProgress
    final_state: TrainState
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
    """Train the networks of ``copies``; the other arguments are those of :func:`jaxconv.train.fit`."""
    with error_context("fit"):
        model = as_layer(model)
        check_optimizer(optimizer)
        check_scale(scale)
    check_fit_arguments(epochs, batch_size)
    num_examples, input_shape, labels = check_data(train, validation, batch_size, scale)
    distributed.check_batch_divisible(mesh, batch_size, "fit")
    mesh = distributed.with_auto_axes(mesh)

    init_key, key = copies.keys()
    ema = options.get("ema_decay") is not None
    init_one = functools.partial(
        create_train_state, model, optimizer, input_shape=input_shape, ema=ema, trainable=trainable
    )
    init = copies.transform(lambda key, variables: init_one(key, variables=variables), (0, None))
    plan = plan_epoch(num_examples, batch_size, input_shape)
    if resume_from is None:
        train_state = jax.jit(init, compiler_options=runtime.fast_compile_options())(init_key, variables)
        mask_digest = mask_sha256(model, train_state.params, train_state.state, trainable)
        resume_from = Snapshot(train_state, train_state.eval_variables, TrainProgress(trainable=mask_digest))
    else:
        target = jax.eval_shape(init, init_key, variables)
        check_resume_point(resume_from, target, plan, mask_sha256(model, target.params, target.state, trainable))
    params, state = copies.member(resume_from.best, 0)
    for labels_of_split in (labels, validation[1]):
        with error_context("fit"):
            check_labels(model, params, state, input_shape, labels_of_split, task)
    key, train_state, best = distributed.replicate(mesh, copy_arrays((key, resume_from.train_state, resume_from.best)))
    early_stopping = EarlyStopping(None, task.monitor) if early_stopping is None else early_stopping
    initial_state = (early_stopping.init(),) * init_key.size
    progress = resume_from.progress._replace(
        plan=plan, early_stopping=resume_from.progress.early_stopping or initial_state
    )

    order = functools.partial(copies.batch_indices, plan)
    loader = (
        DeviceLoader(*train, plan, order, mesh)
        if isinstance(train, tuple)
        else StreamingLoader(train, plan, order, mesh, scale)
    )
    options |= {"scale": scale, "trainable": trainable, "task": task}
    step = make_train_step(model, optimizer, jit=False, **options)
    run_execution: CompiledFunction | Execution = make_stepwise_execution(step, loader.fetch)
    if jit:
        execution = make_execution(step, loader.fetch)
        in_axes = (0, 0, 0, 0, *[None] * len(loader.data))
        run_execution = CompiledFunction(
            "the training function", copies.transform(execution, in_axes), donate_argnums=0
        )
    dtype = str(validation[0].dtype)
    evaluator = evaluator_of(
        model, batch_size, input_shape, dtype, copies.num_members, mesh, train_state.eval_variables, scale, task
    )
    validation_batches = list(evaluator.batches(*validation))
    compiled_before = evaluator.program.compile_seconds

    with Progress(epochs, plan, progress, show=progress_bar, task=task) as bar:
        while progress.epoch < epochs and not all(stopper.stopped for stopper in progress.early_stopping):
            is_running = np.array([not stopper.stopped for stopper in progress.early_stopping])
            live = distributed.replicate(mesh, is_running.reshape(init_key.shape))
            last_checkpoint = time.perf_counter()
            executions = _run_epoch(run_execution, train_state, key, live, loader, progress, bar)
            for train_state, progress in executions:
                if on_checkpoint is None or progress.execution == plan.executions:
                    continue
                is_due = time.perf_counter() - last_checkpoint > checkpoint_seconds
                if distributed.broadcast_from_main(is_due):  # the processes' clocks may differ
                    if not _all_steps_finite(train_state, progress, plan):
                        break  # a state after a non-finite step must not be saved
                    on_checkpoint(Snapshot(copy_arrays(train_state), best, progress))
                    last_checkpoint = time.perf_counter()
            if not _all_steps_finite(train_state, progress, plan):
                unguarded_step = make_train_step(model, optimizer, jit=False, **options, skip_nonfinite=False)
                raise nonfinite_step_error(unguarded_step, train_state, key, loader, progress, copies)
            params, state = train_state.eval_variables
            validation_result = evaluator(params, state, validation_batches, alive=True)
            record = _epoch_record(progress, train_state, plan, validation_result, copies, task)
            warn_dead_layers(record, progress.history)
            progress, is_best = _update_early_stopping(progress, record, early_stopping)
            if is_best.any():
                best = copies.select(is_best, train_state.eval_variables, best)
            bar.epoch(record, bool(is_best.any()))
            if on_epoch_end is not None:
                on_epoch_end(record, Snapshot(copy_arrays(train_state), best, progress), bool(is_best.any()))
    compiled_functions = {"eval": evaluator.program}
    if isinstance(run_execution, CompiledFunction):
        compiled_functions["train"] = run_execution
    compile_seconds = sum(compiled.compile_seconds for compiled in compiled_functions.values()) - compiled_before
    return Trained(best, progress, train_state, compile_seconds, compiled_functions, evaluator)


def _run_epoch(
    run_execution: CompiledFunction | Execution,
    train_state: TrainState,
    key: jax.Array,
    live: jax.Array,
    loader: DeviceLoader | StreamingLoader,
    progress: TrainProgress,
    bar: Progress,
) -> Iterator[tuple[TrainState, TrainProgress]]:
    """Run the remaining executions of an epoch, and yield state and progress after each.

    The metrics of an execution are read while the next one runs, so that the device never waits for the host.
    """
    start_time, previous_seconds = time.perf_counter(), progress.chunk_seconds
    compiled_before = _compile_seconds(run_execution)
    for xs in loader.executions(progress.epoch + 1, progress.execution, progress.loader_state):
        train_state, metrics = run_execution(train_state, key, live, xs, *loader.data)
        metric_sums = *progress.metric_sums, metrics.sums | {"count": metrics.count}
        progress = progress._replace(
            execution=progress.execution + 1, loader_state=loader.get_state(), metric_sums=metric_sums
        )
        if progress.execution == loader.plan.executions:
            jax.block_until_ready(train_state)
        seconds = time.perf_counter() - start_time - (_compile_seconds(run_execution) - compiled_before)
        progress = progress._replace(chunk_seconds=previous_seconds + seconds)
        bar.execution(progress)
        yield_time = time.perf_counter()
        yield train_state, progress
        start_time += time.perf_counter() - yield_time  # exclude the time the caller took, such as saving a checkpoint
        if len(progress.metric_sums) > 1 and not np.isfinite(jax.device_get(progress.metric_sums[-2]["loss"])).all():
            break  # that execution had a non-finite step; all steps since then were skipped


def _compile_seconds(run_execution: CompiledFunction | Execution) -> float:
    return run_execution.compile_seconds if isinstance(run_execution, CompiledFunction) else 0.0


def _all_steps_finite(train_state: TrainState, progress: TrainProgress, plan: EpochPlan) -> bool:
    """Return True if no step was skipped: steps with non-finite results do not increase the step counter."""
    steps_in_epoch = min(progress.execution * plan.steps_per_execution, plan.steps_per_epoch)
    expected = progress.epoch * plan.steps_per_epoch + steps_in_epoch
    counters = np.reshape(train_state.step, -1)
    return all(
        stopper.stopped or num_steps == expected
        for num_steps, stopper in zip(counters, progress.early_stopping, strict=True)
    )


def _epoch_record(
    progress: TrainProgress,
    train_state: TrainState,
    plan: EpochPlan,
    validation_result: EvalResult,
    copies: Copies,
    task: Task,
) -> dict[str, Any]:
    """Return the history record of an epoch; with several networks the means, and each record under "per_seed"."""
    if not np.isfinite(validation_result.loss).all():
        message = f"the validation loss of epoch {progress.epoch + 1} is {np.max(validation_result.loss)}"
        raise InputError(f"{message}; a lower learning rate may help").from_source("fit")
    validation = {"loss": validation_result.loss} | validation_result.metrics
    values = reported(task, progress.sums()) | {f"val_{name}": value for name, value in validation.items()}
    record: dict[str, Any] = {"epoch": progress.epoch + 1, "step": int(jnp.max(train_state.step))}
    record |= {name: float(np.mean(value)) for name, value in values.items()}
    record |= _dead_layers(validation_result)
    if copies.num_members is not None:
        record["per_seed"] = [
            {"epoch": progress.epoch + 1}
            | {name: float(value[i]) for name, value in values.items()}
            | _dead_layers(validation_result, i)
            for i in range(copies.num_members)
        ]
    rate = plan.num_examples * (copies.num_members or 1) / progress.chunk_seconds
    return record | {"epoch_seconds": progress.chunk_seconds, "images_per_second": rate}


def _dead_layers(result: EvalResult, network: int | None = None) -> dict[str, list[str]]:
    """Return the record entry of the dead layers, empty if there are none; by default those dead in any network."""
    dead = result.dead(network)
    return {"dead_layers": dead} if dead else {}


def _update_early_stopping(
    progress: TrainProgress, record: dict[str, Any], early_stopping: EarlyStopping
) -> tuple[TrainProgress, np.ndarray]:
    """Return the progress at the start of the next epoch, and a bool per network: True if this epoch is its best.

    Networks that have stopped keep their state.
    """
    updates = [
        (previous, False) if previous.stopped else early_stopping.update(previous, network_record)
        for previous, network_record in zip(progress.early_stopping, record.get("per_seed", [record]), strict=True)
    ]
    next_progress = TrainProgress(
        plan=progress.plan,
        trainable=progress.trainable,
        epoch=progress.epoch + 1,
        history=(*progress.history, record),
        early_stopping=tuple(state for state, _ in updates),
        seconds=progress.seconds + progress.chunk_seconds,
    )
    return next_progress, np.array([is_best for _, is_best in updates])


def make_execution(step: Step, fetch: Callable[..., Batch]) -> Execution:
    """Return the function ``(train_state, key, live, xs, *data) -> (train_state, metrics)`` that scans over steps.

    Args:
        step: train step, from :func:`jaxconv.train.make_train_step`.
        fetch: ``(x, *data) -> batch``, for each x along the first axis of xs.

    Returns:
        A function whose metrics are summed over all steps. After a step with non-finite results it skips the rest; if
        not ``live`` it skips all steps.
    """

    def execution(
        train_state: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any
    ) -> tuple[TrainState, MetricSums]:
        start = train_state.step

        def body(carry: tuple[jax.Array, TrainState], x: Any) -> tuple[tuple[jax.Array, TrainState], MetricSums]:
            num_done, train_state = carry
            batch = fetch(x, *data)
            is_live = live & (train_state.step == start + num_done)
            train_state, metrics = step(train_state, batch, key, is_live)
            return (num_done + 1, train_state), metrics

        (_, train_state), metrics = jax.lax.scan(body, (jnp.zeros_like(start), train_state), xs)
        return train_state, jax.tree.map(lambda sums: jnp.sum(sums, axis=0), metrics)

    return execution


def make_stepwise_execution(step: Step, fetch: Callable[..., Batch]) -> Execution:
    """Return the function of :func:`make_execution` without ``scan``: one compiled call per step, for debugging."""
    run_step = jax.jit(lambda train_state, key, x, live, *data: step(train_state, fetch(x, *data), key, live))

    def execution(
        train_state: TrainState, key: jax.Array, live: jax.Array, xs: Any, *data: Any
    ) -> tuple[TrainState, MetricSums]:
        start, sums = int(train_state.step), []
        for i in range(len(jax.tree.leaves(xs)[0])):
            x = jax.tree.map(lambda array, i=i: array[i], xs)
            train_state, metrics = run_step(train_state, key, x, live & (train_state.step == start + i), *data)
            sums.append(metrics)
        return train_state, jax.tree.map(lambda *steps: sum(steps), *sums)

    return execution
