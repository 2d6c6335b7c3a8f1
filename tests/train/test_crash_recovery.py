"""A run that is killed at random moments and resumed equals the unbroken run, bit for bit.

The suite kills twice. ``JAXCONV_KILLS=10 pytest -n 0 tests/train/test_crash_recovery.py`` kills ten times, also with
default checkpoints, and prints the position of each kill.
"""

import json
import os
import random
import subprocess
import sys
import time

import pytest

TRAIN = ["train", "--epochs", "6"]
# Short executions, so that there are checkpoints within epochs: an epoch of the digits is one execution by default.
FREQUENT_CHECKPOINTS = (
    "import sys; from jaxconv import cli, train; train.plan_epoch.__globals__.update(PIXELS_PER_EXECUTION=2**14); "
    "sys.exit(cli.main([*sys.argv[1:], '--checkpoint-minutes', '0']))"
)
PROGRAMS = {"plain": ["-m", "jaxconv.cli"], "frequent checkpoints": ["-c", FREQUENT_CHECKPOINTS]}
KILLS = int(os.environ.get("JAXCONV_KILLS", 2))
MAX_SECONDS = 300  # of a run


def start(program, *arguments):
    """Start the program as users do, without the compiler options and the compilation cache of the test suite."""
    command = [sys.executable, *PROGRAMS[program], *map(str, arguments)]
    removed = ("XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process):
    stdout, stderr = process.communicate(timeout=MAX_SECONDS)
    assert process.returncode == 0, stderr
    return stdout


def folder_content(folder):
    """Return the state of a run folder, which changes several times per save and once per epoch."""
    try:
        names = {path.name for path in folder.glob("checkpoints/*")} | {path.name for path in folder.glob("*")}
        writing = [path.name for path in folder.glob("checkpoints/partial-*/*")]
    except FileNotFoundError:  # a save was completed meanwhile, and its folder renamed
        return folder_content(folder)
    lines = folder / "metrics.jsonl"
    return names, writing, lines.read_text().count("\n") if lines.exists() else 0


def kill(process, folder, rng, kill_number):
    """Send SIGKILL after a random number of changes of the run folder; every fifth time, after a random delay."""
    start_time, previous = time.monotonic(), folder_content(folder)
    num_changes = 0 if kill_number % 5 == 0 else rng.randint(3, 12)
    wait = rng.uniform(0, 15) if num_changes == 0 else rng.choice([0, rng.uniform(0, 0.3)])
    while num_changes and process.poll() is None:
        current = folder_content(folder)
        num_changes, previous = num_changes - (current != previous), current
        time.sleep(0.001)
        assert time.monotonic() - start_time < MAX_SECONDS
    time.sleep(wait)
    if process.poll() is not None:
        return None
    process.kill()
    process.communicate()
    names, writing, epochs = folder_content(folder)
    steps = sorted(int(name) for name in names if name.isdecimal())
    partial = [name for name in names if name.startswith("partial")]
    stage = f"in a save: {', '.join([*partial, *writing])}" if partial else "between saves"
    return f"{time.monotonic() - start_time:5.1f} s after start: {epochs} epochs, checkpoints {steps}, {stage}"


def without_times(folder):
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k not in ("epoch_seconds", "images_per_second")} for record in records]


def outcome(folder):
    result = json.loads((folder / "result.json").read_text())
    names = ("params_sha256", "final_params_sha256", "best_epoch", "steps", "test_loss", "val_loss")
    return {name: result[name] for name in names} | {"records": without_times(folder)}


@pytest.mark.parametrize("program", PROGRAMS if "JAXCONV_KILLS" in os.environ else ["frequent checkpoints"])
def test_killed_and_resumed_run_equals_unbroken_run(program, tmp_path, capsys):
    rng = random.Random(f"{program} {KILLS}")
    finish(start(program, *TRAIN, "--run-dir", tmp_path / "unbroken"))
    unbroken = outcome(tmp_path / "unbroken")
    assert len(unbroken["records"]) == 6
    num_kills, num_runs = 0, 0
    while num_kills < KILLS:  # if a run ends before it is killed, start another
        num_runs += 1
        folder = tmp_path / f"killed-{num_runs}"
        while not (folder / "result.json").exists():
            resume = (folder / "config.json").exists()
            process = (
                start(program, "train", "--resume", folder) if resume else start(program, *TRAIN, "--run-dir", folder)
            )
            if num_kills == KILLS:
                finish(process)
            elif description := kill(process, folder, rng, num_kills + 1):
                num_kills += 1
                with capsys.disabled():
                    print(f"\n{program}, run {num_runs}, kill {num_kills}: {description}", end="")
            else:
                finish(process)
        assert outcome(folder) == unbroken
