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
    """Sums of metrics over the unmasked examples; sums of batches can be added, whatever their sizes."""

    sums: Sums  # "loss" and the task's metrics
    count: Any  # number of examples


class Task(Protocol):
    """Targets, loss, metrics and predictions of training. A task must be hashable, such as a frozen dataclass.

    Attributes:
        monitor: name of the number in the epoch's record that selects the best epoch, such as ``"val_accuracy"``.
    """

    @property
    def monitor(self) -> str: ...

    def __hash__(self) -> int: ...

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        """Raise InputError unless the labels ``(N, …)`` match the network's output for the same N examples."""

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        """Return the targets of the loss; if ``soft``, floats that can be mixed, such as one-hot rows."""

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        """Return the loss of each example, ``(N,)``."""

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        """Return sums of any shape over the unmasked examples."""

    def compute(self, total: MetricSums) -> dict[str, Any]:
        """Return the reported metrics, computed from the sums over all examples."""

    def predict(self, output: jax.Array) -> jax.Array:
        """Return the prediction for each example, such as probabilities."""


def measure(task: Task, output: jax.Array, target: jax.Array, mask: jax.Array) -> MetricSums:
    """Return loss and metrics of a batch, summed over the unmasked examples."""
    loss = task.loss(output, target)
    sums = {"loss": jnp.sum(loss, where=mask)} | task.metrics(output, target, mask)
    return MetricSums(sums, jnp.sum(mask, dtype=loss.dtype))


def reported(task: Task, total: MetricSums) -> dict[str, Any]:
    """Return the mean loss and the metrics; arrays if the sums have a network axis."""
    if np.ndim(total.count):
        members = [jax.tree.map(lambda leaf, i=i: leaf[i], total) for i in range(len(total.count))]
        per_member = [reported(task, member) for member in members]
        return {name: np.array([values[name] for values in per_member]) for name in per_member[0]}
    return {"loss": total.sums["loss"] / total.count} | task.compute(total)


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class per example. Labels are class numbers ``(N,)``; outputs are logits ``(N, classes)``.

    With one class per position, logits ``(N, …, classes)``, loss and accuracy are means over the positions.
    """

    monitor: str = "val_accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(f"labels {labels.dtype}{labels.shape} should be {output.shape[0]} integers, one per image")
        if len(output.shape) != 2:
            raise InputError(f"the model output for an image must be (classes,), got {output.shape[1:]}")
        if labels.min() < 0 or labels.max() >= output.shape[1]:
            raise InputError(
                f"labels go from {labels.min()} to {labels.max()}, "
                f"but the model has {output.shape[1]} outputs: 0 to {output.shape[1] - 1}"
            )

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if not soft or not jnp.issubdtype(label.dtype, jnp.integer):
            return label
        num_classes = output.shape[-1]
        return jax.nn.one_hot(checks.class_numbers(label, num_classes), num_classes, dtype=image.dtype)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        return _mean_per_example(ops.softmax_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        labels = target if jnp.issubdtype(target.dtype, jnp.integer) else jnp.argmax(target, axis=-1)
        correct, dtype = ops.is_correct(output, labels), output.dtype
        if correct.ndim > 1:
            correct = correct.mean(axis=tuple(range(1, correct.ndim)), dtype=dtype)
        return {"accuracy": jnp.sum(correct, where=mask, dtype=dtype)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["accuracy"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.softmax(output)


@dataclasses.dataclass(frozen=True)
class MultiLabel:
    """Any number of classes per example. Labels are 0 and 1, ``(N, classes)``; outputs are logits of the same shape.

    The loss is the binary cross-entropy, averaged over the classes; the accuracy is the fraction of labels that
    ``logit > 0`` predicts correctly.
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
        return _mean_per_example(optax.sigmoid_binary_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        correct = _mean_per_example(((output > 0) == (target > 0.5)).astype(output.dtype))
        return {"accuracy": jnp.sum(correct, where=mask)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["accuracy"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(output)


@dataclasses.dataclass(frozen=True)
class Regression:
    """Regression to any numbers per example. Labels are floats of the output's shape, ``(N, …)``.

    Args:
        error: loss, ``"squared"`` or ``"absolute"``, averaged over the numbers of an example. The metric is ``mae``.
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
        return _mean_per_example(difference**2 if self.error == "squared" else jnp.abs(difference))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        return {"mae": jnp.sum(_mean_per_example(jnp.abs(output - target)), where=mask)}

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"mae": total.sums["mae"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return output


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """One class per pixel. Labels are class numbers ``(N, H, W)``; outputs are logits ``(N, H, W, classes)``.

    The loss of an example is the mean cross-entropy over its valid pixels; the accuracy is the fraction of correct
    pixels among all valid ones.

    Args:
        ignore_index: label of ignored pixels, such as 255; None: all pixels are valid.
    """

    ignore_index: int | None = None
    monitor: str = "val_accuracy"
    metric: ClassVar[str] = "accuracy"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        if labels.shape != output.shape[:-1] or not np.issubdtype(labels.dtype, np.integer):
            raise InputError(
                f"labels {labels.dtype}{labels.shape} must be integers {output.shape[:-1]}, one per pixel of the output"
            )
        valid = labels[self._valid_mask(labels)]
        if valid.size and (valid.min() < 0 or valid.max() >= output.shape[-1]):
            raise InputError(
                f"labels go from {valid.min()} to {valid.max()}, but the model has {output.shape[-1]} outputs"
            )

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if soft:
            raise InputError("Segmentation: class numbers of pixels cannot be mixed; remove mixup_fn")
        return label

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        valid_mask = self._valid_mask(target)
        losses = jnp.where(valid_mask, ops.softmax_cross_entropy(output, jnp.where(valid_mask, target, 0)), 0)
        axes = tuple(range(1, target.ndim))
        return losses.sum(axes) / jnp.maximum(valid_mask.sum(axes), 1).astype(losses.dtype)

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        dtype, axes = output.dtype, tuple(range(1, target.ndim))
        valid_mask = self._valid_mask(target)
        correct = valid_mask & ops.is_correct(output, jnp.where(valid_mask, target, 0))
        return {
            "right": jnp.sum(correct.sum(axes, dtype=dtype), where=mask),
            "pixels": jnp.sum(valid_mask.sum(axes, dtype=dtype), where=mask),
        }

    def compute(self, total: MetricSums) -> dict[str, Any]:
        return {"accuracy": total.sums["right"] / max(total.sums["pixels"], 1)}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.softmax(output)

    def _valid_mask(self, label: Any) -> Any:
        return label == label if self.ignore_index is None else label != self.ignore_index


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Reconstruction of the image, for autoencoders. Labels are ignored; outputs are logits of the image's shape.

    Args:
        error: loss, averaged over the pixels: ``"squared"`` error of the sigmoid, or ``"cross_entropy"``, for pixels
            in [0, 1].
    """

    error: str = "cross_entropy"
    monitor: str = "val_loss"
    metric: ClassVar[str] = "mae"

    @named_errors(name="Reconstruction")
    def __post_init__(self) -> None:
        checks.one_of("error", self.error, ("cross_entropy", "squared"))

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        """Accept any labels; :meth:`targets` compares the shapes of output and image."""

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        if output.shape[1:] != image.shape[1:]:
            raise InputError(
                f"Reconstruction: the model output must have the image shape {image.shape[1:]}, got {output.shape[1:]}"
            )
        return image

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        if self.error == "squared":
            return _mean_per_example((jax.nn.sigmoid(output) - target) ** 2)
        return _mean_per_example(optax.sigmoid_binary_cross_entropy(output, target))

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> Sums:
        return {"mae": jnp.sum(_mean_per_example(jnp.abs(jax.nn.sigmoid(output) - target)), where=mask)}

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
    """Return labels as int32 (integers and bools) or float32 (floats), the dtypes of compiled functions."""
    labels = np.asarray(labels)
    return labels.astype(np.float32 if np.issubdtype(labels.dtype, np.floating) else np.int32, copy=False)


def _mean_per_example(values: jax.Array) -> jax.Array:
    """Return the mean over all axes but the first, ``(N, …)`` to ``(N,)``."""
    return values if values.ndim == 1 else values.mean(axis=tuple(range(1, values.ndim)), dtype=values.dtype)


def _same_shape(labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
    if labels.shape != output.shape:
        raise InputError(f"labels {labels.shape} must have the shape of the model's output, {output.shape}")
