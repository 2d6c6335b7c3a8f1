"""Shared weights against dense ones: they need fewer examples, and know which pixels are neighbours.

Claim (lecture rows 001-02, 001-04, 004-03): a network with convolutions needs fewer examples than one of dense layers
with six times its parameters; it knows a digit better that is moved by a pixel or two, though it has seen none; and to
the network of dense layers it is all one in what order the pixels come, as long as it is the same in all images, while
to the one with convolutions it is not. (What makes a network know a digit wherever it is: ``translation.py``.)

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 63 s of processor time): Test accuracy with 100 samples:
mlp 0.686 ± 0.007, cnn 0.747 ± 0.008; 1000 samples: mlp 0.894 ± 0.002, cnn 0.945 ± 0.003; 10000 samples: mlp 0.959 ±
0.002, cnn 0.981 ± 0.001; moved by 2 pixels: mlp 0.678 ± 0.006, cnn 0.920 ± 0.004; pixels permuted: mlp 0.959 ± 0.001,
cnn 0.917 ± 0.003.

    python experiments/invariance.py                # needs MNIST; a minute of processor time
    python experiments/invariance.py --smoke        # the embedded digits, few of them: seconds, and no evidence

Few samples are gone through more often, so that all networks take an equal number of steps. The learning rate, one for
all, was chosen on the validation images among 0.001, 0.003 and 0.01, the largest of which was the best for both; the
best epoch of four is chosen on validation images too.
"""

import dataclasses
from typing import Any

import numpy as np

from common import plots
from common.networks import train_networks
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import Conv, Dense, MaxPool, data, explain, flatten, models, plot, relu, serial
from jaxconv.layers import Layer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Dense layers against convolutions."""

    SMOKE = {
        "dataset": "digits",
        "kernel_size": 2,
        "samples": (50, 200),
        "examples": 400,
        "num_seeds": 1,
        "batch_size": 20,
        "moved": 40,
        "reach": 2,
    }

    dataset: str = "mnist"
    """What is learned."""
    kernel_size: int = 5
    """Of both convolutions."""
    samples: tuple[int, ...] = (100, 1000, 10000)
    """Training images, for the learning curves; the most are for the other questions too."""
    examples: int = 40000
    """How many training images each network goes through, whatever the samples: an equal number of steps."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 1e-2
    """Adam's highest, for both networks."""
    moved: int = 2000
    """Test images that are moved."""
    reach: int = 8
    """The largest shift, in pixels."""


def measure(config: Config, progress: Progress) -> StudyResult:
    dataset = data.load(config.dataset)
    most = max(config.samples)
    networks = {"mlp": models.mlp(len(dataset.class_names)), "cnn": cnn(config.kernel_size, len(dataset.class_names))}
    # One fixed permutation for all images: row 001-02.
    order = np.random.default_rng(0).permutation(int(np.prod(dataset.image_shape[:2])))
    permuted = {part: permute(getattr(dataset, part), order) for part in ("train", "validation", "test")}
    images, labels = (array[: config.moved] for array in dataset.test)
    results: dict[str, Any] = {}
    curves = {}
    progress.expect(len(networks) * (len(config.samples) + 1))
    for name, model in networks.items():
        found = results[name] = {
            "parameters": explain.summarize(model, dataset.image_shape).params,
            "val_accuracy": {},
            "test_accuracy": {},
        }
        for count in config.samples:
            progress(f"{name}: training on {count:,} samples")
            trained = train(config, model, dataset.train, dataset.validation, count, progress)
            found["val_accuracy"][str(count)] = trained.val_accuracy
            found["test_accuracy"][str(count)] = trained.accuracy(*dataset.test)
            if count == most:
                moves = trained.translation_tests(images, labels, config.reach)
                curves[name] = explain.mean_shift_results(moves)
                both = [explain.average_by_distance(rows) for rows in moves]
                # By how far: the accuracy of each seed.
                found["moved"] = {str(far): [rows[far].accuracy for rows in both] for far in range(1, config.reach + 1)}
        progress(f"{name}: training on permuted pixels")
        trained = train(config, model, permuted["train"], permuted["validation"], most, progress)
        found["permuted"] = trained.accuracy(*permuted["test"])
    learned = {
        name: {int(count): values for count, values in found["test_accuracy"].items()}
        for name, found in results.items()
    }
    figures = {
        "invariance": plots.accuracy_vs_num_samples(learned, title=f"{dataset.name}: equal numbers of steps"),
        "shift": plot.accuracy_vs_shift(curves, title=f"{dataset.name}: images moved along a row"),
    }
    return StudyResult(results, figures, tables(results))


def cnn(kernel_size: int, classes: int) -> Layer:
    """Two convolutions, each with a pool, and two dense layers: 20,522 parameters on MNIST, a sixth of the other's."""
    body = Conv(8, kernel_size), relu, MaxPool(2), Conv(16, kernel_size), relu, MaxPool(2)
    return serial(*body, flatten, Dense(64), relu, Dense(classes))


def train(config: Config, model: Layer, examples: Any, validation: Any, count: int, progress: Progress) -> Any:
    """Networks of all seeds, trained on the first samples; few samples are gone through more often."""
    images, labels = (array[:count] for array in examples)
    epoch = max(config.samples)
    repeats = -(-epoch // count)
    return train_networks(
        model,
        (np.tile(images, (repeats, 1, 1, 1))[:epoch], np.tile(labels, repeats)[:epoch]),
        tuple(array[:2000] for array in validation),
        seeds=range(config.num_seeds),
        epochs=max(1, config.examples // epoch),
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        on_progress=progress.set_fraction,
    )


def permute(part: Any, order: np.ndarray) -> data.Split:
    """The pixels of every image in another order, the same for all."""
    images = part.images
    return data.Split(images.reshape(len(images), len(order), -1)[:, order].reshape(images.shape), part.labels)


def tables(results: dict[str, Any]) -> list[Any]:
    rows = [
        (name, f"{found['parameters']:,}", samples, mean_std(values))
        for name, found in results.items()
        for samples, values in [*found["test_accuracy"].items(), ("most, permuted", found["permuted"])]
    ]
    shown = [far for far in ("1", "2", "4", "8") if far in results["mlp"]["moved"]]
    moved = [(name, *(mean_std(found["moved"][far], 3) for far in shown)) for name, found in results.items()]
    return [
        results_table(
            "permuted: the pixels of every image, all in one way", ("network", "parameters", "samples", "test"), rows
        ),
        results_table("test images moved along a row", ("network", *(f"±{far} px" for far in shown)), moved),
    ]


def summarize_results(results: dict[str, Any]) -> str:
    def each(values: dict[str, Any], digits: int) -> str:
        return ", ".join(f"{name} {mean_std(values[name], digits)}" for name in results)

    learned = "; ".join(
        f"{count} samples: {each({name: found['test_accuracy'][count] for name, found in results.items()}, 3)}"
        for count in results["mlp"]["test_accuracy"]
    )
    far = list(results["mlp"]["moved"])[:2][-1]
    moved = each({name: found["moved"][far] for name, found in results.items()}, 3)
    permuted = each({name: found["permuted"] for name, found in results.items()}, 3)
    return f"Test accuracy with {learned}; moved by {far} pixels: {moved}; pixels permuted: {permuted}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
