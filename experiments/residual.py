"""Deep plain networks learn worse than shallow ones, and residual networks do not: what their gradients say of it.

Claim (lecture rows 003-20, 003-21, 003-22): of equal depth a residual network learns faster than a plain one, and the
more so the deeper both are; a block whose residual is zero is the identity, forward and backward; and in deep plain
networks gradients vanish, which shortcuts prevent. The last needs a closer look. He et al. (2015,
https://arxiv.org/abs/1512.03385, section 4.1) say of their plain networks that batch norm keeps gradients from
vanishing. It does more: they grow from the last layer to the first (Yang et al., 2019,
https://arxiv.org/abs/1902.08129). What vanishes is the gradient of sigmoids. So both are measured.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 12 min of processor time): Training loss: plain 20 0.82
± 0.14, residual 20 0.05 ± 0.02, plain 56 2.23 ± 0.07, residual 56 0.06 ± 0.04. Gradient of the first convolution by the
last's, with batch norm: plain 20 5.9 ± 1.6, residual 20 1.6 ± 0.4, plain 56 829.8 ± 568.4, residual 56 5.3 ± 1.5; with
sigmoids: plain 56 less than float32 can hold, residual 56 0.15. A block of zero residual is off the identity by 0, its
gradient by 0.

    python experiments/residual.py             # needs CIFAR-10; seven minutes on 2 cores
    python experiments/residual.py --smoke     # the embedded digits, one shallow network: seconds, and no evidence

The networks are those of the paper, ``models.resnet(depth, plain=…)``, and differ in nothing but the shortcuts; they
are trained for a short while on few small images, so that the training loss is the subject and not the accuracy.
Batch norm as it is in use changes nothing before training, so these gradients are those of the network without it. The
sigmoids' networks are as many 3×3 convolutions of 16 filters, one after another, with Glorot's initialisation.
Adam's learning rate, one for all, was chosen at depth 20 (one seed, five epochs, 500 validation images) beside
momentum's 0.01, 0.03 and 0.1: the best of the four for the residual network, the third best for the plain one, which is
given no rate of its own. The run that was recorded had a copy of CIFAR-10 whose pictures had been through JPEG once.
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
    """Plain and residual networks of equal depth."""

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
    """Layers with kernels, 6n + 2 each."""
    kinds: tuple[str, ...] = KINDS
    """Plain, residual or both."""
    dataset: str = "cifar10"
    """What is learned."""
    shrink: int = 2
    """Pixels a side that become one, their mean: a quarter of the time."""
    samples: int = 2560
    """Training images, and at most as many to validate and test with."""
    epochs: int = 10


def measure(config: Config, progress: Progress) -> StudyResult:
    if not config.depths or config.shrink < 1:
        raise InputError(f"give at least one depth, and a shrink of at least 1: {config.depths}, {config.shrink}")
    for kind in config.kinds:
        with error_context("residual"):
            checks.one_of("kind", kind, KINDS)
    dataset = data.load(config.dataset)
    train, validation, test = (
        (smaller(part.images[: config.samples], config.shrink), part.labels[: config.samples])
        for part in (dataset.train, dataset.validation, dataset.test)
    )
    batch = tuple(array[: config.batch_size] for array in train)
    progress.expect(1 + len(config.kinds) * len(config.depths))
    progress("gradients of sigmoids")
    input_shape, sigmoids = train[0].shape[1:], {}
    for depth in config.depths:
        for kind in config.kinds:
            model = sigmoid_network(depth, kind)
            sigmoids[f"{kind} {depth}"] = gradient_norms(model)(*init(model, 0, input_shape), *batch)
    results: dict[str, Any] = {"block": zero_block(min(config.depths), input_shape)}
    before, after, without, losses = {}, {}, {}, {}
    for depth in config.depths:
        for kind in config.kinds:
            name = f"{kind} {depth}"
            progress(f"{name} layers: gradients, then training")
            model = models.resnet(depth, len(dataset.class_names), plain=kind == "plain")
            norms, fresh = gradient_norms(model), [init(model, seed, input_shape) for seed in range(config.num_seeds)]
            before[name] = [norms(*network, *batch) for network in fresh]
            without[name] = norms(*fresh[0], *batch, train=False)
            trained = config.train(model, train, validation, progress)
            after[name] = [norms(*network, *batch) for network in trained.variables]
            losses[name] = [[record["loss"] for record in history] for history in trained.history]
            results[name] = trained.scores(*test) | {
                "first_by_last": [first_by_last(each) for each in before[name]],
                "first_by_last_trained": [first_by_last(each) for each in after[name]],
                "first_by_last_without_norm": first_by_last(without[name]),
                "first_by_last_sigmoid": first_by_last(sigmoids[name]),
                "train_loss": [each[-1] for each in losses[name]],
                "train_accuracy": [history[-1]["accuracy"] for history in trained.history],
            }
    figures = {
        "residual": plots.gradients_and_losses(before, losses),
        "trained": plot.norms_by_layer({name: each[0] for name, each in after.items()}, title="after training"),
        "without_norm": plot.norms_by_layer(without, title="without batch norm, before training"),
        "sigmoids": plot.norms_by_layer(sigmoids, title="sigmoids, no batch norm, before training"),
    }
    return StudyResult(results, figures, tables(results))


def smaller(images: np.ndarray, shrink: int) -> np.ndarray:
    """The mean of every ``shrink × shrink`` pixels."""
    n, height, width, channels = images.shape
    if height % shrink or width % shrink:
        raise InputError(f"shrink={shrink} should divide the images' sides, {height} and {width}")
    blocks = images.reshape(n, height // shrink, shrink, width // shrink, shrink, channels)
    return blocks.mean((2, 4)).round().astype(np.uint8)


def sigmoid_network(depth: int, kind: str) -> Layer:
    """As many layers with kernels, each with a sigmoid, and a shortcut around each of them or none."""

    def layer() -> list[Any]:
        conv = Conv(16, 3, padding="SAME", kernel_init=jax.nn.initializers.glorot_normal())
        return [conv, sigmoid] if kind == "plain" else [residual(conv, sigmoid)]

    first = Conv(16, 3, padding="SAME")
    return serial(first, *(part for _ in range(depth - 2) for part in layer()), global_avg_pool, Dense(10))


def init(model: Layer, seed: int, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Params and state before training."""
    make = jax.jit(model.init, static_argnums=1, compiler_options=runtime.fast_compile_options())
    return make(jax.random.key(seed), input_shape)


def gradient_norms(model: Layer) -> Callable[..., dict[int, float]]:
    """The norm of each layer's gradient, by its number, compiled once for all seeds of a network."""

    @partial(jax.jit, static_argnames="train", compiler_options=runtime.fast_compile_options())
    def found(params: Any, state: Any, images: Any, labels: Any, train: bool = True) -> list[jax.Array]:
        return list(explain.gradient_norms(model, params, state, images, labels, train=train).values())

    return lambda *args, **options: dict(enumerate(map(float, found(*args, **options)), start=1))


def first_by_last(norms: dict[int, float]) -> float:
    """The first convolution's gradient by the last one's; after both comes a dense layer."""
    first, *_, last, _ = norms.values()
    return first / last


def zero_block(depth: int, input_shape: tuple[int, ...]) -> dict[str, float]:
    """How far the first block, whose residual begins as zero, is from handing on what it is given, and its gradient."""
    block = dict(models.resnet(depth, zero_init_residual=True).children)["res1"]
    x, dy = jax.random.normal(jax.random.key(1), (2, 4, *input_shape[:2], 16))
    params, state = init(block, 0, x.shape[1:])
    y, pull = jax.jit(lambda x: jax.vjp(lambda x: block.apply(params, state, x, train=True)[0], x))(x)
    return {
        "from_identity": float(jnp.abs(y - x).max()),
        "gradient_from_identity": float(jnp.abs(pull(dy)[0] - dy).max()),
    }


def tables(results: dict[str, Any]) -> list[Any]:
    found = {name: each for name, each in results.items() if name != "block"}
    gradients = [
        (
            name,
            *(mean_std(each[which], 3) for which in ("first_by_last", "first_by_last_trained")),
            *(f"{each[which]:.2g}" for which in ("first_by_last_without_norm", "first_by_last_sigmoid")),
        )
        for name, each in found.items()
    ]
    learned = ("train_loss", "train_accuracy", "val_accuracy", "test_accuracy")
    rows = [
        (name, f"{each['parameters']:,}", *(mean_std(each[which]) for which in learned)) for name, each in found.items()
    ]
    return [
        results_table(
            "gradient of the first convolution by the last one's",
            ("network", "before training", "trained", "without batch norm", "with sigmoids"),
            gradients,
        ),
        results_table(
            "after the last epoch", ("network", "parameters", *(name.replace("_", " ") for name in learned)), rows
        ),
    ]


def tiny(ratio: float) -> str:
    return f"{ratio:.2g}" if ratio else "less than float32 can hold"


def summarize_results(results: dict[str, Any]) -> str:
    found = {name: each for name, each in results.items() if name != "block"}
    loss = ", ".join(f"{name} {mean_std(each['train_loss'], 2)}" for name, each in found.items())
    ratio = ", ".join(f"{name} {mean_std(each['first_by_last'], 1)}" for name, each in found.items())
    deepest = [name for name in found if name.split()[1] == list(found)[-1].split()[1]]
    vanished = ", ".join(f"{name} {tiny(found[name]['first_by_last_sigmoid'])}" for name in deepest)
    block = results["block"]
    return (
        f"Training loss: {loss}. Gradient of the first convolution by the last's, with batch norm: {ratio}; "
        f"with sigmoids: {vanished}. A block of zero residual is off the identity by {block['from_identity']:g}, "
        f"its gradient by {block['gradient_from_identity']:g}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
