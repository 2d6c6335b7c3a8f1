"""Metrics of a classifier: against scikit-learn, plain loops, and numbers worked out by hand."""

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


def guesses(rng, count=300, classes=7):
    """Labels, and probabilities that lean towards them; the last class does not occur, and the one before is unsaid."""
    labels = rng.integers(0, classes - 1, count)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    logits[:, classes - 2] = -9
    logits[:5, classes - 1] = 9
    return np.asarray(jax.nn.softmax(logits.astype(np.float32))), labels


def test_confusion_is_scikit_learn_s(rng):
    probabilities, labels = guesses(rng)
    said = probabilities.argmax(1)
    got = confusion_matrix(labels, said, 7)
    np.testing.assert_array_equal(got, sklearn.confusion_matrix(labels, said, labels=range(7)))
    assert got.dtype == np.int64 and got.sum() == 300
    small = confusion_matrix(labels.astype(np.uint8) + 200, said.astype(np.int8) % 2, 207)  # 206 · 207 needs more bits
    assert small[200:206, :2].sum() == 300


def test_precision_recall_and_f1_are_scikit_learn_s(rng):
    probabilities, labels = guesses(rng)
    said = probabilities.argmax(1)
    got = per_class_scores(confusion_matrix(labels, said, 7))
    wanted = sklearn.precision_recall_fscore_support(labels, said, labels=range(7), zero_division=np.nan)
    for ours, theirs in zip(got, wanted):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert np.isnan(got.precision[5]) and np.isnan(got.recall[6])  # never said; never there
    assert got.f1[5] == got.f1[6] == 0
    nowhere = per_class_scores([[3, 0], [0, 0]])
    assert np.isnan([nowhere.precision[1], nowhere.recall[1], nowhere.f1[1]]).all() and nowhere.f1[0] == 1


def test_by_hand():
    """Of 4 cats 3 are seen, 1 taken for a dog; of 6 dogs 4 are seen, 2 taken for cats."""
    got = per_class_scores([[3, 1], [2, 4]])
    np.testing.assert_allclose(got.precision, [3 / 5, 4 / 5])
    np.testing.assert_allclose(got.recall, [3 / 4, 4 / 6])
    np.testing.assert_allclose(got.f1, [2 / (5 / 3 + 4 / 3), 2 / (5 / 4 + 6 / 4)])
    assert got.support.tolist() == [4, 6]


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7, 50])
def test_top_k_is_scikit_learn_s(rng, k):
    probabilities, labels = guesses(rng)
    got = top_k_accuracy(probabilities, labels, k)
    if k < 7:
        wanted = sklearn.top_k_accuracy_score(labels, probabilities, k=k, labels=range(7))
        assert got == pytest.approx(wanted, abs=1e-12) and 0 < got < 1
    else:
        assert got == 1.0


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_equal_scores_are_ranked_as_jax_ranks_them(rng, k):
    """Scores from few values: most rows have ties. jax's top_k puts the lower class first, and so does argmax."""
    scores, labels = rng.integers(0, 3, (200, 5)).astype(np.float32), rng.integers(0, 5, 200)
    _, best = jax.lax.top_k(scores, k)
    assert top_k_accuracy(scores, labels, k) == (np.asarray(best) == labels[:, None]).any(1).mean()
    if k == 1:
        assert top_k_accuracy(scores, labels, k) == np.asarray(ops.is_correct(scores, labels)).mean()


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_is_the_sum_over_bins(rng, bins):
    probabilities, labels = guesses(rng, classes=4)
    wanted = 0.0
    for b in range(bins):
        inside = [i for i in range(300) if b / bins < max(probabilities[i].astype(float)) <= (b + 1) / bins]
        if inside:
            right = sum(int(np.argmax(probabilities[i])) == labels[i] for i in inside) / len(inside)
            sure = sum(float(max(probabilities[i])) for i in inside) / len(inside)
            wanted += len(inside) / 300 * abs(right - sure)
    assert expected_calibration_error(probabilities, labels, bins) == pytest.approx(wanted, abs=1e-9)
    assert wanted > 0.01


def test_calibration_by_hand():
    half = np.full((8, 2), 0.5)
    assert expected_calibration_error(half, [0, 1] * 4) == 0  # says 50 %, is right half of the time
    assert expected_calibration_error(half, [1] * 8) == 0.5  # argmax says 0
    assert expected_calibration_error([[1.0, 0.0]], [1]) == 1
    edge = [[0.5, 0.5], [0.75, 0.25]]  # of two bins: 0.5 is the end of the first, 0.75 in the second
    assert expected_calibration_error(edge, [0, 1], bins=2) == (0.5 + 0.75) / 2
    assert expected_calibration_error(edge, [0, 1], bins=1) == abs(1 - 0.5 - 0.75) / 2  # together they cancel


def test_one_bin_knows_only_the_averages_and_more_bins_see_more(rng):
    """A theorem: |Σ of the gaps| ≤ Σ of the |gaps|, and one bin has the sum of them all."""
    probabilities, labels = guesses(rng)
    accuracy = (probabilities.argmax(1) == labels).mean()
    confidence = probabilities.max(1).mean(dtype=np.float64)
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(abs(accuracy - confidence))
    assert (
        expected_calibration_error(probabilities, labels, 15)
        >= expected_calibration_error(probabilities, labels, 1) - 1e-12
    )


def test_the_report_goes_into_json_and_says_the_same(rng):
    probabilities, labels = guesses(rng)
    names = [f"class {i}" for i in range(7)]
    found = json.loads(json.dumps(classification_report(probabilities, labels, names), allow_nan=False))
    said = probabilities.argmax(1)
    assert found["accuracy"] == (said == labels).mean()
    assert found["top5_accuracy"] == top_k_accuracy(probabilities, labels, 5) > found["accuracy"]
    assert found["expected_calibration_error"] == expected_calibration_error(probabilities, labels, 15)
    assert found["confusion_matrix"] == confusion_matrix(labels, said, 7).tolist()
    assert [row["class"] for row in found["per_class"]] == names
    assert found["per_class"][5]["precision"] is None and found["per_class"][6]["recall"] is None
    assert found["per_class"][2]["recall"] == pytest.approx((said == 2)[labels == 2].mean())
    assert [row["support"] for row in found["per_class"]] == np.bincount(labels, minlength=7).tolist()


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
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=f"^{message}"):
        call()
