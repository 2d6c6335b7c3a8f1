"""Run folders: make one, load the network in it, evaluate it and predict with it."""

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import data, distributed, models, train
from jaxconv.data import augment
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer
from jaxconv.runs.config import TrainConfig
from jaxconv.runs.data_fingerprint import TEST, sha256
from jaxconv.runs.data_fingerprint import changed as parts_changed
from jaxconv.runs.schema import USED, check_config, read_config
from jaxconv.utils import files
from jaxconv.utils.files import read_json

CHANGED = "the test images are not those that the run was tested on at its training, so its scores may be others"


class TrainedRun(NamedTuple):
    """A trained network, as its run folder holds it; of several seeds, in arrays with a first axis for them."""

    folder: Path
    config: dict[str, Any]
    model: Layer
    params: Any
    state: Any

    def check_classifies(self) -> None:
        """Raise InputError unless the network was trained to classify."""
        if (task := self.config.get("task", "classification")) != "classification":
            raise InputError(
                f"{self.folder} was trained with task={task!r}: only a classification can be shown or scored"
            )

    def predict(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """The probability of each class for each image; of several networks, the mean."""
        self.check_classifies()
        seeds, network = self.config.get("num_seeds", 1), (self.params, self.state)
        each = [network] if seeds == 1 else [jax.tree.map(lambda leaf, i=i: leaf[i], network) for i in range(seeds)]
        said = [train.predict(self.model, params, state, images, **options) for params, state in each]
        return np.mean(said, axis=0)

    def test_data(self) -> tuple[data.Split, bool]:
        """The test images, as large as the network needs them, and whether they are others than at its training.

        Raises:
            InputError: the data set has other classes now, or images of another shape.
        """
        dataset, config = data.load(self.config["dataset"], streaming=True), self.config
        if list(dataset.class_names) != config["class_names"]:
            raise InputError(f"{self.folder} was trained on other classes than {config['dataset']} has now")
        if list(dataset.image_shape) != config["image_shape"]:
            raise InputError(
                f"{self.folder / 'config.json'} has image_shape={config['image_shape']}, but the images of "
                f"{config['dataset']} are {list(dataset.image_shape)}: give the data set that it was trained on"
            )
        changed = parts_changed(config.get("data_sha256", {}), {TEST: sha256(*dataset.test)})
        return dataset.test.with_min_size(tuple(config["input_shape"][:2])), bool(changed)

    def first_member(self) -> "TrainedRun":
        """The run with one network in it: of several, the first."""
        if self.config.get("num_seeds", 1) == 1:
            return self
        params, state = jax.tree.map(lambda leaf: leaf[0], (self.params, self.state))
        return self._replace(params=params, state=state, config=self.config | {"num_seeds": 1})


def load_run(folder: Path) -> TrainedRun:
    """A trained network from its run folder.

    Raises:
        InputError: no such folder, not a run folder, one whose config.json is damaged or was changed, or one without
            a whole checkpoint.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_config(folder, config, USED)
    with error_context(str(folder / "config.json")):
        spec = models.get_model(config["model"])
        input_shape, seeds = enlarged_shape(config["image_shape"], spec.input_shape), config.get("num_seeds", 1)
        if list(input_shape) != config["input_shape"]:
            raise InputError(
                f"input_shape={config['input_shape']}, but {config['model']} takes images {config['image_shape']} as "
                f"{list(input_shape)}: put that back"
            )
    model = spec.create(num_classes=len(config["class_names"]))

    def init(key: jax.Array) -> Any:
        return model.init(key, input_shape)

    keys = jax.random.split(jax.random.key(0), seeds)
    like = jax.eval_shape(jax.vmap(init), keys) if seeds > 1 else jax.eval_shape(init, keys[0])
    network = train.restore_best(folder / "checkpoints", like)
    _check_network(folder, network[0])
    return TrainedRun(folder, config, model, *network)


def _check_network(folder: Path, params: Any) -> None:
    """Refuse a network that is not the one of the result, as where the newest snapshot was removed."""
    path = folder / "result.json"
    try:
        result = read_json(path)
    except (FileNotFoundError, InputError):  # a run that goes on, or one whose result is not what is read here
        return
    then = result.get("params_sha256") if isinstance(result, dict) else None
    if then is not None and then != train.tree_sha256(params):
        raise InputError(
            f"the newest snapshot in {folder / 'checkpoint'} holds another network than {path} tells of: delete that, "
            "and --resume trains to the end again"
        )


def evaluate_run(run: TrainedRun, *, tta_flip: bool = False, tta_translate: int = 0) -> dict[str, Any]:
    """Score a trained network on the test set of the data set that it was trained on.

    Args:
        run: of one network, or of several, whose probabilities are averaged.
        tta_flip, tta_translate: average over mirrored images too, and over images moved by so many pixels.

    Returns:
        Loss, count and what :func:`jaxconv.train.classification_report` tells; ``test_data_changed`` is True where the
        test images are not those of its training.
    """
    (images, labels), changed = run.test_data()
    views = augment.test_time_views(flip=tta_flip, translate=tta_translate) if tta_flip or tta_translate else None
    probabilities = run.predict(images, views=views)
    said = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "loss": float(-np.log(np.maximum(said, np.finfo(np.float32).tiny)).mean()),
        "num_examples": len(labels),
        "test_data_changed": changed,
        **train.classification_report(probabilities, labels, run.config["class_names"]),
    }


def predict_files(run: TrainedRun, paths: list[Path], *, invert: bool = False) -> np.ndarray:
    """The probability of each class for each image file: ``(files, classes)``.

    Args:
        run: a trained network.
        paths: of png, jpg and the other formats that :func:`jaxconv.data.read_image` reads.
        invert: swap dark and bright, for dark ink on white paper, which MNIST shows the other way round.

    Raises:
        InputError: no file, a file that is not there or not an image.
    """
    if not paths:
        raise InputError("give at least one image file").from_source("predict")
    images = np.stack([data.read_image(Path(path), tuple(run.config["image_shape"])) for path in paths])
    images = data.upscale_and_pad(255 - images if invert else images, tuple(run.config["input_shape"][:2]))
    return run.predict(images)


def enlarged_shape(image_shape: Sequence[int], least: Sequence[int]) -> tuple[int, ...]:
    """The shape that images have once they are as large as a network needs them: see
    :func:`jaxconv.data.upscale_and_pad`.

    >>> enlarged_shape([8, 8, 1], (28, 28, 1))
    (28, 28, 1)
    """
    return data.upscale_and_pad(np.zeros((0, *image_shape), np.uint8), (least[0], least[1])).shape[1:]


def create_run_folder(config: TrainConfig) -> Path:
    """The folder of a run: the one asked for, or a new one named after data set, model and time.

    Raises:
        InputError: it holds something already, or cannot be made; or several processes have not agreed on one.
    """
    if config.run_dir is not None:
        if distributed.broadcast_from_main((config.run_dir / "config.json").exists()):
            raise InputError(f"{config.run_dir} holds a run already: give another --run-dir, or go on with --resume")
        # A run of which nothing comes is removed, and what was there before it must not go with it. What a killed
        # process left, its lock and half a config.json, is none of that.
        left = re.compile(r"\.lock(\.json)?|\..*\.partial")
        if distributed.broadcast_from_main(
            config.run_dir.is_dir() and not all(left.fullmatch(path.name) for path in config.run_dir.iterdir())
        ):
            raise InputError(
                f"{config.run_dir} is a folder with other things in it: give --run-dir one that is new or empty"
            )
        if distributed.is_main_process():
            files.make_folder(config.run_dir)
        return config.run_dir
    if jax.process_count() > 1:
        raise InputError("several processes write one run folder: give each the same --run-dir")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in config.dataset)
    for n in range(1, 1000):
        folder = config.runs_dir / f"{name}-{config.model}-{stamp}{f'-{n}' if n > 1 else ''}"
        try:
            files.make_folder(folder, new=True)
        except FileExistsError:  # two runs in one second
            continue
        return folder
    raise InputError(f"there are too many runs named {folder} in one second")
