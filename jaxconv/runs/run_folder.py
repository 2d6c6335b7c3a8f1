"""Run folders: create one, load its network, evaluate it and predict with it."""

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
from jaxconv.runs.data_fingerprint import TEST, changed_parts, sha256
from jaxconv.runs.schema import USED, check_config, read_config
from jaxconv.utils import files
from jaxconv.utils.files import read_json

CHANGED = "the test images differ from those of the training run, so scores may differ"


class TrainedRun(NamedTuple):
    """Trained network of a run folder; with several seeds, arrays have a leading axis of seeds."""

    folder: Path
    config: dict[str, Any]
    model: Layer
    params: Any
    state: Any

    def check_classifies(self) -> None:
        """Raise InputError unless the network was trained to classify."""
        if (task := self.config.get("task", "classification")) != "classification":
            raise InputError(
                f"{self.folder} was trained with task={task!r}: only a classification can be evaluated or explained"
            )

    def predict(self, images: np.ndarray, **options: Any) -> np.ndarray:
        """Return the probability of each class for each image, averaged over the seeds."""
        self.check_classifies()
        num_seeds, variables = self.config.get("num_seeds", 1), (self.params, self.state)
        members = [variables]
        if num_seeds > 1:
            members = [jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in range(num_seeds)]
        probabilities = [train.predict(self.model, params, state, images, **options) for params, state in members]
        return np.mean(probabilities, axis=0)

    def test_data(self) -> tuple[data.Split, bool]:
        """Return the test images at the network's input size, and True if they changed since training.

        Raises:
            InputError: if the dataset has other classes, or images of another shape, than at training.
        """
        dataset, config = data.load(self.config["dataset"], streaming=True), self.config
        if list(dataset.class_names) != config["class_names"]:
            raise InputError(f"{self.folder} was trained on other classes than those of {config['dataset']}")
        if list(dataset.image_shape) != config["image_shape"]:
            raise InputError(
                f"{self.folder / 'config.json'} has image_shape={config['image_shape']}, but the images of "
                f"{config['dataset']} are {list(dataset.image_shape)}: give the dataset of the training run"
            )
        changed = changed_parts(config.get("data_sha256", {}), {TEST: sha256(*dataset.test)})
        return dataset.test.with_min_size(tuple(config["input_shape"][:2])), bool(changed)

    def first_member(self) -> "TrainedRun":
        """Return the run with one network, the one of the first seed."""
        if self.config.get("num_seeds", 1) == 1:
            return self
        params, state = jax.tree.map(lambda leaf: leaf[0], (self.params, self.state))
        return self._replace(params=params, state=state, config=self.config | {"num_seeds": 1})


def load_run(folder: Path) -> TrainedRun:
    """Load the trained network of a run folder.

    Raises:
        InputError: if there is no such run folder, its config.json is damaged or was changed, or it has no complete
            checkpoint.
    """
    folder = Path(folder)
    config = read_config(folder)
    check_config(folder, config, USED)
    with error_context(str(folder / "config.json")):
        spec = models.get_model(config["model"])
        input_shape = enlarged_shape(config["image_shape"], spec.input_shape)
        num_seeds = config.get("num_seeds", 1)
        if list(input_shape) != config["input_shape"]:
            raise InputError(
                f"input_shape={config['input_shape']}, but {config['model']} takes images {config['image_shape']} as "
                f"{list(input_shape)}: restore the file"
            )
    model = spec.create(num_classes=len(config["class_names"]))

    def init(key: jax.Array) -> Any:
        return model.init(key, input_shape)

    keys = jax.random.split(jax.random.key(0), num_seeds)
    target = jax.eval_shape(jax.vmap(init), keys) if num_seeds > 1 else jax.eval_shape(init, keys[0])
    params, state = train.restore_best(folder / "checkpoints", target)
    _check_params(folder, params)
    return TrainedRun(folder, config, model, params, state)


def _check_params(folder: Path, params: Any) -> None:
    """Raise InputError if the parameters are not those of ``result.json``, as after removing the newest snapshot."""
    path = folder / "result.json"
    try:
        result = read_json(path)
    except (FileNotFoundError, InputError):  # unfinished run; read_result reports a damaged file
        return
    expected = result.get("params_sha256") if isinstance(result, dict) else None
    if expected is not None and expected != train.tree_sha256(params):
        raise InputError(
            f"the newest checkpoint in {folder / 'checkpoints'} has other parameters than {path}: "
            f"delete {path}, and --resume completes the training again"
        )


def evaluate_run(run: TrainedRun, *, tta_flip: bool = False, tta_translate: int = 0) -> dict[str, Any]:
    """Evaluate a trained network on the test set of its dataset.

    Args:
        run: trained network; the probabilities of several seeds are averaged.
        tta_flip: test-time augmentation: average over mirrored images as well.
        tta_translate: test-time augmentation: average over translations by this many pixels as well.

    Returns:
        Loss, number of examples and the entries of :func:`jaxconv.train.classification_report`; ``test_data_changed``
        is True if the test images differ from those at training.
    """
    (images, labels), changed = run.test_data()
    views = augment.test_time_views(flip=tta_flip, translate=tta_translate) if tta_flip or tta_translate else None
    probabilities = run.predict(images, views=views)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "loss": float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean()),
        "num_examples": len(labels),
        "test_data_changed": changed,
        **train.classification_report(probabilities, labels, run.config["class_names"]),
    }


def predict_files(run: TrainedRun, paths: list[Path], *, invert: bool = False) -> np.ndarray:
    """Return the probability of each class for each image file: ``(files, classes)``.

    Args:
        run: a trained network.
        paths: image files in a format that :func:`jaxconv.data.read_image` reads, such as PNG or JPEG.
        invert: invert the images, for dark strokes on white paper, unlike MNIST.

    Raises:
        InputError: if no path is given, or a file is missing or not an image.
    """
    if not paths:
        raise InputError("give at least one image file").from_source("predict")
    images = np.stack([data.read_image(Path(path), tuple(run.config["image_shape"])) for path in paths])
    images = data.upscale_and_pad(255 - images if invert else images, tuple(run.config["input_shape"][:2]))
    return run.predict(images)


def enlarged_shape(image_shape: Sequence[int], min_size: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of images after :func:`jaxconv.data.upscale_and_pad` to the minimum size of a network.

    >>> enlarged_shape([8, 8, 1], (28, 28, 1))
    (28, 28, 1)
    """
    return data.upscale_and_pad(np.zeros((0, *image_shape), np.uint8), (min_size[0], min_size[1])).shape[1:]


def create_run_folder(config: TrainConfig) -> Path:
    """Create the run folder: ``config.run_dir``, or a new folder named after dataset, model and time.

    Raises:
        InputError: if the folder is not empty or cannot be created, or several processes have no ``run_dir``.
    """
    if config.run_dir is not None:
        if distributed.broadcast_from_main((config.run_dir / "config.json").exists()):
            raise InputError(
                f"{config.run_dir} already has a run: give another --run-dir, or continue it with --resume"
            )
        # The folder of a failed run is removed, so it must not contain other files. The lock and the partial files of
        # a killed process may be in it.
        leftover = re.compile(r"\.lock(\.json)?|\..*\.partial")
        if distributed.broadcast_from_main(
            config.run_dir.is_dir() and not all(leftover.fullmatch(path.name) for path in config.run_dir.iterdir())
        ):
            raise InputError(f"{config.run_dir} is not empty: give --run-dir a new or empty folder")
        if distributed.is_main_process():
            files.make_folder(config.run_dir)
        return config.run_dir
    if jax.process_count() > 1:
        raise InputError("several processes must share one run folder: give each the same --run-dir")
    timestamp = time.strftime("%Y%m%d-%H%M%S")
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in config.dataset)
    for n in range(1, 1000):
        folder = config.runs_dir / f"{name}-{config.model}-{timestamp}{f'-{n}' if n > 1 else ''}"
        try:
            files.make_folder(folder, new=True)
        except FileExistsError:  # another run was started in the same second
            continue
        return folder
    raise InputError(f"there are too many runs named {folder} in one second")
