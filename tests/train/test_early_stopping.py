"""Early stopping: against Keras's callback on random curves, and hand-computed where Keras has no rule."""

import json
import math

import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.train.early_stopping import EarlyStopping, EarlyStoppingState


def follow(rule, records):
    """Return the state after each epoch until training stops, and the epochs that were the best so far."""
    state, states, best = rule.init(), [], []
    for record in records:
        state, is_best = rule.update(state, record)
        states.append(state)
        best += [record["epoch"]] * is_best
        if state.stopped:
            break
    return states, best


def losses(*values, name="val_loss"):
    return [{"epoch": epoch, name: value} for epoch, value in enumerate(values, start=1)]


@pytest.fixture
def keras(promoting, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    return pytest.importorskip("keras")


def keras_epochs(keras, records, **options):
    """Return the epoch at which Keras's callback stops, and the epoch whose weights it restores."""

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
    stopped_epoch = model.weights
    callback.on_train_end()
    return stopped_epoch, model.weights


@pytest.mark.frameworks
@pytest.mark.parametrize("patience", [0, 1, 2, 5])
@pytest.mark.parametrize("min_delta", [0.0, 2 / 64])
def test_early_stopping_matches_keras_for_losses(keras, patience, min_delta):
    """Row 004-22. Losses are multiples of 1/64, exact in Keras's float32, and few, so that many are equal."""
    rng, lengths = np.random.default_rng([patience, int(min_delta * 64)]), set()
    for _ in range(15):
        curve = np.maximum(40 - np.arange(20) * rng.integers(0, 8), 0) + rng.integers(0, 9, 20)
        records = losses(*(curve / 64).tolist())
        states, best = follow(EarlyStopping(patience, min_delta=min_delta), records)
        expected = keras_epochs(keras, records, monitor="val_loss", patience=patience, min_delta=min_delta)
        assert (len(states), best[-1]) == expected and states[-1].best_epoch == best[-1]
        lengths.add(len(states))
    assert len(lengths) > 2


@pytest.mark.frameworks
@pytest.mark.parametrize("min_delta", [0.0, 2 / 64])
def test_early_stopping_matches_keras_for_distinct_accuracies(keras, min_delta):
    rng = np.random.default_rng(int(min_delta * 64))
    for _ in range(15):
        curve = rng.permutation(64)[:20] / 64
        records = [{"epoch": t, "val_accuracy": a, "val_loss": 1.0} for t, a in enumerate(curve.tolist(), start=1)]
        states, best = follow(EarlyStopping(3, "val_accuracy", min_delta), records)
        expected = keras_epochs(keras, records, monitor="val_accuracy", mode="max", patience=3, min_delta=min_delta)
        assert (len(states), best[-1]) == expected


def test_early_stopping_hand_computed_states():
    states, best = follow(EarlyStopping(2), losses(0.9, 0.5, 0.7, 0.5, 0.1))
    assert best == [1, 2] and [state.wait for state in states] == [0, 0, 1, 2]  # an equal loss is no improvement
    assert states[-1] == EarlyStoppingState(best_value=0.5, tie_break=0.0, best_epoch=2, wait=2, stopped=True)
    states, best = follow(EarlyStopping(2, min_delta=0.2), losses(0.9, 0.8, 0.6, 0.5, 0.45))
    assert best == [1, 3] and len(states) == 5  # 0.8 improves on 0.9 by less than min_delta, 0.6 by more
    states, best = follow(EarlyStopping(1, "loss"), losses(0.9, 0.8, 1.0, name="loss"))
    assert best == [1, 2] and len(states) == 3


def test_equal_accuracies_are_ranked_by_loss():
    pairs = [(0.9, 0.5), (0.9, 0.4), (0.9, 0.4), (0.8, 0.1), (0.9, 0.3), (0.95, 9.0)]
    records = [{"epoch": t, "val_accuracy": a, "val_loss": x} for t, (a, x) in enumerate(pairs, start=1)]
    states, best = follow(EarlyStopping(None, "val_accuracy"), records)
    assert best == [1, 2, 5, 6] and [state.wait for state in states] == [0, 0, 1, 2, 0, 0]
    ranks = [(a, -x) for a, x in pairs]  # higher accuracy, then lower loss
    assert [t for t in range(1, 7) if ranks[t - 1] > max(ranks[: t - 1], default=(-1, 0))] == best
    states, best = follow(EarlyStopping(None, "val_accuracy", min_delta=0.01), records)
    assert best == [1, 6]  # an equal accuracy is not better by 0.01


def test_patience_none_never_stops_and_tracks_best():
    states, best = follow(EarlyStopping(None), losses(0.5, *[0.6] * 30))
    assert len(states) == 31 and best == [1] and states[-1].wait == 30


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_nonfinite_value_is_no_improvement(value):
    states, best = follow(EarlyStopping(3), losses(value, 0.5, value, value, value))
    assert best == [2] and states[0] == EarlyStoppingState(wait=1) and states[-1].stopped and len(states) == 5
    records = [{"epoch": 1, "val_accuracy": 0.9, "val_loss": value}, {"epoch": 2, "val_accuracy": 0.1, "val_loss": 1.0}]
    assert follow(EarlyStopping(None, "val_accuracy"), records)[1] == [2]


def test_state_round_trips_through_json():
    """The records contain NumPy numbers, which JSON does not support."""
    rule = EarlyStopping(3, "val_accuracy")
    rng = np.random.default_rng(0)
    records = [
        {"epoch": t, "val_accuracy": np.float32(a), "val_loss": np.float64(x)}
        for t, (a, x) in enumerate(rng.integers(0, 5, (12, 2)), start=1)
    ]
    state = restored = rule.init()
    for record in records:
        state, is_best = rule.update(state, record)
        restored, restored_is_best = rule.update(
            EarlyStoppingState(*json.loads(json.dumps(restored, allow_nan=False))), record
        )
        assert restored == state and is_best is restored_is_best


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
def test_early_stopping_invalid_input_raises(call, message):
    with pytest.raises(InputError, match=f"^{message}"):
        call()
