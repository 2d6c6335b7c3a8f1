"""The command line: each command is a typed dataclass, made into options by tyro, and a function that runs it."""

import contextlib
import dataclasses
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_type_hints

import tyro

from jaxconv import __version__, models
from jaxconv.data import check
from jaxconv.errors import InputError, unknown
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


class Command(NamedTuple):
    options: type
    run: Callable[..., None]
    examples: str


COMMANDS = {
    "train": Command(
        Train,
        train,
        """jaxconv train
        jaxconv train --dataset mnist --model mnist_cnn
        jaxconv train --dataset fashion_mnist --model mnist_cnn --seed 1""",
    ),
    "eval": Command(Eval, evaluate, "jaxconv eval runs/digits-small_cnn-20261121-101500"),
    "predict": Command(Predict, predict, "jaxconv predict runs/mnist-mnist_cnn-20261121-101500 seven.png --invert"),
    "summary": Command(Summary, summary, "jaxconv summary mnist_cnn\njaxconv summary lenet5 --in-shape 28 28 1"),
    "data": Command(Data, check_data, "jaxconv data check\njaxconv data check mnist"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for input that cannot work, or 130 when interrupted.

    An error of the user's is one line. ``JAXCONV_TRACEBACK=1`` shows where it was raised.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax's warnings; its errors are told in our words
    try:
        options = parse(arguments or ["--help"])
        next(command for command in COMMANDS.values() if command.options is type(options)).run(options)
        sys.stdout.flush()  # here, where a reader that went away can be told from a bug
    except BrokenPipeError:  # whoever read our output has read enough: jaxconv summary … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        if os.environ.get("JAXCONV_TRACEBACK"):
            raise
        print(f"jaxconv: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxconv: interrupted; if a run folder has a checkpoint, it is whole", file=sys.stderr)
        return 130
    return 0


def parse(arguments: Sequence[str]) -> object:
    """The options of the command that the arguments name.

    Raises:
        InputError: an unknown command or option, with the nearest that is known; a value of the wrong type.
        SystemExit: after ``--help`` and ``--version``.
    """
    name = arguments[0]
    if name == "--version":
        print(f"jaxconv {__version__}")
        raise SystemExit(0)
    if name not in COMMANDS and name not in ("-h", "--help"):
        if name.startswith("-"):
            raise InputError(
                f"{name} is before the command: write jaxconv COMMAND {name} …, with {', '.join(COMMANDS)}"
            )
        raise unknown("command", name, COMMANDS)
    kinds: Any = tuple(
        Annotated[
            command.options,
            tyro.conf.subcommand(name, prefix_name=False, description=_help(command)),
        ]
        for name, command in COMMANDS.items()
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options, rest = tyro.cli(
                Union[kinds],  # noqa: UP007  (a tuple of types, made above)
                prog="jaxconv",
                description="Convolutional networks as pure functions, compiled by XLA.",
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit:
        if said.getvalue():
            raise InputError(_one_line(said.getvalue())) from None
        raise
    for word in rest:
        if not word.startswith("-"):
            raise InputError(f"jaxconv {name} does not know what to do with {word!r}: see jaxconv {name} --help")
        flags = [
            f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options) if f.name not in _positional(options)
        ]
        raise unknown(f"jaxconv {name} option", word.split("=")[0], [*flags, "--help"])
    return options


def _positional(options: object) -> set[str]:
    hints = get_type_hints(type(options), include_extras=True)
    return {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}


def _one_line(box: str) -> str:
    """tyro's explanation of a wrong value, out of its frame."""
    text = re.sub(r"[│╭╮╰╯─|+]|-{3,}", " ", box).split("For full helptext")[0]
    return " ".join(text.split())


def _help(command: Command) -> str:
    examples = "".join(f"\n  {line.strip()}" for line in command.examples.splitlines())
    return f"{command.options.__doc__}\n\nExamples:{examples}"


if __name__ == "__main__":
    sys.exit(main())
