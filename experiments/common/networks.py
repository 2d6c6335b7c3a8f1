"""Train the same network from several seeds, for the comparisons of :mod:`common.study`."""

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
    """Networks of one architecture, one per seed, with the parameters of the best validation epoch."""

    model: Layer
    variables: list[tuple[Any, Any]]  # params and state
    val_accuracy: list[float]
    best_epoch: list[int]
    history: list[list[dict[str, Any]]]  # by seed, one record per epoch
    seconds: float  # spent in training steps, summed over seeds

    def accuracy(self, images: Any, labels: Any) -> list[float]:
        """Return the accuracy of each network on the same images."""
        return [train.evaluate(self.model, *network, images, labels)["accuracy"] for network in self.variables]

    def scores(self, images: Any, labels: Any) -> dict[str, Any]:
        """Return number of parameters, accuracies and training time, with the accuracy on these test images."""
        return {
            "parameters": explain.summarize(self.model, images.shape[1:]).params,
            "val_accuracy": self.val_accuracy,
            "test_accuracy": self.accuracy(images, labels),
            "train_seconds": self.seconds,
        }

    def translation_tests(
        self, images: Any, labels: Any, reach: int, axis: str = "x"
    ) -> list[list[explain.ShiftResult]]:
        """Run :func:`jaxconv.explain.translation_test` on each network, for shifts from ``-reach`` to ``reach``."""
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
    on_progress: Callable[[float], None] = lambda fraction: None,
    **options: Any,
) -> TrainedNetworks:
    """Train one network per seed, one after another, which on a CPU takes half as long as in parallel.

    Args:
        model: layer to train.
        examples, validation: images and labels, as in :func:`jaxconv.train.fit`.
        seeds: seeds of the parameters and of the data order.
        epochs, batch_size, early_stopping: as in ``fit``.
        learning_rate: peak learning rate of Adam, with a one-cycle schedule.
        make_optimizer: function from the number of steps to an optimizer that replaces Adam.
        on_progress: called after every epoch with the completed fraction, such as ``Progress.set_fraction``.
        options: step options of ``fit``, such as ``augment``, ``mixup_fn`` and ``label_smoothing``.

    >>> from jaxconv import data, models
    >>> digits = data.load("digits")
    >>> trained = train_networks(models.mlp(), digits.train, digits.validation, seeds=[0, 1], epochs=2)
    >>> [accuracy > 0.8 for accuracy in trained.accuracy(*digits.test)]
    [True, True]
    """
    steps = _num_steps(examples, epochs, batch_size)
    results = []
    for index, seed in enumerate(seeds):

        def on_epoch(record: dict[str, Any], snapshot: train.Snapshot, is_best: bool, num_done: int = index) -> None:
            on_progress((num_done + record["epoch"] / epochs) / len(seeds))

        result = train.fit(
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
        results.append(result)
    return TrainedNetworks(
        model,
        [(result.params, result.state) for result in results],
        [result.history[result.best_epoch - 1]["val_accuracy"] for result in results],
        [result.best_epoch for result in results],
        [result.history for result in results],
        sum(result.train_seconds for result in results),
    )


def train_in_parallel(
    model: Layer,
    examples: Examples,
    validation: Examples,
    *,
    seeds: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    on_progress: Callable[[float], None],
    **options: Any,
) -> train.SeedsResult:
    """Train one network per seed in one compiled function, :func:`jaxconv.train.fit_seeds`, with Adam and one cycle.

    Args:
        model, examples, validation, seeds, epochs, batch_size, learning_rate, on_progress: as in
            :func:`train_networks`.
        options: other options of ``fit_seeds``, such as ``task``.
    """
    return train.fit_seeds(
        model,
        examples,
        validation,
        optimizer=train.make_optimizer("adam", learning_rate, "one_cycle", _num_steps(examples, epochs, batch_size)),
        seeds=seeds,
        epochs=epochs,
        batch_size=batch_size,
        on_epoch_end=lambda record, *_: on_progress(record["epoch"] / epochs),
        **options,
    )


def _num_steps(examples: Examples, epochs: int, batch_size: int) -> int:
    return epochs * math.ceil(len(examples[1]) / batch_size)


def train_with_config(
    recipe: TrainConfig, model: Layer, examples: Examples, validation: Examples, **options: Any
) -> TrainedNetworks:
    """Train as :func:`train_networks` with the optimizer, early stopping and step options of a run's config.

    Args:
        recipe: config of the run.
        model, examples, validation: as in :func:`train_networks`.
        options: other arguments of :func:`train_networks`: ``seeds``, ``on_progress``.
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
    """Options of an experiment that trains all its networks in the same way."""

    epochs: int = 5
    """Training epochs of each network."""
    batch_size: int = 64
    """Examples per step."""
    learning_rate: float = 3e-3
    """Peak learning rate of Adam, for all networks."""

    def train(
        self, model: Layer, examples: Examples, validation: Examples, progress: Progress, **options: Any
    ) -> TrainedNetworks:
        """Call :func:`train_networks` for all seeds, with these options; ``options`` add to or override them."""
        defaults = {name: getattr(self, name) for name in ("epochs", "batch_size", "learning_rate")}
        seeds = range(self.num_seeds)
        return train_networks(
            model, examples, validation, seeds=seeds, on_progress=progress.set_fraction, **defaults | options
        )
