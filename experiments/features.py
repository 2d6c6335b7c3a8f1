"""Features for classifiers: pixels, edges, HOG, SIFT, and the representation learned by a convolutional network.

Claim (lecture rows 000-03, 000-04, 000-05, 000-06, 000-23): higher-level features improve a linear classifier or naive
Bayes. Edges are better than raw pixels, HOG and SIFT better than edges, and features learned together with the last
layer of a network better than hand-crafted ones. The results contradict the claim for edges: the gradient magnitude,
without its direction, is less informative for these classifiers than the pixels. SIFT is as good as the features that
this small network learns from 10,000 images.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 9 min of processor time): Test accuracy with the
classifier that was best on validation: mnist: pixels 0.913 ± 0.002, edges 0.883 ± 0.003, HOG 0.974 ± 0.002, SIFT 0.983
± 0.002, learned 0.984 ± 0.001; whole networks: convnet 0.982 ± 0.001, dense layers 0.936 ± 0.001. fashion_mnist: pixels
0.834 ± 0.001, edges 0.828 ± 0.002, HOG 0.869 ± 0.001, SIFT 0.889 ± 0.001, learned 0.888 ± 0.001; whole networks:
convnet 0.885 ± 0.000, dense layers 0.844 ± 0.002.

    python experiments/features.py               # needs the extra "experiments"; ten minutes of processor time
    python experiments/features.py --smoke       # the embedded digits: seconds, not evidence

Every seed has its own training images, the same for all features and networks. Edges are the Sobel gradient magnitude
at each pixel; HOG is that of scikit-image, in blocks of 2×2 cells; the SIFT descriptors are those of `common.sift`, on
a grid with the spacing of a cell. "Learned" features are the input of the last layer of the convnet, so that layer is
one more classifier of them. The regularization strength is chosen from `CLASSIFIERS` for each pair of features and
classifier, on the validation images, with the training images of the first seed; the best epoch of each network is
chosen on them too. The learning rate was not tuned. Features are scaled by one number, so that the vectors have a norm
of about 1: scaling each feature would give pixels that are nearly always black the same weight as all others. The dense
network has as many parameters as the convnet; the table shows training and test accuracies of both (row 000-23).
"""

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from common import plots, sift
from common.networks import TrainedNetworks, train_networks
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import Conv, Dense, MaxPool, data, explain, filters, flatten, relu, serial
from jaxconv.data import Dataset, Split
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import per_image
from jaxconv.layers import Layer

PARTS = ("train", "validation", "test")
LEARNED, WHOLE = "learned", "whole network"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Features for classifiers."""

    SMOKE = {"datasets": ("digits",), "samples": 200, "epochs": 2, "cell": 2, "num_seeds": 2}

    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    """Dataset names; each has its own tables and a column of the figure."""
    samples: int = 10000
    """Training images of each seed, disjoint from those of other seeds."""
    cell: int = 4
    """Side of a cell of HOG and SIFT, in pixels."""
    epochs: int = 8
    """Training epochs of a network."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 3e-3
    """Peak learning rate of Adam."""


def hog(images: np.ndarray, cell: int) -> np.ndarray:
    """Compute histograms of oriented gradients (Dalal & Triggs, 2005), with 2×2 cells per block and 9 orientations.

    Raises:
        InputError: if scikit-image is not installed.
    """
    try:
        from skimage.feature import hog as hog_of_image
    except ImportError:
        raise InputError('HOG needs scikit-image: pip install "jaxconv[experiments]"') from None
    options = {"pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": -1}
    return np.stack([hog_of_image(image / np.float32(255), **options) for image in images])


FEATURES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # functions of uint8 images and the side of a cell
    "pixels": lambda images, cell: images / np.float32(255),
    "edges": lambda images, cell: named_errors(per_image, name="edges")(filters.sobel, images),
    "HOG": hog,
    "SIFT": lambda images, cell: named_errors(per_image, name="SIFT")(partial(sift.dense_sift, cell=cell), images),
}


class Classifier(NamedTuple):
    make: Callable[[float], Any]
    strengths: tuple[float, ...]  # inverse regularization; of naive Bayes, variance smoothing


def svm(c: float) -> Any:
    from sklearn.svm import LinearSVC

    return LinearSVC(C=c, loss="hinge", tol=0.01, max_iter=20000, random_state=0)


def bayes(smoothing: float) -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=smoothing)


def softmax(c: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=c, max_iter=2000)


CLASSIFIERS = {
    "linear SVM": Classifier(svm, (0.1, 1, 10)),
    "naive Bayes": Classifier(bayes, (1e-9, 1e-4, 1e-3, 1e-2, 1e-1)),
    "softmax": Classifier(softmax, (1, 10, 100)),
}


def convnet(classes: int = 10) -> Layer:
    """Build a network of two convolutions and a linear classifier: three kernels and three biases."""
    body = [Conv(32, 3, padding="SAME"), relu, MaxPool(2)]
    return serial(*body, *body, flatten, Dense(classes))


def dense_network(input_shape: tuple[int, ...], parameters: int, classes: int = 10) -> Layer:
    """Build a network with one hidden layer, whose width is chosen to match this number of parameters."""
    width = round((parameters - classes) / (np.prod(input_shape) + 1 + classes))
    return serial(flatten, Dense(max(1, width)), relu, Dense(classes))


def measure(config: Config, progress: Progress) -> StudyResult:
    results, panels, tables = {}, {}, []
    for name in config.datasets:
        dataset = data.load(name)
        if config.samples * config.num_seeds > len(dataset.train.labels):
            raise InputError(
                f"{name} has {len(dataset.train.labels)} training images, too few for {config.samples} of each of "
                f"{config.num_seeds} seeds: use samples={len(dataset.train.labels) // config.num_seeds}"
            )
        networks = {"convnet": convnet(len(dataset.class_names))}
        parameters = explain.summarize(networks["convnet"], dataset.image_shape).params
        networks["dense layers"] = dense_network(dataset.image_shape, parameters, len(dataset.class_names))
        by_seed: list[dict[str, Any]] = []
        for seed in progress.track(range(config.num_seeds), f"{name}, seed {{}}"):
            by_seed.append(run_seed(config, dataset, networks, seed, by_seed[0] if by_seed else None, progress))
        results[name] = {
            kind: {key: merge_seeds([result[kind][key] for result in by_seed]) for key in by_seed[0][kind]}
            for kind in by_seed[0]
        }
        tables += build_tables(name, results[name])
    for kind in [*CLASSIFIERS, WHOLE]:
        for name, by_kind in results.items():
            panels[f"{name}: {kind}"] = {key: values["test"] for key, values in by_kind[kind].items()}
    return StudyResult(results, {"features": plots.grouped_bars(panels)}, tables)


def run_seed(
    config: Config,
    dataset: Dataset,
    networks: dict[str, Layer],
    seed: int,
    first: dict[str, Any] | None,  # results of the first seed, whose choices are reused
    progress: Progress,
) -> dict[str, Any]:
    """Return the accuracies of all classifiers, features and networks on the three splits."""
    train = dataset.train.subset(slice(config.samples * seed, config.samples * (seed + 1)))
    parts = {"train": train, "validation": dataset.validation, "test": dataset.test}
    trained = {
        name: train_networks(
            model,
            train,
            dataset.validation,
            seeds=[seed],
            epochs=config.epochs,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
        )
        for name, model in networks.items()
    }
    results: dict[str, Any] = {name: {} for name in CLASSIFIERS}
    functions = FEATURES | {LEARNED: partial(learned_features, trained["convnet"])}
    for i, (name, function) in enumerate(functions.items()):
        rows = {part: flatten_features(function(split.images, config.cell)) for part, split in parts.items()}
        for kind, classifier in CLASSIFIERS.items():
            strengths = classifier.strengths if first is None else (first[kind][name]["chosen"],)
            results[kind][name] = select_classifier(classifier.make, strengths, scale_features(rows), parts)
        progress.set_fraction((i + 1) / len(functions))
    results[WHOLE] = {
        name: {part: network.accuracy(*split)[0] for part, split in parts.items()}
        | {"parameters": explain.summarize(network.model, dataset.image_shape).params}
        for name, network in trained.items()
    }
    return results


@named_errors
def learned_features(networks: TrainedNetworks, images: np.ndarray, cell: int) -> np.ndarray:
    """Return the input of the last layer of the network."""
    model, (params, state) = networks.model, networks.variables[0]
    maps = partial(explain.feature_maps, model, params, state, layers=("flatten1",))
    return per_image(lambda x: maps(x)["flatten1"], images)


def flatten_features(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float32).reshape(len(features), -1)


def scale_features(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scale features so that the training images have mean 0 and mean squared norm 1."""
    mean, size = parts["train"].mean(axis=0), np.sqrt(parts["train"].var(axis=0).sum())
    return {part: (features - mean) / size for part, features in parts.items()}


def select_classifier(
    make: Callable[[float], Any],
    strengths: tuple[float, ...],
    features: dict[str, np.ndarray],
    parts: dict[str, Split],
) -> dict[str, Any]:
    """Return the strength with the best validation accuracy, and its accuracies on all splits."""
    from threadpoolctl import threadpool_limits

    labels = parts["validation"].labels
    with threadpool_limits(1):  # on few cores, BLAS threads wait for one another: ten times the processor time
        fitted = {strength: make(strength).fit(features["train"], parts["train"].labels) for strength in strengths}
        validation = {strength: model.score(features["validation"], labels) for strength, model in fitted.items()}
    chosen = max(strengths, key=lambda strength: validation[strength])
    accuracy = {part: fitted[chosen].score(features[part], parts[part].labels) for part in PARTS}
    return accuracy | {"chosen": chosen, "length": features["train"].shape[1]}


def merge_seeds(by_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the results of all seeds into lists; values that seeds share stay single."""
    shared = ("length", "parameters", "chosen")
    return {
        name: value if name in shared else [result[name] for result in by_seed] for name, value in by_seed[0].items()
    }


def build_tables(name: str, results: dict[str, Any]) -> list[Any]:
    rows = [
        (features, values["length"], *(mean_std(results[kind][features]["test"], 3) for kind in CLASSIFIERS))
        for features, values in results["linear SVM"].items()
    ]
    networks = [
        (kind, f"{values['parameters']:,}", *(mean_std(values[part], 3) for part in PARTS))
        for kind, values in results[WHOLE].items()
    ]
    return [
        results_table(f"{name}: test accuracy", ("features", "length", *CLASSIFIERS), rows),
        results_table(f"{name}: {WHOLE}s", ("network", "parameters", *PARTS), networks),
    ]


def summarize_results(results: dict[str, Any]) -> str:
    clauses = []
    for name, by_kind in results.items():
        best = []
        for features in [*FEATURES, LEARNED]:  # for the classifier with the best validation accuracy
            values = max(
                (by_kind[kind][features] for kind in CLASSIFIERS),
                key=lambda candidate: statistics.fmean(candidate["validation"]),
            )
            best.append(f"{features} {mean_std(values['test'], 3)}")
        whole = ", ".join(f"{kind} {mean_std(values['test'], 3)}" for kind, values in by_kind[WHOLE].items())
        clauses.append(f"{name}: {', '.join(best)}; whole networks: {whole}")
    return f"Test accuracy with the classifier that was best on validation: {'. '.join(clauses)}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
