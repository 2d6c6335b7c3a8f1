"""Robustness of networks trained on plain digits to rotation, shear, stroke thickness, noise and occlusion.

Claim (lecture row 004-14, LeCun's page of unusual digits): networks trained on plain digits recognize moderately
distorted ones, and convolutions improve the robustness to nearly every distortion.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 2 min of processor time): Test accuracy: mnist_cnn 0.988
± 0.000, lenet5 0.983 ± 0.002, mlp 0.965 ± 0.001; over 10 distortions: mnist_cnn 0.802 ± 0.003, lenet5 0.697 ± 0.015,
mlp 0.616 ± 0.001. mnist_cnn is the best against all of them.

    python experiments/robustness.py               # needs MNIST; two minutes of processor time
    python experiments/robustness.py --smoke       # the embedded digits, two networks, two distortions: seconds

The accuracy of a distortion is the mean over the severities of ``explain.CORRUPTIONS`` other than the identity. The
recipe, Adam with a one-cycle schedule up to 0.003, was not tuned, and nothing else was chosen. Single numbers vary with
the seed, and more with the recipe.
"""

import dataclasses
import statistics
from typing import Any

import numpy as np

from common.networks import TrainingStudy
from common.study import Progress, StudyResult, mean_std, results_table, run_study
from jaxconv import checks, data, explain, models, plot
from jaxconv.errors import InputError, error_context

Curves = dict[str, list[tuple[float, float]]]  # (severity, accuracy) pairs by distortion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingStudy):
    """Test networks trained on plain digits on distorted ones."""

    SMOKE = {
        "models": ("small_cnn", "mlp"),
        "dataset": "digits",
        "distortions": ("rotation", "noise"),
        "images": 60,
        "num_seeds": 1,
    }

    models: tuple[str, ...] = ("mnist_cnn", "lenet5", "mlp")
    """Networks by name."""
    dataset: str = "mnist"
    """Dataset name, for training and for the distorted test images."""
    distortions: tuple[str, ...] = tuple(explain.CORRUPTIONS)
    """Distortions by name."""
    epochs: int = 1
    images: int = 2000
    """Number of test images that are distorted."""


def measure(config: Config, progress: Progress) -> StudyResult:
    if not config.models or not config.distortions:
        raise InputError("robustness: give at least one model and one distortion, such as --models mnist_cnn")
    for distortion in config.distortions:
        with error_context("robustness"):
            checks.one_of("distortion", distortion, explain.CORRUPTIONS)
    specs = {name: models.get_model(name) for name in config.models}
    dataset = data.load(config.dataset)
    results: dict[str, Any] = {}
    curves: dict[str, Curves] = {}
    progress.expect(2 * len(specs))
    for name, spec in specs.items():
        progress(f"{name}: training")
        resized = dataset.with_min_size(spec.input_shape)
        model = spec.create(num_classes=len(dataset.class_names))
        trained = config.train(model, resized.train, resized.validation, progress)
        progress(f"{name}: evaluating on distorted images")
        subset = tuple(array[: config.images] for array in resized.test)
        by_seed: list[Curves] = []
        for network in trained.variables:
            by_seed.append(explain.corruption_accuracy(model, *network, *subset, corruptions=config.distortions))
            progress.set_fraction(len(by_seed) / config.num_seeds)
        curves[name] = {
            distortion: mean_curve([seed_curves[distortion] for seed_curves in by_seed])
            for distortion in config.distortions
        }
        results[name] = {
            "val_accuracy": trained.val_accuracy,
            "test_accuracy": trained.accuracy(*resized.test),
            "distorted": {
                distortion: [accuracy(distortion, seed_curves[distortion]) for seed_curves in by_seed]
                for distortion in config.distortions
            },
            "by_strength": {distortion: dict(pairs) for distortion, pairs in curves[name].items()},
        }
    example = dataset.test.images[int(np.flatnonzero(dataset.test.labels == 4)[0])]
    title = f"accuracy on distorted test images of {dataset.name}, trained on plain ones"
    return StudyResult(
        results, {"robustness": plot.accuracy_vs_severity(curves, example, title=title)}, [build_table(results)]
    )


def accuracy(distortion: str, pairs: list[tuple[float, float]]) -> float:
    """Return the mean accuracy over the severities other than the identity."""
    identity = explain.CORRUPTIONS[distortion].identity
    return statistics.fmean(accuracy for severity, accuracy in pairs if severity != identity)


def mean_curve(curves: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Average the curves of several networks, by severity."""
    return [(pairs[0][0], statistics.fmean(accuracy for _, accuracy in pairs)) for pairs in zip(*curves, strict=True)]


def overall(scores: dict[str, Any]) -> list[float]:
    """Return the mean over the distortions, for each seed."""
    return [statistics.fmean(values) for values in zip(*scores["distorted"].values(), strict=True)]


def build_table(results: dict[str, Any]) -> Any:
    rows = [("none (all test images)", *(mean_std(scores["test_accuracy"]) for scores in results.values()))]
    rows += [
        (distortion, *(mean_std(scores["distorted"][distortion], 3) for scores in results.values()))
        for distortion in next(iter(results.values()))["distorted"]
    ]
    rows.append(("mean of these", *(mean_std(overall(scores), 3) for scores in results.values())))
    return results_table("mean accuracy over the severities", ("distortion", *results), rows)


def summarize_results(results: dict[str, Any]) -> str:
    plain = ", ".join(f"{name} {mean_std(scores['test_accuracy'], 3)}" for name, scores in results.items())
    distorted = ", ".join(f"{name} {mean_std(overall(scores), 3)}" for name, scores in results.items())
    first, *others = results
    means = {name: {d: statistics.fmean(v) for d, v in scores["distorted"].items()} for name, scores in results.items()}
    beaten = [d for d, own in means[first].items() if any(means[other][d] > own for other in others)]
    return (
        f"Test accuracy: {plain}; over {len(means[first])} distortions: {distorted}. "
        f"{first} is the best against all of them{' but ' + ', '.join(beaten) if beaten else ''}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
