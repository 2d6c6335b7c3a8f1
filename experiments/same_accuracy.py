"""Accuracy with ``impl="auto"`` and ``impl="lax"``: the choice of lowerings does not change it.

Claim: both have the same accuracy. They compute the same sums in a different order. Rounding differences from the first
step on lead to different networks, but over seeds the difference of test accuracies is within its standard error.

Measured with 5 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): small_cnn on digits: test
accuracy 0.9872 ± 0.0025 by auto and 0.9872 ± 0.0025 by lax, which differ by +0.0000 with a standard error of 0.0000; a
training takes 0.4 s and 12.0 s.

    python experiments/same_accuracy.py                    # a minute on 2 cores
    python experiments/same_accuracy.py --dataset mnist    # mnist_cnn with --recipe fast: an hour, mostly lax
    python experiments/same_accuracy.py --smoke            # two seeds, one epoch: seconds, not evidence

The recipes are those of ``jaxconv train``. The test images are scored once per network, and choose nothing.
"""

import dataclasses
import statistics
from typing import Any, Literal

from common.networks import train_with_config
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import data, models
from jaxconv.errors import InputError
from jaxconv.runs import RECIPES, TrainConfig

IMPLS = ("auto", "lax")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Compare the accuracy of two lowerings."""

    SMOKE = {"num_seeds": 2, "epochs": 1}

    num_seeds: int = 5
    """Number of seeds per lowering, from 0 on; at least two."""
    dataset: Literal["digits", "mnist"] = "digits"
    """Dataset: the digits with the default recipe of jaxconv train, or MNIST with the fast recipe."""
    epochs: int | None = None
    """Training epochs; by default those of the recipe."""


def measure(config: Config, progress: Progress) -> StudyResult:
    if config.num_seeds < 2:
        raise InputError(f"same_accuracy: num_seeds={config.num_seeds} should be at least 2, for a standard error")
    train_config = TrainConfig() if config.dataset == "digits" else TrainConfig(dataset="mnist", **RECIPES["fast"])
    if config.epochs is not None:
        train_config = dataclasses.replace(train_config, epochs=config.epochs)
    spec = models.get_model(train_config.model)
    dataset = data.load(train_config.dataset).with_min_size(spec.input_shape)
    results: dict[str, Any] = {
        "dataset": train_config.dataset,
        "model": train_config.model,
        "epochs": train_config.epochs,
    }
    for impl in progress.track(IMPLS, f"{train_config.model} on {train_config.dataset}, by {{}}"):
        model = spec.create(num_classes=len(dataset.class_names), impl=impl)
        trained = train_with_config(
            train_config,
            model,
            dataset.train,
            dataset.validation,
            seeds=range(config.num_seeds),
            on_progress=progress.set_fraction,
        )
        results[impl] = {
            "val_accuracy": trained.val_accuracy,
            "test_accuracy": trained.accuracy(*dataset.test),
            "train_seconds": trained.seconds,
        }
    accuracies = [results[impl]["test_accuracy"] for impl in IMPLS]
    rows = [
        (seed, f"{auto:.4f}", f"{lax:.4f}", f"{auto - lax:+.4f}")
        for seed, (auto, lax) in enumerate(zip(*accuracies, strict=True))
    ]
    title = f"test accuracy of {train_config.model} on {train_config.dataset}"
    return StudyResult(results, {}, [results_table(title, ("seed", *IMPLS, "difference"), rows)])


def summarize_results(results: dict[str, Any]) -> str:
    by_impl = [results[impl]["test_accuracy"] for impl in IMPLS]
    differences = [auto - lax for auto, lax in zip(*by_impl, strict=True)]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    accuracy = " and ".join(
        f"{mean_std(accuracies)} by {impl}" for impl, accuracies in zip(IMPLS, by_impl, strict=True)
    )
    seconds = " and ".join(f"{results[impl]['train_seconds'] / len(differences):.1f} s" for impl in IMPLS)
    return (
        f"{results['model']} on {results['dataset']}: test accuracy {accuracy}, which differ by {mean:+.4f} with a "
        f"standard error of {error:.4f}; a training takes {seconds}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
