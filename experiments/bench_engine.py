"""What the training engine costs beside the arithmetic is small: Python, memory, the stream, the checkpoints.

Claims: (a) an epoch of lenet5 on the digits through ``fit`` takes at most 1.1 times as long as a bare ``lax.scan`` of
the same step over the same batches; (b) two epochs of mnist_cnn on MNIST need less than 1.5 GiB of the host's memory
at their peak, and 50 epochs of the digits, with a checkpoint after each, no more at the end than after a few; (c)
streamed through Grain, from an array and not from files, mnist_cnn learns at least 90 % as many images a second as from
memory; (d) a checkpoint of it takes less than half a second.

Measured (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): An epoch through fit / a bare scan: 1.013;
peak memory of 2 epochs: 0.71 GiB; growth over a long run: +0.298 MiB an epoch; streamed / resident images a second:
97.4%; a checkpoint: 60 ms.

    python experiments/bench_engine.py              # needs MNIST; a minute and a half on 2 cores
    python experiments/bench_engine.py --smoke      # the digits instead and few rounds: seconds, and no evidence

What is compared takes turns in one process; every time is a median. Memory is the resident set, as Linux tells it.
"""

import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from common.study import Progress, StudyOptions, StudyResult, results_table, run_study
from jaxconv import data, models, train
from jaxconv.train.loaders import batch_indices, gather_batch
from jaxconv.utils.timing import medians

BATCH_SIZE = 32  # the digits'; MNIST's is 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """What the training engine costs beside the arithmetic."""

    SMOKE = {"repeats": 3, "rounds": 1, "images": 1000, "soak": 4}

    repeats: int = 30
    """Epochs that are timed of fit and of the bare scan, in turns."""
    rounds: int = 5
    """How often the streamed and the resident run take turns."""
    images: int = 20_000
    """MNIST images that these two go through."""
    soak: int = 50
    """Epochs of the long run."""


class Claim(NamedTuple):
    what: str
    measured: str
    claimed: str
    holds: bool


def measure(config: Config, progress: Progress) -> StudyResult:
    name, model = ("digits", "small_cnn") if config.smoke else ("mnist", "mnist_cnn")
    progress.expect(5)
    with tempfile.TemporaryDirectory() as scratch:
        progress("(a) fit and a bare scan, in turns")
        epoch = overhead(config.repeats)
        progress(f"(b) the memory of a run on {name}")
        peak = peak_memory(name, model, Path(scratch) / "run")
        progress(f"(b) the memory of {config.soak} epochs")
        soaked = soak(config.soak, Path(scratch) / "soak")
        progress(f"(c) {name} streamed and from memory, in turns")
        rates = stream(name, model, config.images, config.rounds)
        progress("(d) checkpoints")
        saved = checkpoint(name, model, Path(scratch) / "checkpoint")
    results = {
        "epoch_seconds": epoch,
        "peak_bytes": peak,
        "soak": soaked,
        "images_per_second": rates,
        "checkpoint": saved,
    }
    rows = [(*claim[:3], "holds" if claim.holds else "does not hold") for claim in claims(results)]
    return StudyResult(results, {}, [results_table("the engine", ("what", "measured", "claimed", ""), rows)])


def claims(results: dict[str, Any]) -> list[Claim]:
    epoch, rates = results["epoch_seconds"], results["images_per_second"]
    ratio, share = epoch["fit"] / epoch["bare"], rates["streamed"] / rates["resident"]
    growth, peak, seconds = (
        results["soak"]["growth_mib_an_epoch"],
        results["peak_bytes"] / 2**30,
        results["checkpoint"]["seconds"],
    )
    return [
        Claim("an epoch through fit / a bare scan", f"{ratio:.3f}", "at most 1.1", ratio <= 1.1),
        Claim("peak memory of 2 epochs", f"{peak:.2f} GiB", "below 1.5 GiB", peak < 1.5),
        Claim("growth over a long run", f"{growth:+.3f} MiB an epoch", "below 0.5", growth < 0.5),
        Claim("streamed / resident images a second", f"{share:.1%}", "at least 90 %", share >= 0.9),
        Claim("a checkpoint", f"{seconds * 1e3:.0f} ms", "below 500 ms", seconds < 0.5),
    ]


def overhead(repeats: int) -> dict[str, float]:
    """Seconds of an epoch, without validation: what fit says of its own, and a bare scan after each of these."""
    spec = models.get_model("lenet5")
    dataset = data.load("digits").with_min_size(spec.input_shape)
    model, optimizer, key = spec.create(num_classes=10), train.make_optimizer(), jax.random.key(0)
    step = train.make_train_step(model, optimizer, jit=False)
    images, labels = map(jax.numpy.asarray, dataset.train)
    steps = train.plan_epoch(len(labels), BATCH_SIZE, dataset.image_shape).steps_per_epoch

    def scan(ts: train.TrainState, index: jax.Array) -> tuple[train.TrainState, train.MetricSums]:
        return jax.lax.scan(lambda ts, row: step(ts, gather_batch(images, labels, row), key), ts, index)

    bare = jax.jit(scan, donate_argnums=0)
    orders = [train.epoch_permutation(0, epoch, len(labels)) for epoch in range(1, repeats + 3)]
    state = [train.create_train_state(model, optimizer, key, dataset.image_shape)]
    seconds: dict[str, list[float]] = {"fit": [], "bare": []}

    def on_epoch(record: dict[str, Any], snapshot: train.Snapshot, is_best: bool) -> None:
        index = jax.numpy.asarray(batch_indices(orders[record["epoch"] - 1], BATCH_SIZE, steps))
        started = time.perf_counter()
        state[0] = jax.block_until_ready(bare(state[0], index)[0])
        if record["epoch"] > 2:  # the first calls of both are slow
            seconds["bare"].append(time.perf_counter() - started)
            seconds["fit"].append(record["epoch_seconds"])

    train.fit(
        model,
        tuple(dataset.train),
        tuple(dataset.validation),
        optimizer=optimizer,
        epochs=repeats + 2,
        batch_size=BATCH_SIZE,
        on_epoch_end=on_epoch,
    )
    return {name: statistics.median(each) for name, each in seconds.items()}


def peak_memory(name: str, model: str, folder: Path) -> int:
    """Bytes of memory that ``jaxconv train`` needed at most, in a process of its own."""
    command = [sys.executable, "-m", "jaxconv.cli", "train", "--dataset", name, "--model", model]
    command += ["--epochs", "2", "--batch-size", "128", "--run-dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024


def soak(epochs: int, folder: Path) -> dict[str, Any]:
    """Memory after every epoch of a long run that saves a checkpoint each time, and how fast it grows."""
    dataset, model = data.load("digits"), models.create_model("small_cnn", 10)
    mib = []

    def on_epoch(record: dict[str, Any], snapshot: train.Snapshot, is_best: bool) -> None:
        train.save_checkpoint(folder, snapshot)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mib.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    train.fit(
        model,
        tuple(dataset.train),
        tuple(dataset.validation),
        optimizer=train.make_optimizer(),
        epochs=epochs,
        batch_size=BATCH_SIZE,
        on_epoch_end=on_epoch,
    )
    later = mib[epochs // 5 :]  # the allocators have what they want by then
    growth = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    return {"growth_mib_an_epoch": growth, "mib": mib}


def stream(name: str, model: str, images: int, rounds: int) -> dict[str, float]:
    """Images a second from memory and through Grain: of the second epoch of runs that take turns."""
    spec = models.get_model(model)
    rates: dict[str, list[float]] = {"resident": [], "streamed": []}
    for _ in range(rounds):
        for way, each in rates.items():
            dataset = data.load(name, streaming=way == "streamed").with_min_size(spec.input_shape)
            part = dataset.train.subset(slice(images))
            fitted = train.fit(
                spec.create(num_classes=len(dataset.class_names)),
                part if way == "streamed" else tuple(part),
                tuple(dataset.validation.subset(slice(1000))),
                optimizer=train.make_optimizer(),
                epochs=2,
            )
            each.append(fitted.history[1]["images_per_second"])
    return {way: statistics.median(each) for way, each in rates.items()}


def checkpoint(name: str, model: str, folder: Path) -> dict[str, Any]:
    """Seconds and bytes of a checkpoint."""
    spec, optimizer = models.get_model(model), train.make_optimizer()
    ts = train.create_train_state(spec.create(num_classes=10), optimizer, jax.random.key(0), spec.input_shape)
    steps = iter(range(1, 1000))

    def save() -> None:
        now = ts._replace(step=jax.numpy.asarray(next(steps), jax.numpy.int32))
        train.save_checkpoint(folder, train.Snapshot(now, now.eval_variables, train.TrainProgress()))

    seconds = medians({"save": save}, repeats=10)["save"]
    newest = folder / str(train.all_steps(folder)[-1])
    return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())}


def summarize_results(results: dict[str, Any]) -> str:
    said = "; ".join(
        f"{claim.what}: {claim.measured}{'' if claim.holds else f', not {claim.claimed}'}" for claim in claims(results)
    )
    return f"{said[0].upper()}{said[1:]}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
