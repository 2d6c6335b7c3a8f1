"""Run invalid ``jaxconv`` command lines, and count tracebacks, long messages and exit code 0.

    python tests/helpers/attack/commands.py --count 500 --seed 0

The lines are generated from the options of the commands, so new options are covered automatically. All run in this
process, in a temporary folder with an untrained run; nothing is trained or downloaded.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from types import UnionType
from typing import Literal, NamedTuple, get_args, get_origin, get_type_hints

import tyro

from jaxconv.cli import app

LONGEST = 2100  # characters of a message
NUMBERS = ["-1", "1e400", "nan", "-inf", "10" * 30, "9" * 5000, "1.5.2", "0x10", "three", "½", "1e", "--", "'1'", "[1]"]
WORDS = ["", " ", "no such thing", "a\x1b[31mb", "[/red]", "[bold]", "$x", "caf\udce9", "\u202egnp", "=1+1", "a\nb",
         "ж" * 300, "../../..", "/dev/null", "/proc/self/mem", "{task}", "%s", "digits", "-", "~nobody/x"]  # fmt: skip
PLACES = [
    "no/such/folder",
    "file.txt",
    "file.txt/below",
    "empty",
    "/dev/null",
    "run/config.json",
    "",
    "x" * 300,
    "a\udcffb",
]
# Required positional arguments of the commands.
NEEDED = {"eval": ["run"], "predict": ["run", "digit.png"], "summary": ["mlp"], "explain": ["run"], "demo": ["run"],
          "data": ["check"]}  # fmt: skip


class Outcome(NamedTuple):
    line: list[str]
    code: object
    fault: str  # "" or a description of the fault
    message: str


def kinds_of(command: str) -> dict[str, object]:
    """Return the type of each option by name, without positional arguments."""
    hints = get_type_hints(app.COMMANDS[command].options, include_extras=True)
    plain = {}
    for field in dataclasses.fields(app.COMMANDS[command].options):
        hint = hints[field.name]
        if tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            continue
        hint = get_args(hint)[0] if get_origin(hint) not in (tuple, Literal, UnionType) and get_args(hint) else hint
        kinds = [kind for kind in get_args(hint) if kind is not type(None)] if isinstance(hint, UnionType) else [hint]
        plain[field.name] = kinds[0]
    return plain


def bad_value(kind: object, rng: random.Random) -> list[str]:
    """Return an invalid value for an option of this type."""
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return [word for _ in range(rng.choice([1, 1, 2, 4])) for word in bad_value(inner, rng)]
    if kind in (int, float):
        return [rng.choice(NUMBERS)]
    if kind is bool:
        return [rng.choice(["maybe", "2", ""])]
    if kind is Path:
        return [rng.choice(PLACES)]
    return [rng.choice(WORDS)]


def bad_line(rng: random.Random) -> list[str]:
    """Return a command line with at least one fault."""
    command = rng.choice(list(app.COMMANDS))
    kinds, needed = kinds_of(command), NEEDED.get(command, [])
    fault = rng.choice(["value", "value", "value", "value", "missing", "unknown", "twice", "place", "command", "extra"])
    if fault == "command" or (not kinds and fault in ("value", "missing", "twice")):
        return [rng.choice([*WORDS[2:], command.upper(), f"{command}s", f"--{command}"]), *needed]
    name = rng.choice(list(kinds)) if kinds else ""
    option = "--" + name.replace("_", "-")
    if fault == "value" and kinds[name] is Path:
        # Any path is valid for an output file, but not for --resume.
        name, option = ("resume", "--resume") if command == "train" else (name, option)
        return [command, *needed, option, rng.choice(PLACES) if command == "train" else "no/such/folder/file"]
    if fault == "value":
        return [command, *needed, option, *bad_value(kinds[name], rng)]
    if fault == "missing" and kinds[name] is not bool:
        return [command, *needed, f"{option}="]
    if fault == "twice" and kinds[name] is not bool:
        return [command, *needed, option, "1", option, "1"]
    if fault == "place" and needed and needed[0] == "run":
        return [command, rng.choice(PLACES), *needed[1:]]
    if fault == "extra":
        return [command, *needed, f"{option or '--x'}-{rng.randrange(99)}", rng.choice(WORDS)]
    return [command, *needed, "--" + rng.choice(["epoch", "colour", "x y", "\x1b[2J", "ж", "no-such", "-"]), "1"]


def make_run(folder: Path) -> None:
    """Create a run folder without training, an image, and other files."""
    from PIL import Image

    config = {"dataset": "digits", "model": "mlp", "image_shape": [8, 8, 1], "input_shape": [8, 8, 1]}
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps(config | {"class_names": list("0123456789"), "seed": 0}))
    (folder / "empty").mkdir()
    (folder / "file.txt").write_text("text")
    Image.new("L", (8, 8)).save(folder / "digit.png")


def attempt(line: list[str]) -> Outcome:
    """Run one command line and classify the outcome."""
    out, err = io.StringIO(), io.StringIO()
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = app.main(line)
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        return Outcome(line, code, "traceback", traceback.format_exc())
    message = err.getvalue()
    fault = ""
    if code in (0, None):
        fault = "exit code 0"
    elif message.count("\n") != 1 or len(message) > LONGEST:
        fault = "long message"
    elif "\x1b" in message or (not message.isprintable() and not message[:-1].isprintable()):
        fault = "raw characters"
    return Outcome(line, code, fault, message)


def attack(count: int, seed: int) -> list[Outcome]:
    """Run this many invalid lines in a temporary folder."""
    rng, previous = random.Random(seed), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        make_run(Path(folder))
        os.chdir(folder)
        try:
            return [attempt(bad_line(rng)) for _ in range(count)]
        finally:
            os.chdir(previous)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    outcomes = attack(options.count, options.seed)
    counts = Counter(
        (outcome.line[0] if outcome.line[0] in app.COMMANDS else "(none)", outcome.fault) for outcome in outcomes
    )
    faults = ["", "traceback", "long message", "raw characters", "exit code 0"]
    print(f"{'command':<12}" + "".join(f"{fault or 'refused':>16}" for fault in faults))
    for command in [*app.COMMANDS, "(none)"]:
        print(f"{command:<12}" + "".join(f"{counts[command, fault]:>16}" for fault in faults))
    for outcome in outcomes:
        if outcome.fault:
            print(f"\n{outcome.fault}: {outcome.line!r:.500}\n{outcome.message[-1500:]!r}")
    return int(any(outcome.fault for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
