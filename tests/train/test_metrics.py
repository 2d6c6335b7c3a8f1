"""Classification metrics: against scikit-learn, plain loops, and hand-computed values."""

import json

import jax
import numpy as np
import pytest
from sklearn import metrics as sklearn

from jaxconv import InputError, ops
from jaxconv.train.metrics import (
    classification_report,
    confusion_matrix,
    expected_calibration_error,
    per_class_scores,
    top_k_accuracy,
)


def random_predictions(rng, count=300, classes=7):
    """Return probabilities and labels; the last class has no examples, and the one before is never predicted."""
    labels = rng.integers(0, classes - 1, count)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    logits[:, classes - 2] = -9
    logits[:5, classes - 1] = 9
    return np.asarray(jax.nn.softmax(logits.astype(np.float32))), labels


def test_confusion_matrix_matches_scikit_learn(rng):
    probabilities, labels = random_predictions(rng)
    predicted = probabilities.argmax(1)
    actual = confusion_matrix(labels, predicted, 7)
    np.testing.assert_array_equal(actual, sklearn.confusion_matrix(labels, predicted, labels=range(7)))
    assert actual.dtype == np.int64 and actual.sum() == 300
    # 206 · 207 overflows uint8.
    small = confusion_matrix(labels.astype(np.uint8) + 200, predicted.astype(np.int8) % 2, 207)
    assert small[200:206, :2].sum() == 300


def test_per_class_scores_match_scikit_learn(rng):
    probabilities, labels = random_predictions(rng)
    predicted = probabilities.argmax(1)
    scores = per_class_scores(confusion_matrix(labels, predicted, 7))
    expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=range(7), zero_division=np.nan)
    for actual_values, expected_values in zip(scores, expected):
        np.testing.assert_allclose(actual_values, expected_values, rtol=1e-12)
    assert np.isnan(scores.precision[5]) and np.isnan(scores.recall[6])  # never predicted; no examples
    assert scores.f1[5] == scores.f1[6] == 0
    empty_class = per_class_scores([[3, 0], [0, 0]])
    assert (
        np.isnan([empty_class.precision[1], empty_class.recall[1], empty_class.f1[1]]).all() and empty_class.f1[0] == 1
    )


def test_per_class_scores_hand_computed():
    """Of 4 cats, 3 are predicted as cats and 1 as a dog; of 6 dogs, 4 are predicted as dogs and 2 as cats."""
    scores = per_class_scores([[3, 1], [2, 4]])
    np.testing.assert_allclose(scores.precision, [3 / 5, 4 / 5])
    np.testing.assert_allclose(scores.recall, [3 / 4, 4 / 6])
    np.testing.assert_allclose(scores.f1, [2 / (5 / 3 + 4 / 3), 2 / (5 / 4 + 6 / 4)])
    assert scores.support.tolist() == [4, 6]


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 50])
def test_top_k_accuracy_matches_scikit_learn(rng, k):
    probabilities, labels = random_predictions(rng)
    actual = top_k_accuracy(probabilities, labels, k)
    if k < 7:
        expected = sklearn.top_k_accuracy_score(labels, probabilities, k=k, labels=range(7))
        assert actual == pytest.approx(expected, abs=1e-12) and 0 < actual < 1
    else:
        assert actual == 1.0


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k_accuracy_ranks_ties_like_jax(rng, k):
    """Scores have few distinct values, so most rows have ties. jax.lax.top_k and argmax put the lower class first."""
    scores, labels = rng.integers(0, 3, (200, 5)).astype(np.float32), rng.integers(0, 5, 200)
    _, top_classes = jax.lax.top_k(scores, k)
    assert top_k_accuracy(scores, labels, k) == (np.asarray(top_classes) == labels[:, None]).any(1).mean()
    if k == 1:
        assert top_k_accuracy(scores, labels, k) == np.asarray(ops.is_correct(scores, labels)).mean()


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_matches_loop_over_bins(rng, bins):
    probabilities, labels = random_predictions(rng, classes=4)
    expected = 0.0
    for b in range(bins):
        in_bin = [i for i in range(300) if b / bins < max(probabilities[i].astype(float)) <= (b + 1) / bins]
        if in_bin:
            accuracy = sum(int(np.argmax(probabilities[i])) == labels[i] for i in in_bin) / len(in_bin)
            confidence = sum(float(max(probabilities[i])) for i in in_bin) / len(in_bin)
            expected += len(in_bin) / 300 * abs(accuracy - confidence)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.01


def test_calibration_error_hand_computed():
    half = np.full((8, 2), 0.5)
    assert expected_calibration_error(half, [0, 1] * 4) == 0  # confidence and accuracy are both 50 %
    assert expected_calibration_error(half, [1] * 8) == 0.5  # argmax is 0
    assert expected_calibration_error([[1.0, 0.0]], [1]) == 1
    edge = [[0.5, 0.5], [0.75, 0.25]]  # with two bins, 0.5 is the upper edge of the first, 0.75 in the second
    assert expected_calibration_error(edge, [0, 1], bins=2) == (0.5 + 0.75) / 2
    assert expected_calibration_error(edge, [0, 1], bins=1) == abs(1 - 0.5 - 0.75) / 2  # in one bin the gaps cancel


def test_calibration_error_of_one_bin_is_lower_bound(rng):
    """Triangle inequality: |Σ gaps| ≤ Σ |gaps|; one bin contains the sum of all gaps."""
    probabilities, labels = random_predictions(rng)
    accuracy = (probabilities.argmax(1) == labels).mean()
    confidence = probabilities.max(1).mean(dtype=np.float64)
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(abs(accuracy - confidence))
    assert (
        expected_calibration_error(probabilities, labels, 15)
        >= expected_calibration_error(probabilities, labels, 1) - 1e-12
    )


def test_classification_report_is_json_of_all_metrics(rng):
    probabilities, labels = random_predictions(rng)
    class_names = [f"class {i}" for i in range(7)]
    report = json.loads(json.dumps(classification_report(probabilities, labels, class_names), allow_nan=False))
    predicted = probabilities.argmax(1)
    assert report["accuracy"] == (predicted == labels).mean()
    assert report["top5_accuracy"] == top_k_accuracy(probabilities, labels, 5) > report["accuracy"]
    assert report["expected_calibration_error"] == expected_calibration_error(probabilities, labels, 15)
    assert report["confusion_matrix"] == confusion_matrix(labels, predicted, 7).tolist()
    assert [row["class"] for row in report["per_class"]] == class_names
    assert report["per_class"][5]["precision"] is None and report["per_class"][6]["recall"] is None
    assert report["per_class"][2]["recall"] == pytest.approx((predicted == 2)[labels == 2].mean())
    assert [row["support"] for row in report["per_class"]] == np.bincount(labels, minlength=7).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: confusion_matrix([0, 3], [0, 1], 3),
            r"confusion_matrix: labels go from 0 to 3, but there are 3 classes",
        ),
        (lambda: confusion_matrix([0], [-1], 3), r"confusion_matrix: predictions go from -1 to -1, but there are 3"),
        (
            lambda: confusion_matrix([0, 1], [1], 3),
            r"confusion_matrix: predictions must have one class number per label: got 1 for 2",
        ),
        (
            lambda: confusion_matrix([0.0], [1], 3),
            r"confusion_matrix: labels float64\(1,\) should be \(N,\) class numbers",
        ),
        (lambda: confusion_matrix([], [], 3), r"confusion_matrix: labels float64\(0,\) should be \(N,\) class numbers"),
        (lambda: confusion_matrix([0], [0], 0), r"confusion_matrix: num_classes=0 should be an int of at least 1"),
        (
            lambda: per_class_scores([[1, 2]]),
            r"per_class_scores: confusion int64\(1, 2\) should be \(classes, classes\) counts",
        ),
        (lambda: per_class_scores([[0.5]]), r"per_class_scores: confusion float64\(1, 1\) should be"),
        (
            lambda: per_class_scores([[-1]]),
            r"per_class_scores: confusion int64\(1, 1\) should be .* counts of at least 0",
        ),
        (lambda: top_k_accuracy([[0.5, 0.5]], [0], 0), r"top_k_accuracy: k=0 should be an int of at least 1"),
        (lambda: top_k_accuracy([0.5, 0.5], [0]), r"top_k_accuracy: scores \(2,\) should be \(N, classes\)"),
        (lambda: top_k_accuracy([[0.5, np.nan]], [0]), r"top_k_accuracy: scores of example 0 are nan"),
        (
            lambda: top_k_accuracy([[0.5, 0.5]], [0, 1]),
            r"top_k_accuracy: labels must have one class number per row of scores: got 2 for 1",
        ),
        (lambda: top_k_accuracy([[0.5, 0.5]], [2]), r"top_k_accuracy: labels go from 2 to 2, but there are 2 classes"),
        (
            lambda: expected_calibration_error([[0.5, 0.5]], [0], bins=0),
            r"expected_calibration_error: bins=0 should be an int of at",
        ),
        (
            lambda: expected_calibration_error([[0.5, 0.5], [3.0, -2.0]], [0, 1]),
            r"expected_calibration_error: the probabilities of example 1 should be at least 0 and sum to 1: "
            "convert logits with jax",
        ),
        (
            lambda: classification_report([[0.5, 0.5]], [0], "abc"),
            r"classification_report: 3 class names for 2 probabilities per row",
        ),
        (
            lambda: classification_report([[2.0, 2.0]], [0], "ab"),
            r"classification_report: the probabilities of example 0 should be at least 0",
        ),
    ],
)
def test_metrics_invalid_input_raises(call, message):
    with pytest.raises(InputError, match=f"^{message}"):
        call()
