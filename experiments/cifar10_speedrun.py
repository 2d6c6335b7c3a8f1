"""CIFAR-10 in seconds on one GPU: the recipe of airbench94, the whole run in one compiled program.

Claim: on one data-center GPU, training and evaluation take less than two seconds, and the accuracy equals that of the
original implementation on the same images.

Measured with 25 seeds (gpu (NVIDIA H100 80GB HBM3), jax 0.11.2, 47 s): 1.539 ± 0.001 s for 476 steps and the scoring of
the test images, of which 0.8979 ± 0.0018 are classified right as they are and 0.9065 ± 0.0016 over six views. CIFAR-10
whose pictures went through JPEG once.

    python experiments/cifar10_speedrun.py                            # on a GPU: 25 runs
    python experiments/cifar10_speedrun.py --num-seeds 100 --first 1000   # a hundred other seeds
    python experiments/cifar10_speedrun.py --images 2000 --epochs 1   # a subset, to check the script
    python experiments/cifar10_speedrun.py --smoke                    # synthetic images, narrow network: also on a CPU

The 94 % of the paper are of the official images. The images of this run had been compressed with JPEG once. So the
original, ``legacy/airbench94_compiled.py`` of https://github.com/KellerJordan/cifar10-airbench, was run on the same
images and the same GPU with PyTorch 2.11: three runs reached 0.8973 ± 0.0022, and over six views 0.9043 ± 0.0009, in
2.46 ± 0.19 s by its own measurement. This was without ``torch.compile``, whose autotuning had not finished after 230 s,
so the times are no comparison of speed. Its header states 3.09 s on an A100 with ``torch.compile``.

The recipe is that of K. Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", 2024,
https://arxiv.org/abs/2404.00498, with its hyperparameters. Nothing was chosen here, so it trains on all 50,000 images
and scores the test images once per run, at the end. Differences: parameters are float32 and the arithmetic is bfloat16
(there, both are float16), the running variance is the biased one, and the random bit of the alternating flip is a
function of the image index.

The time is that of one call, from uint8 images on the device to the accuracy: whitening of the patches, all steps with
their augmentation, and six views of every test image. Compilation (40 s on that machine, 6 s with cached autotuning)
and a warm-up run on random labels come before it and are not included.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from common.airbench94 import CLASSES, Images, Recipe, Run
from common.airbench94 import run as train_and_score
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import data, runtime

DIGITS = {"seconds": 3, "plain": 4, "accuracy": 4}  # decimal places of the printed results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Recipe, Study):
    """CIFAR-10 in seconds on one GPU."""

    SMOKE = {"num_seeds": 1, "epochs": 6, "batch_size": 32, "learning_rate": 40.0, "widths": (8, 16, 16)}

    num_seeds: int = 25
    """Number of timed runs, each with another seed."""
    first: int = 0
    """Seed of the first run; the others follow it."""
    images: int | None = None
    """Number of training images, and maximum number of test images; by default all."""
    data_note: str = ""
    """Remark about the images for the summary, such as that they are not the official ones."""


def measure(config: Config, progress: Progress) -> StudyResult:
    progress.expect(2 + config.num_seeds)
    progress("compiling")
    dataset = jax.device_put(synthetic_images(192) if config.smoke else load_cifar10(config.images))
    jitted = jax.jit(functools.partial(train_and_score, config), compiler_options=runtime.compiler_options())
    start_time = time.perf_counter()
    compiled = jitted.lower(jax.random.key(0), dataset).compile()
    compile_seconds = time.perf_counter() - start_time
    progress("warming up on random labels")
    random_labels = jax.random.randint(
        jax.random.key(config.first), dataset.labels.shape, 0, CLASSES, dataset.labels.dtype
    )
    run_timed(compiled, jax.random.key(config.first), dataset._replace(labels=random_labels))
    rows: list[dict[str, float]] = []
    for seed in range(config.first, config.first + config.num_seeds):
        progress(f"training, seed {seed}")
        seconds, run = run_timed(compiled, jax.random.key(seed), dataset)
        rows.append({"seconds": seconds, "plain": float(run.plain), "accuracy": float(run.accuracy)})
    results = {
        "images": len(dataset.images),
        "steps": len(run.losses),
        "data_note": config.data_note,
        "compile_seconds": compile_seconds,
        **{name: [row[name] for row in rows] for name in DIGITS},
    }
    table_rows = [
        (config.first + i, *(f"{row[name]:.{digits}f}" for name, digits in DIGITS.items()))
        for i, row in enumerate(rows)
    ]
    return StudyResult(results, {}, [results_table("", ("seed", "seconds", "accuracy", "over six views"), table_rows)])


def run_timed(compiled: Callable[..., Run], key: jax.Array, dataset: Images) -> tuple[float, Run]:
    """Return the seconds of a run, until its results are ready, and the results."""
    jax.block_until_ready(dataset)
    start_time = time.perf_counter()
    result = jax.block_until_ready(compiled(key, dataset))
    return time.perf_counter() - start_time, jax.device_get(result)


def load_cifar10(num_images: int | None) -> Images:
    """Load CIFAR-10 without a validation split, which is not needed: no choice is made here."""
    dataset = data.load("cifar10")
    images, labels = map(np.concatenate, zip(dataset.train, dataset.validation, strict=True))
    return Images(
        images[:num_images], labels[:num_images], dataset.test.images[:num_images], dataset.test.labels[:num_images]
    )


def synthetic_images(num_images: int, seed: int = 0) -> Images:
    """Generate noise images whose class is their color, which flips and translations do not change."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, 2 * num_images).astype(np.int32)
    colors = np.stack([labels // 9, labels // 3 % 3, labels % 3], axis=1) * 60
    images = (rng.integers(0, 130, (2 * num_images, 32, 32, 3)) + colors[:, None, None, :]).astype(np.uint8)
    return Images(images[:num_images], labels[:num_images], images[num_images:], labels[num_images:])


def summarize_results(results: dict[str, Any]) -> str:
    formatted = {name: mean_std(results[name], digits) for name, digits in DIGITS.items()}
    note = f" {results['data_note']}." if results["data_note"] else ""
    return (
        f"{formatted['seconds']} s for {results['steps']} steps and the scoring of the test images, of which "
        f"{formatted['plain']} are classified right as they are and {formatted['accuracy']} over six views.{note}"
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
