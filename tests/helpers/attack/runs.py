"""Damage copies of a run folder at random, and count what the commands make of them.

    python tests/helpers/attack/runs.py --count 150 --seed 0

A tiny network is trained once. Each copy of its run folder is damaged in one way. Then its readers run on it in this
process: predict, eval, explain (as far as it reads the run), train --resume of the finished run, and train --resume
without its result.json. Counted are

- crashes: errors that are no ``InputError``, which a user sees as a traceback;
- wrong answers: other numbers than those of the whole run, and no error.

The exit code is 1 if there is any of either.
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
        setattr(plot, name, lambda *given, **named: Figure())
    # One model object, so that it is compiled once.
    mlp = registry.get_model("mlp")
    registry._SPECS["mlp"] = mlp._replace(create=functools.cache(mlp.create))
    with tempfile.TemporaryDirectory() as place:
        config = TrainConfig(model="mlp", epochs=3, batch_size=256, run_dir=Path(place) / "whole")
        whole, _ = run_training(config, progress=False)
        right = {name: use(whole) for name, use in USES.items()}
        counts, bad = collections.Counter(), []
        for number in range(options.count):
            folder = Path(place) / "copy"
            shutil.copytree(whole, folder)
            kind, what = damage(folder, random.Random(f"{options.seed} {number}"))
            for name, use in USES.items():  # the last of them writes
                outcome, told = judge(use, folder, right[name])
                counts[kind, outcome] += 1
                if outcome in ("crashed", "wrong"):
                    bad.append(f"{number} {name}: {what}: {outcome}: {told}")
            shutil.rmtree(folder)
    outcomes = ("the same", "refused", "crashed", "wrong")
    print(f"{options.count} damages, {len(USES)} uses of each")
    print(f"{'damage':<12}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for kind in sorted({kind for kind, _ in counts}):
        print(f"{kind:<12}" + "".join(f"{counts[kind, outcome]:>10}" for outcome in outcomes))
    print(
        f"{'all':<12}"
        + "".join(f"{sum(n for (_, o), n in counts.items() if o == outcome):>10}" for outcome in outcomes)
    )
    print("\n".join(bad))
    return int(bool(bad))


def judge(use, folder, right):
    """What came of one use of a damaged run, and in which words."""
    try:
        got = use(folder)
    except InputError as error:
        one_line = "\n" not in str(error)
        return ("refused", "") if one_line else ("crashed", f"several lines: {error}")
    except Exception:
        return "crashed", traceback.format_exc(limit=-3)
    return ("the same", "") if same(got, right) else ("wrong", f"{str(got)[:200]} instead of {str(right)[:200]}")


def same(got, right):
    if isinstance(right, np.ndarray):
        return got.shape == right.shape and np.array_equal(got, right)
    return got == right


def predict(folder):
    run = load_run(folder)
    said = run.predict(data.load("digits").test.images[:8])
    return [dict(zip(run.config["class_names"], map(float, row), strict=True)) for row in said]


def evaluate(folder):
    return evaluate_run(load_run(folder))


def explain(folder):
    subject = load_context(folder)
    numbers = [[record[name] for name in ("epoch", "loss", "val_accuracy")] for record in subject.history]
    return [*(subject.result[name] for name in NUMBERS), numbers, subject.probabilities.tolist(), subject.class_names]


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


def damage(folder, choose):
    """Damage a run folder in one way, by the choices of one generator; its kind, and what was done."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.name not in ("training_curves.png", "misclassified.png", "confusion_matrix.png")
    )
    files = [path for path in paths if path.is_file() and path.name != ".lock"]
    tables = [path for path in files if path.suffix == ".json"]
    kind = choose.choice(["bytes", "bytes", "files", "files", "links", "entries", "entries", "entries", "snapshots"])
    where = lambda path: path.relative_to(folder)  # noqa: E731
    if kind == "bytes":
        path = choose.choice(files)
        content, how = (
            bytearray(path.read_bytes()),
            choose.choice(["empty", "cut", "zeroed", "a bit", "longer", "noise"]),
        )
        place = choose.randrange(max(1, len(content)))
        if how == "empty":
            content = b""
        elif how == "cut":
            content = content[:place]
        elif how == "zeroed":
            content = bytes(len(content))
        elif how == "a bit" and content:
            content[place] ^= 1 << choose.randrange(8)
        elif how == "longer":
            content += choose.randbytes(20)
        else:
            content = choose.randbytes(len(content))
        path.write_bytes(content)
        return kind, f"{where(path)} {how} at {place}"
    if kind == "files":
        path = choose.choice(paths)
        how = choose.choice(["gone", "a folder", "a pipe", "unreadable", "a file", "doubled"])
        if how == "doubled":
            copy = path.with_name(f"{path.name}0")
            shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
            return kind, f"{where(path)} doubled"
        if how == "unreadable":
            path.chmod(0)
            return kind, f"{where(path)} unreadable"
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if how == "a folder":
            path.mkdir()
        elif how == "a pipe":
            os.mkfifo(path)
        elif how == "a file":
            path.write_text("x")
        return kind, f"{where(path)} {how}"
    if kind == "links":
        path = choose.choice(paths)
        target = choose.choice(
            [Path("/dev/zero"), Path("/dev/null"), path, folder, Path("nowhere"), choose.choice(files)]
        )
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(target)
        return kind, f"{where(path)} to {target.name}"
    if kind == "entries":
        path = choose.choice(
            [*[folder / "config.json"] * 3, *[folder / "result.json"] * 2, folder / "metrics.jsonl", *tables]
        )
        return kind, f"{where(path)} {edit(path, choose)}"
    snapshots = sorted(path for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
    how = choose.choice(["swapped", "renamed", "mixed", "only the older", "empty newest"])
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


def edit(path, choose):
    """Change one entry of a JSON file, or of a line of one."""
    text = path.read_text()
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    row = choose.randrange(len(lines))
    try:
        content = json.loads(lines[row])
    except ValueError:
        return "is no JSON"
    if not isinstance(content, dict) or not content:
        return "has no entries"
    name, how = (
        choose.choice(sorted(content)),
        choose.choice(["removed", "changed", "changed", "changed", "deep", "twice"]),
    )
    if how == "removed":
        del content[name]
    elif how == "changed":
        content[name] = choose.choice(VALUES)
    new = json.dumps(content)
    if how == "deep":
        new = new[:-1] + f', "{name}": ' + "[" * 200_000 + "]" * 200_000 + "}"
    elif how == "twice":
        new = new[:-1] + f', "{name}": 7' + "}"
    lines[row] = new
    path.write_text("\n".join(lines) + "\n")
    return f"{name} {how}: {str(content.get(name))[:40]}"


if __name__ == "__main__":
    sys.exit(main())
