"""Scoring a model on every example, each exactly once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError
from jaxconv.layers import Layer, as_layer
from jaxconv.train.batches import batches
from jaxconv.train.state import Batch
from jaxconv.train.step import Metrics, make_eval_step, to_float


def evaluate(
    model: Layer, params: Any, state: Any, images: np.ndarray, labels: np.ndarray, *, batch_size: int = 256
) -> dict[str, float]:
    """Mean loss and accuracy over all examples.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or float from 0 to 1.
        labels: ``(N,)`` class numbers.
        batch_size: examples at a time; the last batch is padded, and the padding not counted.

    Returns:
        ``{"loss": …, "accuracy": …, "count": N}``.

    Raises:
        InputError: images and labels that do not go together, or with this model.

    >>> from jaxconv import models
    >>> model = models.mlp(classes=3)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> evaluate(model, params, state, np.ones((5, 2, 2, 1), np.uint8), np.zeros(5, np.int32), batch_size=2)["count"]
    5
    """
    check_examples("evaluate", images, labels, batch_size)
    check_labels("evaluate", model, params, state, images, labels)
    return score(model, params, state, images, labels, batch_size)


def score(
    model: Layer, params: Any, state: Any, images: np.ndarray, labels: np.ndarray, batch_size: int
) -> dict[str, float]:
    """:func:`evaluate` for examples that were checked already."""
    step = make_eval_step(model)
    metrics = [step(params, state, batch) for batch in batches(images, labels, batch_size)]
    return mean_metrics(metrics)


def mean_metrics(metrics: list[Metrics]) -> dict[str, float]:
    """Sums over batches as means over examples."""
    loss, correct, examples = np.asarray(jax.device_get(metrics), np.float64).sum(axis=0)
    return {"loss": float(loss / examples), "accuracy": float(correct / examples), "count": int(examples)}


def predict(model: Layer, params: Any, state: Any, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """The probability of each class for each image: an array ``(N, classes)`` whose rows sum to 1.

    >>> from jaxconv import models
    >>> model = models.mlp(classes=3)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> predict(model, params, state, np.ones((5, 2, 2, 1), np.uint8)).shape
    (5, 3)
    """
    labels = np.zeros(len(images), np.int32)
    check_examples("predict", images, labels, batch_size)
    model = as_layer(model)

    @jax.jit
    def probabilities(params: Any, state: Any, batch: Batch) -> jax.Array:
        return jax.nn.softmax(model.apply(params, state, to_float(batch.image))[0])

    size = min(batch_size, len(images))
    parts = [np.asarray(probabilities(params, state, batch)) for batch in batches(images, labels, size)]
    return np.concatenate(parts)[: len(images)]


def check_examples(who: str, images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    """Refuse what would fail deep inside, or train on nonsense."""
    if images.ndim != 4 or not len(images):
        raise InputError(f"{who}: images {images.shape} should be (N, H, W, C), and at least one")
    if images.shape[1] in (1, 3) and min(images.shape[2:]) > 4:
        raise InputError(
            f"{who}: images {images.shape} look channels-first; move axis 1 to the end, np.moveaxis(images, 1, -1) "
            "(if they really are so low, swap height and width)"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{who}: labels {labels.dtype}{labels.shape} should be {len(images)} integers, one an image")
    if batch_size < 1:
        raise InputError(f"{who}: batch_size={batch_size} should be at least 1")


def check_labels(who: str, model: Layer, params: Any, state: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Refuse labels that the model has no output for; nothing is computed for it."""
    example = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    logits, _ = jax.eval_shape(model.apply, params, state, example)
    if logits.ndim != 2:
        raise InputError(
            f"{who}: the model makes {logits.shape[1:]} of an image; wanted one number a class, (classes,)"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"{who}: labels go from {labels.min()} to {labels.max()}, "
            f"but the model has {logits.shape[1]} outputs: 0 to {logits.shape[1] - 1}"
        )
