"""Translation: convolution is equivariant; invariance comes from global pooling and from augmentation.

Claim (lecture rows 001-04, 003-16, 004-03): "an 8 is an 8 no matter where it is". The lectures call convolution
translation invariant; it is equivariant: translating the input translates the output by the same distance, except at
the border, and exactly with circular padding. Invariance depends on the layers after it. A mean over all positions is
invariant, up to effects of the border and of strides before it. Dense layers on flattened maps are not, and learn
invariance only from translated examples. Test images are translated as far as in training, and further.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 5 min of processor time): What a circular convolution
makes of an image moved by a pixel is off the moved one by 0 of its length, and pooled by 0.44. Test accuracy, then 4
pixels along a row: flatten 0.983 ± 0.001, then 0.565 ± 0.013; global mean 0.920 ± 0.005, then 0.801 ± 0.017; flatten,
augmented 0.981 ± 0.001, then 0.963 ± 0.003; global mean, augmented 0.909 ± 0.007, then 0.864 ± 0.013.

    python experiments/translation.py             # needs MNIST; five minutes of processor time
    python experiments/translation.py --smoke     # the embedded digits, one epoch: seconds, not evidence

The networks have the same two convolutions, with 2×2 pooling after the first, and differ in the head. All have the same
learning rate, which was not tuned; the best epoch is chosen on validation images, which are not translated. The mean
over all positions also discards the positions of strokes within a digit, as the accuracy without translation shows.
"""

import dataclasses
import statistics
from typing import Any

import jax
import jax.numpy as jnp

from common.networks import TrainingStudy
from common.study import Progress, StudyResult, mean_std, results_table, run_study
from jaxconv import Conv, Dense, MaxPool, data, explain, flatten, global_avg_pool, plot, relu, serial
from jaxconv.data import augment
from jaxconv.layers import Layer

HEADS: dict[str, list[Any]] = {"flatten": [flatten, Dense(64), relu], "global mean": [global_avg_pool]}
AXES = ("x", "y")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingStudy):
    """Compare the robustness of network heads to translations."""

    SMOKE = {
        "dataset": "digits",
        "kernel_size": 3,
        "samples": 200,
        "epochs": 1,
        "num_seeds": 1,
        "augmented": 1,
        "moved": 50,
        "reach": 2,
    }

    dataset: str = "mnist"
    """Dataset name."""
    kernel_size: int = 5
    """Kernel size of both convolutions."""
    samples: int = 10000
    """Number of training images."""
    augmented: int = 4
    """Maximum translation of the augmentation, in pixels."""
    moved: int = 2000
    """Number of test images that are translated."""
    reach: int = 8
    """Maximum translation of test images along each axis, in pixels."""


def network(head: str, kernel_size: int, num_classes: int) -> Layer:
    """Build the convolutions with this head."""
    body = Conv(16, kernel_size), relu, MaxPool(2), Conv(32, kernel_size, padding="SAME"), relu
    return serial(*body, *HEADS[head], Dense(num_classes))


def measure(config: Config, progress: Progress) -> StudyResult:
    dataset = data.load(config.dataset)
    images, labels = (array[: config.moved] for array in dataset.test)
    results: dict[str, Any] = {"exact": equivariance_errors(images[:8])}
    curves: dict[str, dict[str, list[explain.ShiftResult]]] = {axis: {} for axis in AXES}
    variants = [(head, augmented) for augmented in (False, True) for head in HEADS]
    progress.expect(len(variants))
    for head, augmented in variants:
        name = f"{head}, augmented" if augmented else head
        progress(f"training, {name}")
        model = network(head, config.kernel_size, len(dataset.class_names))
        trained = config.train(
            model,
            dataset.train.subset(slice(config.samples)),
            dataset.validation,
            progress,
            augment=augment.random_translation(config.augmented) if augmented else None,
        )
        scores = results[name] = trained.scores(*dataset.test)
        for axis in AXES:
            shift_results = trained.translation_tests(images, labels, config.reach, axis)
            curves[axis][name] = explain.mean_shift_results(shift_results)
            by_distance = [explain.average_by_distance(rows) for rows in shift_results]
            # Accuracies by distance, one per seed.
            scores[axis] = {
                str(distance): [rows[distance].accuracy for rows in by_distance]
                for distance in range(1, config.reach + 1)
            }
    figures = {
        {"x": "translation", "y": "along_columns"}[axis]: plot.accuracy_vs_shift(
            curves[axis], title=f"{dataset.name}: images moved along a {'row' if axis == 'x' else 'column'}"
        )
        for axis in AXES
    }
    distances = [distance for distance in (1, 2, 4, 8) if distance <= config.reach]
    rows = [
        (
            name,
            f"{scores['parameters']:,}",
            mean_std(scores["test_accuracy"]),
            *(
                f"{statistics.fmean(scores['x'][str(distance)]):.3f} {statistics.fmean(scores['y'][str(distance)]):.3f}"
                for distance in distances
            ),
        )
        for name, scores in results.items()
        if name != "exact"
    ]
    headings = ("head", "parameters", "test accuracy", *(f"±{distance} px: x, y" for distance in distances))
    error_rows = [(case, f"{error:.1e}") for case, error in results["exact"].items()]
    tables = [
        results_table("", headings, rows),
        results_table("‖f(shift(x)) − shift(f(x))‖ / ‖f(x)‖", ("", "error"), error_rows),
    ]
    return StudyResult(results, figures, tables)


def equivariance_errors(images: Any) -> dict[str, float]:
    """Return the equivariance errors of layers with random kernels, for circular translations of the input.

    error = ‖f(shift(x)) − shift(f(x))‖ / ‖f(x)‖, where the output of a 2×2 pooling shifts by half the distance, and a
    global mean not at all.
    """
    x = jnp.asarray(images, jnp.float32) / 255
    circular, zeros = (Conv(8, 3, padding="SAME", padding_mode=mode) for mode in ("circular", "zeros"))
    pooled = serial(circular, relu, MaxPool(2))

    def error(layer: Layer, shift: int, output_shift: int = 0) -> float:
        params, state = layer.init(jax.random.key(0), x.shape[1:])
        of_shifted, expected = (layer.apply(params, state, inputs)[0] for inputs in (jnp.roll(x, shift, axis=2), x))
        expected = jnp.roll(expected, output_shift, axis=2) if output_shift else expected
        return float(jnp.linalg.norm(of_shifted - expected) / jnp.linalg.norm(expected))

    return {
        "convolution, circular padding, by 1": error(circular, 1, 1),
        "convolution, zeros around, by 1": error(zeros, 1, 1),
        "then pooled, by 2": error(pooled, 2, 1),
        "then pooled, by 1": error(pooled, 1),
        "convolution, global mean, by 1": error(serial(circular, relu, global_avg_pool), 1),
        "then pooled, global mean, by 1": error(serial(pooled, global_avg_pool), 1),
    }


def summarize_results(results: dict[str, Any]) -> str:
    distances = list(results["flatten"]["x"])
    distance = distances[min(4, len(distances)) - 1]
    accuracy = "; ".join(
        f"{name} {mean_std(scores['test_accuracy'], 3)}, then {mean_std(scores['x'][distance], 3)}"
        for name, scores in results.items()
        if name != "exact"
    )
    exact, *_, pooled, _, _ = results["exact"].values()
    return (
        f"What a circular convolution makes of an image moved by a pixel is off the moved one by {exact:.1g} of its "
        f"length, and pooled by {pooled:.2f}. Test accuracy, then {distance} pixels along a row: {accuracy}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
