"""Kill training runs with SIGKILL at random moments, resume them, and compare with an uninterrupted run bit for bit.

``python kills.py --kills 40 --seed 0``. Half of the kills target the writing of a checkpoint. Each configuration is
trained once without interruption; then runs are killed and resumed until the number of kills is reached.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Smaller chunks, so that there are checkpoints within an epoch of the digits.
PROGRAM = (
    "import sys; from jaxconv import cli, train; train.plan_epoch.__globals__.update(PIXELS_PER_EXECUTION=2**14); "
    "sys.exit(cli.main(sys.argv[1:]))"
)
TRAIN = ["--model", "mlp", "--epochs", "6", "--checkpoint-minutes", "0"]
DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
CONFIGS: dict[str, tuple[list[str], dict[str, str], int]] = {  # options, environment, processes
    "plain": ([], {}, 1),
    "3 seeds": (["--num-seeds", "3"], {}, 1),
    "stream": (["--streaming"], {}, 1),
    "2 processes": ([], {}, 2),
    "8 devices": ([], DEVICES, 1),
    "grad_accumulation": (["--grad-accumulation", "4"], {}, 1),
    "ema_decay": (["--ema-decay", "0.9"], {}, 1),
    "early stopping": (["--patience", "1", "--learning-rate", "0.03"], {}, 1),
}
LONGEST = 600.0  # maximum seconds of a run
RESULTS = ("params_sha256", "final_params_sha256", "best_epoch", "steps", "test_loss", "val_loss", "epochs_run")
TIMES = ("epoch_seconds", "images_per_second")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return int(server.getsockname()[1])


def start(name: str, folder: Path, logs: Path) -> list[subprocess.Popen[bytes]]:
    """Start the training of a configuration, or resume it."""
    options, variables, count = CONFIGS[name]
    is_started = (folder / "config.json").exists()
    line = ["--resume", str(folder)] if is_started else [*TRAIN, *options, "--run-dir", str(folder)]
    address = f"localhost:{free_port()}"
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"} | variables
    processes = []
    for process in range(count):
        distributed_options = (
            ["--coordinator-address", address, "--num-processes", str(count), "--process-id", str(process)]
            if count > 1
            else []
        )
        with (logs / f"{process}.txt").open("wb") as log:
            command = [sys.executable, "-c", PROGRAM, "train", *line, *distributed_options]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
    return processes


def finish(processes: list[subprocess.Popen[bytes]], logs: Path) -> None:
    for process in processes:
        if process.wait(LONGEST):
            raise SystemExit("a run failed:\n" + "\n".join(log.read_text() for log in logs.iterdir()))


def writing(folder: Path) -> bool:
    return any(folder.glob("checkpoints/partial-*"))


def checkpoints(folder: Path) -> int:
    """Return the number of steps of the newest checkpoint."""
    return max((int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdecimal()), default=0)


def kill(processes: list[subprocess.Popen[bytes]], folder: Path, rng: random.Random, during_write: bool) -> str | None:
    """Kill all processes of a run at a random moment after some progress; return None if it ended before."""
    start_time, previous = time.monotonic(), checkpoints(folder)
    remaining = rng.randint(0, 12)  # changes of the newest checkpoint to wait for
    delay = rng.uniform(0, 0.02) if during_write else rng.choice([rng.uniform(0, 0.5), rng.uniform(0, 6)])
    while all(process.poll() is None for process in processes):
        if time.monotonic() - start_time > LONGEST:
            raise SystemExit(f"no progress in {folder} for {LONGEST:g} s")
        newest = checkpoints(folder)
        remaining, previous = remaining - (newest != previous), newest
        if remaining <= 0 and (not during_write or writing(folder)):
            break
        time.sleep(0.0002 if remaining <= 1 else 0.002)
    time.sleep(delay)
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.kill()
    for process in processes:
        process.wait()
    if len(running) < len(processes):
        return None
    return "in a write" if writing(folder) else "elsewhere"


def outcome(folder: Path) -> dict[str, object]:
    result = json.loads((folder / "result.json").read_text())
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    records = [{name: value for name, value in record.items() if name not in TIMES} for record in records]
    return {name: result[name] for name in RESULTS} | {"records": records}


def attack(name: str, kills: int, rng: random.Random, folder: Path) -> dict[str, int]:
    """Kill runs this many times, and count the outcomes."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    finish(start(name, folder / "unbroken", logs), logs)
    expected = outcome(folder / "unbroken")
    counts = {"kills": 0, "in a write": 0, "elsewhere": 0, "runs": 0, "equal": 0}
    while counts["kills"] < kills or counts["runs"] == 0:
        counts["runs"] += 1
        run = folder / f"run {counts['runs']}"
        while not (run / "result.json").exists():
            processes = start(name, run, logs)
            if counts["kills"] >= kills:
                finish(processes, logs)
            elif where := kill(processes, run, rng, during_write=counts["kills"] % 2 == 0):
                counts["kills"] += 1
                counts[where] += 1
            elif any(process.returncode > 0 for process in processes):
                raise SystemExit("a run failed:\n" + "\n".join(log.read_text() for log in logs.iterdir()))
        counts["equal"] += outcome(run) == expected
        shutil.rmtree(run)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=list(CONFIGS))
    args = parser.parse_args()
    rng = random.Random(args.seed)
    ends = [args.kills * i // len(args.configs) for i in range(len(args.configs) + 1)]
    unequal = 0
    print(
        f"{'configuration':16} {'kills':>6} {'in a write':>11} {'elsewhere':>10} {'runs':>5} {'equal':>6}", flush=True
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, begin, end in zip(args.configs, ends[:-1], ends[1:], strict=True):
            counts = attack(name, end - begin, rng, Path(folder) / name)
            unequal += counts["runs"] - counts["equal"]
            print(
                f"{name:16} {counts['kills']:6} {counts['in a write']:11} {counts['elsewhere']:10} "
                f"{counts['runs']:5} {counts['equal']:6}",
                flush=True,
            )
    raise SystemExit(f"{unequal} runs differ" if unequal else 0)


if __name__ == "__main__":
    main()
