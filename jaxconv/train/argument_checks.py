"""What training is given, looked at before anything is computed with it."""

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


class Parts(Protocol):
    """A data set with examples to train on and others to choose with."""

    @property
    def train(self) -> Any: ...

    @property
    def validation(self) -> Any: ...


@named_errors(name="fit")
def parts_of(
    train: Examples | RandomAccessSource | Parts, validation: Examples | None
) -> tuple[Examples | RandomAccessSource, Examples]:
    """Return the examples of training and of validation; those of a data set, where it is given in place of them."""
    if not isinstance(train, tuple) and hasattr(train, "train") and hasattr(train, "validation"):
        return train.train, train.validation if validation is None else validation
    if validation is None:
        raise InputError(
            "validation must be given: fit(model, (images, labels), (images, labels), …), or, with a data set "
            "that has both, fit(model, jaxconv.data.load(…), …)"
        )
    return train, validation  # what is neither is refused with the data


def check_options(who: str, options: Iterable[str], names: Sequence[str]) -> None:
    """Refuse an option that neither the function nor the step has."""
    known = [
        name for name in inspect.signature(make_train_step).parameters if name not in (*names, "skip_nonfinite", "jit")
    ]
    for name in options:
        if name not in known:
            raise no_argument(name, [*names, *known]).from_source(who)


@named_errors(name="fit")
def check_fit_arguments(epochs: int, batch_size: int) -> None:
    """Raise InputError for a number of epochs or a batch size that cannot work with any data."""
    checks.at_least(1, epochs=epochs, batch_size=batch_size)


@named_errors(name="fit")
def check_seed(seed: Any) -> int:
    """Return the seed as Python's int; raise InputError if it is not one number from 0 to 2³² − 1."""
    if np.iterable(seed) and not isinstance(seed, str):
        raise InputError(f"seed={seed!r} must be one number: fit_seeds(…, seeds={seed!r}) trains several")
    if not _is_seed(seed):
        raise InputError(f"seed={seed!r} should be a whole number from 0 to 2³² − 1")
    return int(seed)


@named_errors(name="fit_seeds")
def check_seeds(seeds: Any) -> tuple[int, ...]:
    """Return the seeds as Python's ints; raise InputError unless they are different numbers from 0 to 2³² − 1."""
    numbers = list(seeds) if np.iterable(seeds) else []
    if not numbers or not all(map(_is_seed, numbers)):
        raise InputError(f"seeds={seeds!r} must be whole numbers from 0 to 2³² − 1, such as range(5)")
    if len(set(numbers)) < len(numbers):
        raise InputError(f"seeds={seeds!r} must differ from each other")
    return tuple(map(int, numbers))


def _is_seed(seed: Any) -> bool:
    return is_int(seed) and 0 <= seed < 2**32


@named_errors(name="fit")
def check_data(
    train: Examples | RandomAccessSource, validation: Examples, batch_size: int, scale: float | None
) -> tuple[int, tuple[int, ...], np.ndarray]:
    """Refuse examples that cannot work; how many there are to train on, the shape of one, and all labels."""
    if isinstance(train, tuple):
        check_batchable(*_pair("train", train), batch_size)
        count, input_shape, labels = len(train[0]), train[0].shape[1:], train[1]
    elif hasattr(train, "image_shape"):
        count, input_shape, labels = len(train), tuple(train.image_shape), train.labels
    else:
        raise InputError(f"train should be a tuple (images, labels), or examples to stream, not {_kind(train)}")
    check_batchable(*_pair("validation", validation), batch_size)
    if input_shape != validation[0].shape[1:]:
        raise InputError(f"training images are {input_shape}, validation images {validation[0].shape[1:]}")
    if batch_size > count:
        raise InputError(f"batch_size={batch_size} is larger than the {count} training examples")
    if isinstance(train, tuple):
        check_pixels("fit", "the training images", train[0], scale)
    check_pixels("fit", "the validation images", validation[0], scale)
    return count, input_shape, labels


@named_errors(name="fit")
def check_resume_point(start: Snapshot, like: TrainState, cut: EpochPlan, trainable: str | None) -> None:
    """Refuse to go on from a snapshot of other data, another model or another optimiser; tell all differences."""
    if any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(start[:2])):
        raise InputError(
            "resume_from has arrays whose memory a step has used again: copy a train state before a step of "
            "make_train_step is given it, jax.tree.map(jnp.copy, train_state)"
        )
    then, names = start.progress.plan, ["num_examples", "batch_size"]
    if start.progress.execution:
        names.append("steps_per_execution")  # it tells how far into the epoch it is
    differing = [
        f"{name}={getattr(then, name)}, not {getattr(cut, name)}"
        for name in names
        if then is not None and getattr(then, name) != getattr(cut, name)
    ]
    differing += tree_differences(start.train_state._asdict(), like._asdict())
    if start.progress.trainable != trainable:
        differing.append("trainable selects other parameters")
    if differing:
        raise InputError(f"resume_from is of another run: {'; '.join(differing)}")


def check_batchable(images: np.ndarray, labels: np.ndarray, batch_size: int) -> None:
    """Refuse what would fail deep inside, or train on nonsense."""
    if not 3 <= images.ndim <= 5 or not len(images):
        raise InputError(
            f"images {images.shape} should be (N, H, W, C), and at least one "
            "((N, T, C) of a series, (N, D, H, W, C) of a volume)"
        )
    if not _numbers(images):
        raise InputError(f"images {images.dtype}{images.shape} should be numbers: uint8, or floats from 0 to 1")
    if images.ndim == 4 and images.shape[1] in (1, 3) and min(images.shape[2:]) > 4:
        raise InputError(
            f"images {images.shape} look channels-first; move axis 1 to the end, np.moveaxis(images, 1, -1) "
            "(if they really are so low, swap height and width)"
        )
    if labels.shape[:1] != images.shape[:1]:
        what = "integers, one an image" if labels.ndim == 1 else "arrays, one an image"
        raise InputError(f"labels {labels.dtype}{labels.shape} should be {len(images)} {what}")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} should be at least 1")


def check_labels(
    model: Layer, params: Any, state: Any, input_shape: tuple[int, ...], labels: np.ndarray, task: Task = CLASSIFICATION
) -> None:
    """Raise InputError for labels that the task cannot compare with the model's output; nothing is computed."""
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    output, _ = jax.eval_shape(model.apply, params, state, image)
    task.check(np.asarray(labels), jax.ShapeDtypeStruct((len(labels), *output.shape[1:]), output.dtype))


def as_array(name: str, value: Any) -> np.ndarray:
    """Return a list, or what numpy takes otherwise, as an array; arrays as they are."""
    if isinstance(value, jax.Array):
        return value  # type: ignore[return-value]
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        array = None
    if array is None or not _numbers(array):
        raise InputError(f"{name} should be an array of numbers, not {_kind(value)}")
    return array


def _numbers(array: np.ndarray | jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool


def _pair(name: str, examples: Any) -> Examples:
    """Images and labels, if it is these two arrays."""
    if not isinstance(examples, tuple) or len(examples) != 2:
        raise InputError(f"{name} should be a tuple (images, labels), not {_kind(examples)}")
    for part, array in zip(("images", "labels"), examples, strict=True):
        if not isinstance(array, np.ndarray | jax.Array):
            raise InputError(f"the {part} of {name} should be an array, not {_kind(array)}: np.asarray makes one")
    return examples


def _kind(value: object) -> str:
    return f"{len(value)} of {type(value).__name__}" if isinstance(value, tuple | list) else type(value).__name__
