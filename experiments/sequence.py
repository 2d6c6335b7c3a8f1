"""Convolution along one axis and along three: words, speech, sensors and video, each beside what does not convolve.

Claim (lecture rows 001-26, 002-01, 003-02, 003-10, 003-11, 003-12, 003-13, 003-14): images are one case of what a
convolution takes. On 1,000 words of 100 numbers, 50,100 parameters do a dense layer's 10,000,100,000 (the lecture's
output of 1,000 words needs padding: without it there are 996). On speech as (21, 40) log-mel bands, the lecture's dense
network has 157,952 weights (158,474 with biases, "~160k"), and the convolutional network that it states 9,036 (9,204
with biases; it says ~100k). Where two words decide that fit in a window of five, the lecture's "not more than two words
away" from its middle, a kernel of five words is enough and one of three is not. Where time decides, what pools over
single sensors or frames cannot know, and what convolves over sensors or frames together does.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 7 min of processor time): Test accuracy. text: bag of
words 0.509 ± 0.014, dense 0.508 ± 0.006, conv, 3 words 0.671 ± 0.004, conv, 5 words 0.998 ± 0.001; speech: dense 0.852
± 0.003, CNN as stated 0.851 ± 0.021, small CNN 0.932 ± 0.004; sensors: dense 0.963 ± 0.004, conv, each alone 0.171 ±
0.006, conv 0.990 ± 0.001; video: dense 0.999 ± 0.001, conv 1×5×5 0.271 ± 0.008, conv 3×3×3 0.991 ± 0.010.

    python experiments/sequence.py              # seven minutes of processor time
    python experiments/sequence.py --smoke      # few examples, one epoch: seconds, and no evidence

All examples are made: :mod:`common.synthetic` says how. So they show what a network can tell, and not how well it
would do on real speech or films. In three of the four tasks it is known what is possible: a bag of words has 50 %, a
kernel of 3 words at most 75 % (it sees half of the negations that count), a sensor alone 1 in 6, frames without their
order at most 50 %. The best epoch is chosen on validation examples; the learning rate is one for all, and was not
searched for. How loud the noise of the speech is, how far a negation reaches, and how many examples and epochs there
are, was chosen with one or two seeds, on examples of other seeds than these: so that the networks differ, and that
those that can learn a task do.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from common import audio, plots
from common.networks import TrainingStudy
from common.study import Progress, StudyResult, mean_std, results_table, run_study
from common.synthetic import SYNTHETIC
from jaxconv import Conv, Dense, MaxPool, checks, explain, flatten, global_avg_pool, global_max_pool, relu, serial
from jaxconv.errors import error_context
from jaxconv.layers import Layer
from jaxconv.models import mlp

SEED = 11  # of the training examples; validation and test have the next two. What was tried out had others.


def bag(x: jax.Array) -> jax.Array:
    """How often each word is there."""
    return x.sum(axis=1)


def words(width: int, classes: int) -> Layer:
    """Is a pattern of so many words in a row anywhere?"""
    return serial(Conv(32, width, padding="SAME"), relu, global_max_pool, Dense(classes))


def lecture_cnn(classes: int) -> Layer:
    """The network that lecture 003 states for speech: ten layers of three 3×3 filters, and a dense one."""
    return serial(*[Conv(3, 3), relu] * 10, flatten, Dense(classes))


def small_cnn(classes: int) -> Layer:
    """As small, but as one would build it: more filters, fewer layers, pooling between."""
    body = [Conv(16, 3, padding="SAME"), relu, MaxPool(2), Conv(32, 3, padding="SAME"), relu, MaxPool(2)]
    return serial(*body, flatten, Dense(classes))


def sensors(classes: int, groups: int = 1) -> Layer:
    """Series (T, 3); in three groups, each sensor's filters see that sensor alone."""
    body = [Conv(24, 9, padding="SAME", groups=groups), relu, Conv(48, 9, padding="SAME", groups=groups), relu]
    return serial(*body, global_max_pool, Dense(classes))


def video(classes: int, window: tuple[int, int, int]) -> Layer:
    """Videos (D, H, W, 1); a window of one frame sees no two frames together, and the mean at the end none either."""
    conv = partial(Conv, kernel_size=window, padding="SAME", impl="im2col")  # of the lowerings the fastest here
    return serial(conv(8, stride=(1, 2, 2)), relu, conv(16), relu, global_avg_pool, Dense(classes))


class Task(NamedTuple):
    """What is learned, by which networks: functions of the number of classes."""

    title: str
    made: str  # in SYNTHETIC
    networks: Mapping[str, Callable[[int], Layer]]
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray


TASKS: dict[str, Task] = {
    "text": Task(
        "words (40, 100): is it good?",
        "negation",
        {
            "bag of words": lambda classes: serial(bag, Dense(64), relu, Dense(classes)),
            "dense": lambda classes: mlp(classes, hidden=(64,)),
            "conv, 3 words": lambda classes: words(3, classes),
            "conv, 5 words": lambda classes: words(5, classes),
        },
    ),
    "speech": Task(
        "log-mel (21, 40): which word?",
        "two_vowels",
        {
            "dense": lambda classes: mlp(classes, hidden=(128, 128, 128)),
            "CNN as stated": lecture_cnn,
            "small CNN": small_cnn,
        },
        lambda waves: np.concatenate([log_mel(part) for part in np.split(waves, range(500, len(waves), 500))]),
    ),
    "sensors": Task(
        "sensors (96, 3): in which order?",
        "passing_pulse",
        {
            "dense": lambda classes: mlp(classes, hidden=(128, 128)),
            "conv, each alone": lambda classes: sensors(classes, groups=3),
            "conv": sensors,
        },
    ),
    "video": Task(
        "video (8, 16, 16): where to?",
        "moving_blob",
        {
            "dense": lambda classes: mlp(classes, hidden=(128, 128)),
            "conv 1×5×5": lambda classes: video(classes, (1, 5, 5)),
            "conv 3×3×3": lambda classes: video(classes, (3, 3, 3)),
        },
    ),
}


@jax.jit
def log_mel(waves: jax.Array) -> jax.Array:
    """Waves as images of one channel, their values from about −1 to 1."""
    return audio.log_mel(waves)[..., None] / 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingStudy):
    """Convolution along one axis and along three."""

    SMOKE = {
        "tasks": ("text", "speech", "video"),
        "only_last": True,
        "samples": 60,
        "tests": 30,
        "batch_size": 30,
        "epochs": 1,
        "num_seeds": 1,
    }

    tasks: tuple[str, ...] = tuple(TASKS)
    """What is learned, by name."""
    only_last: bool = False
    """Train only the last network of each task, the one that should learn it."""
    samples: int = 6000
    """Training examples of each task."""
    tests: int = 2000
    """Test examples; half as many are for validation."""
    epochs: int = 12
    batch_size: int = 50


def counts() -> dict[str, dict[str, Any]]:
    """The lecture's networks in numbers; none of them is made."""
    text, frames = (1000, 100), (21, 40, 1)
    nets: dict[str, tuple[Layer, tuple[int, ...]]] = {
        "words, 5 wide, padded": (Conv(100, 5, padding="SAME"), text),
        "words, 5 wide": (Conv(100, 5), text),
        "words, dense": (serial(flatten, Dense(1000 * 100)), text),
        "speech, dense": (mlp(138, hidden=(128, 128, 128)), frames),
        "speech, convolutions": (lecture_cnn(138), frames),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (model, input_shape) in nets.items():
        summary = explain.summarize(model, input_shape)
        first = next(row for row in summary.rows if row.params)
        found[name] = {
            "weights": summary.weights,
            "parameters": summary.params,
            "first_output": first.shape,
            "sees": first.receptive_field,
            "dense_params": first.dense_params,
        }
    return found


def measure(config: Config, progress: Progress) -> StudyResult:
    for name in config.tasks:
        with error_context("tasks"):
            checks.one_of("task", name, TASKS)
    kinds = [
        (task, network)
        for task in config.tasks
        for network in list(TASKS[task].networks)[-1 if config.only_last else 0 :]
    ]
    results: dict[str, Any] = {"counts": counts(), "tasks": {name: {} for name in config.tasks}}
    examples: dict[str, Any] = {}
    for task, network in progress.track(kinds, "training {}"):
        made, networks = SYNTHETIC[TASKS[task].made], TASKS[task].networks
        if task not in examples:
            sizes = (config.samples, config.tests // 2, config.tests)
            drawn = [made.make(size, seed) for seed, size in enumerate(sizes, start=SEED)]
            examples = {task: [(TASKS[task].prepare(x), labels) for x, labels in drawn]}
        train, validation, test = examples[task]
        model = networks[network](len(made.classes))
        trained = config.train(model, train, validation, progress)
        results["tasks"][task][network] = trained.scores(*test)
    rows = [
        (
            f"{task}: {network}",
            f"{found['parameters']:,}",
            mean_std(found["val_accuracy"]),
            mean_std(found["test_accuracy"]),
        )
        for task, networks in results["tasks"].items()
        for network, found in networks.items()
    ]
    sizes = [
        (
            name,
            f"{found['weights']:,}",
            f"{found['parameters']:,}",
            str(found["first_output"]),
            str(found["sees"] or ""),
        )
        for name, found in results["counts"].items()
    ]
    figure = plots.grouped_bars(
        {
            TASKS[task].title: {name: found["test_accuracy"] for name, found in networks.items()}
            for task, networks in results["tasks"].items()
        },
        chance={TASKS[task].title: 1 / len(SYNTHETIC[TASKS[task].made].classes) for task in config.tasks},
    )
    headings = "lecture 003", "weights", "with biases", "first output", "sees"
    shown = [
        results_table("", headings, sizes),
        results_table("", ("network", "parameters", "validation", "test accuracy"), rows),
    ]
    return StudyResult(results, {"sequence": figure}, shown)


def summarize_results(results: dict[str, Any]) -> str:
    told = (
        f"{task}: " + ", ".join(f"{name} {mean_std(found['test_accuracy'], 3)}" for name, found in networks.items())
        for task, networks in results["tasks"].items()
    )
    return f"Test accuracy. {'; '.join(told)}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
