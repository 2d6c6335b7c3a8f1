"""The training loop."""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv.errors import InputError
from jaxconv.layers import Layer, as_layer
from jaxconv.train.batches import batches, epoch_order
from jaxconv.train.evaluate import check_examples, check_labels, mean_metrics, score
from jaxconv.train.progress import Progress
from jaxconv.train.state import TrainState, init_state
from jaxconv.train.step import Metrics, make_train_step

Examples = tuple[np.ndarray, np.ndarray]  # images and labels
OnEpoch = Callable[[dict[str, Any], TrainState, bool], None]


class Fitted(NamedTuple):
    """What training leaves: the best network it came by, and how it got there."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record an epoch
    best_epoch: int
    steps: int
    train_seconds: float  # in steps, without compiling and validating
    compile_seconds: float


def fit(
    model: Layer,
    train: Examples,
    validation: Examples,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Fitted:
    """Fit a model to examples, and keep the parameters of the epoch that was best on the validation set.

    The best epoch is the one with the highest validation accuracy, and among equals the lowest loss. Seed, epoch
    and step decide every random choice, so the same call gives the same parameters, bit for bit on CPU.

    The step is compiled once, before the clock starts; an input of another shape is then an error, not a silent
    second compilation.

    Args:
        model: made by :func:`jaxconv.serial` or :mod:`jaxconv.models`; its parameters are made here.
        train, validation: ``(images, labels)``: ``(N, H, W, C)`` uint8 or float, and ``(N,)`` class numbers.
        optimizer: from optax, or :func:`jaxconv.train.make_optimizer`.
        epochs: how often to go through the training examples.
        batch_size: examples a step; the last batch is padded, and its padding masked.
        seed: of the parameters, the order of the data, and dropout.
        progress: show a progress bar.
        on_epoch: called after every epoch with its record, the train state, and whether it is the best so far. The
            train state's memory is used again by the next step: copy what you want to keep.

    Raises:
        InputError: examples, sizes or labels that cannot work, or a loss that is no longer a number.

    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> labels = (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> data = images, labels
    >>> fitted = fit(models.mlp(classes=2), data, data, optimizer=optax.adam(1e-2), epochs=9, batch_size=16)
    >>> fitted.history[-1]["val_accuracy"] > 0.9
    True
    """
    model = as_layer(model)
    train, validation = ((np.asarray(images), np.asarray(labels)) for images, labels in (train, validation))
    check_settings(epochs, batch_size, seed)
    _check(train, validation, batch_size)
    root = jax.random.key(seed)
    ts = init_state(model, optimizer, jax.random.fold_in(root, 0), train[0].shape[1:])
    for examples in (train, validation):
        check_labels("fit", model, ts.params, ts.state, *examples)

    history: list[dict[str, Any]] = []
    best: tuple[tuple[float, float], int, Any, Any] | None = None
    train_seconds = 0.0
    count = len(train[0])
    with Progress(epochs, math.ceil(count / batch_size), batch_size, show=progress) as bar:
        started = time.perf_counter()
        first = next(batches(*train, batch_size))
        step = make_train_step(model, optimizer, jax.random.fold_in(root, 1)).lower(ts, first).compile()
        compile_seconds = time.perf_counter() - started
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            metrics: list[Metrics] = []
            for batch in batches(*train, batch_size, epoch_order(seed, epoch, count)):
                ts, measured = step(ts, batch)
                metrics.append(measured)
                bar.step(epoch, metrics)
            mean = mean_metrics(metrics)  # waits for the device
            seconds = time.perf_counter() - started
            train_seconds += seconds
            scored = score(model, ts.params, ts.state, *validation, batch_size)
            for loss in (mean["loss"], scored["loss"]):
                if not math.isfinite(loss):
                    raise InputError(f"fit: the loss of epoch {epoch} is {loss}; a lower learning rate may help")

            record = {
                "epoch": epoch,
                "step": int(ts.step),
                "loss": mean["loss"],
                "accuracy": mean["accuracy"],
                "val_loss": scored["loss"],
                "val_accuracy": scored["accuracy"],
                "seconds": seconds,
                "images_per_second": count / seconds,
            }
            history.append(record)
            rank = (scored["accuracy"], -scored["loss"])
            is_best = best is None or rank > best[0]
            if is_best:
                best = rank, epoch, *jax.tree.map(jnp.copy, (ts.params, ts.state))  # ts itself is donated
            bar.epoch(record, is_best)
            if on_epoch is not None:
                on_epoch(record, ts, is_best)
    assert best is not None  # epochs ≥ 1
    _, best_epoch, params, state = best
    return Fitted(params, state, history, best_epoch, int(ts.step), train_seconds, compile_seconds)


def check_settings(epochs: int, batch_size: int, seed: int) -> None:
    """Refuse what cannot work with any data."""
    for name, value in {"epochs": epochs, "batch_size": batch_size}.items():
        if value < 1:
            raise InputError(f"fit: {name}={value} should be at least 1")
    if not 0 <= seed < 2**32:
        raise InputError(f"fit: seed={seed} should be from 0 to 2³² − 1")


def _check(train: Examples, validation: Examples, batch_size: int) -> None:
    for images, labels in (train, validation):
        check_examples("fit", images, labels, batch_size)
    if train[0].shape[1:] != validation[0].shape[1:]:
        raise InputError(f"fit: training images are {train[0].shape[1:]}, validation images {validation[0].shape[1:]}")
    if batch_size > len(train[0]):
        raise InputError(f"fit: batch_size={batch_size} is larger than the {len(train[0])} training examples")
