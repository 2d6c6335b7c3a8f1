"""What a classifier is given: pixels, edges, HOG, SIFT, or what a convolutional network has learned to look at.

Claim (lecture rows 000-03, 000-04, 000-05, 000-06, 000-23): a linear classifier or naive Bayes is the better the more
of the picture its features have made of the pixels: edges before it are better than raw pixels, HOG or SIFT better
than edges, and features that a network learns together with its last layer better than those that people thought of.
Of edges this is not so: how steep a pixel is, without the direction, tells these classifiers less than the pixel. And
SIFT is as good as what this small network learns from 10,000 images.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 9 min of processor time): Test accuracy with the
classifier that was best on validation: mnist: pixels 0.913 ± 0.002, edges 0.883 ± 0.003, HOG 0.974 ± 0.002, SIFT 0.983
± 0.002, learned 0.984 ± 0.001; whole networks: convnet 0.982 ± 0.001, dense layers 0.936 ± 0.001. fashion_mnist: pixels
0.834 ± 0.001, edges 0.828 ± 0.002, HOG 0.869 ± 0.001, SIFT 0.889 ± 0.001, learned 0.888 ± 0.001; whole networks:
convnet 0.885 ± 0.000, dense layers 0.844 ± 0.002.

    python experiments/features.py               # needs the extra "experiments"; ten minutes of processor time
    python experiments/features.py --smoke       # the embedded digits: seconds, and no evidence

Every seed has training images of its own, the same for all features and networks. Edges are the length of Sobel's two
slopes at each pixel; HOG is scikit-image's, in blocks of 2×2 cells; the SIFT-like descriptors are those of
`common.sift`, on a grid as fine as the cells. "Learned" is what the convnet's last layer is given, so its own
last layer is one more classifier of them. For each features and classifier the strength of regularisation is chosen on
the validation images, trained with the first seed's images, from those in `CLASSIFIERS`; for each network the best of
its epochs is. Its learning rate was not searched for. Features are scaled by one number, so that their vectors have a
length of about 1: scaled one by one, pixels that are nearly always black would count as much as all others. The dense
network has as many parameters as the convnet; the table has how far each is from its training accuracy (row 000-23).
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
    """What a classifier is given."""

    SMOKE = {"datasets": ("digits",), "samples": 200, "epochs": 2, "cell": 2, "num_seeds": 2}

    datasets: tuple[str, ...] = ("mnist", "fashion_mnist")
    """What is learned; a table and a column of the figure for each."""
    samples: int = 10000
    """Training images of each seed, which no other seed has."""
    cell: int = 4
    """The side of a cell of HOG and SIFT, in pixels."""
    epochs: int = 8
    """How often a network goes through them."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 3e-3
    """Adam's highest."""


def hog(images: np.ndarray, cell: int) -> np.ndarray:
    """Histograms of oriented gradients (Dalal & Triggs, 2005), of 2×2 cells a block and 9 directions a cell.

    Raises:
        InputError: scikit-image is not installed.
    """
    try:
        from skimage.feature import hog as of_one
    except ImportError:
        raise InputError('HOG needs scikit-image: pip install "jaxconv[experiments]"') from None
    options = {"pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": -1}
    return np.stack([of_one(image / np.float32(255), **options) for image in images])


FEATURES: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {  # of images in uint8, and the side of a cell
    "pixels": lambda images, cell: images / np.float32(255),
    "edges": lambda images, cell: named_errors(per_image, name="edges")(filters.sobel, images),
    "HOG": hog,
    "SIFT": lambda images, cell: named_errors(per_image, name="SIFT")(partial(sift.dense_sift, cell=cell), images),
}


class Classifier(NamedTuple):
    make: Callable[[float], Any]
    tried: tuple[float, ...]  # how little it is regularised; of naive Bayes, how much


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
    """Two layers that learn the representation, and a classifier: three kernels and three biases."""
    body = [Conv(32, 3, padding="SAME"), relu, MaxPool(2)]
    return serial(*body, *body, flatten, Dense(classes))


def dense_network(input_shape: tuple[int, ...], parameters: int, classes: int = 10) -> Layer:
    """One hidden layer, as wide as so many parameters allow."""
    width = round((parameters - classes) / (np.prod(input_shape) + 1 + classes))
    return serial(flatten, Dense(max(1, width)), relu, Dense(classes))


def measure(config: Config, progress: Progress) -> StudyResult:
    results, panels, tables = {}, {}, []
    for name in config.datasets:
        dataset = data.load(name)
        if config.samples * config.num_seeds > len(dataset.train.labels):
            raise InputError(
                f"{name} has {len(dataset.train.labels)} training images, too few for {config.samples} of each of "
                f"{config.num_seeds} seeds: take samples={len(dataset.train.labels) // config.num_seeds}"
            )
        networks = {"convnet": convnet(len(dataset.class_names))}
        parameters = explain.summarize(networks["convnet"], dataset.image_shape).params
        networks["dense layers"] = dense_network(dataset.image_shape, parameters, len(dataset.class_names))
        each: list[dict[str, Any]] = []
        for seed in progress.track(range(config.num_seeds), f"{name}, seed {{}}"):
            each.append(of_seed(config, dataset, networks, seed, each[0] if each else None, progress))
        results[name] = {
            kind: {of: joined([seed[kind][of] for seed in each]) for of in each[0][kind]} for kind in each[0]
        }
        tables += as_tables(name, results[name])
    for kind in [*CLASSIFIERS, WHOLE]:
        for name, found in results.items():
            panels[f"{name}: {kind}"] = {of: each["test"] for of, each in found[kind].items()}
    return StudyResult(results, {"features": plots.grouped_bars(panels)}, tables)


def of_seed(
    config: Config,
    dataset: Dataset,
    networks: dict[str, Layer],
    seed: int,
    first: dict[str, Any] | None,  # what the first seed found, whose choices are taken
    progress: Progress,
) -> dict[str, Any]:
    """For each classifier and features, and each network, the accuracy on the three parts."""
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
    found: dict[str, Any] = {name: {} for name in CLASSIFIERS}
    functions = FEATURES | {LEARNED: partial(learned, trained["convnet"])}
    for i, (name, function) in enumerate(functions.items()):
        made = {part: as_rows(function(split.images, config.cell)) for part, split in parts.items()}
        for of, classifier in CLASSIFIERS.items():
            tried = classifier.tried if first is None else (first[of][name]["chosen"],)
            found[of][name] = classified(classifier.make, tried, scaled(made), parts)
        progress.set_fraction((i + 1) / len(functions))
    found[WHOLE] = {
        name: {part: network.accuracy(*split)[0] for part, split in parts.items()}
        | {"parameters": explain.summarize(network.model, dataset.image_shape).params}
        for name, network in trained.items()
    }
    return found


@named_errors
def learned(networks: TrainedNetworks, images: np.ndarray, cell: int) -> np.ndarray:
    """What the last layer of the network is given."""
    model, (params, state) = networks.model, networks.variables[0]
    maps = partial(explain.feature_maps, model, params, state, layers=("flatten1",))
    return per_image(lambda x: maps(x)["flatten1"], images)


def as_rows(features: np.ndarray) -> np.ndarray:
    return np.asarray(features, np.float32).reshape(len(features), -1)


def scaled(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of the training images is 0, and the mean of their squared length 1."""
    mean, size = parts["train"].mean(axis=0), np.sqrt(parts["train"].var(axis=0).sum())
    return {part: (features - mean) / size for part, features in parts.items()}


def classified(
    make: Callable[[float], Any],
    tried: tuple[float, ...],
    features: dict[str, np.ndarray],
    parts: dict[str, Split],
) -> dict[str, Any]:
    """The classifier that is best on the validation images, and its accuracy on all parts. (If it does not converge,
    scikit-learn warns of it.)"""
    from threadpoolctl import threadpool_limits

    labels = parts["validation"].labels
    with threadpool_limits(1):  # on few cores BLAS's threads mostly wait for one another: ten times as much work
        fitted = {each: make(each).fit(features["train"], parts["train"].labels) for each in tried}
        validation = {each: model.score(features["validation"], labels) for each, model in fitted.items()}
    chosen = max(tried, key=lambda each: validation[each])
    accuracy = {part: fitted[chosen].score(features[part], parts[part].labels) for part in PARTS}
    return accuracy | {"chosen": chosen, "length": features["train"].shape[1]}


def joined(each: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds found, as lists; what is the same for all, once."""
    once = ("length", "parameters", "chosen")
    return {name: value if name in once else [found[name] for found in each] for name, value in each[0].items()}


def as_tables(name: str, found: dict[str, Any]) -> list[Any]:
    rows = [
        (features, each["length"], *(mean_std(found[of][features]["test"], 3) for of in CLASSIFIERS))
        for features, each in found["linear SVM"].items()
    ]
    networks = [
        (of, f"{each['parameters']:,}", *(mean_std(each[part], 3) for part in PARTS))
        for of, each in found[WHOLE].items()
    ]
    return [
        results_table(f"{name}: test accuracy", ("features", "length", *CLASSIFIERS), rows),
        results_table(f"{name}: {WHOLE}s", ("network", "parameters", *PARTS), networks),
    ]


def summarize_results(results: dict[str, Any]) -> str:
    told = []
    for name, found in results.items():
        best = []
        for features in [*FEATURES, LEARNED]:  # with the classifier that is best on validation images
            each = max((found[of][features] for of in CLASSIFIERS), key=lambda e: statistics.fmean(e["validation"]))
            best.append(f"{features} {mean_std(each['test'], 3)}")
        whole = ", ".join(f"{of} {mean_std(each['test'], 3)}" for of, each in found[WHOLE].items())
        told.append(f"{name}: {', '.join(best)}; whole networks: {whole}")
    return f"Test accuracy with the classifier that was best on validation: {'. '.join(told)}."


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
