"""Complete the splits of a dataset: hold out a missing validation or test split, and validate labels."""

import dataclasses
from typing import NamedTuple

import numpy as np

from jaxconv.data.base import Dataset, LazySplit, Split
from jaxconv.errors import InputError

Examples = Split | LazySplit


class PartialDataset(NamedTuple):
    """Dataset as stored, whose validation or test split may be missing."""

    name: str
    class_names: tuple[str, ...]
    train: Examples
    validation: Examples | None = None
    test: Examples | None = None


def complete_splits(stored: PartialDataset, *, streaming: bool = False) -> Dataset:
    """Return a dataset with all three splits, holding out those that are missing.

    Without a test split, the validation split becomes the test split. A split that is still missing is the last sixth
    of the training examples: 10,000 of MNIST's 60,000, as in the lectures. If that sixth contains less than half of its
    proportional number of examples of a class, the last sixth of each class is held out instead, at least one example.

    Args:
        stored: splits as the files contain them.
        streaming: read training images on access instead of loading them into memory.

    Raises:
        InputError: if a split is missing and there is only one example to hold out.
    """
    name, class_names, train, validation, test = stored
    if test is None:
        validation, test = None, validation
    if test is None:
        train, test = _hold_out_sixth(name, train, "testing")
    if validation is None:
        train, validation = _hold_out_sixth(name, train, "validation")
    return Dataset(
        name,
        class_names,
        train.to_lazy() if streaming else _in_memory(train, f"{name}: train"),
        _in_memory(validation, f"{name}: validation"),
        _in_memory(test, f"{name}: test"),
    )


def _hold_out_sixth(name: str, train: Examples, purpose: str) -> tuple[Examples, Examples]:
    """Hold out the last sixth of the examples, or the last sixth of each class if the examples are sorted by class.

    They count as sorted if the last sixth contains less than half of its proportional number of any class.
    """
    labels, held_out = train.labels, np.zeros(len(train.labels), bool)
    if len(labels) < 2:
        raise InputError(f"{name}: one example is too few for training and {purpose}")
    held_out[-max(1, len(labels) // 6) :] = True
    counts = np.bincount(labels)
    if (np.bincount(labels[held_out], minlength=len(counts)) < np.maximum(counts // 12, counts > 1)).any():
        held_out[:] = False
        for label in np.flatnonzero(counts > 1):
            held_out[np.flatnonzero(labels == label)[-max(1, counts[label] // 6) :]] = True
    return _select(train, ~held_out), _select(train, held_out)


def _select(examples: Examples, mask: np.ndarray) -> Examples:
    """Return the examples where ``mask`` is True."""
    if isinstance(examples, Split):
        return Split(examples.images[mask], examples.labels[mask])
    indices = np.flatnonzero(mask)
    items = (
        examples.items[indices]
        if isinstance(examples.items, np.ndarray)
        else [examples.items[i] for i in indices.tolist()]
    )
    return dataclasses.replace(examples, items=items, labels=examples.labels[mask])


def _in_memory(examples: Examples, title: str) -> Split:
    return examples.to_memory(title) if isinstance(examples, LazySplit) else examples


def as_class_labels(name: str, labels: np.ndarray) -> np.ndarray:
    """Return labels as ``(N,)`` int32; raise InputError if they are empty or not class indices.

    >>> as_class_labels("toy", np.array([[2], [0]], np.uint8)).tolist()
    [2, 0]
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{name}: labels {labels.dtype}{labels.shape} must be one integer per image, (N,) or (N, 1), and not "
            "empty; for one-hot labels use labels.argmax(1)"
        )
    invalid = np.flatnonzero((labels < 0) | (labels > np.iinfo(np.int32).max))
    if invalid.size:
        raise InputError(
            f"{name}: label {labels[invalid[0]]} (example {invalid[0]}) is not a class index: number the classes from "
            "0 without gaps"
        )
    return labels.astype(np.int32)


def default_class_names(name: str, labels: np.ndarray) -> tuple[str, ...]:
    """Return the class indices as names: "0", "1" and so on, up to the highest label.

    >>> default_class_names("toy", np.array([1, 0, 2]))
    ('0', '1', '2')
    """
    highest = int(labels.max())
    if highest >= len(labels):
        raise InputError(
            f"{name}: label {highest} (example {labels.argmax()}) makes {highest + 1} classes, more than the "
            f"{len(labels)} training examples: number the classes from 0 without gaps"
        )
    return tuple(map(str, range(highest + 1)))
