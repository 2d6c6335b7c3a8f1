"""Checks of the arguments of training, before anything is computed."""

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Layer
from jaxconv.shapes import is_int
from jaxconv.train.loaders import EpochPlan, RandomAccessSource
from jaxconv.train.pixels import check_pixels
from jaxconv.train.snapshots import Snapshot
from jaxconv.train.state import TrainState
from jaxconv.train.tasks import CLASSIFICATION, Task
from jaxconv.train.train_step import make_train_step
from jaxconv.train.trees import tree_differences
from jaxconv.utils.signatures import no_argument

Examples = tuple[np.ndarray, np.ndarray]  # images and labels


class SplitDataset(Protocol):
    """Dataset with the splits ``train`` and ``validation``."""

    @property
    def train(self) -> Any: ...

    @property
    def validation(self) -> Any: ...


@named_errors(name="fit")
def resolve_splits(
    train: Examples | RandomAccessSource | SplitDataset, validation: Examples | None
) -> tuple[Examples | RandomAccessSource, Examples]:
    """Return the training and the validation examples, taken from ``train`` if it is a dataset with both splits."""
    if not isinstance(train, tuple) and hasattr(train, "train") and hasattr(train, "validation"):
        return train.train, train.validation if validation is None else validation
    if validation is None:
        raise InputError(
            "validation must be given: fit(model, (images, labels), (images, labels), …), or, with a dataset "
            "that has both, fit(model, jaxconv.data.load(…), …)"
        )
    return train, validation  # check_data validates the types


def check_options(caller: str, options: Iterable[str], parameters: Sequence[str]) -> None:
    """Raise InputError for an option that is an argument of neither the caller nor :func:`make_train_step`."""
    step_options = [
        name
        for name in inspect.signature(make_train_step).parameters
        if name not in (*parameters, "skip_nonfinite", "jit")
    ]
    for name in options:
        if name not in step_options:
            raise no_argument(name, [*parameters, *step_options]).from_source(caller)


@named_errors(name="fit")
def check_fit_arguments(epochs: int, batch_size: int) -> None:
    """Raise InputError unless epochs and batch size are positive ints."""
    checks.at_least(1, epochs=epochs, batch_size=batch_size)


@named_errors(name="fit")
def check_seed(seed: Any) -> int:
    """Return the seed as a Python int; raise InputError unless it is one int from 0 to 2³² − 1."""
    if np.iterable(seed) and not isinstance(seed, str):
        raise InputError(f"seed={seed!r} must be one int; for several seeds use fit_seeds(…, seeds={seed!r})")
    if not _is_seed(seed):
        raise InputError(f"seed={seed!r} should be a whole number from 0 to 2³² − 1")
    return int(seed)


@named_errors(name="fit_seeds")
def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds as Python ints; raise InputError unless they are distinct ints from 0 to 2³² − 1."""
    values = list(seeds) if np.iterable(seeds) else []
    if not values or not all(map(_is_seed, values)):
        raise InputError(f"seeds={seeds!r} must be whole numbers from 0 to 2³² − 1, such as range(5)")
    if len(set(values)) < len(values):
        raise InputError(f"seeds={seeds!r} must differ from each other")
    return tuple(map(int, values))


def _is_seed(seed: Any) -> bool:
    return is_int(seed) and 0 <= seed < 2**32


@named_errors(name="fit")
def check_data(
    train: Examples | RandomAccessSource, validation: Examples, batch_size: int, scale: float | None
) -> tuple[int, tuple[int, ...], np.ndarray]:
    """Check both sets of examples; return the number of training examples, the image shape, and the labels.

    Raises:
        InputError: if types, shapes or lengths are invalid or differ between the sets, ``batch_size`` is larger than
            the number of training examples, or a pixel is not finite.
    """
    if isinstance(train, tuple):
        check_batchable(*_check_pair("train", train), batch_size)
        num_examples, input_shape, labels = len(train[0]), train[0].shape[1:], train[1]
    elif hasattr(train, "image_shape"):
        num_examples, input_shape, labels = len(train), tuple(train.image_shape), train.labels
    else:
        raise InputError(
            f"train should be a tuple (images, labels), or examples to stream, not {_describe_type(train)}"
        )
    check_batchable(*_check_pair("validation", validation), batch_size)
    if input_shape != validation[0].shape[1:]:
        raise InputError(f"training images are {input_shape}, validation images {validation[0].shape[1:]}")
    if batch_size > num_examples:
        raise InputError(f"batch_size={batch_size} is larger than the {num_examples} training examples")
    if isinstance(train, tuple):
        check_pixels("fit", "the training images", train[0], scale)
    check_pixels("fit", "the validation images", validation[0], scale)
    return num_examples, input_shape, labels


@named_errors(name="fit")
def check_resume_point(snapshot: Snapshot, target: TrainState, plan: EpochPlan, trainable: str | None) -> None:
    """Raise InputError unless the snapshot matches the data, model and optimizer.

    Args:
        snapshot: the ``resume_from`` of :func:`jaxconv.train.fit`.
        target: shapes of the train state of this run.
        plan: division of the epochs of this run.
        trainable: SHA-256 of the mask of this run, or None.
    """
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(snapshot[:2])):
        raise InputError(
            "resume_from has deleted arrays: a train step donates its input, so copy the train state before the step, "
            "jax.tree.map(jnp.copy, train_state)"
        )
    saved, fields = snapshot.progress.plan, ["num_examples", "batch_size"]
    if snapshot.progress.execution:
        fields.append("steps_per_execution")  # within an epoch the position is counted in executions
    differences = [
        f"{field}={getattr(saved, field)}, not {getattr(plan, field)}"
        for field in fields
        if saved is not None and getattr(saved, field) != getattr(plan, field)
    ]
    differences += tree_differences(snapshot.train_state._asdict(), target._asdict())
    if snapshot.progress.trainable != trainable:
        differences.append("trainable selects other parameters")
    if differences:
        raise InputError(f"resume_from is of another run: {'; '.join(differences)}")


def check_batchable(images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    """Raise InputError unless images ``(N, …, C)`` and labels ``(N, …)`` of numbers can form batches."""
    if not 3 <= images.ndim <= 5 or not len(images):
        raise InputError(
            f"images {images.shape} should be (N, H, W, C), and at least one "
            "(series are (N, T, C), volumes (N, D, H, W, C))"
        )
    if not _is_numeric(images):
        raise InputError(f"images {images.dtype}{images.shape} should be numbers: uint8, or floats from 0 to 1")
    if images.ndim == 4 and images.shape[1] in (1, 3) and min(images.shape[2:]) > 4:
        raise InputError(
            f"images {images.shape} look channels-first; move axis 1 to the end, np.moveaxis(images, 1, -1) "
            "(if the height really is that small, swap height and width)"
        )
    if labels.shape[:1] != images.shape[:1]:
        kind = "integers" if labels.ndim == 1 else "arrays"
        raise InputError(f"labels {labels.dtype}{labels.shape} should be {len(images)} {kind}, one per image")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} should be at least 1")


def check_labels(
    model: Layer, params: Any, state: Any, input_shape: tuple[int, ...], labels: np.ndarray, task: Task = CLASSIFICATION
) -> None:
    """Raise InputError unless the labels match the model's output under the task; only shapes are evaluated."""
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    output, _ = jax.eval_shape(model.apply, params, state, image)
    task.check(np.asarray(labels), jax.ShapeDtypeStruct((len(labels), *output.shape[1:]), output.dtype))


def as_array(name: str, value: Any) -> np.ndarray:
    """Return JAX arrays unchanged, and other values through ``np.asarray``; raise InputError unless numeric."""
    if isinstance(value, jax.Array):
        return value  # type: ignore[return-value]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or not _is_numeric(array):
        raise InputError(f"{name} should be an array of numbers, not {_describe_type(value)}")
    return array


def _is_numeric(array: np.ndarray | jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool


def _check_pair(name: str, examples: Any) -> Examples:
    """Return the examples; raise InputError unless they are a tuple of two arrays."""
    if not isinstance(examples, tuple) or len(examples) != 2:
        raise InputError(f"{name} should be a tuple (images, labels), not {_describe_type(examples)}")
    for field, array in zip(("images", "labels"), examples, strict=True):
        if not isinstance(array, np.ndarray | jax.Array):
            raise InputError(f"the {field} of {name} should be an array, not {_describe_type(array)}: use np.asarray")
    return examples


def _describe_type(value: object) -> str:
    return f"{len(value)} of {type(value).__name__}" if isinstance(value, tuple | list) else type(value).__name__
