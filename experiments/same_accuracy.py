"""The choice of convolutions costs no accuracy: the same seeds trained by ``impl="auto"`` and by ``impl="lax"``.

Claim: none is lost. Both compute the same sums in another order, so that from the first step on they differ by
rounding, and training makes two different networks of that; over seeds their test accuracies differ by no more than
chance has them differ.

Measured with 5 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): small_cnn on digits: test
accuracy 0.9872 ± 0.0025 by auto and 0.9872 ± 0.0025 by lax, which differ by +0.0000 with a standard error of 0.0000; a
training takes 0.4 s and 12.0 s.

    python experiments/same_accuracy.py                    # a minute on 2 cores
    python experiments/same_accuracy.py --dataset mnist    # mnist_cnn by --recipe fast: an hour, nearly all of it lax
    python experiments/same_accuracy.py --smoke            # two seeds, one epoch: seconds, and no evidence

The recipes are those of ``jaxconv train``. The test images are scored once a network, and nothing is chosen by them.
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
    """Whether the choice of convolutions costs accuracy."""

    SMOKE = {"num_seeds": 2, "epochs": 1}

    num_seeds: int = 5
    """Networks of each kind, from seed 0 on: two at least."""
    dataset: Literal["digits", "mnist"] = "digits"
    """What to train on: the digits as jaxconv train does, or MNIST by the fast recipe."""
    epochs: int | None = None
    """Instead of the recipe's."""


def measure(config: Config, progress: Progress) -> StudyResult:
    if config.num_seeds < 2:
        raise InputError(f"same_accuracy: num_seeds={config.num_seeds} has no deviation: give 2 or more")
    asked = TrainConfig() if config.dataset == "digits" else TrainConfig(dataset="mnist", **RECIPES["fast"])
    if config.epochs is not None:
        asked = dataclasses.replace(asked, epochs=config.epochs)
    spec = models.get_model(asked.model)
    dataset = data.load(asked.dataset).with_min_size(spec.input_shape)
    results: dict[str, Any] = {"dataset": asked.dataset, "model": asked.model, "epochs": asked.epochs}
    for impl in progress.track(IMPLS, f"{asked.model} on {asked.dataset}, by {{}}"):
        model = spec.create(num_classes=len(dataset.class_names), impl=impl)
        trained = train_with_config(
            asked,
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
    title = f"test accuracy of {asked.model} on {asked.dataset}"
    return StudyResult(results, {}, [results_table(title, ("seed", *IMPLS, "difference"), rows)])


def summarize_results(results: dict[str, Any]) -> str:
    by_impl = [results[impl]["test_accuracy"] for impl in IMPLS]
    differences = [auto - lax for auto, lax in zip(*by_impl, strict=True)]
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    accuracy = " and ".join(f"{mean_std(each)} by {impl}" for impl, each in zip(IMPLS, by_impl, strict=True))
    seconds = " and ".join(f"{results[impl]['train_seconds'] / len(differences):.1f} s" for impl in IMPLS)
    return (
        f"{results['model']} on {results['dataset']}: test accuracy {accuracy}, which differ by {mean:+.4f} with a "
        f"standard error of {error:.4f}; a training takes {seconds}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
