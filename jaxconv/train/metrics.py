"""Classification metrics and calibration, computed on the host in float64."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxconv import checks
from jaxconv.errors import InputError, named_errors


class PerClassScores(NamedTuple):
    """Scores per class, each ``(classes,)``; nan where a denominator is 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


@named_errors
def confusion_matrix(labels: ArrayLike, predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Return the confusion matrix: ``confusion[i, j]`` counts the examples of class i that are predicted as class j.

    Args:
        labels: ``(N,)`` true class numbers.
        predictions: ``(N,)`` predicted class numbers.
        num_classes: number of classes.

    Returns:
        ``(classes, classes)``, int64; the diagonal counts the correct predictions.

    Raises:
        InputError: if a class number is invalid, or labels and predictions differ in length.

    >>> confusion_matrix([0, 0, 1, 2], [0, 1, 1, 1], num_classes=3)
    array([[1, 1, 0],
           [0, 1, 0],
           [0, 1, 0]])
    """
    checks.at_least(1, num_classes=num_classes)
    labels = _check_class_numbers("labels", labels, num_classes)
    predictions = _check_class_numbers("predictions", predictions, num_classes)
    if labels.shape != predictions.shape:
        raise InputError(
            f"predictions must have one class number per label: got {len(predictions)} for {len(labels)} labels"
        )
    return np.bincount(labels * num_classes + predictions, minlength=num_classes**2).reshape(num_classes, num_classes)


@named_errors
def per_class_scores(confusion: ArrayLike) -> PerClassScores:
    """Return precision, recall, F1 (their harmonic mean) and support (the number of examples) of each class.

    ``precision = correct / predicted``, ``recall = correct / support``, ``f1 = 2 · correct / (predicted + support)``,
    with ``correct = confusion[i, i]``, ``predicted = Σ_j confusion[j, i]``, ``support = Σ_j confusion[i, j]``. The
    precision of a class that is never predicted, and the recall of one without examples, are 0 / 0 = nan, not 0.

    Args:
        confusion: ``(classes, classes)``, from :func:`confusion_matrix`.

    Raises:
        InputError: if ``confusion`` is not a square matrix of counts.

    >>> per_class_scores([[1, 1, 0], [0, 1, 0], [0, 1, 0]]).recall
    array([0.5, 1. , 0. ])
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InputError(
            f"confusion {counts.dtype}{counts.shape} should be (classes, classes) counts of at least 0, "
            "as returned by confusion_matrix"
        )
    correct, predicted, support = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return PerClassScores(correct / predicted, correct / support, 2 * correct / (predicted + support), support)


@named_errors
def top_k_accuracy(scores: ArrayLike, labels: ArrayLike, k: int = 5) -> float:
    """Return the fraction of examples whose true class is among the k classes with the highest scores.

    Of classes with equal scores, the one with the lower number comes first, as in ``argmax``; so k=1 is the accuracy.
    If k is at least the number of classes, the result is 1.

    Args:
        scores: ``(N, classes)``: logits or probabilities.
        labels: ``(N,)`` true class numbers.
        k: number of classes considered.

    Raises:
        InputError: if scores are not ``(N, classes)`` numbers, or labels do not match them.

    >>> top_k_accuracy([[0.5, 0.2, 0.3], [0.1, 0.8, 0.1]], [2, 2], k=2)
    0.5
    """
    checks.at_least(1, k=k)
    scores, labels = _check_scores("scores", scores, labels)
    label_scores = np.take_along_axis(scores, labels[:, None], axis=1)
    is_lower_class = np.arange(scores.shape[1])[None] < labels[:, None]
    ranks_higher = (scores > label_scores) | ((scores == label_scores) & is_lower_class)
    return float((ranks_higher.sum(axis=1) < k).mean())


@named_errors
def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Return the expected calibration error (ECE), the mean gap between confidence and accuracy (Guo et al., 2017).

    ``Σ_b |B_b| / N · |accuracy(B_b) − confidence(B_b)|``: an example's confidence is its largest probability, and
    ``B_b`` are the examples whose confidence is in ``(b / bins, (b + 1) / bins]``.

    Args:
        probabilities: ``(N, classes)``, rows that sum to 1.
        labels: ``(N,)`` true class numbers.
        bins: number of bins of equal width, from 0 to 1.

    Raises:
        InputError: if rows are not probabilities, or labels do not match them.

    >>> round(expected_calibration_error([[0.9, 0.1], [0.9, 0.1]], [0, 1]), 6)
    0.4
    """
    checks.at_least(1, bins=bins)
    probabilities, labels = _check_scores("probabilities", probabilities, labels)
    _check_probabilities(probabilities)
    confidence, is_correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    gaps = np.bincount(np.searchsorted(inner_edges, confidence, side="left"), weights=is_correct - confidence)
    return float(np.abs(gaps).sum() / len(labels))


@named_errors
def classification_report(probabilities: ArrayLike, labels: ArrayLike, classes: Sequence[str]) -> dict[str, Any]:
    """Return all metrics of this module as a JSON-serializable dict; nan is replaced by None.

    Args:
        probabilities: ``(N, classes)``, from :func:`jaxconv.train.predict`.
        labels: ``(N,)`` true class numbers.
        classes: class names.

    Returns:
        ``accuracy``, ``top5_accuracy``, ``expected_calibration_error``, ``per_class`` (a dict for each class:
        ``class``, ``precision``, ``recall``, ``f1``, ``support``), and ``confusion`` (a list of rows).

    Raises:
        InputError: if rows are not probabilities, or labels or class names do not match them.

    >>> classification_report([[0.9, 0.1], [0.8, 0.2]], [0, 1], ["cat", "dog"])["per_class"][1]
    {'class': 'dog', 'precision': None, 'recall': 0.0, 'f1': 0.0, 'support': 1}
    """
    probabilities, labels = _check_scores("probabilities", probabilities, labels)
    _check_probabilities(probabilities)
    if len(classes) != probabilities.shape[1]:
        raise InputError(f"{len(classes)} class names for {probabilities.shape[1]} probabilities per row")
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


def _check_class_numbers(name: str, values: ArrayLike, num_classes: int) -> np.ndarray:
    """Return ``(N,)`` class numbers in int64; raise InputError unless they are ints from 0 to ``num_classes − 1``."""
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise InputError(f"{name} {numbers.dtype}{numbers.shape} should be (N,) class numbers, and at least one")
    if numbers.min() < 0 or numbers.max() >= num_classes:
        raise InputError(
            f"{name} go from {numbers.min()} to {numbers.max()}, but there are {num_classes} classes: "
            f"0 to {num_classes - 1}"
        )
    return numbers.astype(np.int64)


def _check_scores(name: str, scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return scores ``(N, classes)`` in float64 and class numbers ``(N,)`` in int64; raise InputError if invalid."""
    values = np.asarray(scores)
    if values.ndim != 2 or not values.size:
        raise InputError(f"{name} {values.shape} should be (N, classes), and at least one")
    values = values.astype(np.float64)
    if np.isnan(values).any():
        raise InputError(f"{name} of example {np.isnan(values).any(axis=1).argmax()} are nan")
    numbers = _check_class_numbers("labels", labels, values.shape[1])
    if len(numbers) != len(values):
        raise InputError(f"labels must have one class number per row of {name}: got {len(numbers)} for {len(values)}")
    return values, numbers


def _check_probabilities(probabilities: np.ndarray) -> None:
    """Raise InputError unless rows are non-negative and sum to 1, up to the rounding of bfloat16."""
    is_invalid = (probabilities < 0).any(axis=1) | (np.abs(probabilities.sum(axis=1) - 1) > 0.02)
    if is_invalid.any():
        raise InputError(
            f"the probabilities of example {is_invalid.argmax()} should be at least 0 and sum to 1: "
            "convert logits with jax.nn.softmax"
        )
