"""Training: against gradient descent in NumPy; data order, padding, compilation, resuming and errors."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, Layer, flatten, models, relu, serial, train
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")


def test_fit_matches_numpy_gradient_descent():
    """Logistic regression in NumPy with the same batches, including the smaller last one."""
    images, labels = toy(count=22)
    model = serial(flatten, Dense(3))
    fitted = train.fit(
        model, (images, labels), (images, labels), optimizer=optax.sgd(0.5), epochs=3, batch_size=8, seed=4
    )
    params, _ = model.init(jax.random.fold_in(jax.random.key(4), 0), (4, 4, 1))
    weights, bias = (np.asarray(params["dense1"][name], np.float64) for name in ("kernel", "bias"))
    x = images.reshape(22, 16) / 255
    for epoch in (1, 2, 3):
        order = train.epoch_permutation(4, epoch, 22)
        losses = []
        for start in (0, 8, 16):
            rows = order[start : start + 8]
            z = x[rows] @ weights + bias
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            losses += list(-np.log(p[np.arange(len(rows)), labels[rows]]))
            dz = (p - np.eye(3)[labels[rows]]) / len(rows)
            weights, bias = weights - 0.5 * x[rows].T @ dz, bias - 0.5 * dz.sum(0)
        assert len(losses) == 22
        np.testing.assert_allclose(fitted.history[epoch - 1]["loss"], np.mean(losses), rtol=1e-4)
    z = x @ weights + bias
    expected = -np.log(np.exp(z)[np.arange(22), labels] / np.exp(z).sum(1)).mean()
    np.testing.assert_allclose(fitted.history[-1]["val_loss"], expected, rtol=1e-5)
    assert fitted.num_steps == 9


def test_fit_is_deterministic_per_seed():
    def params(seed):
        fitted = train.fit(net(), toy(), toy(), optimizer=optax.adam(1e-2), epochs=2, batch_size=16, seed=seed)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((fitted.params, fitted.state))])

    first = params(1)
    assert first.tobytes() == params(1).tobytes()
    assert not np.allclose(first, params(2))


def test_epoch_permutation_depends_on_seed_and_epoch():
    orders = {tuple(train.epoch_permutation(seed, epoch, 50)) for seed in (0, 1, 2) for epoch in (1, 2, 3)}
    assert len(orders) == 9


@pytest.mark.parametrize("is_only_layer", [False, True])
def test_fit_and_evaluate_trace_model_once(is_only_layer):
    traces = []

    def apply(params, state, x, *, train=False, key=None):  # custom layer without a mask argument
        traces.append((train, x.shape[0]))
        return (x.reshape(len(x), -1) @ params["kernel"] if is_only_layer else x), state

    def init(key, input_shape):
        return ({"kernel": jnp.ones((16, 3))} if is_only_layer else {}), {}

    recorder = Layer("recorder", init, apply)
    model = recorder if is_only_layer else serial(recorder, flatten, Dense(3))
    fitted = train.fit(model, toy(50), toy(21, seed=1), optimizer=optax.sgd(0.1), epochs=3, batch_size=16)
    train.evaluate(model, fitted.params, fitted.state, *toy(39, seed=2), batch_size=16)
    assert traces.count((True, 16)) == 1 and traces.count((False, 16)) == 1
    assert {batch for _, batch in traces} == {1, 16}  # 1: shape inference only


def test_iterate_batches_yields_every_example_once():
    images, labels = np.arange(10, dtype=np.uint8)[:, None, None, None], np.arange(10)
    labels_seen = [
        label
        for batch in train.iterate_batches(images, labels, 4, train.epoch_permutation(3, 1, 10))
        for image, label, is_valid in zip(batch.image.ravel(), batch.label, batch.mask)
        if is_valid and image == label
    ]
    assert sorted(labels_seen) == list(range(10)) != labels_seen


def test_fit_returns_best_epoch_after_later_divergence():
    epochs = []
    rate = optax.piecewise_constant_schedule(0.02, {2 * 4: 1e4})  # far too large from the fifth epoch on
    fitted = train.fit(
        net(),
        toy(30),
        toy(40, seed=1),
        optimizer=optax.adam(rate),
        epochs=6,
        batch_size=16,
        on_epoch_end=lambda record, snapshot, is_best: epochs.append(
            (record["epoch"], is_best, int(snapshot.train_state.step))
        ),
    )
    ranks = [(record["val_accuracy"], -record["val_loss"]) for record in fitted.history]
    assert fitted.best_epoch <= 4 and ranks[fitted.best_epoch - 1] == max(ranks)
    assert [is_best for _, is_best, _ in epochs] == [
        max(ranks[: i + 1]) > max(ranks[:i], default=(-1, 0)) for i in range(6)
    ]
    assert [step for *_, step in epochs] == [2, 4, 6, 8, 10, 12]
    result = train.evaluate(net(), fitted.params, fitted.state, *toy(40, seed=1))
    assert result["accuracy"] == fitted.history[fitted.best_epoch - 1]["val_accuracy"]
    assert fitted.history[3]["accuracy"] > 0.8


def test_nonfinite_last_step_raises():
    def rate(step):
        return jnp.where(step == 3, jnp.inf, 0.02)  # the fourth step is the last

    message = r"fit: step 4 \(epoch 1\): the loss is [\d.]+; the first non-finite parameter is \w+1/\w+ \([\d,]+ of"
    with pytest.raises(InputError, match=message):
        fit(optimizer=optax.sgd(rate), data=toy(32))


def test_nonfinite_validation_loss_raises():
    rate = optax.piecewise_constant_schedule(0.02, {3: 1e38})  # parameters stay finite, but outputs do not
    with pytest.raises(InputError, match="fit: the validation loss of epoch 1 is nan; a lower learning rate may help"):
        fit(optimizer=optax.sgd(rate), data=toy(32))


def test_train_seconds_excludes_on_checkpoint(monkeypatch):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 1)
    fitted = fit(epochs=1, checkpoint_seconds=0, on_checkpoint=lambda snapshot: time.sleep(0.2))
    assert fitted.num_steps > 5 and fitted.train_seconds < 0.2 * (fitted.num_steps - 1) / 2


def test_fit_accepts_numpy_int_seed():
    with_int, with_numpy_int = fit(epochs=1, seed=3), fit(epochs=1, seed=np.int64(3))
    jax.tree.map(np.testing.assert_array_equal, with_int.params, with_numpy_int.params)


def snapshot_of(**options):
    snapshots = []
    fit(epochs=1, on_epoch_end=lambda record, snapshot, is_best: snapshots.append(snapshot), **options)
    return snapshots[0]


@pytest.mark.parametrize(
    ("changed_options", "message"),
    [
        ({"data": toy(40)}, r"fit: resume_from is of another run: num_examples=50, not 40$"),
        ({"batch_size": 16}, r"fit: resume_from is of another run: batch_size=8, not 16$"),
        (
            {"optimizer": optax.sgd(0.1, momentum=0.9)},
            r"another run: opt_state/0/count: expected nothing, got int32\(\)",
        ),
        ({"ema_decay": 0.9}, r"another run: ema/0/bn1/bias: expected float32\(4,\), got nothing"),
    ],
)
def test_resume_from_other_run_raises(changed_options, message):
    snapshot = snapshot_of(optimizer=optax.adam(0.01))
    with pytest.raises(InputError, match=message):
        fit(**{"optimizer": optax.adam(0.01), "epochs": 2, "resume_from": snapshot} | changed_options)


def test_fit_seeds_resume_from_one_seed_raises():
    snapshot = snapshot_of(optimizer=optax.adam(0.01))
    options = {"optimizer": optax.adam(0.01), "epochs": 2, "batch_size": 8, "resume_from": snapshot}
    with pytest.raises(InputError, match=r"another run: opt_state/0/count: expected int32\(2,\), got int32\(\)"):
        train.fit_seeds(net(), toy(), toy(21, seed=1), seeds=[0, 1], **options)


def test_resume_within_epoch_of_other_plan_raises(monkeypatch):
    snapshots = []
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 3 * 8 * 16)
    fit(epochs=1, checkpoint_seconds=0, on_checkpoint=snapshots.append)
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 8 * 16)
    with pytest.raises(InputError, match=r"fit: resume_from is of another run: steps_per_execution=3, not 1$"):
        fit(epochs=1, resume_from=snapshots[-1])


def test_resume_from_snapshot_without_history_starts_run():
    """A snapshot without history starts a new run from the given parameters."""
    params, state = net().init(jax.random.key(9), (4, 4, 1))
    optimizer = optax.sgd(0.1)
    train_state = train.TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
    fitted = fit(
        epochs=2,
        optimizer=optimizer,
        resume_from=train.Snapshot(train_state, train_state.eval_variables, train.TrainProgress()),
    )
    assert fitted.num_steps == 14 and [record["epoch"] for record in fitted.history] == [1, 2]


def test_images_per_second_matches_epoch_seconds():
    fitted = train.fit(models.mlp(3), toy(64), toy(64), optimizer=optax.sgd(0.1), epochs=1, batch_size=16)
    [record] = fitted.history
    np.testing.assert_allclose(record["images_per_second"], 64 / record["epoch_seconds"])


def fit(data=None, validation=None, **options):
    options = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 8} | options
    return train.fit(net(), toy() if data is None else data, validation or toy(), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(batch_size=0), r"fit: batch_size=0 should be an int of at least 1"),
        (lambda: fit(batch_size=51), r"fit: batch_size=51 is larger than the 50 training examples"),
        (lambda: fit(epochs=0), r"fit: epochs=0 should be an int of at least 1"),
        (lambda: fit((toy()[0], toy()[1] + 1)), r"fit: labels go from 1 to 3, but the model has 3 outputs: 0 to 2"),
        (lambda: fit((toy()[0], toy()[1][:9])), r"fit: labels int32\(9,\) should be 50 integers"),
        (lambda: fit((toy()[0], toy()[1] / 2)), r"fit: labels float64\(50,\) should be 50 integers"),
        (lambda: fit((np.zeros((50, 3, 32, 32), np.uint8), toy()[1])), r"look channels-first; move axis 1 to the end"),
        (lambda: fit((toy()[0][:, 0, 0], toy()[1])), r"fit: images \(50, 1\) should be \(N, H, W, C\), and at least"),
        (lambda: fit((toy()[0][0], toy()[1])), r"fit: labels int32\(50,\) should be 4 integers, one per image"),
        (
            lambda: fit(validation=(toy()[0], toy()[1] + 1)),
            r"fit: labels go from 1 to 3, but the model has 3 outputs",
        ),
        (lambda: fit(seed=-1), r"fit: seed=-1 should be a whole number from 0 to 2³² − 1"),
        (lambda: fit(seed=1.5), r"fit: seed=1.5 should be a whole number"),
        (lambda: fit(seed=None), r"fit: seed=None should be a whole number"),
        (
            lambda: fit((toy()[0].astype(object), toy()[1])),
            r"fit: images object\(50, 4, 4, 1\) should be numbers: uint8",
        ),
        (lambda: fit(list(toy())), r"fit: train should be a tuple \(images, labels\).*, not 2 of list"),
        (lambda: fit((*toy(), 0)), r"fit: train should be a tuple \(images, labels\), not 3 of tuple"),
        (lambda: fit((toy()[0].tolist(), toy()[1])), r"the images of train should be an array, not 50 of list"),
        (lambda: fit((np.zeros((50, 3, 32, 40), np.uint8), toy()[1])), r"look channels-first"),
        (lambda: train.fit(models.mlp, toy(), toy(), optimizer=optax.sgd(0.1), epochs=1), r"write mlp\(…\)"),
        (lambda: fit(validation=toy(size=5)), r"training images are \(4, 4, 1\), validation images \(5, 5, 1\)"),
        (
            lambda: fit((toy()[0] / np.float32("nan"), toy()[1])),
            r"fit: the training images must be finite: example 0 has a pixel that is nan, as have 50 of 50",
        ),
        (
            lambda: train.evaluate(serial(relu), {}, {}, *toy()),
            r"evaluate: the model output for an image must be \(classes,\), got \(4, 4, 1\)",
        ),
    ],
)
def test_fit_and_evaluate_invalid_input_raises(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("seed", [3, [3, 5]])
def test_initial_params_can_be_recomputed_from_seed(seed):
    """Reports compute the filters before training from the seed of the run."""
    model, data = net(), toy()
    options = {"optimizer": optax.sgd(0.0), "epochs": 1, "batch_size": 25}
    if isinstance(seed, int):
        seeds, members = [seed], [train.fit(model, data, data, seed=seed, **options)]
    else:
        seeds, members = seed, train.fit_seeds(model, data, data, seeds=seed, **options).members
    # Separately compiled functions round differently.
    assert_close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    for seed, fitted in zip(seeds, members, strict=True):
        key, _ = train.split_seed(seed)
        jax.tree.map(assert_close, fitted.final_state.params, jax.jit(lambda key: model.init(key, (4, 4, 1))[0])(key))
