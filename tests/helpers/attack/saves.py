"""Save a snapshot many times, and print memory and time per save: ``python saves.py --saves 5000``.

This detects memory leaks. The history grows by one record per save, and the arrays keep their size.
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
    """Return the resident memory of this process in megabytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=5000)
    parser.add_argument("--every", type=int, default=500, help="print after this many saves")
    parser.add_argument("--folder", type=Path, help="where to save; by default a temporary folder")
    args = parser.parse_args()
    train_state = train.create_train_state(
        models.create_model("mlp", 10), train.make_optimizer(), jax.random.key(0), (8, 8, 1)
    )
    history: tuple[dict[str, float], ...] = ()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        start_time = time.perf_counter()
        for epoch in range(1, args.saves + 1):
            history = (*history, {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "epoch_seconds": 1 / 3})
            current = train_state._replace(step=jnp.int32(epoch))
            train.save_checkpoint(
                Path(folder), train.Snapshot(current, current.eval_variables, train.TrainProgress(history=history))
            )
            if epoch % args.every == 0:
                seconds = (time.perf_counter() - start_time) / args.every
                print(f"{epoch:6d} saves  {resident():8.2f} MB  {1000 * seconds:6.2f} ms per save", flush=True)
                start_time = time.perf_counter()


if __name__ == "__main__":
    main()
