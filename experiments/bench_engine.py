"""Overhead of the training engine: Python, memory, streaming and checkpoints.

Claims: (a) an epoch of lenet5 on the digits with ``fit`` takes at most 1.1 times as long as a bare ``lax.scan`` of the
same step over the same batches; (b) the peak host memory of two epochs of mnist_cnn on MNIST is below 1.5 GiB, and does
not grow over 50 epochs of the digits with a checkpoint after each; (c) the throughput of mnist_cnn with data streamed
through Grain (from an array, not from files) is at least 90 % of that with resident data; (d) a checkpoint of it takes
less than half a second.

Measured (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): An epoch through fit / a bare scan: 1.013;
peak memory of 2 epochs: 0.71 GiB; growth over a long run: +0.298 MiB an epoch; streamed / resident images a second:
97.4%; a checkpoint: 60 ms.

    python experiments/bench_engine.py              # needs MNIST; a minute and a half on 2 cores
    python experiments/bench_engine.py --smoke      # the digits and few rounds: seconds, not evidence

Alternatives are timed in interleaved rounds in one process; every time is a median. Memory is the resident set size.
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

BATCH_SIZE = 32  # of the digits; MNIST has 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyOptions):
    """Overhead of the training engine."""

    SMOKE = {"repeats": 3, "rounds": 1, "images": 1000, "soak": 4}

    repeats: int = 30
    """Timed epochs of fit and of the bare scan, interleaved."""
    rounds: int = 5
    """Interleaved rounds of the streamed and the resident run."""
    images: int = 20_000
    """MNIST images per epoch of these two runs."""
    soak: int = 50
    """Epochs of the run that measures memory growth."""


class Claim(NamedTuple):
    quantity: str
    measured: str
    claimed: str
    holds: bool


def measure(config: Config, progress: Progress) -> StudyResult:
    name, model = ("digits", "small_cnn") if config.smoke else ("mnist", "mnist_cnn")
    progress.expect(5)
    with tempfile.TemporaryDirectory() as scratch:
        progress("(a) fit and a bare scan, interleaved")
        epoch = overhead(config.repeats)
        progress(f"(b) peak memory of a run on {name}")
        peak = peak_memory(name, model, Path(scratch) / "run")
        progress(f"(b) memory growth over {config.soak} epochs")
        soaked = soak(config.soak, Path(scratch) / "soak")
        progress(f"(c) {name} streamed and resident, interleaved")
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
    return StudyResult(results, {}, [results_table("training engine", ("quantity", "measured", "claimed", ""), rows)])


def claims(results: dict[str, Any]) -> list[Claim]:
    epoch, rates = results["epoch_seconds"], results["images_per_second"]
    ratio, throughput = epoch["fit"] / epoch["bare"], rates["streamed"] / rates["resident"]
    growth, peak, seconds = (
        results["soak"]["growth_mib_an_epoch"],
        results["peak_bytes"] / 2**30,
        results["checkpoint"]["seconds"],
    )
    return [
        Claim("an epoch through fit / a bare scan", f"{ratio:.3f}", "at most 1.1", ratio <= 1.1),
        Claim("peak memory of 2 epochs", f"{peak:.2f} GiB", "below 1.5 GiB", peak < 1.5),
        Claim("growth over a long run", f"{growth:+.3f} MiB an epoch", "below 0.5", growth < 0.5),
        Claim("streamed / resident images a second", f"{throughput:.1%}", "at least 90 %", throughput >= 0.9),
        Claim("a checkpoint", f"{seconds * 1e3:.0f} ms", "below 500 ms", seconds < 0.5),
    ]


def overhead(repeats: int) -> dict[str, float]:
    """Return the median seconds of an epoch without validation, for fit and for a bare scan."""
    spec = models.get_model("lenet5")
    dataset = data.load("digits").with_min_size(spec.input_shape)
    model, optimizer, key = spec.create(num_classes=10), train.make_optimizer(), jax.random.key(0)
    step = train.make_train_step(model, optimizer, jit=False)
    images, labels = map(jax.numpy.asarray, dataset.train)
    steps = train.plan_epoch(len(labels), BATCH_SIZE, dataset.image_shape).steps_per_epoch

    def scan(train_state: train.TrainState, index: jax.Array) -> tuple[train.TrainState, train.MetricSums]:
        return jax.lax.scan(
            lambda train_state, indices: step(train_state, gather_batch(images, labels, indices), key),
            train_state,
            index,
        )

    bare = jax.jit(scan, donate_argnums=0)
    permutations = [train.epoch_permutation(0, epoch, len(labels)) for epoch in range(1, repeats + 3)]
    state = [train.create_train_state(model, optimizer, key, dataset.image_shape)]
    seconds: dict[str, list[float]] = {"fit": [], "bare": []}

    def on_epoch(record: dict[str, Any], snapshot: train.Snapshot, is_best: bool) -> None:
        index = jax.numpy.asarray(batch_indices(permutations[record["epoch"] - 1], BATCH_SIZE, steps))
        start_time = time.perf_counter()
        state[0] = jax.block_until_ready(bare(state[0], index)[0])
        if record["epoch"] > 2:  # the first calls compile
            seconds["bare"].append(time.perf_counter() - start_time)
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
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(name: str, model: str, folder: Path) -> int:
    """Return the peak memory of ``jaxconv train`` in a subprocess, in bytes."""
    command = [sys.executable, "-m", "jaxconv.cli", "train", "--dataset", name, "--model", model]
    command += ["--epochs", "2", "--batch-size", "128", "--run-dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return usage.ru_maxrss * 1024


def soak(epochs: int, folder: Path) -> dict[str, Any]:
    """Return the memory after every epoch of a run that saves a checkpoint after each, and its growth per epoch."""
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
    later = mib[epochs // 5 :]  # the allocators have reached a steady state
    growth = float(np.polyfit(np.arange(len(later)), later, 1)[0])
    return {"growth_mib_an_epoch": growth, "mib": mib}


def stream(name: str, model: str, images: int, rounds: int) -> dict[str, float]:
    """Return images per second, resident and streamed through Grain, in the second epoch of interleaved runs."""
    spec = models.get_model(model)
    rates: dict[str, list[float]] = {"resident": [], "streamed": []}
    for _ in range(rounds):
        for source, source_rates in rates.items():
            dataset = data.load(name, streaming=source == "streamed").with_min_size(spec.input_shape)
            images_subset = dataset.train.subset(slice(images))
            result = train.fit(
                spec.create(num_classes=len(dataset.class_names)),
                images_subset if source == "streamed" else tuple(images_subset),
                tuple(dataset.validation.subset(slice(1000))),
                optimizer=train.make_optimizer(),
                epochs=2,
            )
            source_rates.append(result.history[1]["images_per_second"])
    return {source: statistics.median(source_rates) for source, source_rates in rates.items()}


def checkpoint(name: str, model: str, folder: Path) -> dict[str, Any]:
    """Return the seconds and bytes of a checkpoint."""
    spec, optimizer = models.get_model(model), train.make_optimizer()
    train_state = train.create_train_state(spec.create(num_classes=10), optimizer, jax.random.key(0), spec.input_shape)
    steps = iter(range(1, 1000))

    def save() -> None:
        current = train_state._replace(step=jax.numpy.asarray(next(steps), jax.numpy.int32))
        train.save_checkpoint(folder, train.Snapshot(current, current.eval_variables, train.TrainProgress()))

    seconds = medians({"save": save}, repeats=10)["save"]
    newest = folder / str(train.all_steps(folder)[-1])
    return {"seconds": seconds, "bytes": sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())}


def summarize_results(results: dict[str, Any]) -> str:
    text = "; ".join(
        f"{claim.quantity}: {claim.measured}{'' if claim.holds else f', not {claim.claimed}'}"
        for claim in claims(results)
    )
    return f"{text[0].upper()}{text[1:]}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
