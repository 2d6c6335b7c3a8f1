"""Kill a process that only saves checkpoints hundreds of times: ``python save_kills.py --kills 500``.

Each process loads the newest snapshot, checks its arrays and records against its step, and keeps saving until it is
killed at a random moment. ``kills.py`` does the same with whole training runs, more slowly.
"""

import argparse
import os
import random
import signal
import tempfile
import time
import traceback
from pathlib import Path

import jax
import numpy as np

from jaxconv.train import Snapshot, TrainProgress, TrainState, all_steps, restore_snapshot, save_checkpoint


def make_snapshot(step: int, records: tuple[dict[str, float], ...]) -> Snapshot:
    """Build a snapshot whose arrays are functions of the step."""
    rng = np.random.default_rng(step)
    params, state, moments = ({"conv1": {"kernel": rng.random((50, 7), np.float32)}} for _ in range(3))
    return Snapshot(
        TrainState(np.int32(step) * np.ones((), np.int32), params, state, moments), (params, state),
        TrainProgress(epoch=step, history=records),
    )  # fmt: skip


def save_on(folder: Path) -> None:
    """Check the newest snapshot, and save until killed."""
    step, records = 0, ()
    if all_steps(folder):
        restored = restore_snapshot(folder, make_snapshot(0, ())[:2])
        step, records = restored.progress.epoch, restored.progress.history
        jax.tree.map(np.testing.assert_array_equal, restored[:2], make_snapshot(step, ())[:2])
        assert [record["epoch"] for record in records] == list(range(1, step + 1))
    while True:
        step += 1
        records = (*records, {"epoch": step, "epoch_seconds": time.time()})
        save_checkpoint(folder, make_snapshot(step, records))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    args = parser.parse_args()
    rng, num_during_write, newest = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory(dir=args.folder) as directory:
        folder = Path(directory) / "checkpoints"
        for index in range(args.kills):
            child = os.fork()  # before jax has started any thread
            if not child:
                try:
                    save_on(folder)
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            start_time, target_step = time.monotonic(), newest + rng.randint(0, 5)
            while max(all_steps(folder), default=0) < target_step and time.monotonic() - start_time < 60:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child, signal.SIGKILL)
            if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
                raise SystemExit(f"after {index} kills, {num_during_write} in a write, a process failed")
            num_during_write += any(folder.glob("partial-*"))
            steps = max(all_steps(folder), default=0)
            assert steps >= newest, "a snapshot is lost"
            newest = steps
    print(
        f"{args.kills} kills, {num_during_write} in a write; {newest} saves; every process restored an intact snapshot"
    )


if __name__ == "__main__":
    main()
