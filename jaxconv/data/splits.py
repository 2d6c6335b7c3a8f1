"""From what a source happens to have to the three parts that every data set has."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxconv.data.base import Dataset, LazySplit, Split
from jaxconv.errors import InputError

Examples = Split | LazySplit


class PartialDataset(NamedTuple):
    """A data set as its files have it: perhaps without a validation or a test part."""

    name: str
    classes: tuple[str, ...]
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None


def complete_splits(parts: PartialDataset, *, stream: bool = False) -> Dataset:
    """Make the parts that are missing, and read them into memory.

    Without a test part, the validation part is the test part. A part that is still missing is the last sixth of the
    training examples: 10,000 of MNIST's 60,000, as in the lectures. Where that sixth has less than half of its share of
    a class, it is the last sixth of each class instead, and at least one example of it.

    Args:
        parts: what there is.
        stream: leave the training images where they are, to be read as they are needed.

    Raises:
        InputError: a part that is missing would have to be taken from a single example.
    """
    name, classes, train, validation, test = parts
    if test is None:
        validation, test = None, validation
    if test is None:
        train, test = _last_sixth(name, train, "testing")
    if validation is None:
        train, validation = _last_sixth(name, train, "validation")
    return Dataset(
        name,
        classes,
        train.to_lazy() if stream else _in_memory(train, f"{name}: train"),
        _in_memory(validation, f"{name}: validation"),
        _in_memory(test, f"{name}: test"),
    )


def _last_sixth(name: str, train: Examples, what: str) -> tuple[Examples, Examples]:
    """Hold out the last sixth, or the last sixth of each class, where the classes come one after the other.

    The last sixth stands if it has at least half of its share of every class.
    """
    labels, held = train.labels, np.zeros(len(train.labels), bool)
    if len(labels) < 2:
        raise InputError(f"{name}: one example is too few for training and {what}")
    held[-max(1, len(labels) // 6) :] = True
    counts = np.bincount(labels)
    if (np.bincount(labels[held], minlength=len(counts)) < np.maximum(counts // 12, counts > 1)).any():
        held[:] = False
        for label in np.flatnonzero(counts > 1):
            held[np.flatnonzero(labels == label)[-max(1, counts[label] // 6) :]] = True
    return _where(train, ~held), _where(train, held)


def _where(examples: Examples, chosen: np.ndarray) -> Examples:
    if isinstance(examples, Split):
        return Split(examples.images[chosen], examples.labels[chosen])
    places = np.flatnonzero(chosen)
    items = (
        examples.items[places]
        if isinstance(examples.items, np.ndarray)
        else [examples.items[i] for i in places.tolist()]
    )
    return dataclasses.replace(examples, items=items, labels=examples.labels[chosen])


def _in_memory(examples: Examples, title: str) -> Split:
    return examples.to_memory(title) if isinstance(examples, LazySplit) else examples


def as_class_labels(who: str, labels: np.ndarray) -> np.ndarray:
    """Labels as ``(N,)`` int32; refuse what are no class numbers, and none at all.

    >>> as_class_labels("toy", np.array([[2], [0]], np.uint8)).tolist()
    [2, 0]
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{who}: labels {labels.dtype}{labels.shape} should be one whole number an image, (N,) or (N, 1), and at "
            "least one; of one-hot rows take labels.argmax(1)"
        )
    wrong = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if wrong.size:
        raise InputError(
            f"{who}: label {labels[wrong[0]]} (example {wrong[0]}) is no class: number the classes from 0 without gaps"
        )
    return labels.astype(np.int32)


def default_class_names(who: str, labels: np.ndarray) -> tuple[str, ...]:
    """Names for classes that have none: "0", "1" and so on, up to the highest label.

    >>> default_class_names("toy", np.array([1, 0, 2]))
    ('0', '1', '2')
    """
    highest = int(labels.max())
    if highest >= len(labels):
        raise InputError(
            f"{who}: label {highest} (example {labels.argmax()}) makes {highest + 1} classes, more than the "
            f"{len(labels)} training examples: number the classes from 0 without gaps"
        )
    return tuple(map(str, range(highest + 1)))
