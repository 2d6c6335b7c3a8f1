"""The command line: which commands there are, how they are parsed, and what becomes of an error."""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, NoReturn, Union, get_type_hints

import tyro

from jaxconv import __version__, runtime
from jaxconv.cli.bench_command import Bench, check_bench, run_bench
from jaxconv.cli.compare_command import Compare, check_comparison, run_comparison
from jaxconv.cli.inspect_commands import Data, Doctor, Summary, check_data, check_summary, examine, summary
from jaxconv.cli.report_commands import Demo, Explain, explain, run_demo
from jaxconv.cli.run_commands import Eval, Predict, Train, check_train, evaluate, predict, train, train_defaults
from jaxconv.data.download import cache_dir
from jaxconv.errors import InputError, error_context, unknown_name_error
from jaxconv.utils import terminal

NO_TUNE = "--no-cpu-tuning"
LARGEST = 2**32  # of the numbers that an option takes


class Command(NamedTuple):
    options: type
    run: Callable[..., int | None]  # returns the exit code, if it is not 0
    examples: str
    check: Callable[[Any], None] = lambda options: None  # raises errors that main puts the command's name before


COMMANDS = {
    "train": Command(
        Train,
        train,
        """jaxconv train
        jaxconv train --dataset mnist --recipe fast
        jaxconv train --dataset mnist --model mnist_cnn
        jaxconv train --dataset mnist --model mnist_cnn --recipe lecture
        jaxconv train --dataset cifar10 --model resnet20 --recipe resnet
        jaxconv train --dataset folder:pictures --model resnet20 --augment hflip translate:4
        jaxconv train --num-seeds 5
        jaxconv train --resume runs/digits-small_cnn-20261121-101500""",
        check_train,
    ),
    "eval": Command(Eval, evaluate, "jaxconv eval runs/digits-small_cnn-20261121-101500"),
    "predict": Command(Predict, predict, "jaxconv predict runs/mnist-mnist_cnn-20261121-101500 seven.png --invert"),
    "summary": Command(
        Summary, summary, "jaxconv summary mnist_cnn\njaxconv summary lenet5 --input-shape 28 28 1", check_summary
    ),
    "compare": Command(
        Compare,
        run_comparison,
        """jaxconv compare --op conv --input-shape 8 28 28 3 --features 16 --kernel-size 3 --stride 2
        jaxconv compare --op max_pool --kernel-size 2 --kinks
        jaxconv compare --model lenet5
        jaxconv compare --model mnist_cnn --layer conv2 --dtype float32""",
        check_comparison,
    ),
    "bench": Command(
        Bench,
        run_bench,
        """jaxconv bench
        jaxconv bench --models resnet32 --batch-size 64 --json bench.json
        jaxconv bench --ops --json ops.json
        jaxconv bench --ops --models lenet5 resnet20 --batch-size 64 --rounds 30
        jaxconv bench --autotune
        jaxconv bench --autotune --json rule.json""",
        check_bench,
    ),
    "explain": Command(
        Explain,
        explain,
        """jaxconv explain runs/mnist-mnist_cnn-20261121-101500
        jaxconv explain runs/mnist-mnist_cnn-20261121-101500 --images seven.png --invert --layer conv2""",
    ),
    "demo": Command(Demo, run_demo, "jaxconv demo runs/mnist-mnist_cnn-20261121-101500 --open-browser"),
    "data": Command(Data, check_data, "jaxconv data check\njaxconv data check mnist"),
    "doctor": Command(Doctor, examine, "jaxconv doctor\njaxconv doctor --no-cpu-tuning"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 where a comparison fails, 2 for bad input, 130 when interrupted.

    An error of the user's is one line. ``JAXCONV_TRACEBACK=1`` shows where it was raised.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = parse(arguments or ["--help"])
        name, command = next(item for item in COMMANDS.items() if item[1].options is type(options))
        with error_context(name):
            command.check(options)
        return command.run(options) or 0
    except (InputError, OSError, MemoryError) as error:
        if os.environ.get("JAXCONV_TRACEBACK"):
            raise
        terminal.tell_error(f"error: {error or 'there is not enough memory'}")
        return 2
    except KeyboardInterrupt as interrupt:
        terminal.tell_error("; ".join(["interrupted", *map(str, interrupt.args)]))
        return terminal.INTERRUPTED


def run() -> NoReturn:
    """Set this process up, run :func:`main` on its arguments, and exit."""
    try:
        arguments = sys.argv[1:]
        if arguments[:1] != ["bench"]:  # which sets its process up itself
            arguments = [word for word in arguments if word != NO_TUNE]
            runtime.configure(cpu_tuning=len(arguments) == len(sys.argv) - 1)
        with contextlib.suppress(InputError):  # no home folder: nothing is kept
            runtime.enable_compilation_cache(cache_dir())
        code = main(arguments)
    except KeyboardInterrupt:
        terminal.tell_error("interrupted")
        code = terminal.INTERRUPTED
    sys.stdout.flush()
    if code == terminal.INTERRUPTED:  # out at once: taken down in the middle of compiling, jaxlib may crash
        os._exit(code)
    sys.exit(code)


def parse(arguments: Sequence[str]) -> object:
    """The options of the command that the arguments name.

    Raises:
        InputError: an unknown command or option, with the nearest that is known; a value of the wrong type.
        SystemExit: after ``--help`` and ``--version``.
    """
    name = arguments[0]
    if name == "--version":
        terminal.tell(f"jaxconv {__version__}")
        raise SystemExit(0)
    if name not in COMMANDS and name not in ("-h", "--help"):
        if name.startswith("-"):
            raise InputError(
                f"{name} is before the command: write jaxconv COMMAND {name} …, with {', '.join(COMMANDS)}"
            )
        raise unknown_name_error("command", name, COMMANDS)
    with error_context(name):
        _check_words(arguments[1:])
    defaults = {"train": train_defaults(arguments)} if name == "train" else {}
    kinds: Any = tuple(
        Annotated[
            command.options,
            tyro.conf.subcommand(
                name, default=defaults.get(name, tyro.MISSING_NONPROP), prefix_name=False, description=_help(command)
            ),
        ]
        for name, command in COMMANDS.items()
    )
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options, rest = tyro.cli(
                Union[kinds],  # noqa: UP007  (a tuple of types, made above)
                prog="jaxconv",
                description="Convolutional networks as pure functions, compiled by XLA.\n\n"
                f"With {NO_TUNE} a command leaves allocator and compiler as they are; jaxconv doctor tells about them.",
                args=arguments,
                return_unknown_args=True,
            )
    except SystemExit:
        if errors.getvalue():
            raise InputError(_one_line(errors.getvalue())) from None
        raise
    for word in rest:
        if not word.startswith("-"):
            raise InputError(f"jaxconv {name} does not know what to do with {word!r}: see jaxconv {name} --help")
        flags = [
            f"--{f.name.replace('_', '-')}" for f in dataclasses.fields(options) if f.name not in _positional(options)
        ]
        raise unknown_name_error(f"jaxconv {name} option", word.split("=")[0], [*flags, "--help"])
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) < LARGEST:
                option = f"--{field.name.replace('_', '-')}"
                raise InputError(f"{name}: {option} {number} should be a number from {-LARGEST:,} to {LARGEST:,}")
    return options


def _check_words(words: Sequence[str]) -> None:
    """Refuse an empty word, which would count as the folder "." or as left out, and an option that is there twice."""
    for before, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            place = option if equals else before or "its first word"
            raise InputError(f"{place} is empty: give it a value, or leave it out")
    options = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    for option in options:
        if options.count(option) > 1:
            raise InputError(f"{option} is there twice: leave one out")
        if f"--no-{option.removeprefix('--')}" in options:
            raise InputError(f"{option} and --no-{option.removeprefix('--')} contradict: leave one out")


def _positional(options: object) -> set[str]:
    hints = get_type_hints(type(options), include_extras=True)
    return {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}


def _one_line(box: str) -> str:
    """tyro's explanation of a wrong value, out of its frame."""
    text = re.sub(r"[│╭╮╰╯─|+]|-{3,}", " ", box).split("For full helptext")[0]
    return " ".join(text.split())


def _help(command: Command) -> str:
    examples = "".join(f"\n  {line.strip()}" for line in command.examples.splitlines())
    return f"{inspect.cleandoc(command.options.__doc__ or '')}\n\nExamples:{examples}"
