"""A run that is killed, again and again, at moments that nobody chose, is the run that was not: bit for bit.

The suite kills twice. ``JAXCONV_KILLS=10 pytest -n 0 tests/train/test_crash_recovery.py`` kills ten times, in a plain
run too, and tells where.
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest

TRAIN = ["train", "--epochs", "6"]
# The same with checkpoints within the epochs, of which the digits would have none: an epoch is one chunk of theirs.
PAUSING = (
    "import sys; from jaxconv import cli, train; train.plan_epoch.__globals__.update(PIXELS_PER_EXECUTION=2**14); "
    "sys.exit(cli.main([*sys.argv[1:], '--checkpoint-minutes', '0']))"
)
PROGRAMS = {"plain": ["-m", "jaxconv.cli"], "pausing": ["-c", PAUSING]}
KILLS = int(os.environ.get("JAXCONV_KILLS", 2))
LONGEST = 300  # seconds that a run may take


def start(program, *arguments):
    """The program as users run it: not compiled as the rest of the suite is, nor sharing what was compiled."""
    command = [sys.executable, *PROGRAMS[program], *map(str, arguments)]
    ours = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
    out, said = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    return out


def seen(folder):
    """What there is in a run folder: each save changes it several times, and each epoch's end once."""
    try:
        names = {path.name for path in folder.glob("checkpoints/*")} | {path.name for path in folder.glob("*")}
        writing = [path.name for path in folder.glob("checkpoints/partial-*/*")]
    except FileNotFoundError:  # a save was done while we looked, and its folder has another name now
        return seen(folder)
    lines = folder / "metrics.jsonl"
    return names, writing, lines.read_text().count("\n") if lines.exists() else 0


def kill(process, folder, rng, number):
    """SIGKILL at a random moment: a while after the run folder has changed a few times; the fifth, whenever it may."""
    begun, changes, before = time.monotonic(), 0 if number % 5 == 0 else rng.randint(3, 12), seen(folder)
    wait = rng.uniform(0, 15) if changes == 0 else rng.choice([0, rng.uniform(0, 0.3)])
    while changes and process.poll() is None:
        now = seen(folder)
        changes, before = changes - (now != before), now
        time.sleep(0.001)
        assert time.monotonic() - begun < LONGEST
    time.sleep(wait)
    if process.poll() is not None:
        return None
    process.kill()
    process.communicate()
    names, writing, epochs = seen(folder)
    at = sorted(int(name) for name in names if name.isdecimal())
    halves = [name for name in names if name.startswith("partial")]
    doing = f"in a save: {', '.join([*halves, *writing])}" if halves else "between saves"
    return f"{time.monotonic() - begun:5.1f} s after its start: {epochs} epochs, checkpoints {at}, {doing}"


def without_times(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("epoch_seconds", "images_per_second")} for record in records]


def what_came_of_it(folder):
    result = json.loads((folder / "result.json").read_text())
    names = ("params_sha256", "final_params_sha256", "best_epoch", "steps", "test_loss", "val_loss")
    return {name: result[name] for name in names} | {"records": without_times(folder)}


@pytest.mark.parametrize("program", PROGRAMS if "JAXCONV_KILLS" in os.environ else ["pausing"])
def test_a_run_that_is_killed_and_resumed_is_the_unbroken_run(program, tmp_path, capsys):
    rng = random.Random(f"{program} {KILLS}")
    finish(start(program, *TRAIN, "--run-dir", tmp_path / "unbroken"))
    whole = what_came_of_it(tmp_path / "unbroken")
    assert len(whole["records"]) == 6
    kills, runs = 0, 0
    while kills < KILLS:  # a run may come to its end before: then another is begun
        runs += 1
        folder = tmp_path / f"killed-{runs}"
        while not (folder / "result.json").exists():
            resume = (folder / "config.json").exists()
            process = (
                start(program, "train", "--resume", folder) if resume else start(program, *TRAIN, "--run-dir", folder)
            )
            if kills == KILLS:
                finish(process)
            elif where := kill(process, folder, rng, kills + 1):
                kills += 1
                with capsys.disabled():
                    print(f"\n{program}, run {runs}, kill {kills}: {where}", end="")
            else:
                finish(process)
        assert what_came_of_it(folder) == whole
