"""Damage copies of a run folder at random, and count the outcomes of the commands that read them.

    python tests/helpers/attack/runs.py --count 150 --seed 0

A tiny network is trained once. Each copy of its run folder is damaged in one way. Then the commands that read a run are
applied in this process: predict, eval, explain (as far as it reads the run), train --resume of the finished run, and
train --resume without its result.json. It counts

- crashes: exceptions other than ``InputError``, which a user sees as a traceback;
- wrong results: other numbers than those of the intact run, without an error.

The exit code is 1 if there are any.
"""

import argparse
import collections
import functools
import json
import os
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jaxconv import data, plot
from jaxconv.errors import InputError
from jaxconv.models import registry
from jaxconv.report.context import load_context
from jaxconv.runs import TrainConfig, evaluate_run, load_run, resume_training, run_training

VALUES = [None, True, -1, 0, 1, 3, 10**6, 10**20, -(10**300), 0.5, 1e300, "", "x", "\x1b[31m", [], {}, [[]], [0, 0, 0],
          [8, 8, 5], [10**5, 10**5, 1], ["a"], {"a": 1}, "../../etc", list("1023456789")]  # fmt: skip
NUMBERS = ("params_sha256", "final_params_sha256", "test_accuracy", "test_loss", "best_epoch", "epochs_run", "seed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for name in ("training_curves", "misclassified", "confusion_matrix"):
        setattr(plot, name, lambda *args, **kwargs: Figure())
    # Reuse one model object, so that it is compiled once.
    mlp = registry.get_model("mlp")
    registry._SPECS["mlp"] = mlp._replace(create=functools.cache(mlp.create))
    with tempfile.TemporaryDirectory() as directory:
        config = TrainConfig(model="mlp", epochs=3, batch_size=256, run_dir=Path(directory) / "whole")
        intact, _ = run_training(config, progress=False)
        expected = {name: use(intact) for name, use in USES.items()}
        counts, failures = collections.Counter(), []
        for index in range(options.count):
            folder = Path(directory) / "copy"
            shutil.copytree(intact, folder)
            kind, description = damage(folder, random.Random(f"{options.seed} {index}"))
            for name, use in USES.items():  # the last one writes
                outcome, message = judge(use, folder, expected[name])
                counts[kind, outcome] += 1
                if outcome in ("crashed", "wrong"):
                    failures.append(f"{index} {name}: {description}: {outcome}: {message}")
            shutil.rmtree(folder)
    outcomes = ("the same", "refused", "crashed", "wrong")
    print(f"{options.count} damaged runs, {len(USES)} commands each")
    print(f"{'damage':<12}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:<12}" + "".join(f"{counts[kind, outcome]:>10}" for outcome in outcomes))
    print(
        f"{'all':<12}"
        + "".join(f"{sum(n for (_, o), n in counts.items() if o == outcome):>10}" for outcome in outcomes)
    )
    print("\n".join(failures))
    return int(bool(failures))


def judge(use, folder, expected):
    """Apply one command to a damaged run; return the outcome and a message."""
    try:
        actual = use(folder)
    except InputError as error:
        one_line = "\n" not in str(error)
        return ("refused", "") if one_line else ("crashed", f"several lines: {error}")
    except Exception:
        return "crashed", traceback.format_exc(limit=-3)
    return (
        ("the same", "")
        if same(actual, expected)
        else ("wrong", f"{str(actual)[:200]} instead of {str(expected)[:200]}")
    )


def same(actual, expected):
    if isinstance(expected, np.ndarray):
        return actual.shape == expected.shape and np.array_equal(actual, expected)
    return actual == expected


def predict(folder):
    run = load_run(folder)
    probabilities = run.predict(data.load("digits").test.images[:8])
    return [dict(zip(run.config["class_names"], map(float, row), strict=True)) for row in probabilities]


def evaluate(folder):
    return evaluate_run(load_run(folder))


def explain(folder):
    context = load_context(folder)
    metrics = [[record[name] for name in ("epoch", "loss", "val_accuracy")] for record in context.history]
    return [*(context.result[name] for name in NUMBERS), metrics, context.probabilities.tolist(), context.class_names]


def read_finished(folder):
    result = resume_training(folder, progress=False)[1]
    return [result[name] for name in NUMBERS]


def resume(folder):
    (folder / "result.json").unlink(missing_ok=True)
    read_finished(folder)
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [*(result[name] for name in NUMBERS), [line["loss"] for line in lines], result["num_test_examples"]]


USES = {"predict": predict, "eval": evaluate, "explain": explain, "finished": read_finished, "resume": resume}


def damage(folder, rng):
    """Damage a run folder in one random way; return the kind and a description."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.name not in ("training_curves.png", "misclassified.png", "confusion_matrix.png")
    )
    files = [path for path in paths if path.is_file() and path.name != ".lock"]
    tables = [path for path in files if path.suffix == ".json"]
    kind = rng.choice(["bytes", "bytes", "files", "files", "links", "entries", "entries", "entries", "snapshots"])
    relative = lambda path: path.relative_to(folder)  # noqa: E731
    if kind == "bytes":
        path = rng.choice(files)
        content, how = (
            bytearray(path.read_bytes()),
            rng.choice(["empty", "cut", "zeroed", "a bit", "longer", "noise"]),
        )
        position = rng.randrange(max(1, len(content)))
        if how == "empty":
            content = b""
        elif how == "cut":
            content = content[:position]
        elif how == "zeroed":
            content = bytes(len(content))
        elif how == "a bit" and content:
            content[position] ^= 1 << rng.randrange(8)
        elif how == "longer":
            content += rng.randbytes(20)
        else:
            content = rng.randbytes(len(content))
        path.write_bytes(content)
        return kind, f"{relative(path)} {how} at {position}"
    if kind == "files":
        path = rng.choice(paths)
        how = rng.choice(["gone", "a folder", "a pipe", "unreadable", "a file", "doubled"])
        if how == "doubled":
            copy = path.with_name(f"{path.name}0")
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
            return kind, f"{relative(path)} doubled"
        if how == "unreadable":
            path.chmod(0)
            return kind, f"{relative(path)} unreadable"
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a pipe":
            os.mkfifo(path)
        elif how == "a file":
            path.write_text("x")
        return kind, f"{relative(path)} {how}"
    if kind == "links":
        path = rng.choice(paths)
        target = rng.choice([Path("/dev/zero"), Path("/dev/null"), path, folder, Path("nowhere"), rng.choice(files)])
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(target)
        return kind, f"{relative(path)} to {target.name}"
    if kind == "entries":
        path = rng.choice(
            [*[folder / "config.json"] * 3, *[folder / "result.json"] * 2, folder / "metrics.jsonl", *tables]
        )
        return kind, f"{relative(path)} {edit(path, rng)}"
    snapshots = sorted(path for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
    how = rng.choice(["swapped", "renamed", "mixed", "only the older", "empty newest"])
    older, newer = snapshots[-2:]
    if how == "swapped":
        older.rename(folder / "aside"), newer.rename(older), (folder / "aside").rename(newer)
    elif how == "renamed":
        older.rename(folder / "checkpoints" / "999999")
    elif how == "mixed":
        (newer / "best_variables.npz").unlink()
        shutil.copy(older / "best_variables.npz", newer / "best_variables.npz")
    elif how == "only the older":
        shutil.rmtree(newer)
    else:
        shutil.rmtree(newer)
        newer.mkdir()
    return kind, how


def edit(path, rng):
    """Change one entry of a JSON file, or of one line of a JSON Lines file."""
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    row = rng.randrange(len(lines))
    try:
        content = json.loads(lines[row])
    except ValueError:
        return "is no JSON"
    if not isinstance(content, dict) or not content:
        return "has no entries"
    name, how = (
        rng.choice(sorted(content)),
        rng.choice(["removed", "changed", "changed", "changed", "deep", "twice"]),
    )
    if how == "removed":
        del content[name]
    elif how == "changed":
        content[name] = rng.choice(VALUES)
    edited = json.dumps(content)
    if how == "deep":
        edited = edited[:-1] + f', "{name}": ' + "[" * 200_000 + "]" * 200_000 + "}"
    elif how == "twice":
        edited = edited[:-1] + f', "{name}": 7' + "}"
    lines[row] = edited
    path.write_text("\n".join(lines) + "\n")
    return f"{name} {how}: {str(content.get(name))[:40]}"


if __name__ == "__main__":
    sys.exit(main())
