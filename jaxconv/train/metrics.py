"""What a classifier gets right, and how well it knows it: counted on the host, in float64."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


class PerClassScores(NamedTuple):
    """One number a class in each; nan where there is nothing to divide by."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


@named_errors
def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """How often each class was taken for each: ``confusion[i, j]`` counts the examples of class i that were called j.

    Args:
        labels: ``(N,)`` true class numbers.
        predictions: ``(N,)`` class numbers as they were said.
        num_classes: how many there are.

    Returns:
        ``(classes, classes)``, int64; the diagonal is what was right.

    Raises:
        InputError: class numbers that are none, or not one said for each true one.

    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 1], num_classes=3)
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 1, 0]])
    """
    checks.at_least(1, num_classes=num_classes)
    labels = _class_numbers("labels", labels, num_classes)
    predictions = _class_numbers("predicted", predictions, num_classes)
    if labels.shape != predictions.shape:
        raise InputError(f"{len(labels)} labels but {len(predictions)} predicted; wanted one for each")
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


@named_errors
def per_class_scores(confusion: ArrayLike) -> PerClassScores:
    """Precision, recall, their harmonic mean and the number of examples, class by class.

    ``precision = right / said``, ``recall = right / support``, ``f1 = 2 · right / (said + support)``, with
    ``right = confusion[i, i]``, ``said = Σ_j confusion[j, i]``, ``support = Σ_j confusion[i, j]``. A class that was
    never said has no precision, and one without examples no recall: 0 / 0 is nan, so that it looks like no failure.

    Args:
        confusion: ``(classes, classes)``, from :func:`confusion_matrix`.

    Raises:
        InputError: what is no square of counts.

    >>> per_class_scores([[1, 1, 0], [0, 1, 0], [0, 1, 0]]).recall
    array([0.5, 1. , 0. ])
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(
            f"confusion {counts.dtype}{counts.shape} should be (classes, classes) counts of at least 0: "
            "what confusion_matrix returns"
        )
    right, said, support = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return PerClassScores(right / said, right / support, 2 * right / (said + support), support)


@named_errors
def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 5) -> float:
    """The share of examples whose true class is among the k that score highest.

    Of classes that score the same, the one with the lower number comes first, as for ``argmax``: so k=1 is the
    accuracy. With k of at least the number of classes it is 1.

    Args:
        scores: ``(N, classes)``: logits or probabilities.
        labels: ``(N,)`` true class numbers.
        k: how many may be named.

    Raises:
        InputError: scores that are not numbers, or labels that do not go with them.

    >>> top_k_accuracy([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]], [2, 2], k=2)
    0.5
    """
    checks.at_least(1, k=k)
    scores, labels = _scored("scores", scores, labels)
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = (scores > own) | ((scores == own) & (np.arange(scores.shape[1])[None] < labels[:, None]))
    return float((before.sum(axis=1) < k).mean())


@named_errors
def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """How far confidence is from accuracy: the expected calibration error of Guo et al. (2017).

    ``Σ_b |B_b| / N · |accuracy(B_b) − confidence(B_b)|``: an example's confidence is its largest probability, and
    ``B_b`` are the examples whose confidence is in ``(b / bins, (b + 1) / bins]``.

    Args:
        probabilities: ``(N, classes)``, rows that sum to 1.
        labels: ``(N,)`` true class numbers.
        bins: of one width, from 0 to 1.

    Raises:
        InputError: rows that are no probabilities, or labels that do not go with them.

    >>> round(expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1]), 6)
    0.4
    """
    checks.at_least(1, bins=bins)
    probabilities, labels = _scored("probabilities", probabilities, labels)
    _check_sums(probabilities)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    gaps = np.bincount(np.searchsorted(inner, confidence, side="left"), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


@named_errors
def classification_report(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """All of it at once, in plain numbers and lists that go into JSON; what is nan elsewhere is None.

    Args:
        probabilities: ``(N, classes)``, from :func:`jaxconv.train.predict`.
        labels: ``(N,)`` true class numbers.
        classes: their names.

    Returns:
        ``accuracy``, ``top5_accuracy``, ``expected_calibration_error``, ``per_class`` (a dict for each class:
        ``class``, ``precision``, ``recall``, ``f1``, ``support``), and ``confusion`` (a list of rows).

    Raises:
        InputError: rows that are no probabilities, or labels or names that do not go with them.

    >>> classification_report([[0.9, 0.1], [0.8, 0.2]], [0, 1], ["cat", "dog"])["per_class"][1]
    {'class': 'dog', 'precision': None, 'recall': 0.0, 'f1': 0.0, 'support': 1}
    """
    probabilities, labels = _scored("probabilities", probabilities, labels)
    _check_sums(probabilities)
    if len(classes) != probabilities.shape[1]:
        raise InputError(f"{len(classes)} names of classes for {probabilities.shape[1]} probabilities a row")
    confusion = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    rows = zip(*(column.tolist() for column in per_class_scores(confusion)), strict=True)
    return {
        "accuracy": top_k_accuracy(probabilities, labels, k=1),
        "top5_accuracy": top_k_accuracy(probabilities, labels, k=5),
        "expected_calibration_error": expected_calibration_error(probabilities, labels),
        "per_class": [
            {"class": name} | {key: None if n != n else n for key, n in zip(PerClassScores._fields, row, strict=True)}
            for name, row in zip(classes, rows, strict=True)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def _class_numbers(name: str, values: ArrayLike, num_classes: int) -> np.ndarray:
    """``(N,)`` class numbers in int64; refuse what is none, or out of range."""
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise InputError(f"{name} {numbers.dtype}{numbers.shape} should be (N,) class numbers, and at least one")
    if numbers.min() < 0 or numbers.max() >= num_classes:
        raise InputError(
            f"{name} go from {numbers.min()} to {numbers.max()}, but there are {num_classes} classes: "
            f"0 to {num_classes - 1}"
        )
    return numbers.astype(np.int64)


def _scored(name: str, scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Scores in float64 with a class number for each row."""
    table = np.asarray(scores)
    if table.ndim != 2 or not table.size:
        raise InputError(f"{name} {table.shape} should be (N, classes), and at least one")
    table = table.astype(np.float64)
    if np.isnan(table).any():
        raise InputError(f"{name} of example {np.isnan(table).any(axis=1).argmax()} are nan")
    numbers = _class_numbers("labels", labels, table.shape[1])
    if len(numbers) != len(table):
        raise InputError(f"{len(table)} rows of {name} but {len(numbers)} labels; wanted one for each")
    return table, numbers


def _check_sums(probabilities: np.ndarray) -> None:
    """Refuse logits; what bfloat16 rounds away is let through."""
    wrong = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 0.02)
    if wrong.any():
        raise InputError(
            f"the probabilities of example {wrong.argmax()} should be at least 0 and sum to 1: "
            "of logits, take jax.nn.softmax"
        )
