"""A run folder read back: the network that it holds, to score and to use."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import data, models, train
from jaxconv.data import augment
from jaxconv.errors import InputError
from jaxconv.layers import Layer


class Run(NamedTuple):
    """A trained network, as its run folder holds it; of several seeds, in arrays with a first axis for them."""

    folder: Path
    config: dict[str, Any]
    model: Layer
    params: Any
    state: Any

    def predict(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """The probability of each class for each image; of several networks, the mean."""
        seeds, network = self.config.get("seeds", 1), (self.params, self.state)
        each = [network] if seeds == 1 else [jax.tree.map(lambda leaf, i=i: leaf[i], network) for i in range(seeds)]
        said = [train.predict(self.model, params, state, images, **options) for params, state in each]
        return np.mean(said, axis=0)

    def dataset(self) -> data.Dataset:
        """The data set that it was trained on, as large as the network needs it.

        Raises:
            InputError: it has other classes now.
        """
        dataset = data.load(self.config["dataset"], stream=True).at_least(tuple(self.config["in_shape"]))
        if list(dataset.classes) != self.config["classes"]:
            raise InputError(f"{self.folder} was trained on other classes than {self.config['dataset']} has now")
        return dataset

    def first(self) -> "Run":
        """The run with one network in it: of several, the first."""
        if self.config.get("seeds", 1) == 1:
            return self
        params, state = jax.tree.map(lambda leaf: leaf[0], (self.params, self.state))
        return self._replace(params=params, state=state, config=self.config | {"seeds": 1})


def load_run(folder: Path) -> Run:
    """A trained network from its run folder.

    Raises:
        InputError: no such folder, not a run folder, or one without a whole checkpoint.
    """
    folder = Path(folder)
    config = read_config(folder)
    in_shape, seeds = tuple(config["in_shape"]), config.get("seeds", 1)
    model = models.find(config["model"]).make(len(config["classes"]))

    def init(key: jax.Array) -> Any:
        return model.init(key, in_shape)

    keys = jax.random.split(jax.random.key(0), seeds)
    like = jax.eval_shape(jax.vmap(init), keys) if seeds > 1 else jax.eval_shape(init, keys[0])
    return Run(folder, config, model, *train.load_checkpoint(folder / "checkpoint", like))


def read_config(folder: Path) -> dict[str, Any]:
    """What a run was asked for, and what its data turned out to be.

    Raises:
        InputError: no such folder, or not a run folder.
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
    return config


def read_result(folder: Path) -> dict[str, Any]:
    """What came of a run, its ``result.json``.

    Raises:
        InputError: its training did not end, or the file is damaged.
    """
    path = Path(folder) / "result.json"
    try:
        result = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no result.json: its training did not end; jaxconv train --resume {folder} goes on with it"
        ) from None
    except ValueError:
        result = None
    if not isinstance(result, dict) or "test_accuracy" not in result:
        raise InputError(f"{path} is damaged: delete it, and --resume makes it again")
    return result


def evaluate_run(run: Run, *, flip: bool = False, shift: int = 0) -> dict[str, Any]:
    """Score a trained network on the test set of the data set that it was trained on.

    Args:
        run: of one network, or of several, whose probabilities are averaged.
        flip, shift: average over mirrored images too, and over images moved by so many pixels.
    """
    dataset = run.dataset()
    images, labels = dataset.test
    views = augment.test_time(flip=flip, shift=shift) if flip or shift else None
    probabilities = run.predict(images, views=views)
    said = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "loss": float(-np.log(np.maximum(said, np.finfo(np.float32).tiny)).mean()),
        "count": len(labels),
        **train.report(probabilities, labels, dataset.classes),
    }


def predict_files(run: Run, paths: list[Path], *, invert: bool = False) -> np.ndarray:
    """The probability of each class for each image file: ``(files, classes)``.

    Args:
        run: a trained network.
        paths: of png, jpg and the other formats that :func:`jaxconv.data.read_image` reads.
        invert: swap dark and bright, for dark ink on white paper, which MNIST shows the other way round.

    Raises:
        InputError: no file, a file that is not there or not an image.
    """
    if not paths:
        raise InputError("predict: give at least one image file")
    images = np.stack([data.read_image(Path(path), tuple(run.config["image_shape"])) for path in paths])
    images = data.enlarge(255 - images if invert else images, tuple(run.config["in_shape"][:2]))
    return run.predict(images)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Written whole, or not at all; a number that JSON has not is an error."""
    write_whole(path, json.dumps(content, indent=2, default=str, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Written beside and renamed, so that the file is whole or what it was.

    Raises:
        InputError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


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
    seeds = config.get("seeds", 1)
    if not isinstance(seeds, int) or seeds < 1:
        return f"seeds should be a number of networks, not {seeds!r}"
    return None
