"""From a config to a run folder, in one go or in several."""

import dataclasses
import math
import shlex
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.special

from jaxconv import data, distributed, models, plot, runtime, train
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer
from jaxconv.runs.config import TrainConfig
from jaxconv.runs.data_fingerprint import SAMPLE, TIMES, changed, fingerprint
from jaxconv.runs.lock import RunLock, lock_run
from jaxconv.runs.run_folder import create_run_folder
from jaxconv.runs.schema import RESUME_OVERRIDES, check_config, read_config, read_result, read_train_config
from jaxconv.train import FitResult, SeedsResult, Snapshot
from jaxconv.train.multi_seed import Copies, Single, Stacked
from jaxconv.utils.files import append_jsonl, from_dict, refuse_link, to_json, write_json, write_jsonl

FEW = 100  # validation images


def run_training(config: TrainConfig, *, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Train as the config says, score the best epoch on the test set once, and write the run folder.

    Args:
        config: what to do.
        progress: show a progress bar.

    Returns:
        The run folder, and what its ``result.json`` holds.

    Raises:
        InputError: a config that cannot work, or data that cannot be had; no run folder is left then.
    """
    started = time.perf_counter()
    config.validate()  # before anything is downloaded
    dataset, facts = _load(config)
    _warn_of_few(dataset)
    settings = config.to_dict() | facts
    # Copies of files have other times on other machines.
    times = {"data_sha256": {name: part for name, part in facts["data_sha256"].items() if name != TIMES}}
    distributed.assert_equal("settings, data or versions", settings | times)
    folder = create_run_folder(config)
    try:
        with lock_run(folder) as lock:
            return folder, _run_new(config, dataset, lock, settings, progress, started)
    finally:
        if distributed.is_main_process():
            with suppress(OSError):
                folder.rmdir()  # where it could not even be locked


def _run_new(
    config: TrainConfig, dataset: data.Dataset, lock: RunLock, settings: dict[str, Any], progress: bool, started: float
) -> dict[str, Any]:
    """Begin a run; without a checkpoint its folder is removed again."""
    folder = lock.folder
    if distributed.broadcast_from_main((folder / "config.json").exists()):  # another process was faster
        raise InputError(f"{folder} holds a run already: give another --run-dir, or go on with --resume")
    try:
        if distributed.is_main_process():
            write_json(folder / "config.json", settings)
        with _resumable(folder):
            return _run(config, dataset, lock, _plain(settings), progress, started)
    except BaseException:
        if distributed.is_main_process() and not (folder / "checkpoints").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resume_training(folder: Path, *, progress: bool = True, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """Go on with a run that was stopped or killed, as if it had never been.

    Args:
        folder: the run's, with its last whole checkpoint; without one it begins again.
        progress: show a progress bar.
        changes: options that its numbers do not depend on, but for rounding, and that are to be others from now on:
            ``RESUME_OVERRIDES`` has them.

    Returns:
        As :func:`run_training`. A run that is finished is left as it is.

    Raises:
        InputError: not a run folder, other data than it began with, or a damaged checkpoint.
    """
    started, folder = time.perf_counter(), Path(folder)
    written = read_config(folder)
    config = read_train_config(folder)
    with error_context(str(folder / "config.json")):
        config.validate()
    config = dataclasses.replace(config, **changes)
    config.validate()
    if (folder / "result.json").exists():
        return folder, read_result(folder)
    for name in ("checkpoints", "tensorboard", "baseline"):
        refuse_link(folder / name)
    with lock_run(folder) as lock:
        check_config(folder, written)
        dataset, facts = _load(config)
        _check_data(folder, written, _plain(facts))
        settings = _plain(written | config.to_dict())
        if changes and distributed.is_main_process():
            write_json(folder / "config.json", settings)
        with _resumable(folder):
            return folder, _run(config, dataset, lock, settings, progress, started)


def _check_data(folder: Path, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on with other data than a run began with."""
    for name in ("image_shape", "input_shape", "class_names", "num_examples"):
        if now[name] != then.get(name):
            raise InputError(
                f"{folder} began with data whose {name} was {then.get(name)!r:.200}, and now it is "
                f"{now[name]!r:.200}: start a new run"
            )
    if "data_sha256" not in then:
        raise InputError(f"{folder / 'config.json'} has no data_sha256, as of another version: start a new run")
    others = changed(then["data_sha256"], now["data_sha256"])
    if wrong := [name for name in others if name != TIMES]:
        raise InputError(f"{folder} began with data whose {', '.join(wrong)} were others: start a new run")
    if others:
        warnings.warn(
            f"the training files were changed or copied after {folder} began; their names, sizes and a sample of "
            f"{SAMPLE} are the same",
            stacklevel=3,
        )


def _plain(content: dict[str, Any]) -> dict[str, Any]:
    """As it is once it has been written as JSON and read."""
    return from_dict(to_json(content), name="the config")


def train_or_resume(config: TrainConfig, *, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """The run of a config in the folder that it names: begun, gone on with, or, if it is finished, read.

    So a script that was killed can be started again with the same options.

    Args:
        config: what to do, and where: ``run_dir``.
        progress: show a progress bar.

    Returns:
        As :func:`run_training`.

    Raises:
        InputError: no ``run_dir``, a folder in which something else was asked for, or what the other two refuse.
    """
    if config.run_dir is None:
        raise InputError("train_or_resume: the run needs a folder of its own: give run_dir, such as Path('runs/mine')")
    if not distributed.broadcast_from_main((config.run_dir / "config.json").exists()):
        return run_training(config, progress=progress)
    written, asked = read_config(config.run_dir), _plain(config.to_dict())
    for name, wanted in asked.items():
        if name not in ("run_dir", *RESUME_OVERRIDES) and written.get(name) != wanted:
            raise InputError(
                f"{config.run_dir} holds a run with {name}={written.get(name)!r}, not {wanted!r}: "
                "give another --run-dir"
            )
    return resume_training(
        config.run_dir, progress=progress, **{name: getattr(config, name) for name in RESUME_OVERRIDES}
    )


def _load(config: TrainConfig) -> tuple[data.Dataset, dict[str, Any]]:
    """The data, as large as the model needs it, and what there is to say of it."""
    raw = data.load(config.dataset, streaming=config.streaming or jax.process_count() > 1)
    dataset = raw.with_min_size(models.get_model(config.model).input_shape)
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    facts = {
        "image_shape": raw.image_shape,
        "input_shape": dataset.image_shape,
        "class_names": dataset.class_names,
        "num_examples": {name: len(split.labels) for name, split in parts.items()},
        "data_sha256": fingerprint(raw),
        "versions": runtime.versions(),
    }
    return dataset, facts


def _warn_of_few(dataset: data.Dataset) -> None:
    count = len(dataset.validation.labels)
    if count < FEW:
        warnings.warn(
            f"{dataset.name}: the best epoch is chosen on {count} validation images; with fewer than {FEW} much of "
            "the choice is chance: give the data set a larger validation part",
            stacklevel=3,
        )


def _run(
    config: TrainConfig, dataset: data.Dataset, lock: RunLock, settings: dict[str, Any], progress: bool, started: float
) -> dict[str, Any]:
    """Train, from the last checkpoint on if there is one, and write what comes of it."""
    folder = lock.folder
    count, checkpoints, lines = len(dataset.train.labels), folder / "checkpoints", folder / "metrics.jsonl"
    model = models.create_model(config.model, len(dataset.class_names))
    optimizer = config.make_optimizer(math.ceil(count / config.batch_size))
    mesh = (
        distributed.create_mesh(config.num_devices)
        if config.num_devices is not None or jax.device_count() > 1
        else None
    )
    start = _last_snapshot(config, model, optimizer, dataset.image_shape, checkpoints, mesh)
    before = start.progress.history if start else ()
    progress = progress and distributed.is_main_process()
    board = None
    if distributed.is_main_process():
        write_jsonl(lines, before)
        board = train.TensorBoardWriter(folder / "tensorboard", len(before) + 1) if config.tensorboard else None

    def save(snapshot: Snapshot) -> None:
        lock.check()
        extra = {"config": settings, "steps": int(snapshot.train_state.step.max())}
        position = snapshot.progress._replace(extra=extra)
        train.save_checkpoint(checkpoints, snapshot._replace(progress=position), max_to_keep=config.max_checkpoints)
        lock.check()

    def on_epoch(record: dict[str, Any], snapshot: Snapshot, is_best: bool) -> None:
        save(snapshot)
        if distributed.is_main_process():
            append_jsonl(lines, record)
        if board is not None:
            board.write(record)

    several = config.num_seeds > 1
    fit: Callable[..., FitResult | SeedsResult] = train.fit_seeds if several else train.fit
    fitted = fit(
        model,
        dataset.train,
        dataset.validation,
        optimizer=optimizer,
        epochs=config.epochs,
        batch_size=config.batch_size,
        early_stopping=config.early_stopping(),
        mesh=mesh,
        progress_bar=progress,
        on_epoch_end=on_epoch,
        on_checkpoint=save,
        checkpoint_seconds=60 * config.checkpoint_minutes,
        resume_from=start,
        task=config.make_task(),
        **{"seeds": config.seed_list()} if several else {"seed": config.seed},
        **config.step_kwargs(),
    )
    if board is not None:
        board.close()
    lock.check()
    test = _test if config.task == "classification" else _test_of_task
    scores, pictures = test(config, dataset, fitted, folder)
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
        **scores,
        **_validation(fitted),
        "best_epoch": fitted.best_epoch,
        "epochs_run": len(fitted.history),
        "steps": fitted.num_steps,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(fitted.params)) // config.num_seeds,
        "params_sha256": train.tree_sha256(fitted.params),
        "final_params_sha256": train.tree_sha256(fitted.final_state.params),
        "train_seconds": fitted.train_seconds,
        "compile_seconds": fitted.compile_seconds,
        "time_to_first_step_seconds": None if (ready := fitted.compiled["train"].ready_at) is None else ready - started,
        "num_compilations": {name: program.num_compilations for name, program in fitted.compiled.items()},
        "images_per_second": len(fitted.history) * count * config.num_seeds / fitted.train_seconds,
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    baseline = _baseline(config, folder, progress)
    if baseline is not None:
        error, error_before = 1 - result["test_accuracy"], 1 - baseline["test_accuracy"]
        result["baseline"] = {name: baseline[name] for name in ("model", "test_accuracy", "num_params")}
        result["relative_error_reduction"] = (error_before - error) / error_before if error_before else 0.0
    result["total_seconds"] = time.perf_counter() - started
    lock.check()
    if distributed.is_main_process():
        write_jsonl(lines, fitted.history)  # whole, whatever became of it meanwhile
        write_json(folder / "config.json", settings)
        write_json(folder / "result.json", result)
        for name, draw in pictures.items():  # after the result, which no picture may cost
            plot.save(folder / name, draw)
    return result


def _last_snapshot(
    config: TrainConfig, model: Layer, optimizer: Any, input_shape: tuple[int, ...], folder: Path, mesh: Any
) -> Snapshot | None:
    if not train.all_steps(folder):
        return None
    copies: Copies = Stacked(tuple(config.seed_list())) if config.num_seeds > 1 else Single(config.seed)
    average = config.ema_decay is not None
    init = copies.transform(lambda key: train.create_train_state(model, optimizer, key, input_shape, ema=average))
    like = jax.eval_shape(init, copies.keys()[0])
    return train.restore_snapshot(folder, (like, like.eval_variables), mesh)


def _test(
    config: TrainConfig, dataset: data.Dataset, fitted: FitResult | SeedsResult, folder: Path
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Scores of the best epoch on the test set, and functions that draw the pictures."""
    images, labels = dataset.test
    evaluator = fitted.evaluator
    scores = evaluator(fitted.params, fitted.state, evaluator.batches(images, labels), logits=True)
    assert scores.logits is not None
    each = np.atleast_1d(scores.accuracy)
    probabilities = scipy.special.softmax(scores.logits.astype(np.float64), axis=-1)
    together = probabilities if config.num_seeds == 1 else probabilities.mean(axis=0)
    report = train.classification_report(together, labels, dataset.class_names)
    result = {
        "test_accuracy": float(each.mean()),
        "test_loss": float(np.mean(scores.loss)),
        "num_test_examples": scores.examples,
    }
    if config.num_seeds > 1:
        deviation = float(each.std(ddof=1))
        result |= {"test_accuracy_per_seed": each.tolist(), "test_accuracy_std": deviation}
        result |= {"ensemble_accuracy": report["accuracy"]}
    result |= {name: report[name] for name in ("top5_accuracy", "expected_calibration_error")}
    means = [record["val_accuracy"] for record in fitted.history]
    kept = fitted.best_epoch if isinstance(fitted, FitResult) else 1 + int(np.argmax(means))
    title = f"{config.model} on {config.dataset}: test accuracy {result['test_accuracy']:.4f}"
    pictures = {
        "training_curves.png": lambda: plot.training_curves(fitted.history, best_epoch=kept, title=title),
        "misclassified.png": lambda: plot.misclassified(images, labels, together, dataset.class_names),
        "confusion_matrix.png": lambda: plot.confusion_matrix(
            report["confusion_matrix"], dataset.class_names, title=title
        ),
    }
    if distributed.is_main_process():
        write_json(folder / "classification_report.json", report)
    return result, pictures


def _test_of_task(
    config: TrainConfig, dataset: data.Dataset, fitted: FitResult | SeedsResult, folder: Path
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Return loss and metrics of the best epoch on the test set, and functions that draw the pictures."""
    scores = fitted.evaluator(fitted.params, fitted.state, fitted.evaluator.batches(*dataset.test))
    numbers = {"loss": scores.loss} | scores.metrics
    result = {f"test_{name}": float(np.mean(value)) for name, value in numbers.items()}
    if config.num_seeds > 1:
        result |= {f"test_{name}_std": float(np.std(value, ddof=1)) for name, value in numbers.items()}
    best = fitted.best_epoch if isinstance(fitted, FitResult) else fitted.best_epoch[0]
    title = f"{config.model} on {config.dataset}: test loss {result['test_loss']:.4f}"
    pictures = {"training_curves.png": lambda: plot.training_curves(fitted.history, best_epoch=best, title=title)}
    return result | {"num_test_examples": scores.examples}, pictures


def _validation(fitted: FitResult | SeedsResult) -> dict[str, float]:
    """Of the epoch that was kept; of several networks, the mean."""
    if isinstance(fitted, FitResult):
        kept = [fitted.history[fitted.best_epoch - 1]]
    else:
        kept = [fitted.history[epoch - 1]["per_seed"][i] for i, epoch in enumerate(fitted.best_epoch)]
    return {name: float(np.mean([record[name] for record in kept])) for name in kept[0] if name.startswith("val_")}


def _baseline(config: TrainConfig, folder: Path, progress: bool) -> dict[str, Any] | None:
    """What the model to compare with makes of the same, in a run folder within this one."""
    if config.baseline_model is None:
        return None
    other = dataclasses.replace(config, model=config.baseline_model, baseline_model=None, run_dir=folder / "baseline")
    return train_or_resume(other, progress=progress)[1]


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """When it is interrupted, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "checkpoints").exists():
            raise KeyboardInterrupt(f"jaxconv train --resume {folder} goes on from the last checkpoint") from None
        raise
