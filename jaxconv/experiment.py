"""An experiment: a config goes in; a run folder comes out, with everything needed to believe it or to use it.

runs/<dataset>-<model>-<time>/
    config.json      what was asked for, and what the data turned out to be
    metrics.jsonl    one line an epoch, written as it ends
    checkpoint/      the parameters of the best epoch
    curves.png       loss and accuracy, training and validation
    mistakes.png     the test images that it got wrong
    result.json      what came of it; it is there only if everything else is
"""

import dataclasses
import json
import math
import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import data, models, plot, runtime, train
from jaxconv.errors import InputError
from jaxconv.layers import Layer
from jaxconv.train import TrainState


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to train, on what, and how."""

    dataset: str = "digits"
    """digits (comes with the package), mnist or fashion_mnist (downloaded once)."""
    model: str = "small_cnn"
    """small_cnn, lenet5, mnist_cnn or mlp."""
    epochs: int = 12
    """How often to go through the training images."""
    batch_size: int = 32
    """Images a step."""
    optimizer: str = "adam"
    """sgd, momentum, nesterov, adam, adamw or rmsprop."""
    learning_rate: float = 3e-3
    """Its highest value."""
    schedule: str = "one_cycle"
    """How the learning rate changes over the run: constant, cosine or one_cycle."""
    seed: int = 0
    """Of the parameters, the order of the data, and dropout."""
    runs: Path = Path("runs")
    """The folder that the run folder is made in."""


class Run(NamedTuple):
    """A trained network, as its run folder holds it."""

    folder: Path
    config: dict[str, Any]
    model: Layer
    params: Any
    state: Any


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
    entry = _check(config)  # before anything is downloaded
    raw = data.load(config.dataset)
    dataset = raw.at_least(entry.in_shape)
    model = entry.make(len(dataset.classes))
    steps = config.epochs * math.ceil(len(dataset.train.labels) / config.batch_size)
    optimizer = train.make_optimizer(config.optimizer, config.learning_rate, config.schedule, steps)
    folder = _make_folder(config)
    facts = {
        "image_shape": raw.in_shape,
        "in_shape": dataset.in_shape,
        "classes": dataset.classes,
        "versions": runtime.versions(),
    }
    write_json(folder / "config.json", dataclasses.asdict(config) | facts)

    def on_epoch(record: dict[str, Any], ts: TrainState, is_best: bool) -> None:
        with (folder / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps(record, allow_nan=False) + "\n")
        if is_best:
            train.save_checkpoint(folder / "checkpoint", record["epoch"], ts.params, ts.state)

    try:
        fitted = train.fit(
            model,
            dataset.train,
            dataset.validation,
            optimizer=optimizer,
            epochs=config.epochs,
            batch_size=config.batch_size,
            seed=config.seed,
            progress=progress,
            on_epoch=on_epoch,
        )
    except BaseException:
        if not (folder / "metrics.jsonl").exists():  # nothing came of it: leave nothing behind
            shutil.rmtree(folder)
        raise
    tested = train.evaluate(model, fitted.params, fitted.state, *dataset.test, batch_size=config.batch_size)
    probabilities = train.predict(model, fitted.params, fitted.state, dataset.test.images)
    title = f"{config.model} on {config.dataset}: test accuracy {tested['accuracy']:.4f}"
    plot.curves(fitted.history, best_epoch=fitted.best_epoch, title=title).savefig(folder / "curves.png")
    plot.mistakes(*dataset.test, probabilities, dataset.classes).savefig(folder / "mistakes.png")
    result = {
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
        "test_accuracy": tested["accuracy"],
        "test_loss": tested["loss"],
        "test_count": tested["count"],
        "val_accuracy": fitted.history[fitted.best_epoch - 1]["val_accuracy"],
        "val_loss": fitted.history[fitted.best_epoch - 1]["val_loss"],
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "steps": fitted.steps,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(fitted.params)),
        "train_seconds": fitted.train_seconds,
        "compile_seconds": fitted.compile_seconds,
        "total_seconds": time.perf_counter() - started,
        "images_per_second": len(fitted.history) * len(dataset.train.labels) / fitted.train_seconds,
        "device": runtime.device_name(),
        "versions": runtime.versions(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    write_json(folder / "result.json", result)
    return folder, result


def load_run(folder: Path) -> Run:
    """A trained network from its run folder.

    Raises:
        InputError: no such folder, not a run folder, or one without a whole checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}: give one that jaxconv train made, such as runs/digits-…")
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run folder: it has no config.json") from None
    except ValueError as error:
        raise InputError(f"{folder / 'config.json'} is not JSON: {error}") from None
    if fault := _what_is_wrong(config):
        raise InputError(f"{folder / 'config.json'} is not the config of a run: {fault}")
    in_shape = tuple(config["in_shape"])
    model = models.find(config["model"]).make(len(config["classes"]))
    like = jax.eval_shape(lambda key: model.init(key, in_shape), jax.random.key(0))
    return Run(folder, config, model, *train.load_checkpoint(folder / "checkpoint", like))


def _what_is_wrong(config: Any) -> str | None:
    """What a config lacks to be used again; None if nothing."""
    if not isinstance(config, dict):
        return "it is not a table of names and values"
    for name in ("dataset", "model"):
        if not isinstance(config.get(name), str):
            return f"{name} should be a name, not {config.get(name)!r}"
    for name in ("image_shape", "in_shape"):
        shape = config.get(name)
        if not isinstance(shape, list) or len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
            return f"{name} should be [height, width, channels], not {shape!r}"
    classes = config.get("classes")
    if not isinstance(classes, list) or not classes:
        return f"classes should be a list of names, not {classes!r}"
    return None


def evaluate_run(run: Run) -> dict[str, float]:
    """Score a trained network on the test set of the data set that it was trained on."""
    dataset = data.load(run.config["dataset"]).at_least(tuple(run.config["in_shape"]))
    return train.evaluate(run.model, run.params, run.state, *dataset.test)


def predict_files(run: Run, paths: list[Path], *, invert: bool = False) -> np.ndarray:
    """The probability of each class for each image file: ``(files, classes)``.

    Args:
        run: a trained network.
        paths: of png, jpg and whatever else :func:`jaxconv.data.read_image` reads.
        invert: swap dark and bright, for dark ink on white paper, which MNIST shows the other way round.

    Raises:
        InputError: no file, a file that is not there or not an image.
    """
    if not paths:
        raise InputError("predict: give at least one image file")
    images = np.stack([data.read_image(Path(path), tuple(run.config["image_shape"])) for path in paths])
    images = data.enlarge(255 - images if invert else images, tuple(run.config["in_shape"][:2]))
    return train.predict(run.model, run.params, run.state, images)


def _check(config: TrainConfig) -> models.Model:
    """Refuse what can be refused without data, and return the model's entry."""
    train.check_settings(config.epochs, config.batch_size, config.seed)
    train.make_optimizer(config.optimizer, config.learning_rate, config.schedule)
    runtime.device_name()
    return models.find(config.model)


def _make_folder(config: TrainConfig) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for n in range(1, 1000):
        folder = config.runs / f"{config.dataset}-{config.model}-{stamp}{f'-{n}' if n > 1 else ''}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # two runs in one second
            continue
        except OSError as error:
            raise InputError(f"the run folder {folder} cannot be made: {error}") from None
        return folder
    raise InputError(f"there are too many runs named {folder} in one second")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Written beside and renamed, so that the file is whole or not there."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")
    os.replace(partial, path)
