"""``jaxconv train``, ``eval`` and ``predict``: options, which tyro parses, and the functions that run them."""

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxconv import checks, distributed, runtime
from jaxconv.data import DATASETS, SCHEMES
from jaxconv.data.augment import AUGMENTATIONS
from jaxconv.errors import InputError
from jaxconv.models import list_models
from jaxconv.runs import (
    CHANGED,
    RECIPES,
    RESUME_OVERRIDES,
    TrainConfig,
    evaluate_run,
    load_run,
    predict_files,
    read_train_config,
    resume_training,
    run_training,
)
from jaxconv.train import OPTIMIZERS, SCHEDULES, TASKS
from jaxconv.utils.files import write_json
from jaxconv.utils.terminal import tell, tell_error


def _choices(description: str, names: Iterable[str]) -> Any:
    """Return tyro's metadata for an option: its help is the description and the names."""
    return tyro.conf.arg(help=f"{description} {', '.join(names)}.")


DATASET_NAMES = [*DATASETS, *(f"{scheme}:{'NAME' if scheme == 'tfds' else 'PATH'}" for scheme in SCHEMES)]


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and write a run folder.

    --dataset folder:PATH reads a folder of images per class, or a .tar or .zip of such folders; npz:PATH and idx:PATH
    read arrays, tfds:NAME reads from TensorFlow Datasets.

    --augment takes names with an argument: hflip translate:4 crop:28 rotate:15 cutout:8 mixup:0.2 cutmix:1. They are
    applied in the order given. The default for cifar10 is hflip translate:4 (He et al., 2015), otherwise none.

    --recipe fast trains on MNIST in one epoch; lecture uses RMSprop and early stopping and compares with an MLP;
    resnet is the schedule of He et al. (2015) for CIFAR-10.

    To train with several processes, give each of them --coordinator-address, --num-processes and --process-id; on a
    TPU pod slice or under Slurm, --coordinator-address auto suffices.
    """

    dataset: Annotated[str, _choices("Dataset:", DATASET_NAMES)] = TrainConfig.dataset
    model: Annotated[str, _choices("Model:", list_models())] = TrainConfig.model
    optimizer: Annotated[str, _choices("Optimizer:", OPTIMIZERS)] = TrainConfig.optimizer
    schedule: Annotated[str, _choices("Learning rate schedule:", SCHEDULES)] = TrainConfig.schedule
    augment: Annotated[tuple[str, ...] | None, _choices("Data augmentations:", AUGMENTATIONS)] = TrainConfig.augment
    task: Annotated[str, _choices("Task:", TASKS)] = TrainConfig.task
    recipe: Annotated[str | None, _choices("Preset of defaults:", RECIPES)] = None
    resume: Path | None = None
    """Run folder to resume from its last checkpoint, with identical results."""
    coordinator_address: str | None = None
    """host:port of process 0, or auto."""
    num_processes: int | None = None
    """Number of processes that train together."""
    process_id: int | None = None
    """Index of this process, from 0."""


def train_defaults(arguments: Sequence[str]) -> Train:
    """Return the defaults of ``train``: those of the recipe, or of the run to resume."""
    if "--help" in arguments or "-h" in arguments:
        return Train()
    if resumed := _value_of("--resume", arguments):
        config = read_train_config(Path(resumed))
        return Train(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    if recipe := _value_of("--recipe", arguments):
        checks.one_of("recipe", recipe, RECIPES)
        return Train(**RECIPES[recipe])
    return Train()


def _value_of(option: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option, ``--name value`` or ``--name=value``, or None."""
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


@dataclasses.dataclass(frozen=True)
class Eval:
    """Evaluate a trained network on the test set.

    The scores are saved as evaluation.json in the run folder.
    """

    run: tyro.conf.Positional[Path]
    """Run folder written by jaxconv train."""
    tta_flip: bool = False
    """Test-time augmentation: average over each image and its mirror image."""
    tta_translate: int = 0
    """Test-time augmentation: average over translations by this many pixels."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classify image files with a trained network.

    Images are resized to the input shape, and converted to gray if the dataset is gray.
    """

    run: tyro.conf.Positional[Path]
    """Run folder written by jaxconv train."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """PNG or JPEG files."""
    invert: bool = False
    """Invert the images: for dark strokes on white paper, unlike MNIST."""
    topk: int = 3
    """Number of classes to list for each image."""


def check_train(options: Train) -> None:
    """Raise InputError for options that cannot be combined."""
    if options.resume and options.recipe:
        raise InputError("--recipe cannot be combined with --resume")


def check_predict(options: Predict) -> None:
    """Raise InputError unless at least one class is listed."""
    if options.topk < 1:
        raise InputError(f"--topk must be at least 1, got {options.topk}")


def run_train(options: Train) -> None:
    """Train or resume, and print the result."""
    uptime = runtime.process_uptime()
    if any(value is not None for value in (options.coordinator_address, options.num_processes, options.process_id)):
        distributed.initialize(options.coordinator_address, options.num_processes, options.process_id)
    if options.resume:
        folder, result = resume_training(options.resume, **_overrides(options, options.resume))
    else:
        folder, result = run_training(options)
    if not distributed.is_main_process():
        return
    tell(*_result_lines(result))
    first_step = result.get("time_to_first_step_seconds")
    tell(
        f"time: {uptime + result['total_seconds']:.0f} s, of which {result['compile_seconds']:.1f} s compiling"
        + (f"; first step after {uptime + first_step:.1f} s" if first_step else "")
        + f"; device: {result['device']}",
        f"saved in {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}",
        f"next: jaxconv predict {shlex.quote(str(folder))} IMAGE.png",
    )


def _result_lines(result: dict[str, Any]) -> list[str]:
    """Return the scores of a ``result.json`` as lines of text."""
    accuracies = result.get("test_accuracy_per_seed")
    deviation = f" ± {result['test_accuracy_std']:.4f} ({len(accuracies)} seeds)" if accuracies else ""
    epoch = "best epoch of each seed" if accuracies else f"epoch {result['best_epoch']}"
    images = f"{result['num_test_examples']:,} images"
    if "test_accuracy" in result:
        lines = [f"test accuracy {result['test_accuracy']:.4f}{deviation} on {images} ({epoch}, best on validation)"]
    else:
        lines = [f"test loss {result['test_loss']:.4f} on {images} ({epoch}, best on validation)"]
    if accuracies:
        lines.append(f"ensemble accuracy ({len(accuracies)} seeds): {result['ensemble_accuracy']:.4f}")
    if "baseline" in result:
        lines.append(
            f"baseline {result['baseline']['model']}: test accuracy {result['baseline']['test_accuracy']:.4f}; "
            f"relative error reduction {result['relative_error_reduction']:.1%}"
        )
    return lines


def _overrides(options: Train, folder: Path) -> dict[str, Any]:
    """Return the options that differ from those of the run; raise InputError unless all may change on resuming."""
    started_config = read_train_config(folder)
    changed = {
        field.name: value
        for field in dataclasses.fields(TrainConfig)
        if (value := getattr(options, field.name)) != getattr(started_config, field.name)
    }
    refused = [
        f"--{name.replace('_', '-')} {getattr(started_config, name)}, not {value}"
        for name, value in changed.items()
        if name not in RESUME_OVERRIDES
    ]
    if refused:
        reason = ""
        if "epochs" in changed:  # the learning rate of every step depends on the number of epochs
            reason = f": the learning rate schedule spans {started_config.epochs} epochs"
        raise InputError(
            f"{folder} was started with {', '.join(refused)}: leave these options out, or start a new run{reason}"
        )
    return changed


def run_eval(options: Eval) -> None:
    """Print the scores on the test set, and save them in the run folder."""
    scores = evaluate_run(load_run(options.run), tta_flip=options.tta_flip, tta_translate=options.tta_translate)
    tell(
        f"test loss {scores['loss']:.4f}, accuracy {scores['accuracy']:.4f} on {scores['num_examples']:,} images",
        f"top-5 accuracy {scores['top5_accuracy']:.4f}, calibration error {scores['expected_calibration_error']:.4f}",
    )
    if scores["test_data_changed"]:
        tell_error(f"warning: {CHANGED}")
    try:
        write_json(options.run / "evaluation.json", scores)
    except InputError as error:  # the run folder may be read-only
        tell_error(f"warning: the scores are not saved: {error}")
    else:
        tell(f"saved in {options.run / 'evaluation.json'}")


def run_predict(options: Predict) -> None:
    """Print the most probable classes of each image file."""
    run = load_run(options.run)
    class_names = run.config["class_names"]
    predictions = predict_files(run, list(options.images), invert=options.invert)
    for path, probabilities in zip(options.images, predictions, strict=True):
        top = probabilities.argsort()[::-1][: options.topk]
        tell(f"{path}: " + ", ".join(f"{class_names[i]} {probabilities[i]:.1%}" for i in top))
