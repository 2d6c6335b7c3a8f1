"""Tasks: the targets, loss, metrics and predictions that a network is trained for."""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import checks, ops
from jaxconv.errors import InputError, named_errors

Sums = dict[str, Any]


class MetricSums(NamedTuple):
    """Sums over the examples that the mask counts; sums of these are right for any number of batches."""

    sums: Sums  # "loss" and the task's metrics
    count: Any  # number of examples


class Task(Protocol):
    """Targets, loss, metrics and predictions of training. A task must be hashable, as a frozen dataclass is.

    Attributes:
        monitor: the name in the epoch's record by which the best epoch is chosen, such as ``"val_accuracy"``.
    """

    @property
    def monitor(self) -> str: ...

    def __hash__(self) -> int: ...

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        """Raise InputError unless the labels ``(N, …)`` fit the network's output of the same N examples."""

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        """Return what the loss compares the output with; if ``soft``, numbers that may be mixed."""

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Return the loss of each example, ``(N,)``."""

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        """Return sums of any shape over the examples that the mask counts."""

    def compute(self, total: MetricSums) -> dict[str, Any]:
        """Return the metrics that are reported, from the sums over all examples."""

    def predict(self, output: jax.Array) -> jax.Array:
        """Return the prediction for each example, such as probabilities."""


def measure(task: Task, output: jax.Array, target: jax.Array, mask: jax.Array) -> MetricSums:
    """Return loss and metrics of a batch, summed over the examples that the mask counts."""
    loss = task.loss(output, target)
    sums = {"loss": jnp.sum(loss, where=mask)} | task.metrics(output, target, mask)
    return MetricSums(sums, jnp.sum(mask, dtype=loss.dtype))


def reported(task: Task, total: MetricSums) -> dict[str, Any]:
    """Return the mean loss and the metrics; of several networks, whose sums have a first axis, arrays."""
    if np.ndim(total.count):
        members = [jax.tree.map(lambda leaf, i=i: leaf[i], total) for i in range(len(total.count))]
        each = [reported(task, member) for member in members]
        return {name: np.array([numbers[name] for numbers in each]) for name in each[0]}
    return {"loss": total.sums["loss"] / total.count} | task.compute(total)


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class an example. Labels are class numbers ``(N,)``; outputs are logits ``(N, classes)``.

    Of logits ``(N, …, classes)`` with a class for every place, loss and accuracy are the means over the places.
    """

    monitor: str = "val_accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels {labels.dtype}{labels.shape} should be {output.shape[0]} integers, one an image")
        if len(output.shape) != 2:
            raise InputError(f"the model makes {output.shape[1:]} of an image; wanted one number a class, (classes,)")
        if labels.min() < 0 or labels.max() >= output.shape[1]:
            raise InputError(
                f"labels go from {labels.min()} to {labels.max()}, "
                f"but the model has {output.shape[1]} outputs: 0 to {output.shape[1] - 1}"
            )

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if not soft or not jnp.issubdtype(label.dtype, jnp.integer):
            return label
        classes = output.shape[-1]
        return jax.nn.one_hot(checks.class_numbers(label, classes), classes, dtype=image.dtype)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        return _mean(ops.softmax_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        numbers = target if jnp.issubdtype(target.dtype, jnp.integer) else jnp.argmax(target, axis=-1)
        correct, dtype = ops.is_correct(output, numbers), output.dtype
        if correct.ndim > 1:
            correct = correct.mean(axis=tuple(range(1, correct.ndim)), dtype=dtype)
        return {"accuracy": jnp.sum(correct, where=mask, dtype=dtype)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["accuracy"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.softmax(output)


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Any number of classes an example. Labels are 0 and 1, ``(N, classes)``; outputs are logits of the same shape.

    The loss is the binary cross-entropy, mean over the classes; the accuracy is the share of the labels that
    ``logit > 0`` predicts.
    """

    monitor: str = "val_accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        _same_shape(labels, output)
        if not np.isin(labels, (0, 1)).all():
            raise InputError("labels must be 0 or 1")

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        return label.astype(image.dtype)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        return _mean(optax.sigmoid_binary_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        right = _mean(((output > 0) == (target > 0.5)).astype(output.dtype))
        return {"accuracy": jnp.sum(right, where=mask)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["accuracy"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(output)


@dataclasses.dataclass(frozen=True)
class Regression:
    """Numbers for each example. Labels are floats of the output's shape, ``(N, …)``.

    Args:
        error: the loss: ``"squared"`` or ``"absolute"``, mean over the numbers of an example. The metric is ``mae``.
    """

    error: str = "squared"
    monitor: str = "val_loss"
    metric: ClassVar[str] = "mae"

    @named_errors(name="Regression")
    def __post_init__(self) -> None:
        checks.one_of("error", self.error, ("squared", "absolute"))

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        _same_shape(labels, output)
        if not np.isfinite(labels).all():
            raise InputError("labels must be finite")

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        return label.astype(image.dtype)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        difference = output - target
        return _mean(difference**2 if self.error == "squared" else jnp.abs(difference))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        return {"mae": jnp.sum(_mean(jnp.abs(output - target)), where=mask)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"mae": total.sums["mae"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return output


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """One class a pixel. Labels are class numbers ``(N, H, W)``; outputs are logits ``(N, H, W, classes)``.

    The loss of an example is the mean cross-entropy over the pixels that count; the accuracy is the share of all
    pixels that count.

    Args:
        ignore_index: label of the pixels that do not count, such as 255; None: all count.
    """

    ignore_index: int | None = None
    monitor: str = "val_accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        if labels.shape != output.shape[:-1] or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"labels {labels.dtype}{labels.shape} must be integers {output.shape[:-1]}, one a pixel of the output"
            )
        counted = labels[self._counted(labels)]
        if counted.size and (counted.min() < 0 or counted.max() >= output.shape[-1]):
            raise InputError(
                f"labels go from {counted.min()} to {counted.max()}, but the model has {output.shape[-1]} outputs"
            )

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if soft:
            raise InputError("Segmentation: class numbers of pixels cannot be mixed: leave out mix")
        return label

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        counted = self._counted(target)
        losses = jnp.where(counted, ops.softmax_cross_entropy(output, jnp.where(counted, target, 0)), 0)
        axes = tuple(range(1, target.ndim))
        return losses.sum(axes) / jnp.maximum(counted.sum(axes), 1).astype(losses.dtype)

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        dtype, axes = output.dtype, tuple(range(1, target.ndim))
        counted = self._counted(target)
        right = counted & ops.is_correct(output, jnp.where(counted, target, 0))
        return {
            "right": jnp.sum(right.sum(axes, dtype=dtype), where=mask),
            "pixels": jnp.sum(counted.sum(axes, dtype=dtype), where=mask),
        }

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["right"] / max(total.sums["pixels"], 1)}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.softmax(output)

    def _counted(self, label: Any) -> Any:
        return label == label if self.ignore_index is None else label != self.ignore_index


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """The image itself, as an autoencoder learns it. Labels are not used; outputs are logits of the image's shape.

    Args:
        error: the loss, mean over the pixels: ``"squared"`` of the sigmoid, or ``"cross_entropy"``, for pixels from 0
            to 1.
    """

    error: str = "cross_entropy"
    monitor: str = "val_loss"
    metric: ClassVar[str] = "mae"

    @named_errors(name="Reconstruction")
    def __post_init__(self) -> None:
        checks.one_of("error", self.error, ("cross_entropy", "squared"))

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        """Labels may be anything; the output is compared with the image in :meth:`targets`."""

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if output.shape[1:] != image.shape[1:]:
            raise InputError(
                f"Reconstruction: the model makes {output.shape[1:]} of an image {image.shape[1:]}; they must be equal"
            )
        return image

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        if self.error == "squared":
            return _mean((jax.nn.sigmoid(output) - target) ** 2)
        return _mean(optax.sigmoid_binary_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        return {"mae": jnp.sum(_mean(jnp.abs(jax.nn.sigmoid(output) - target)), where=mask)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"mae": total.sums["mae"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(output)


CLASSIFICATION = Classification()
TASKS: dict[str, type[Any]] = {
    "classification": Classification,
    "multilabel": MultiLabel,
    "regression": Regression,
    "segmentation": Segmentation,
    "reconstruction": Reconstruction,
}


def label_array(labels: Any) -> np.ndarray:
    """Return labels in the dtypes that are compiled for: int32 of integers and bools, float32 of floats."""
    labels = np.asarray(labels)
    return labels.astype(np.float32 if np.issubdtype(labels.dtype, np.floating) else np.int32, copy=False)


def _mean(values: jax.Array) -> jax.Array:
    """Return the mean of each example's values, ``(N, …)`` to ``(N,)``."""
    return values if values.ndim == 1 else values.mean(axis=tuple(range(1, values.ndim)), dtype=values.dtype)


def _same_shape(labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
    if labels.shape != output.shape:
        raise InputError(f"labels {labels.shape} must have the shape of the model's output, {output.shape}")
