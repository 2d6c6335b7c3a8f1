"""The commands: each is a typed dataclass, which tyro makes into options, and a function that runs it."""

import dataclasses
from pathlib import Path
from typing import Literal

import tyro

from jaxconv import models
from jaxconv.data import check
from jaxconv.errors import InputError
from jaxconv.experiment import TrainConfig, evaluate_run, load_run, predict_files, run_training, write_json
from jaxconv.explain import summarize


@dataclasses.dataclass(frozen=True)
class Train(TrainConfig):
    """Train a network and write a run folder."""


@dataclasses.dataclass(frozen=True)
class Eval:
    """Score a trained network on the test set of its data set."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""


@dataclasses.dataclass(frozen=True)
class Predict:
    """Say what is in image files."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """png or jpg files; they are made grey and resized as the data set's images."""
    invert: bool = False
    """Swap dark and bright: for dark ink on white paper, which MNIST shows the other way round."""
    top: int = 3
    """How many classes to list for each image."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """Print a network as a table: shapes, parameters, work, receptive fields."""

    model: tyro.conf.Positional[str]
    """small_cnn, lenet5, mnist_cnn or mlp."""
    in_shape: tuple[int, int, int] | None = None
    """Height, width and channels of one image; by default the size that the model is meant for."""
    classes: int = 10
    """Number of outputs."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Look at the data sets on this machine; nothing is downloaded."""

    action: tyro.conf.Positional[Literal["check"]]
    """check: every file against its official size and SHA-256."""
    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Data sets; all of them by default."""


def train(options: Train) -> None:
    folder, result = run_training(options)
    print(
        f"test accuracy {result['test_accuracy']:.4f} on {result['test_count']:,} images "
        f"(epoch {result['best_epoch']}, the best on validation)\n"
        f"in {result['total_seconds']:.0f} s, {result['compile_seconds']:.1f} of them compiling, "
        f"on {result['device']}\n"
        f"saved in {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}\n"
        f"next: jaxconv predict {folder} IMAGE.png"
    )


def evaluate(options: Eval) -> None:
    scored = evaluate_run(load_run(options.run))
    print(f"test loss {scored['loss']:.4f}, accuracy {scored['accuracy']:.4f} on {scored['count']:,} images")
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
    from rich.table import Table

    entry = models.find(options.model)
    shown = summarize(entry.make(options.classes), options.in_shape or entry.in_shape)
    size = "×".join(map(str, shown.in_shape))
    table = Table(title=f"{options.model} on {size}", title_justify="left")
    for heading in ("layer", "output shape", "parameters", "multiply-adds", "sees"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in shown.rows:
        sees = "×".join(map(str, row.sees)) if row.sees else "all"
        table.add_row(row.name, str(row.shape), f"{row.params:,}", f"{row.multiply_adds:,}", sees)
    table.add_section()
    table.add_row("total", "", f"{shown.params:,}", f"{shown.multiply_adds:,}", "")
    console = Console()
    console.width = max(console.width, 80)  # a number that is cut is worse than a line that wraps
    console.print(table)
    print(f"trainable parameters {shown.params:,} ({4 * shown.params / 1024:,.0f} KiB in float32)")
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
