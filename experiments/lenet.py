"""LeNet-5 on MNIST: each non-linearity with each pooling, the original of 1998, and the same without convolutions.

Claim (lecture rows 000-10, 000-14, 000-15, 000-16, 000-17, 000-18, 000-19, 000-20, 000-21, 001-03, 004-09): LeNet-5
reads MNIST at 98 to 99 %, by tanh or relu and by any of three poolings; relu learns faster than tanh by a mean, as fast
by a maximum, and both much faster than a sigmoid. The network of 1998 differs from the one that is taught: it has
60,000 parameters and not 61,706, with trained subsampling, a sparse second convolution and distances for an output; by
Adam it learns much more slowly. And a convolution is a fully connected layer, sparse and with shared weights: put its
matrix in its place, and the logits are the same.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 13 min of processor time): Test accuracy: tanh max
0.9891 ± 0.0007, tanh mean 0.9836 ± 0.0008, tanh L2 0.9909 ± 0.0011, relu max 0.9884 ± 0.0011, relu mean 0.9895 ±
0.0008, relu L2 0.9893 ± 0.0008, sigmoid max 0.9793 ± 0.0008, 1998 0.9859 ± 0.0016. On validation after one epoch: tanh
max 0.968 ± 0.003, tanh mean 0.949 ± 0.002, tanh L2 0.963 ± 0.007, relu max 0.968 ± 0.004, relu mean 0.968 ± 0.003, relu
L2 0.971 ± 0.002, sigmoid max 0.901 ± 0.009, 1998 0.898 ± 0.001. With matrices for convolutions (the first: 4,816,896
entries, 117,600 not zero, 150 different) logits up to 14 differ by at most 4e-06.

    python experiments/lenet.py             # a quarter of an hour of processor time
    python experiments/lenet.py --smoke     # the embedded digits, two networks, two epochs: seconds, and no evidence

Images are 28×28 with two pixels of border, as LeCun had them. All networks learn by Adam with one cycle of one learning
rate, which was hardly searched for: on validation images 0.003 was about as good as 0.01 for "tanh max", and as 0.001
for "1998". That one goes through the images 20 times, as in its paper, and the others 4 times. The best epoch is chosen
on validation images. The original was trained by a method of second order; what is kept of it is the network, as
jaxconv/models/lenets.py has it. Source: LeCun et al., 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.
"""

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from common import plots
from common.networks import TrainingStudy
from common.study import Progress, StudyResult, mean_std, results_table, run_study
from jaxconv import AvgPool, LpPool, MaxPool, checks, data, models, ops, relu, sigmoid, tanh
from jaxconv.errors import error_context
from jaxconv.layers import Layer

POOLS = {"max": MaxPool, "mean": AvgPool, "L2": LpPool}
NETWORKS: dict[str, Callable[..., Layer]] = {
    **{f"tanh {name}": partial(models.lenet5, activation=tanh, pool=pool) for name, pool in POOLS.items()},
    **{f"relu {name}": partial(models.lenet5, activation=relu, pool=pool) for name, pool in POOLS.items()},
    "sigmoid max": partial(models.lenet5, activation=sigmoid),
    "1998": models.lenet5_1998,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingStudy):
    """LeNet-5 in its variants."""

    SMOKE = {
        "networks": ("relu max", "1998"),
        "dataset": "digits",
        "samples": 300,
        "epochs": 2,
        "epochs_1998": 2,
        "num_seeds": 1,
        "shown": 20,
    }

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which, by name: non-linearity and pooling, or 1998."""
    dataset: str = "mnist"
    """What is learned."""
    samples: int = 50000
    """Training images."""
    epochs: int = 4
    epochs_1998: int = 20
    """And the network of 1998, which learns more slowly: as often as in its paper."""
    batch_size: int = 128
    shown: int = 200
    """Test images for the network without convolutions."""


def measure(config: Config, progress: Progress) -> StudyResult:
    for name in config.networks:
        with error_context("lenet"):
            checks.one_of("network", name, NETWORKS)
    dataset = data.load(config.dataset).with_min_size(models.get_model("lenet5").input_shape)
    results: dict[str, Any] = {"networks": {}, "as matrices": {}}
    histories = {}
    for name in progress.track(config.networks, "training {}"):
        model = NETWORKS[name](len(dataset.class_names))
        trained = config.train(
            model,
            dataset.train.subset(slice(config.samples)),
            dataset.validation,
            progress,
            epochs=config.epochs_1998 if name == "1998" else config.epochs,
        )
        histories[name] = [mean_of(trained.history)]
        first = [history[0]["val_accuracy"] for history in trained.history]
        results["networks"][name] = trained.scores(*dataset.test) | {"first_epoch": first}
        if name != "1998" and not results["as matrices"]:  # of the first that has ordinary convolutions
            images = dataset.test.images[: config.shown] / np.float32(255)
            results["as matrices"] = without_convolutions(model, *trained.variables[0], images)
    columns = {"after one epoch": "first_epoch", "validation": "val_accuracy", "test accuracy": "test_accuracy"}
    rows = [
        (name, f"{found['parameters']:,}", *(mean_std(found[key]) for key in columns.values()))
        for name, found in results["networks"].items()
    ]
    figure = plots.metric_vs_epoch(
        histories, training=False, title=f"LeNet-5 on {dataset.name}, means of the trainings"
    )
    return StudyResult(results, {"lenet": figure}, [results_table("", ("network", "parameters", *columns), rows)])


def mean_of(histories: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """The mean validation accuracy of several trainings, epoch by epoch."""
    return [
        {"epoch": records[0]["epoch"], "val_accuracy": statistics.fmean(each["val_accuracy"] for each in records)}
        for records in zip(*histories, strict=True)
    ]


def without_convolutions(model: Layer, params: Any, state: Any, images: np.ndarray) -> dict[str, Any]:
    """How far the logits are from those of the same network whose convolutions are matrices, and what these hold."""
    logits = jax.jit(model.apply)(params, state, images)[0]
    same, matrices = by_matrices(model, params, images)
    return {
        "images": len(images),
        "largest_logit": float(abs(logits).max()),
        "largest_difference": float(abs(logits - same).max()),
        "matrices": {
            name: {"entries": each.size, "non_zero": each.nse, "distinct": len(np.unique(each.data))}
            for name, each in matrices.items()
        },
    }


def by_matrices(model: Layer, params: Any, x: Any) -> tuple[jax.Array, dict[str, Any]]:
    """The logits of a chain of layers in which every convolution is a product with its matrix, and the matrices."""
    matrices = {}
    for name, part in model.children:
        if part.facts.kernel_use == "slide":
            kernel, bias, window = params[name]["kernel"], params[name]["bias"], part.window
            slide = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
            matrices[name] = ops.convolution_matrix(kernel, x.shape[1:], **slide)
            y = matrices[name] @ x.reshape(len(x), -1).T  # an image a column
            maps, _ = jax.eval_shape(part.apply, params[name], {}, x)
            x = y.T.reshape(maps.shape) + bias[None, None, None]
        else:
            x, _ = part.apply(params.get(name, {}), {}, x)
    return x, matrices


def summarize_results(results: dict[str, Any]) -> str:
    found, same = results["networks"], results["as matrices"]
    accuracy = ", ".join(f"{name} {mean_std(each['test_accuracy'])}" for name, each in found.items())
    begin = ", ".join(f"{name} {mean_std(each['first_epoch'], 3)}" for name, each in found.items())
    sentence = f"Test accuracy: {accuracy}. On validation after one epoch: {begin}."
    if not same:
        return sentence
    matrix = same["matrices"]["conv1"]
    return (
        f"{sentence} With matrices for convolutions (the first: {matrix['entries']:,} entries, {matrix['non_zero']:,} "
        f"not zero, {matrix['distinct']} different) logits up to {same['largest_logit']:.0f} differ by at most "
        f"{same['largest_difference']:.0e}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
