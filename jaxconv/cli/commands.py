"""The commands: each is a typed dataclass, which tyro makes into options, and a function that runs it."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from jaxconv import devices, models, runtime
from jaxconv.data import check
from jaxconv.errors import InputError, known
from jaxconv.experiment import (
    CHANGED,
    MAY_CHANGE,
    RECIPES,
    TrainConfig,
    evaluate_run,
    load_run,
    predict_files,
    read_train_config,
    resume_training,
    run_training,
)
from jaxconv.explain import summarize, write_summary
from jaxconv.utils.files import write_json


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and write a run folder."""

    recipe: str | None = None
    """Other defaults: fast (MNIST in one epoch), lecture (RMSprop, patience 5, beside a network without convolutions)
    or resnet (He et al.)."""
    resume: Path | None = None
    """Go on with this run, which was stopped or killed, exactly as if it had not been."""
    address: str | None = None
    """Of several processes that train together, host:port of the first; then --processes and --process too. On a TPU
    pod slice, or under Slurm, auto is enough."""
    processes: int | None = None
    """How many there are."""
    process: int | None = None
    """Which of them this is, from 0."""


def train_defaults(arguments: Sequence[str]) -> Train:
    """What train is asked for by default: as the recipe has it, or as the run to resume was started."""
    if resumed := _value_of("--resume", arguments):
        config = read_train_config(Path(resumed))
        return Train(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})
    if recipe := _value_of("--recipe", arguments):
        known("recipe", recipe, RECIPES)
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
    flip: bool = False
    """Average over each image and its mirror image."""
    shift: int = 0
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
    top: int = 3
    """How many classes to list for each image."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Print a network as a table: shapes, parameters, work, receptive fields."""

    model: tyro.conf.Positional[str]
    """small_cnn, lenet5, lenet5_1998, mnist_cnn, mlp, vgg6, vgg6_bn, convnetjs, all_conv, all_conv48, or resnet20,
    32, 44, 56 or 110."""
    in_shape: tuple[int, int, int] | None = None
    """Height, width and channels of one image; by default the size that the model is meant for."""
    classes: int = 10
    """Number of outputs."""
    form: Literal["terminal", "text", "markdown", "json"] = "terminal"
    """How to write it."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Look at the data sets on this machine; nothing is downloaded."""

    action: tyro.conf.Positional[Literal["check"]]
    """check: every file against its official size and SHA-256."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets; all of them by default."""


def train(options: Train) -> None:
    before = runtime.age()
    if options.resume and options.recipe:
        raise InputError("train: --recipe means nothing to --resume: leave it out")
    if any(value is not None for value in (options.address, options.processes, options.process)):
        devices.start(options.address, options.processes, options.process)
    if options.resume:
        folder, result = resume_training(options.resume, **_changes(options, options.resume))
    else:
        folder, result = run_training(options)
    if not devices.first():
        return
    several = result.get("test_accuracies")
    spread = f" ± {result['test_accuracy_std']:.4f} ({len(several)} seeds)" if several else ""
    which = "each at its best epoch" if several else f"epoch {result['best_epoch']}, the best"
    images = f"{result['test_count']:,} images"
    print(f"test accuracy {result['test_accuracy']:.4f}{spread} on {images} ({which} on validation)")
    if several:
        print(f"the {len(several)} networks together: {result['ensemble_accuracy']:.4f}")
    if "baseline" in result:
        print(
            f"{result['baseline']['model']} reaches {result['baseline']['test_accuracy']:.4f}: "
            f"relative error decrease {result['relative_error_decrease']:.1%}"
        )
    began = result.get("first_step_seconds")
    print(
        f"in {before + result['total_seconds']:.0f} s, {result['compile_seconds']:.1f} of them compiling"
        + (f" and the first step after {before + began:.1f}" if began else "")
        + f", on {result['device']}\n"
        f"saved in {folder}: {', '.join(sorted(path.name for path in folder.glob('[!.]*')))}\n"
        f"next: jaxconv predict {folder} IMAGE.png"
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
        if name not in MAY_CHANGE
    ]
    if refused:
        raise InputError(f"{folder} began with {', '.join(refused)}: leave that out, or start a new run")
    return changed


def evaluate(options: Eval) -> None:
    scored = evaluate_run(load_run(options.run), flip=options.flip, shift=options.shift)
    print(
        f"test loss {scored['loss']:.4f}, accuracy {scored['accuracy']:.4f} on {scored['count']:,} images\n"
        f"top-5 accuracy {scored['top5_accuracy']:.4f}, calibration error {scored['calibration_error']:.4f}"
    )
    if scored["test_data_changed"]:
        print(f"jaxconv: warning: {CHANGED}", file=sys.stderr)
    write_json(options.run / "evaluation.json", scored)
    print(f"saved in {options.run / 'evaluation.json'}")


def predict(options: Predict) -> None:
    if options.top < 1:
        raise InputError(f"--top {options.top}: list at least 1 class")
    run = load_run(options.run)
    classes = run.config["classes"]
    predicted = predict_files(run, list(options.images), invert=options.invert)
    for path, probabilities in zip(options.images, predicted, strict=True):
        best = probabilities.argsort()[::-1][: options.top]
        print(f"{path}: " + ", ".join(f"{classes[i]} {probabilities[i]:.1%}" for i in best))


def summary(options: Summary) -> None:
    from rich.console import Console

    entry = models.find(options.model)
    shown = summarize(entry.make(options.classes), options.in_shape or entry.in_shape)
    title = f"{options.model} on {'×'.join(map(str, shown.in_shape))}"
    print(write_summary(shown, options.form, title=title, width=Console().width))
    if options.form in ("terminal", "text"):
        size = f"{4 * shown.params / 1024:,.0f} KiB in float32"
        print(f"trainable parameters {shown.params:,} ({size}): {shown.weights:,} weights and {shown.biases:,} biases")
        print(f"running statistics {shown.state:,}")


def check_data(options: Data) -> None:
    bad = []
    for report in check(options.names):
        print("\n".join([report.name, *(f"  {line}" for line in report.lines)]))
        # A file that nobody asked about may well be missing; it is fetched when it is needed.
        if report.damaged or (report.missing and report.name in options.names):
            bad.append(report.name)
    if bad:
        raise InputError(f"{', '.join(bad)}: damaged or missing files, named above with what to do")
