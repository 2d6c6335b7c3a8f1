"""Early stopping: against Keras's own callback on random courses, and by hand where Keras has no rule."""

import json
import math

import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.train.early_stopping import EarlyStopping, EarlyStoppingState


def follow(rule, records):
    """The states after each epoch, up to the stop, and the epochs that were the best of their time."""
    stopping, states, best = rule.init(), [], []
    for record in records:
        stopping, is_best = rule.update(stopping, record)
        states.append(stopping)
        best += [record["epoch"]] * is_best
        if stopping.stopped:
            break
    return states, best


def losses(*values, name="val_loss"):
    return [{"epoch": epoch, name: value} for epoch, value in enumerate(values, start=1)]


@pytest.fixture
def keras(promoting, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


def keras_says(keras, records, **options):
    """Where Keras's callback stops, and the epoch whose weights it puts back."""

    class Model:
        weights, stop_training = 0, False

        def get_weights(self):
            return self.weights

        def set_weights(self, weights):
            self.weights = weights

    model, callback = Model(), keras.callbacks.EarlyStopping(restore_best_weights=True, **options)
    callback.set_model(model)
    callback.on_train_begin()
    for record in records:
        model.weights = record["epoch"]
        callback.on_epoch_end(record["epoch"] - 1, record)
        if model.stop_training:
            break
    last = model.weights
    callback.on_train_end()
    return last, model.weights


@pytest.mark.frameworks
@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize("min_delta", [0.0, 2 / 64])
def test_it_stops_where_keras_stops_and_keeps_what_keras_restores(keras, patience, min_delta):
    """Row 004-22. Losses are 64ths, which float32 (Keras's arithmetic) has exactly, and few, so that many are equal."""
    rng, stops = np.random.default_rng([patience, int(min_delta * 64)]), set()
    for _ in range(15):
        course = np.maximum(40 - np.arange(20) * rng.integers(0, 8), 0) + rng.integers(0, 9, 20)
        records = losses(*(course / 64).tolist())
        states, best = follow(EarlyStopping(patience, min_delta=min_delta), records)
        wanted = keras_says(keras, records, monitor="val_loss", patience=patience, min_delta=min_delta)
        assert (len(states), best[-1]) == wanted and states[-1].best_epoch == best[-1]
        stops.add(len(states))
    assert len(stops) > 2


@pytest.mark.frameworks
@pytest.mark.parametrize("min_delta", [0.0, 2 / 64])
def test_for_accuracies_that_differ_it_is_keras_s_rule_too(keras, min_delta):
    rng = np.random.default_rng(int(min_delta * 64))
    for _ in range(15):
        course = rng.permutation(64)[:20] / 64
        records = [{"epoch": t, "val_accuracy": a, "val_loss": 1.0} for t, a in enumerate(course.tolist(), start=1)]
        states, best = follow(EarlyStopping(3, "val_accuracy", min_delta), records)
        wanted = keras_says(keras, records, monitor="val_accuracy", mode="max", patience=3, min_delta=min_delta)
        assert (len(states), best[-1]) == wanted


def test_by_hand():
    states, best = follow(EarlyStopping(2), losses(0.9, 0.5, 0.7, 0.5, 0.1))
    assert best == [1, 2] and [state.wait for state in states] == [0, 0, 1, 2]  # the same loss is no improvement
    assert states[-1] == EarlyStoppingState(best_value=0.5, tie_break=0.0, best_epoch=2, wait=2, stopped=True)
    states, best = follow(EarlyStopping(2, min_delta=0.2), losses(0.9, 0.8, 0.6, 0.5, 0.45))
    assert best == [1, 3] and len(states) == 5  # 0.8 is too little better than 0.9, 0.6 is enough
    states, best = follow(EarlyStopping(1, "loss"), losses(0.9, 0.8, 1.0, name="loss"))
    assert best == [1, 2] and len(states) == 3


def test_equal_accuracies_are_told_apart_by_their_loss():
    pairs = [(0.9, 0.5), (0.9, 0.4), (0.9, 0.4), (0.8, 0.1), (0.9, 0.3), (0.95, 9.0)]
    records = [{"epoch": t, "val_accuracy": a, "val_loss": x} for t, (a, x) in enumerate(pairs, start=1)]
    states, best = follow(EarlyStopping(None, "val_accuracy"), records)
    assert best == [1, 2, 5, 6] and [state.wait for state in states] == [0, 0, 1, 2, 0, 0]
    ranks = [(a, -x) for a, x in pairs]  # the epoch that fit keeps
    assert [t for t in range(1, 7) if ranks[t - 1] > max(ranks[: t - 1], default=(-1, 0))] == best
    states, best = follow(EarlyStopping(None, "val_accuracy", min_delta=0.01), records)
    assert best == [1, 6]  # an equal accuracy is not better by 0.01


def test_no_patience_never_stops_and_still_knows_the_best():
    states, best = follow(EarlyStopping(None), losses(0.5, *[0.6] * 30))
    assert len(states) == 31 and best == [1] and states[-1].wait == 30


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan")])
def test_what_is_no_number_is_no_improvement(bad):
    states, best = follow(EarlyStopping(3), losses(bad, 0.5, bad, bad, bad))
    assert best == [2] and states[0] == EarlyStoppingState(wait=1) and states[-1].stopped and len(states) == 5
    broken = [{"epoch": 1, "val_accuracy": 0.9, "val_loss": bad}, {"epoch": 2, "val_accuracy": 0.1, "val_loss": 1.0}]
    assert follow(EarlyStopping(None, "val_accuracy"), broken)[1] == [2]


def test_a_state_goes_through_json_and_on_as_if_nothing_had_happened():
    """Resuming: also from numpy's numbers, which JSON does not know."""
    rule = EarlyStopping(3, "val_accuracy")
    rng = np.random.default_rng(0)
    records = [
        {"epoch": t, "val_accuracy": np.float32(a), "val_loss": np.float64(x)}
        for t, (a, x) in enumerate(rng.integers(0, 5, (12, 2)), start=1)
    ]
    whole = plain = rule.init()
    for record in records:
        whole, first = rule.update(whole, record)
        plain, second = rule.update(EarlyStoppingState(*json.loads(json.dumps(plain, allow_nan=False))), record)
        assert plain == whole and first is second


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: EarlyStopping(-1), r"early stopping: patience=-1 should be an int of at least 0"),
        (lambda: EarlyStopping(2.5), r"early stopping: patience=2\.5 should be an int of at least 0"),
        (lambda: EarlyStopping(2, "val_los"), r"early stopping: unknown monitor 'val_los': did you mean 'val_loss'\?"),
        (lambda: EarlyStopping(2, min_delta=-0.1), r"early stopping: min_delta=-0\.1 should be a number of at least 0"),
        (
            lambda: EarlyStopping(2).update(EarlyStoppingState(), {"epoch": 1, "loss": 0.5}),
            r"early stopping: the record has no val_loss; it has epoch, loss",
        ),
        (
            lambda: EarlyStopping(2, "val_accuracy").update(EarlyStoppingState(), {"val_accuracy": 0.5}),
            r"early stopping: the record has no epoch and no val_loss; it has val_accuracy",
        ),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=f"^{message}"):
        call()
