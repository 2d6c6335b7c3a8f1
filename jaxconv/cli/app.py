"""Command line: the table of commands, the parser of their options, and the exit code of an error."""

import contextlib
import dataclasses
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, get_type_hints

import tyro

from jaxconv import __version__, runtime
from jaxconv.cli.bench_command import Bench, check_bench, run_bench
from jaxconv.cli.compare_command import Compare, check_compare, run_compare
from jaxconv.cli.inspect_commands import Data, Doctor, Summary, check_summary, run_data, run_doctor, run_summary
from jaxconv.cli.report_commands import Demo, Explain, run_demo, run_explain
from jaxconv.cli.run_commands import (
    Eval,
    Predict,
    Train,
    check_predict,
    check_train,
    run_eval,
    run_predict,
    run_train,
    train_defaults,
)
from jaxconv.data.download import cache_dir
from jaxconv.errors import InputError, error_context, unknown_name_error
from jaxconv.utils import terminal

NO_TUNE = "--no-cpu-tuning"
MAX_NUMBER = 2**32  # exclusive bound on the magnitude of a number given to an option


class Command(NamedTuple):
    """One command of ``jaxconv``.

    Attributes:
        options: dataclass of its options; its docstring is the help.
        run: runs it and returns the exit code, if that is not 0.
        examples: two command lines, shown by ``--help``.
        check: raises InputError for options that cannot be combined.
    """

    options: type
    run: Callable[..., int | None]
    examples: tuple[str, str]
    check: Callable[[Any], None] = lambda options: None


COMMANDS = {
    "train": Command(
        Train,
        run_train,
        (
            "jaxconv train --run-dir runs/digits",
            "jaxconv train --dataset mnist --recipe fast --run-dir runs/mnist",
        ),
        check_train,
    ),
    "eval": Command(Eval, run_eval, ("jaxconv eval runs/digits", "jaxconv eval runs/mnist --tta-translate 1")),
    "predict": Command(
        Predict,
        run_predict,
        ("jaxconv predict runs/digits digit.png", "jaxconv predict runs/mnist digit.png --invert --topk 5"),
        check_predict,
    ),
    "summary": Command(
        Summary, run_summary, ("jaxconv summary mnist_cnn", "jaxconv summary lenet5 --format markdown"), check_summary
    ),
    "compare": Command(
        Compare,
        run_compare,
        (
            "jaxconv compare --op conv --input-shape 8 28 28 3 --kernel-size 3 --stride 2",
            "jaxconv compare --model lenet5 --layer conv2",
        ),
        check_compare,
    ),
    "bench": Command(
        Bench,
        run_bench,
        ("jaxconv bench --models lenet5 resnet20", "jaxconv bench --ops --models lenet5 --json ops.json"),
        check_bench,
    ),
    "explain": Command(
        Explain, run_explain, ("jaxconv explain runs/digits", "jaxconv explain runs/digits --layer conv2")
    ),
    "demo": Command(Demo, run_demo, ("jaxconv demo runs/digits", "jaxconv demo runs/digits --open-browser")),
    "data": Command(Data, run_data, ("jaxconv data check", "jaxconv data check digits")),
    "doctor": Command(Doctor, run_doctor, ("jaxconv doctor", f"jaxconv doctor {NO_TUNE}")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    The code is 0, 1 if a comparison failed, 2 for invalid input, 130 after an interrupt. An InputError is printed in
    one line; ``JAXCONV_TRACEBACK=1`` raises it with its traceback.
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
    """Configure this process, run :func:`main` on its arguments, and exit."""
    try:
        arguments = sys.argv[1:]
        if arguments[:1] != ["bench"]:  # bench configures the process itself
            arguments = [word for word in arguments if word != NO_TUNE]
            runtime.configure(cpu_tuning=len(arguments) == len(sys.argv) - 1)
        with contextlib.suppress(InputError):  # without a home folder there is no cache
            runtime.enable_compilation_cache(cache_dir())
        code = main(arguments)
    except KeyboardInterrupt:
        terminal.tell_error("interrupted")
        code = terminal.INTERRUPTED
    sys.stdout.flush()
    if code == terminal.INTERRUPTED:  # exit without cleanup: jaxlib may crash if it is torn down while compiling
        os._exit(code)
    sys.exit(code)


def parse(arguments: Sequence[str]) -> object:
    """Parse the arguments into the options of the command that the first one names.

    Raises:
        InputError: if the command or an option is unknown, or a value has the wrong type.
        SystemExit: after ``--help`` or ``--version``.
    """
    name = arguments[0]
    if name in ("-h", "--help"):
        terminal.tell(*_overview())
        raise SystemExit(0)
    if name == "--version":
        terminal.tell(f"jaxconv {__version__}")
        raise SystemExit(0)
    if name not in COMMANDS:
        if name.startswith("-"):
            raise InputError(f"{name} precedes the command: write jaxconv COMMAND {name} …, with {', '.join(COMMANDS)}")
        raise unknown_name_error("command", name, COMMANDS)
    with error_context(name):
        _check_words(arguments[1:])
    command = COMMANDS[name]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            options, rest = tyro.cli(
                command.options,
                prog=f"jaxconv {name}",
                description=_description(command),
                default=train_defaults(arguments) if name == "train" else tyro.MISSING_NONPROP,
                args=arguments[1:],
                return_unknown_args=True,
            )
    except SystemExit:
        if errors.getvalue():
            raise InputError(_unboxed(errors.getvalue())) from None
        raise
    for word in rest:
        if not word.startswith("-"):
            raise InputError(f"jaxconv {name}: unexpected argument {word!r}: see jaxconv {name} --help")
        flags = [_flag(f.name) for f in dataclasses.fields(options) if f.name not in _positional(options)]
        raise unknown_name_error(f"jaxconv {name} option", word.split("=")[0], [*flags, "--help"])
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not abs(number) < MAX_NUMBER:
                limits = f"from {-MAX_NUMBER:,} to {MAX_NUMBER:,}"
                raise InputError(f"{name}: {_flag(field.name)} must be a number {limits}, got {number}")
    return options


def _check_words(words: Sequence[str]) -> None:
    """Raise InputError for an empty word, which would be read as the folder ".", and for a repeated option."""
    for previous, word in zip(["", *words], words, strict=False):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            empty = option if equals else previous or "the first argument"
            raise InputError(f"{empty} is empty: give it a value, or leave it out")
    options = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    for option in options:
        if options.count(option) > 1:
            raise InputError(f"{option} is repeated: give it once")
        if f"--no-{option.removeprefix('--')}" in options:
            raise InputError(f"{option} and --no-{option.removeprefix('--')} contradict each other: leave one out")


def _positional(options: object) -> set[str]:
    """Return the names of the positional arguments."""
    hints = get_type_hints(type(options), include_extras=True)
    return {name for name, hint in hints.items() if tyro.conf.Positional in getattr(hint, "__metadata__", ())}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _unboxed(message: str) -> str:
    """Return tyro's message about an invalid value in one line, without its frame."""
    text = re.sub(r"[│╭╮╰╯─|+]|-{3,}", " ", message).split("For full helptext")[0]
    return " ".join(text.split())


def _overview() -> list[str]:
    """Return the lines of ``jaxconv --help``."""
    summaries = {name: inspect.cleandoc(command.options.__doc__ or "") for name, command in COMMANDS.items()}
    return [
        "usage: jaxconv COMMAND [OPTIONS]",
        "",
        "Convolutional networks as pure functions, compiled by XLA.",
        "",
        "Commands:",
        *(f"  {name:<9}{text.splitlines()[0]}" for name, text in summaries.items()),
        "",
        "Options:",
        "  -h, --help       Show this help; after a command, its options and examples.",
        "  --version        Print the version.",
        f"  {NO_TUNE}  After a command: keep the default allocator and XLA settings.",
    ]


def _description(command: Command) -> str:
    """Return the head of a command's help: summary, two examples, and notes."""
    summary, *paragraphs = inspect.cleandoc(command.options.__doc__ or "").split("\n\n")
    lines = [summary, "", "Examples:", *(f"  {example}" for example in command.examples)]
    if paragraphs:
        lines += ["", "Notes:"]  # wrapped and indented, since tyro joins the lines of an unindented paragraph
    for paragraph in paragraphs:
        text = " ".join(paragraph.split())
        lines += textwrap.wrap(text, 78, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(lines)
