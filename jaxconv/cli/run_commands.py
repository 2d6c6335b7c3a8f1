"""The commands: each is a typed dataclass, which tyro makes into options, and a function that runs it."""

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxconv import checks, distributed, runtime
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
from jaxconv.utils.files import write_json
from jaxconv.utils.terminal import tell, tell_error


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and write a run folder."""

    model: Annotated[str, tyro.conf.arg(help=f"One of {', '.join(list_models())}.")] = TrainConfig.model
    recipe: str | None = None
    """Other defaults: fast (MNIST in one epoch), lecture (RMSprop, patience 5, beside a network without convolutions)
    or resnet (He et al.)."""
    resume: Path | None = None
    """Go on with this run, which was stopped or killed, exactly as if it had not been."""
    coordinator_address: str | None = None
    """Of several processes that train together, host:port of the first; then --num-processes and --process-id too. On a
    TPU pod slice, or under Slurm, auto is enough."""
    num_processes: int | None = None
    """How many there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""


def train_defaults(arguments: Sequence[str]) -> Train:
    """What train is asked for by default: as the recipe has it, or as the run to resume was started."""
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
    """What stands after an option, or after its equals sign."""
    for word, after in zip(arguments, [*arguments[1:], None], strict=True):
        if word == option:
            return after
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


@dataclasses.dataclass(frozen=True)
class Eval:
    """Score a trained network on the test set of its data set."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    tta_flip: bool = False
    """Average over each image and its mirror image."""
    tta_translate: int = 0
    """Average over each image moved by so many pixels, too."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Say what is in image files."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """png or jpg files; they are resized, and made grey if the data set's images are."""
    invert: bool = False
    """Swap dark and bright: for dark ink on white paper, which MNIST shows the other way round."""
    topk: int = 3
    """How many classes to list for each image."""


def check_train(options: Train) -> None:
    """Refuse options that do not go together."""
    if options.resume and options.recipe:
        raise InputError("--recipe means nothing to --resume: leave it out")


def train(options: Train) -> None:
    before = runtime.process_uptime()
    if any(value is not None for value in (options.coordinator_address, options.num_processes, options.process_id)):
        distributed.initialize(options.coordinator_address, options.num_processes, options.process_id)
    if options.resume:
        folder, result = resume_training(options.resume, **_changes(options, options.resume))
    else:
        folder, result = run_training(options)
    if not distributed.is_main_process():
        return
    several = result.get("test_accuracy_per_seed")
    spread = f" ± {result['test_accuracy_std']:.4f} ({len(several)} seeds)" if several else ""
    which = "each at its best epoch" if several else f"epoch {result['best_epoch']}, the best"
    images = f"{result['num_test_examples']:,} images"
    if "test_accuracy" in result:
        tell(f"test accuracy {result['test_accuracy']:.4f}{spread} on {images} ({which} on validation)")
    else:
        tell(f"test loss {result['test_loss']:.4f} on {images} ({which} on validation)")
    if several:
        tell(f"the {len(several)} networks together: {result['ensemble_accuracy']:.4f}")
    if "baseline" in result:
        tell(
            f"{result['baseline']['model']} reaches {result['baseline']['test_accuracy']:.4f}: "
            f"relative error decrease {result['relative_error_reduction']:.1%}"
        )
    began = result.get("time_to_first_step_seconds")
    tell(
        f"in {before + result['total_seconds']:.0f} s, {result['compile_seconds']:.1f} of them compiling"
        + (f" and the first step after {before + began:.1f}" if began else "")
        + f", on {result['device']}",
        f"saved in {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}",
        f"next: jaxconv predict {shlex.quote(str(folder))} IMAGE.png",
    )


def _changes(options: Train, folder: Path) -> dict[str, Any]:
    """What a run is to be given otherwise when it goes on; what its numbers depend on is refused."""
    began = read_train_config(folder)
    changed = {
        field.name: now
        for field in dataclasses.fields(TrainConfig)
        if (now := getattr(options, field.name)) != getattr(began, field.name)
    }
    refused = [
        f"--{name.replace('_', '-')} {getattr(began, name)}, not {now}"
        for name, now in changed.items()
        if name not in RESUME_OVERRIDES
    ]
    if refused:
        longer = ""
        if "epochs" in changed:  # another number is another schedule, from the first step on
            longer = f"; the learning rate follows a schedule for {began.epochs} epochs, so a longer run is a new one"
        raise InputError(f"{folder} began with {', '.join(refused)}: leave that out, or start a new run{longer}")
    return changed


def evaluate(options: Eval) -> None:
    scored = evaluate_run(load_run(options.run), tta_flip=options.tta_flip, tta_translate=options.tta_translate)
    tell(
        f"test loss {scored['loss']:.4f}, accuracy {scored['accuracy']:.4f} on {scored['num_examples']:,} images",
        f"top-5 accuracy {scored['top5_accuracy']:.4f}, calibration error {scored['expected_calibration_error']:.4f}",
    )
    if scored["test_data_changed"]:
        tell_error(f"warning: {CHANGED}")
    try:
        write_json(options.run / "evaluation.json", scored)
    except InputError as error:  # a run that may only be read has its scores all the same
        tell_error(f"warning: the scores are not saved: {error}")
    else:
        tell(f"saved in {options.run / 'evaluation.json'}")


def predict(options: Predict) -> None:
    if options.topk < 1:
        raise InputError(f"--topk {options.topk}: list at least 1 class")
    run = load_run(options.run)
    classes = run.config["class_names"]
    predicted = predict_files(run, list(options.images), invert=options.invert)
    for path, probabilities in zip(options.images, predicted, strict=True):
        best = probabilities.argsort()[::-1][: options.topk]
        tell(f"{path}: " + ", ".join(f"{classes[i]} {probabilities[i]:.1%}" for i in best))
