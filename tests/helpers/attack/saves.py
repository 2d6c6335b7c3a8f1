"""Save a snapshot many times, as a long training does, and print memory and time: ``python saves.py --saves 5000``.

A process that keeps something of each save grows for ever. The history grows by one record a save, the arrays do not.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxconv import models, train


def resident() -> float:
    """Megabytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=5000)
    parser.add_argument("--every", type=int, default=500, help="print after so many")
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    args = parser.parse_args()
    ts = train.create_train_state(models.create_model("mlp", 10), train.make_optimizer(), jax.random.key(0), (8, 8, 1))
    history: tuple[dict[str, float], ...] = ()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        begun = time.perf_counter()
        for epoch in range(1, args.saves + 1):
            history = (*history, {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "epoch_seconds": 1 / 3})
            now = ts._replace(step=jnp.int32(epoch))
            train.save_checkpoint(
                Path(folder), train.Snapshot(now, now.eval_variables, train.TrainProgress(history=history))
            )
            if epoch % args.every == 0:
                each = (time.perf_counter() - begun) / args.every
                print(f"{epoch:6d} saves  {resident():8.2f} MB  {1000 * each:6.2f} ms a save", flush=True)
                begun = time.perf_counter()


if __name__ == "__main__":
    main()
