"""The same network trained from several seeds: what the comparisons of :mod:`common.study` are made of."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import optax

from common.study import Progress, Study
from jaxconv import explain, train
from jaxconv.layers import Layer
from jaxconv.runs.config import TrainConfig
from jaxconv.train import EarlyStopping
from jaxconv.train.argument_checks import Examples


class TrainedNetworks(NamedTuple):
    """Networks of one kind, one for each seed, each as it was in its best epoch on the validation images."""

    model: Layer
    variables: list[tuple[Any, Any]]  # params and state
    val_accuracy: list[float]
    best_epoch: list[int]
    history: list[list[dict[str, Any]]]  # of each, a record an epoch
    seconds: float  # in steps, all together

    def accuracy(self, images: Any, labels: Any) -> list[float]:
        """The accuracy of each on the same images."""
        return [train.evaluate(self.model, *network, images, labels)["accuracy"] for network in self.variables]

    def scores(self, images: Any, labels: Any) -> dict[str, Any]:
        """What there is to tell of them, with their accuracy on test images."""
        return {
            "parameters": explain.summarize(self.model, images.shape[1:]).params,
            "val_accuracy": self.val_accuracy,
            "test_accuracy": self.accuracy(images, labels),
            "train_seconds": self.seconds,
        }

    def translation_tests(
        self, images: Any, labels: Any, reach: int, axis: str = "x"
    ) -> list[list[explain.ShiftResult]]:
        """Of each, :func:`jaxconv.explain.translation_test` by up to so many pixels along an axis, both ways."""
        shifts = range(-reach, reach + 1)
        test = partial(explain.translation_test, images=images, labels=labels, shifts=shifts, axis=axis)
        return [test(self.model, *network) for network in self.variables]


def train_networks(
    model: Layer,
    examples: Examples,
    validation: Examples,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    make_optimizer: Callable[[int], optax.GradientTransformation] | None = None,
    early_stopping: EarlyStopping | None = None,
    on_progress: Callable[[float], None] = lambda share: None,
    **options: Any,
) -> TrainedNetworks:
    """Train a network from each seed, one after the other: on a CPU this takes half as long as all at once.

    Args:
        model: a layer.
        examples, validation: images and labels, as :func:`jaxconv.train.fit` takes them.
        seeds: of parameters and the order of the data.
        epochs, batch_size, early_stopping: as fit takes them.
        learning_rate: Adam's highest, in one cycle.
        make_optimizer: of the number of steps; instead of Adam.
        on_progress: told the share that is done after every epoch: ``Progress.set_fraction``.
        options: of the step, as fit takes them: augment, mixup_fn, label_smoothing and so on.

    >>> from jaxconv import data, models
    >>> digits = data.load("digits")
    >>> trained = train_networks(models.mlp(), digits.train, digits.validation, seeds=[0, 1], epochs=2)
    >>> [accuracy > 0.8 for accuracy in trained.accuracy(*digits.test)]
    [True, True]
    """
    steps = epochs * math.ceil(len(examples[1]) / batch_size)
    trained = []
    for i, seed in enumerate(seeds):

        def on_epoch(record: dict[str, Any], snapshot: train.Snapshot, best: bool, before: int = i) -> None:
            on_progress((before + record["epoch"] / epochs) / len(seeds))

        fitted = train.fit(
            model,
            examples,
            validation,
            optimizer=make_optimizer(steps)
            if make_optimizer
            else train.make_optimizer("adam", learning_rate, "one_cycle", steps),
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            early_stopping=early_stopping,
            on_epoch_end=on_epoch,
            **options,
        )
        trained.append(fitted)
    return TrainedNetworks(
        model,
        [(fitted.params, fitted.state) for fitted in trained],
        [fitted.history[fitted.best_epoch - 1]["val_accuracy"] for fitted in trained],
        [fitted.best_epoch for fitted in trained],
        [fitted.history for fitted in trained],
        sum(fitted.train_seconds for fitted in trained),
    )


def train_with_config(
    recipe: TrainConfig, model: Layer, examples: Examples, validation: Examples, **options: Any
) -> TrainedNetworks:
    """As :func:`train_networks`, but as ``jaxconv train`` would: with a config's optimiser, stopping and step.

    Args:
        recipe: the config.
        model, examples, validation: as train_networks takes them.
        options: its others: seeds, progress.
    """
    return train_networks(
        model,
        examples,
        validation,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        make_optimizer=lambda steps: recipe.make_optimizer(steps // recipe.epochs),
        early_stopping=recipe.early_stopping(),
        **recipe.step_kwargs() | options,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStudy(Study):
    """Options of a study whose networks are all trained in the same way."""

    epochs: int = 5
    """How often each network goes through its training examples."""
    batch_size: int = 64
    """Examples a step."""
    learning_rate: float = 3e-3
    """Adam's highest, for all networks."""

    def train(
        self, model: Layer, examples: Examples, validation: Examples, progress: Progress, **options: Any
    ) -> TrainedNetworks:
        """As :func:`train_networks`, from every seed, with these options and others; it tells how far it is."""
        asked = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate")}
        seeds = range(self.num_seeds)
        return train_networks(
            model, examples, validation, seeds=seeds, on_progress=progress.set_fraction, **asked | options
        )
