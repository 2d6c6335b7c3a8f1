"""CIFAR-10 in seconds on one GPU: the recipe of airbench94, the whole run in one compiled program.

Claim: on one GPU of a data centre a training and its evaluation take less than two seconds, and the network is as
accurate as the original's on the same images.

Measured with 25 seeds (gpu (NVIDIA H100 80GB HBM3), jax 0.11.2, 47 s): 1.539 ± 0.001 s for 476 steps and the scoring of
the test images, of which 0.8979 ± 0.0018 are classified right as they are and 0.9065 ± 0.0016 over six views. CIFAR-10
whose pictures went through JPEG once.

    python experiments/cifar10_speedrun.py                            # on a GPU: 25 runs
    python experiments/cifar10_speedrun.py --num-seeds 100 --first 1000   # a hundred others
    python experiments/cifar10_speedrun.py --images 2000 --epochs 1   # a part of the data, to see that it runs
    python experiments/cifar10_speedrun.py --smoke                    # made-up images, a narrow network: on a CPU too

The paper's 94 % are of the official images, with which this was not run: these had been through JPEG once. So the
original, ``legacy/airbench94_compiled.py`` of https://github.com/KellerJordan/cifar10-airbench, was run on the same
images and the same GPU, by PyTorch 2.11: three runs got 0.8973 ± 0.0022, and over six views 0.9043 ± 0.0009, in 2.46 ±
0.19 s by its own clock. That was without ``torch.compile``, whose search for the fastest kernels had not ended after
230 s, so the seconds do not tell which is faster. Its header says 3.09 s on an A100 with it.

The recipe is that of K. Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", 2024,
https://arxiv.org/abs/2404.00498, with its hyperparameters; nothing was chosen here, so it trains on all 50,000 images
and the test images are scored once a run, at the end. What differs: parameters are float32 and the arithmetic is
bfloat16 (there: both float16), the running variance is the biased one, and an image's coin of alternating flip is
tossed from its number.

Timed is one call, from the bytes of the images on the device to the accuracy: the whitening of the patches, all
steps with their augmentation, and six views of every test image. Compiling comes before it (40 s on that machine, and 6
when it finds the kernels that it chose on the disk), and so does a run on random labels, which learns nothing.
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

TOLD = {"seconds": 3, "plain": 4, "accuracy": 4}  # and with how many digits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Recipe, Study):
    """CIFAR-10 in seconds on one GPU."""

    SMOKE = {"num_seeds": 1, "epochs": 6, "batch_size": 32, "learning_rate": 40.0, "widths": (8, 16, 16)}

    num_seeds: int = 25
    """Trainings that are timed, each from other random numbers."""
    first: int = 0
    """The first one's seed; the others count on from it."""
    images: int | None = None
    """Take so many training images, and at most so many test images; by default all."""
    data_note: str = ""
    """What is to be known of the images, such as that they are not the official ones."""


def measure(config: Config, progress: Progress) -> StudyResult:
    progress.expect(2 + config.num_seeds)
    progress("compiling")
    given = jax.device_put(made_up(192) if config.smoke else cifar10(config.images))
    program = jax.jit(functools.partial(train_and_score, config), compiler_options=runtime.compiler_options())
    started = time.perf_counter()
    compiled = program.lower(jax.random.key(0), given).compile()
    compiling = time.perf_counter() - started
    progress("on random labels, to warm up")
    noise = jax.random.randint(jax.random.key(config.first), given.labels.shape, 0, CLASSES, given.labels.dtype)
    timed(compiled, jax.random.key(config.first), given._replace(labels=noise))
    rows: list[dict[str, float]] = []
    for seed in range(config.first, config.first + config.num_seeds):
        progress(f"training, seed {seed}")
        seconds, made = timed(compiled, jax.random.key(seed), given)
        rows.append({"seconds": seconds, "plain": float(made.plain), "accuracy": float(made.accuracy)})
    results = {
        "images": len(given.images),
        "steps": len(made.losses),
        "data_note": config.data_note,
        "compile_seconds": compiling,
        **{name: [row[name] for row in rows] for name in TOLD},
    }
    each = [
        (config.first + i, *(f"{row[name]:.{digits}f}" for name, digits in TOLD.items())) for i, row in enumerate(rows)
    ]
    return StudyResult(results, {}, [results_table("", ("seed", "seconds", "accuracy", "over six views"), each)])


def timed(compiled: Callable[..., Run], key: jax.Array, given: Images) -> tuple[float, Run]:
    """Seconds of a run, to the last number of its result."""
    jax.block_until_ready(given)
    started = time.perf_counter()
    made = jax.block_until_ready(compiled(key, given))
    return time.perf_counter() - started, jax.device_get(made)


def cifar10(count: int | None) -> Images:
    """All training images, those that are set aside for validation too: no choice is made here."""
    dataset = data.load("cifar10")
    images, labels = map(np.concatenate, zip(dataset.train, dataset.validation, strict=True))
    return Images(images[:count], labels[:count], dataset.test.images[:count], dataset.test.labels[:count])


def made_up(count: int, seed: int = 0) -> Images:
    """Noise in ten colours, which are the classes: mirrored and moved they are the same."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, 2 * count).astype(np.int32)
    colours = np.stack([labels // 9, labels // 3 % 3, labels % 3], axis=1) * 60
    images = (rng.integers(0, 130, (2 * count, 32, 32, 3)) + colours[:, None, None, :]).astype(np.uint8)
    return Images(images[:count], labels[:count], images[count:], labels[count:])


def summarize_results(results: dict[str, Any]) -> str:
    told = {name: mean_std(results[name], digits) for name, digits in TOLD.items()}
    note = f" {results['data_note']}." if results["data_note"] else ""
    return (
        f"{told['seconds']} s for {results['steps']} steps and the scoring of the test images, of which "
        f"{told['plain']} are classified right as they are and {told['accuracy']} over six views.{note}"
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
