"""Plain and residual networks of equal depth: training loss and gradient norms.

Claim (lecture rows 003-20, 003-21, 003-22): at equal depth, a residual network trains faster than a plain one, with a
difference that grows with depth. A block whose residual is zero is the identity, forward and backward. In deep plain
networks gradients vanish, which shortcuts prevent. The last statement needs a qualification. According to He et al.
(2015, https://arxiv.org/abs/1512.03385, section 4.1), batch norm prevents vanishing gradients in plain networks. In
fact, gradients grow from the last layer to the first (Yang et al., 2019, https://arxiv.org/abs/1902.08129). Gradients
vanish in networks with sigmoids and without batch norm. So both are measured.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 12 min of processor time): Training loss: plain 20 0.82
± 0.14, residual 20 0.05 ± 0.02, plain 56 2.23 ± 0.07, residual 56 0.06 ± 0.04. Gradient of the first convolution by the
last's, with batch norm: plain 20 5.9 ± 1.6, residual 20 1.6 ± 0.4, plain 56 829.8 ± 568.4, residual 56 5.3 ± 1.5; with
sigmoids: plain 56 less than float32 can hold, residual 56 0.15. A block of zero residual is off the identity by 0, its
gradient by 0.

    python experiments/residual.py             # needs CIFAR-10; seven minutes on 2 cores
    python experiments/residual.py --smoke     # the embedded digits, one shallow network: seconds, not evidence

The networks are those of the paper, ``models.resnet(depth, plain=…)``, and differ only in the shortcuts. They are
trained for a few epochs on few small images, so the results are about the training loss and not the accuracy. Before
training, batch norm in evaluation mode is the identity, so gradients "without batch norm" are computed in that mode.
The sigmoid networks have the same number of 3×3 convolutions of 16 filters in sequence, with Glorot initialization.
The learning rate of Adam, one for all, was chosen at depth 20 (one seed, five epochs, 500 validation images) together
with momentum at 0.01, 0.03 and 0.1: the best of the four for the residual network, the third best for the plain one,
which has no learning rate of its own. The recorded run used a copy of CIFAR-10 that had been compressed with JPEG once.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common import plots
from common.networks import TrainingStudy
from common.study import Progress, StudyResult, mean_std, results_table, run_study
from jaxconv import (
    Conv,
    Dense,
    checks,
    data,
    explain,
    global_avg_pool,
    models,
    plot,
    residual,
    runtime,
    serial,
    sigmoid,
)
from jaxconv.errors import InputError, error_context
from jaxconv.layers import Layer

KINDS = ("plain", "residual")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(TrainingStudy):
    """Compare plain and residual networks of equal depth."""

    SMOKE = {
        "depths": (8,),
        "kinds": ("residual",),
        "dataset": "digits",
        "shrink": 1,
        "samples": 200,
        "epochs": 1,
        "num_seeds": 1,
    }

    depths: tuple[int, ...] = (20, 56)
    """Numbers of layers with kernels, of the form 6n + 2."""
    kinds: tuple[str, ...] = KINDS
    """Kinds of networks: plain, residual or both."""
    dataset: str = "cifar10"
    """Dataset name."""
    shrink: int = 2
    """Downsampling factor of the images, by block means; 2 takes a quarter of the time."""
    samples: int = 2560
    """Number of training images, and maximum number of validation and test images."""
    epochs: int = 10


def measure(config: Config, progress: Progress) -> StudyResult:
    if not config.depths or config.shrink < 1:
        raise InputError(
            f"residual: depths={config.depths} must not be empty, and shrink={config.shrink} must be at least 1"
        )
    for kind in config.kinds:
        with error_context("residual"):
            checks.one_of("kind", kind, KINDS)
    dataset = data.load(config.dataset)
    train, validation, test = (
        (downsample(split.images[: config.samples], config.shrink), split.labels[: config.samples])
        for split in (dataset.train, dataset.validation, dataset.test)
    )
    batch = tuple(array[: config.batch_size] for array in train)
    progress.expect(1 + len(config.kinds) * len(config.depths))
    progress("gradients of sigmoid networks")
    input_shape, sigmoids = train[0].shape[1:], {}
    for depth in config.depths:
        for kind in config.kinds:
            model = sigmoid_network(depth, kind)
            sigmoids[f"{kind} {depth}"] = gradient_norms(model)(*init(model, 0, input_shape), *batch)
    results: dict[str, Any] = {"block": zero_block(min(config.depths), input_shape)}
    before, after, without_norm, losses = {}, {}, {}, {}
    for depth in config.depths:
        for kind in config.kinds:
            name = f"{kind} {depth}"
            progress(f"{name} layers: gradients, then training")
            model = models.resnet(depth, len(dataset.class_names), plain=kind == "plain")
            norms_of = gradient_norms(model)
            initial = [init(model, seed, input_shape) for seed in range(config.num_seeds)]
            before[name] = [norms_of(*variables, *batch) for variables in initial]
            without_norm[name] = norms_of(*initial[0], *batch, train=False)
            trained = config.train(model, train, validation, progress)
            after[name] = [norms_of(*variables, *batch) for variables in trained.variables]
            losses[name] = [[record["loss"] for record in history] for history in trained.history]
            results[name] = trained.scores(*test) | {
                "first_by_last": [first_by_last(norms) for norms in before[name]],
                "first_by_last_trained": [first_by_last(norms) for norms in after[name]],
                "first_by_last_without_norm": first_by_last(without_norm[name]),
                "first_by_last_sigmoid": first_by_last(sigmoids[name]),
                "train_loss": [curve[-1] for curve in losses[name]],
                "train_accuracy": [history[-1]["accuracy"] for history in trained.history],
            }
    figures = {
        "residual": plots.gradients_and_losses(before, losses),
        "trained": plot.norms_by_layer({name: norms[0] for name, norms in after.items()}, title="after training"),
        "without_norm": plot.norms_by_layer(without_norm, title="without batch norm, before training"),
        "sigmoids": plot.norms_by_layer(sigmoids, title="sigmoids, no batch norm, before training"),
    }
    return StudyResult(results, figures, tables(results))


def downsample(images: np.ndarray, shrink: int) -> np.ndarray:
    """Downsample images by the mean of every ``shrink × shrink`` pixels."""
    n, height, width, channels = images.shape
    if height % shrink or width % shrink:
        raise InputError(f"shrink={shrink} should divide the height and width of the images, {height} and {width}")
    blocks = images.reshape(n, height // shrink, shrink, width // shrink, shrink, channels)
    return blocks.mean((2, 4)).round().astype(np.uint8)


def sigmoid_network(depth: int, kind: str) -> Layer:
    """Build a network of this depth with sigmoids, with or without a shortcut around each convolution."""

    def layer() -> list[Any]:
        conv = Conv(16, 3, padding="SAME", kernel_init=jax.nn.initializers.glorot_normal())
        return [conv, sigmoid] if kind == "plain" else [residual(conv, sigmoid)]

    first = Conv(16, 3, padding="SAME")
    return serial(first, *(child for _ in range(depth - 2) for child in layer()), global_avg_pool, Dense(10))


def init(model: Layer, seed: int, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Return initial params and state."""
    make = jax.jit(model.init, static_argnums=1, compiler_options=runtime.fast_compile_options())
    return make(jax.random.key(seed), input_shape)


def gradient_norms(model: Layer) -> Callable[..., dict[int, float]]:
    """Return a function that computes the gradient norm of each layer by index, compiled once per network."""

    @partial(jax.jit, static_argnames="train", compiler_options=runtime.fast_compile_options())
    def compute(params: Any, state: Any, images: Any, labels: Any, train: bool = True) -> list[jax.Array]:
        return list(explain.gradient_norms(model, params, state, images, labels, train=train).values())

    return lambda *args, **options: dict(enumerate(map(float, compute(*args, **options)), start=1))


def first_by_last(norms: dict[int, float]) -> float:
    """Return the ratio of the gradient norms of the first and the last convolution; the last layer is dense."""
    first, *_, last, _ = norms.values()
    return first / last


def zero_block(depth: int, input_shape: tuple[int, ...]) -> dict[str, float]:
    """Return the deviation from the identity of a block with zero-initialized residual, and of its gradient."""
    block = dict(models.resnet(depth, zero_init_residual=True).children)["res1"]
    x, dy = jax.random.normal(jax.random.key(1), (2, 4, *input_shape[:2], 16))
    params, state = init(block, 0, x.shape[1:])
    y, vjp = jax.jit(lambda x: jax.vjp(lambda x: block.apply(params, state, x, train=True)[0], x))(x)
    return {
        "from_identity": float(jnp.abs(y - x).max()),
        "gradient_from_identity": float(jnp.abs(vjp(dy)[0] - dy).max()),
    }


def tables(results: dict[str, Any]) -> list[Any]:
    networks = {name: values for name, values in results.items() if name != "block"}
    gradients = [
        (
            name,
            *(mean_std(values[key], 3) for key in ("first_by_last", "first_by_last_trained")),
            *(f"{values[key]:.2g}" for key in ("first_by_last_without_norm", "first_by_last_sigmoid")),
        )
        for name, values in networks.items()
    ]
    keys = ("train_loss", "train_accuracy", "val_accuracy", "test_accuracy")
    rows = [
        (name, f"{values['parameters']:,}", *(mean_std(values[key]) for key in keys))
        for name, values in networks.items()
    ]
    return [
        results_table(
            "gradient norm of the first convolution relative to the last",
            ("network", "before training", "trained", "without batch norm", "with sigmoids"),
            gradients,
        ),
        results_table(
            "after the last epoch", ("network", "parameters", *(name.replace("_", " ") for name in keys)), rows
        ),
    ]


def format_ratio(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio else "less than float32 can hold"


def summarize_results(results: dict[str, Any]) -> str:
    networks = {name: values for name, values in results.items() if name != "block"}
    loss = ", ".join(f"{name} {mean_std(values['train_loss'], 2)}" for name, values in networks.items())
    ratio = ", ".join(f"{name} {mean_std(values['first_by_last'], 1)}" for name, values in networks.items())
    deepest = [name for name in networks if name.split()[1] == list(networks)[-1].split()[1]]
    vanished = ", ".join(f"{name} {format_ratio(networks[name]['first_by_last_sigmoid'])}" for name in deepest)
    block = results["block"]
    return (
        f"Training loss: {loss}. Gradient of the first convolution by the last's, with batch norm: {ratio}; "
        f"with sigmoids: {vanished}. A block of zero residual is off the identity by {block['from_identity']:g}, "
        f"its gradient by {block['gradient_from_identity']:g}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
