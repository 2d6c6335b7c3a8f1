"""LeNet-5 on MNIST: nonlinearities and poolings, the original of 1998, and convolutions as matrix products.

Claim (lecture rows 000-10, 000-14, 000-15, 000-16, 000-17, 000-18, 000-19, 000-20, 000-21, 001-03, 004-09): LeNet-5
has a test accuracy of 98 to 99 % on MNIST, with tanh or relu and any of three poolings. relu converges faster than tanh
with mean pooling and as fast with max pooling; both converge much faster than a sigmoid. The network of 1998 differs
from the LeNet-5 of the lectures: it has 60,000 parameters instead of 61,706, trained subsampling, a sparse second
convolution and RBF outputs; with Adam it converges much more slowly. A convolution is a fully connected layer with
sparse, shared weights: with its matrix in its place, the logits are the same.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 13 min of processor time): Test accuracy: tanh max
0.9891 ± 0.0007, tanh mean 0.9836 ± 0.0008, tanh L2 0.9909 ± 0.0011, relu max 0.9884 ± 0.0011, relu mean 0.9895 ±
0.0008, relu L2 0.9893 ± 0.0008, sigmoid max 0.9793 ± 0.0008, 1998 0.9859 ± 0.0016. On validation after one epoch: tanh
max 0.968 ± 0.003, tanh mean 0.949 ± 0.002, tanh L2 0.963 ± 0.007, relu max 0.968 ± 0.004, relu mean 0.968 ± 0.003, relu
L2 0.971 ± 0.002, sigmoid max 0.901 ± 0.009, 1998 0.898 ± 0.001. With matrices for convolutions (the first: 4,816,896
entries, 117,600 not zero, 150 different) logits up to 14 differ by at most 4e-06.

    python experiments/lenet.py             # a quarter of an hour of processor time
    python experiments/lenet.py --smoke     # the embedded digits, two networks, two epochs: seconds, not evidence

Images are 28×28 with a border of two pixels, as in LeCun's paper. All networks are trained with Adam and the same
one-cycle schedule, whose peak was hardly tuned: on validation images 0.003 was about as good as 0.01 for "tanh max",
and as 0.001 for "1998". That network is trained for 20 epochs, as in its paper, and the others for 4. The best epoch is
chosen on validation images. The original was trained by a second-order method; only its architecture is used here
(jaxconv/models/lenets.py). Source: LeCun et al., 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.
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
    """Variants of LeNet-5."""

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
    """Networks by name: nonlinearity and pooling, or 1998."""
    dataset: str = "mnist"
    """Dataset name."""
    samples: int = 50000
    """Training images."""
    epochs: int = 4
    epochs_1998: int = 20
    """Training epochs of the network of 1998, as many as in its paper."""
    batch_size: int = 128
    shown: int = 200
    """Number of test images for the network without convolutions."""


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
        histories[name] = [mean_history(trained.history)]
        first_epoch = [history[0]["val_accuracy"] for history in trained.history]
        results["networks"][name] = trained.scores(*dataset.test) | {"first_epoch": first_epoch}
        if name != "1998" and not results["as matrices"]:  # for the first network with ordinary convolutions
            images = dataset.test.images[: config.shown] / np.float32(255)
            results["as matrices"] = compare_with_matrices(model, *trained.variables[0], images)
    columns = {"after one epoch": "first_epoch", "validation": "val_accuracy", "test accuracy": "test_accuracy"}
    rows = [
        (name, f"{scores['parameters']:,}", *(mean_std(scores[key]) for key in columns.values()))
        for name, scores in results["networks"].items()
    ]
    figure = plots.metric_vs_epoch(
        histories, training=False, title=f"LeNet-5 on {dataset.name}, means of the trainings"
    )
    return StudyResult(results, {"lenet": figure}, [results_table("", ("network", "parameters", *columns), rows)])


def mean_history(histories: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
    """Average the validation accuracy of several runs, by epoch."""
    return [
        {"epoch": records[0]["epoch"], "val_accuracy": statistics.fmean(record["val_accuracy"] for record in records)}
        for records in zip(*histories, strict=True)
    ]


def compare_with_matrices(model: Layer, params: Any, state: Any, images: np.ndarray) -> dict[str, Any]:
    """Compare the logits with those computed by convolution matrices, and count the entries of the matrices."""
    logits = jax.jit(model.apply)(params, state, images)[0]
    matrix_logits, matrices = logits_by_matrices(model, params, images)
    return {
        "images": len(images),
        "largest_logit": float(abs(logits).max()),
        "largest_difference": float(abs(logits - matrix_logits).max()),
        "matrices": {
            name: {"entries": matrix.size, "non_zero": matrix.nse, "distinct": len(np.unique(matrix.data))}
            for name, matrix in matrices.items()
        },
    }


def logits_by_matrices(model: Layer, params: Any, x: Any) -> tuple[jax.Array, dict[str, Any]]:
    """Return the logits of a chain of layers computed with convolution matrices, and the matrices."""
    matrices = {}
    for name, child in model.children:
        if child.facts.kernel_use == "slide":
            kernel, bias, window = params[name]["kernel"], params[name]["bias"], child.window
            window_options = {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}
            matrices[name] = ops.convolution_matrix(kernel, x.shape[1:], **window_options)
            y = matrices[name] @ x.reshape(len(x), -1).T  # one image per column
            maps, _ = jax.eval_shape(child.apply, params[name], {}, x)
            x = y.T.reshape(maps.shape) + bias[None, None, None]
        else:
            x, _ = child.apply(params.get(name, {}), {}, x)
    return x, matrices


def summarize_results(results: dict[str, Any]) -> str:
    networks, as_matrices = results["networks"], results["as matrices"]
    accuracy = ", ".join(f"{name} {mean_std(scores['test_accuracy'])}" for name, scores in networks.items())
    after_one_epoch = ", ".join(f"{name} {mean_std(scores['first_epoch'], 3)}" for name, scores in networks.items())
    sentence = f"Test accuracy: {accuracy}. On validation after one epoch: {after_one_epoch}."
    if not as_matrices:
        return sentence
    matrix = as_matrices["matrices"]["conv1"]
    return (
        f"{sentence} With matrices for convolutions (the first: {matrix['entries']:,} entries, {matrix['non_zero']:,} "
        f"not zero, {matrix['distinct']} different) logits up to {as_matrices['largest_logit']:.0f} differ by at most "
        f"{as_matrices['largest_difference']:.0e}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
