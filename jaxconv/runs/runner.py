"""Run a training from its config, or resume it from its run folder."""

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
from jaxconv.runs.data_fingerprint import SAMPLE, TIMES, changed_parts, fingerprint
from jaxconv.runs.lock import RunLock, lock_run
from jaxconv.runs.run_folder import create_run_folder
from jaxconv.runs.schema import RESUME_OVERRIDES, check_config, read_config, read_result, read_train_config
from jaxconv.train import FitResult, SeedsResult, Snapshot
from jaxconv.train.multi_seed import Copies, Single, Stacked
from jaxconv.utils.files import append_jsonl, from_dict, refuse_link, to_json, write_json, write_jsonl

MIN_VALIDATION_IMAGES = 100  # fewer are warned of


def run_training(config: TrainConfig, *, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Train, evaluate the best epoch on the test set once, and write the run folder.

    Args:
        config: options of the run.
        progress: show a progress bar.

    Returns:
        The run folder, and the content of its ``result.json``.

    Raises:
        InputError: if the config is invalid or the data is not available; no run folder is left then.
    """
    start_time = time.perf_counter()
    config.validate()  # before anything is downloaded
    dataset, metadata = _load(config)
    _warn_of_small_validation_set(dataset)
    settings = config.to_dict() | metadata
    # Modification times differ between copies of the files on several machines.
    without_times = {name: digest for name, digest in metadata["data_sha256"].items() if name != TIMES}
    distributed.assert_equal("settings, data or versions", settings | {"data_sha256": without_times})
    folder = create_run_folder(config)
    try:
        with lock_run(folder) as lock, _new_run(folder, settings):
            return folder, _train_and_write(config, dataset, lock, _json_round_trip(settings), progress, start_time)
    finally:
        if distributed.is_main_process():
            with suppress(OSError):
                folder.rmdir()  # empty if it could not be locked


@contextmanager
def _new_run(folder: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Write the config of a new run; remove its folder if the block fails before the first checkpoint."""
    # Another process may have taken the lock first, and finished.
    if distributed.broadcast_from_main((folder / "config.json").exists()):
        raise InputError(f"{folder} already has a run: give another --run-dir, or continue it with --resume")
    try:
        if distributed.is_main_process():
            write_json(folder / "config.json", settings)
        with _resumable(folder):
            yield
    except BaseException:
        if distributed.is_main_process() and not (folder / "checkpoints").exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def resume_training(folder: Path, *, progress: bool = True, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """Resume a run that was stopped or killed; the result equals that of an uninterrupted run.

    Args:
        folder: run folder; without a complete checkpoint the training starts again.
        progress: show a progress bar.
        changes: new values of options that change results only by rounding; their names are in ``RESUME_OVERRIDES``.

    Returns:
        As :func:`run_training`. A finished run is not changed.

    Raises:
        InputError: if this is not a run folder, its data changed, or a checkpoint is damaged.
    """
    start_time, folder = time.perf_counter(), Path(folder)
    saved = read_config(folder)
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
        check_config(folder, saved)
        dataset, metadata = _load(config)
        _check_data(folder, saved, _json_round_trip(metadata))
        settings = _json_round_trip(saved | config.to_dict())
        if changes and distributed.is_main_process():
            write_json(folder / "config.json", settings)
        with _resumable(folder):
            return folder, _train_and_write(config, dataset, lock, settings, progress, start_time)


def _check_data(folder: Path, saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Raise InputError if the data differs from that of the start of the run."""
    for name in ("image_shape", "input_shape", "class_names", "num_examples"):
        if current[name] != saved.get(name):
            raise InputError(
                f"the data of {folder} has changed: {name} was {saved.get(name)!r:.200}, got {current[name]!r:.200}: "
                "start a new run"
            )
    if "data_sha256" not in saved:
        raise InputError(f"{folder / 'config.json'} has no data_sha256, as of another version: start a new run")
    changed = changed_parts(saved["data_sha256"], current["data_sha256"])
    if invalid := [name for name in changed if name != TIMES]:
        raise InputError(f"the data of {folder} has changed: {', '.join(invalid)}: start a new run")
    if changed:
        warnings.warn(
            f"the modification times of the training files have changed since {folder} was started; their names, "
            f"sizes and a sample of {SAMPLE} images are the same",
            stacklevel=3,
        )


def _json_round_trip(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content as it is read back from a JSON file, with lists for tuples."""
    return from_dict(to_json(content), name="the config")


def train_or_resume(config: TrainConfig, *, progress: bool = True) -> tuple[Path, dict[str, Any]]:
    """Start the run in ``config.run_dir``, resume it, or read its result if it is finished.

    A script that was killed can thus be started again with the same options.

    Args:
        config: options of the run, with ``run_dir``.
        progress: show a progress bar.

    Returns:
        As :func:`run_training`.

    Raises:
        InputError: if ``run_dir`` is None or has a run with other options; or as :func:`run_training` and
            :func:`resume_training`.
    """
    if config.run_dir is None:
        raise InputError("train_or_resume: run_dir is None: give the folder of the run, such as Path('runs/mine')")
    if not distributed.broadcast_from_main((config.run_dir / "config.json").exists()):
        return run_training(config, progress=progress)
    saved = read_config(config.run_dir)
    for name, value in _json_round_trip(config.to_dict()).items():
        if name not in ("run_dir", *RESUME_OVERRIDES) and saved.get(name) != value:
            raise InputError(
                f"{config.run_dir} has a run with {name}={saved.get(name)!r}, not {value!r}: give another --run-dir"
            )
    return resume_training(
        config.run_dir, progress=progress, **{name: getattr(config, name) for name in RESUME_OVERRIDES}
    )


def _load(config: TrainConfig) -> tuple[data.Dataset, dict[str, Any]]:
    """Return the dataset at the model's input size, and its entries of ``config.json``."""
    raw = data.load(config.dataset, streaming=config.streaming or jax.process_count() > 1)
    dataset = raw.with_min_size(models.get_model(config.model).input_shape)
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    metadata = {
        "image_shape": raw.image_shape,
        "input_shape": dataset.image_shape,
        "class_names": dataset.class_names,
        "num_examples": {name: len(split.labels) for name, split in splits.items()},
        "data_sha256": fingerprint(raw),
        "versions": runtime.versions(),
    }
    return dataset, metadata


def _warn_of_small_validation_set(dataset: data.Dataset) -> None:
    """Warn if the best epoch is selected on few validation images."""
    num_examples = len(dataset.validation.labels)
    if num_examples < MIN_VALIDATION_IMAGES:
        warnings.warn(
            f"{dataset.name}: the best epoch is chosen on {num_examples} validation images; with fewer than "
            f"{MIN_VALIDATION_IMAGES} the choice is mostly chance: give the dataset a larger validation split",
            stacklevel=3,
        )


def _train_and_write(
    config: TrainConfig,
    dataset: data.Dataset,
    lock: RunLock,
    settings: dict[str, Any],
    progress: bool,
    start_time: float,
) -> dict[str, Any]:
    """Train from the last checkpoint, if there is one, and write the results."""
    folder = lock.folder
    checkpoints, metrics_file = folder / "checkpoints", folder / "metrics.jsonl"
    num_examples = len(dataset.train.labels)
    model = models.create_model(config.model, len(dataset.class_names))
    optimizer = config.make_optimizer(math.ceil(num_examples / config.batch_size))
    mesh = (
        distributed.create_mesh(config.num_devices)
        if config.num_devices is not None or jax.device_count() > 1
        else None
    )
    snapshot = _last_snapshot(config, model, optimizer, dataset.image_shape, checkpoints, mesh)
    history = snapshot.progress.history if snapshot else ()
    progress = progress and distributed.is_main_process()
    tensorboard = None
    if distributed.is_main_process():
        write_jsonl(metrics_file, history)
        if config.tensorboard:
            tensorboard = train.TensorBoardWriter(folder / "tensorboard", len(history) + 1)

    def save(snapshot: Snapshot) -> None:
        lock.check()
        extra = {"config": settings, "steps": int(snapshot.train_state.step.max())}
        with_extra = snapshot._replace(progress=snapshot.progress._replace(extra=extra))
        train.save_checkpoint(checkpoints, with_extra, max_to_keep=config.max_checkpoints)
        lock.check()

    def on_epoch(record: dict[str, Any], snapshot: Snapshot, is_best: bool) -> None:
        save(snapshot)
        if distributed.is_main_process():
            append_jsonl(metrics_file, record)
        if tensorboard is not None:
            tensorboard.write(record)

    multi_seed = config.num_seeds > 1
    fit: Callable[..., FitResult | SeedsResult] = train.fit_seeds if multi_seed else train.fit
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
        resume_from=snapshot,
        task=config.make_task(),
        **{"seeds": config.seed_list()} if multi_seed else {"seed": config.seed},
        **config.step_kwargs(),
    )
    if tensorboard is not None:
        tensorboard.close()
    lock.check()
    evaluate = _evaluate_classification if config.task == "classification" else _evaluate_task
    scores, figures = evaluate(config, dataset, fitted, folder)
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
        **scores,
        **_validation_scores(fitted),
        "best_epoch": fitted.best_epoch,
        "epochs_run": len(fitted.history),
        "steps": fitted.num_steps,
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(fitted.params)) // config.num_seeds,
        "params_sha256": train.tree_sha256(fitted.params),
        "final_params_sha256": train.tree_sha256(fitted.final_state.params),
        "train_seconds": fitted.train_seconds,
        "compile_seconds": fitted.compile_seconds,
        "time_to_first_step_seconds": None
        if (ready := fitted.compiled["train"].ready_at) is None
        else ready - start_time,
        "num_compilations": {name: compiled.num_compilations for name, compiled in fitted.compiled.items()},
        "images_per_second": len(fitted.history) * num_examples * config.num_seeds / fitted.train_seconds,
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    baseline = _train_baseline(config, folder, progress)
    if baseline is not None:
        error, baseline_error = 1 - result["test_accuracy"], 1 - baseline["test_accuracy"]
        result["baseline"] = {name: baseline[name] for name in ("model", "test_accuracy", "num_params")}
        result["relative_error_reduction"] = (baseline_error - error) / baseline_error if baseline_error else 0.0
    result["total_seconds"] = time.perf_counter() - start_time
    lock.check()
    if distributed.is_main_process():
        write_jsonl(metrics_file, fitted.history)  # restores lines that were lost during the training
        write_json(folder / "config.json", settings)
        write_json(folder / "result.json", result)
        for name, draw in figures.items():  # after the result, so that an error in a figure does not lose it
            plot.save(folder / name, draw)
    return result


def _last_snapshot(
    config: TrainConfig, model: Layer, optimizer: Any, input_shape: tuple[int, ...], folder: Path, mesh: Any
) -> Snapshot | None:
    """Return the newest snapshot in the folder of checkpoints, or None."""
    if not train.all_steps(folder):
        return None
    copies: Copies = Stacked(tuple(config.seed_list())) if config.num_seeds > 1 else Single(config.seed)
    ema = config.ema_decay is not None
    init = copies.transform(lambda key: train.create_train_state(model, optimizer, key, input_shape, ema=ema))
    target = jax.eval_shape(init, copies.keys()[0])
    return train.restore_snapshot(folder, (target, target.eval_variables), mesh)


def _evaluate_classification(
    config: TrainConfig, dataset: data.Dataset, fitted: FitResult | SeedsResult, folder: Path
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Return scores of the best epoch on the test set, and functions that draw the figures."""
    images, labels = dataset.test
    evaluator = fitted.evaluator
    scores = evaluator(fitted.params, fitted.state, evaluator.batches(images, labels), logits=True)
    assert scores.logits is not None
    accuracies = np.atleast_1d(scores.accuracy)
    probabilities = scipy.special.softmax(scores.logits.astype(np.float64), axis=-1)
    ensemble = probabilities if config.num_seeds == 1 else probabilities.mean(axis=0)
    report = train.classification_report(ensemble, labels, dataset.class_names)
    result = {
        "test_accuracy": float(accuracies.mean()),
        "test_loss": float(np.mean(scores.loss)),
        "num_test_examples": scores.examples,
    }
    if config.num_seeds > 1:
        result |= {"test_accuracy_per_seed": accuracies.tolist(), "test_accuracy_std": float(accuracies.std(ddof=1))}
        result |= {"ensemble_accuracy": report["accuracy"]}
    result |= {name: report[name] for name in ("top5_accuracy", "expected_calibration_error")}
    mean_accuracies = [record["val_accuracy"] for record in fitted.history]
    best_epoch = fitted.best_epoch if isinstance(fitted, FitResult) else 1 + int(np.argmax(mean_accuracies))
    title = f"{config.model} on {config.dataset}: test accuracy {result['test_accuracy']:.4f}"
    figures = {
        "training_curves.png": lambda: plot.training_curves(fitted.history, best_epoch=best_epoch, title=title),
        "misclassified.png": lambda: plot.misclassified(images, labels, ensemble, dataset.class_names),
        "confusion_matrix.png": lambda: plot.confusion_matrix(
            report["confusion_matrix"], dataset.class_names, title=title
        ),
    }
    if distributed.is_main_process():
        write_json(folder / "classification_report.json", report)
    return result, figures


def _evaluate_task(
    config: TrainConfig, dataset: data.Dataset, fitted: FitResult | SeedsResult, folder: Path
) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    """Return loss and metrics of the best epoch on the test set, and functions that draw the figures."""
    scores = fitted.evaluator(fitted.params, fitted.state, fitted.evaluator.batches(*dataset.test))
    metrics = {"loss": scores.loss} | scores.metrics
    result = {f"test_{name}": float(np.mean(value)) for name, value in metrics.items()}
    if config.num_seeds > 1:
        result |= {f"test_{name}_std": float(np.std(value, ddof=1)) for name, value in metrics.items()}
    best = fitted.best_epoch if isinstance(fitted, FitResult) else fitted.best_epoch[0]
    title = f"{config.model} on {config.dataset}: test loss {result['test_loss']:.4f}"
    figures = {"training_curves.png": lambda: plot.training_curves(fitted.history, best_epoch=best, title=title)}
    return result | {"num_test_examples": scores.examples}, figures


def _validation_scores(fitted: FitResult | SeedsResult) -> dict[str, float]:
    """Return the validation scores of the best epoch, averaged over the seeds."""
    if isinstance(fitted, FitResult):
        best = [fitted.history[fitted.best_epoch - 1]]
    else:
        best = [fitted.history[epoch - 1]["per_seed"][i] for i, epoch in enumerate(fitted.best_epoch)]
    return {name: float(np.mean([record[name] for record in best])) for name in best[0] if name.startswith("val_")}


def _train_baseline(config: TrainConfig, folder: Path, progress: bool) -> dict[str, Any] | None:
    """Train the baseline model in the subfolder ``baseline``, and return its result; None without one."""
    if config.baseline_model is None:
        return None
    baseline = dataclasses.replace(
        config, model=config.baseline_model, baseline_model=None, run_dir=folder / "baseline"
    )
    return train_or_resume(baseline, progress=progress)[1]


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Add the command that resumes the run to a KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "checkpoints").exists():
            raise KeyboardInterrupt(f"jaxconv train --resume {folder} continues from the last checkpoint") from None
        raise
