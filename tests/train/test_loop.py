"""Training: against gradient descent written in numpy, and the promises about order, padding and compiling."""

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


def test_fit_is_gradient_descent():
    """Logistic regression by numpy, batch by batch in the same order, last ragged batch included."""
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
    wanted = -np.log(np.exp(z)[np.arange(22), labels] / np.exp(z).sum(1)).mean()
    np.testing.assert_allclose(fitted.history[-1]["val_loss"], wanted, rtol=1e-5)
    assert fitted.num_steps == 9


def test_same_seed_same_bits_other_seed_other_network():
    def params(seed):
        fitted = train.fit(net(), toy(), toy(), optimizer=optax.adam(1e-2), epochs=2, batch_size=16, seed=seed)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((fitted.params, fitted.state))])

    first = params(1)
    assert first.tobytes() == params(1).tobytes()
    assert not np.allclose(first, params(2))


def test_seed_and_epoch_both_change_the_order():
    orders = {tuple(train.epoch_permutation(seed, epoch, 50)) for seed in (0, 1, 2) for epoch in (1, 2, 3)}
    assert len(orders) == 9


@pytest.mark.parametrize("alone", [False, True])
def test_every_function_is_traced_once_however_ragged_the_data(alone):
    seen = []

    def apply(params, state, x, *, train=False, key=None):  # without mask, as a user might write it
        seen.append((train, x.shape[0]))
        return (x.reshape(len(x), -1) @ params["kernel"] if alone else x), state

    def init(key, input_shape):
        return ({"kernel": jnp.ones((16, 3))} if alone else {}), {}

    spy = Layer("spy", init, apply)
    model = spy if alone else serial(spy, flatten, Dense(3))
    fitted = train.fit(model, toy(50), toy(21, seed=1), optimizer=optax.sgd(0.1), epochs=3, batch_size=16)
    train.evaluate(model, fitted.params, fitted.state, *toy(39, seed=2), batch_size=16)
    assert seen.count((True, 16)) == 1 and seen.count((False, 16)) == 1
    assert {batch for _, batch in seen} == {1, 16}  # 1: shapes asked for, nothing compiled


def test_an_epoch_sees_every_example_once():
    images, labels = np.arange(10, dtype=np.uint8)[:, None, None, None], np.arange(10)
    seen = [
        label
        for batch in train.iterate_batches(images, labels, 4, train.epoch_permutation(3, 1, 10))
        for image, label, real in zip(batch.image.ravel(), batch.label, batch.mask)
        if real and image == label
    ]
    assert sorted(seen) == list(range(10)) != seen


def test_the_best_epoch_is_kept_even_when_training_goes_wrong_after_it():
    told = []
    rate = optax.piecewise_constant_schedule(0.02, {2 * 4: 1e4})  # from the fifth epoch on, far too large
    fitted = train.fit(
        net(),
        toy(30),
        toy(40, seed=1),
        optimizer=optax.adam(rate),
        epochs=6,
        batch_size=16,
        on_epoch_end=lambda record, at, is_best: told.append((record["epoch"], is_best, int(at.train_state.step))),
    )
    ranks = [(record["val_accuracy"], -record["val_loss"]) for record in fitted.history]
    assert fitted.best_epoch <= 4 and ranks[fitted.best_epoch - 1] == max(ranks)
    assert [best for _, best, _ in told] == [max(ranks[: i + 1]) > max(ranks[:i], default=(-1, 0)) for i in range(6)]
    assert [step for *_, step in told] == [2, 4, 6, 8, 10, 12]
    scored = train.evaluate(net(), fitted.params, fitted.state, *toy(40, seed=1))
    assert scored["accuracy"] == fitted.history[fitted.best_epoch - 1]["val_accuracy"]
    assert fitted.history[3]["accuracy"] > 0.8


def test_a_network_that_breaks_in_its_last_step_is_not_taken_for_trained():
    def rate(step):
        return jnp.where(step == 3, jnp.inf, 0.02)  # the fourth step is the last

    message = r"fit: step 4 \(epoch 1\): the loss is [\d.]+; the first non-finite parameter is \w+1/\w+ \([\d,]+ of"
    with pytest.raises(InputError, match=message):
        fit(optimizer=optax.sgd(rate), data=toy(32))


def test_parameters_that_are_too_large_to_use_are_not_taken_for_trained():
    rate = optax.piecewise_constant_schedule(0.02, {3: 1e38})  # finite, but what is computed with them is not
    with pytest.raises(InputError, match="fit: the validation loss of epoch 1 is nan; a lower learning rate may help"):
        fit(optimizer=optax.sgd(rate), data=toy(32))


def test_saving_is_not_counted_as_training(monkeypatch):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 1)
    slow = fit(epochs=1, checkpoint_seconds=0, on_checkpoint=lambda snapshot: time.sleep(0.2))
    assert slow.num_steps > 5 and slow.train_seconds < 0.2 * (slow.num_steps - 1) / 2


def test_numbers_of_numpys_are_seeds_too():
    one, other = fit(epochs=1, seed=3), fit(epochs=1, seed=np.int64(3))
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def snapshot_of(**options):
    kept = []
    fit(epochs=1, on_epoch_end=lambda record, snapshot, is_best: kept.append(snapshot), **options)
    return kept[0]


@pytest.mark.parametrize(
    ("other", "message"),
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
def test_a_start_of_another_run_is_refused(other, message):
    start = snapshot_of(optimizer=optax.adam(0.01))
    with pytest.raises(InputError, match=message):
        fit(**{"optimizer": optax.adam(0.01), "epochs": 2, "resume_from": start} | other)


def test_a_start_of_one_seed_is_refused_for_several():
    start = snapshot_of(optimizer=optax.adam(0.01))
    options = {"optimizer": optax.adam(0.01), "epochs": 2, "batch_size": 8, "resume_from": start}
    with pytest.raises(InputError, match=r"another run: opt_state/0/count: expected int32\(2,\), got int32\(\)"):
        train.fit_seeds(net(), toy(), toy(21, seed=1), seeds=[0, 1], **options)


def test_a_start_within_an_epoch_that_was_cut_otherwise_is_refused(monkeypatch):
    kept = []
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 3 * 8 * 16)
    fit(epochs=1, checkpoint_seconds=0, on_checkpoint=kept.append)
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 8 * 16)
    with pytest.raises(InputError, match=r"fit: resume_from is of another run: steps_per_execution=3, not 1$"):
        fit(epochs=1, resume_from=kept[-1])


def test_a_network_may_start_from_parameters_alone():
    """A snapshot without a history is the beginning of a run, with other parameters than the seed's."""
    params, state = net().init(jax.random.key(9), (4, 4, 1))
    optimizer = optax.sgd(0.1)
    ts = train.TrainState(jnp.zeros((), jnp.int32), params, state, optimizer.init(params))
    fresh = fit(epochs=2, optimizer=optimizer, resume_from=train.Snapshot(ts, ts.eval_variables, train.TrainProgress()))
    assert fresh.num_steps == 14 and [record["epoch"] for record in fresh.history] == [1, 2]


def test_speed_is_images_by_seconds():
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
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("seed", [3, [3, 5]])
def test_the_first_parameters_can_be_had_again(seed):
    """Who shows filters before training makes them anew from the run's seed."""
    model, data = net(), toy()
    options = {"optimizer": optax.sgd(0.0), "epochs": 1, "batch_size": 25}
    if isinstance(seed, int):
        seeds, members = [seed], [train.fit(model, data, data, seed=seed, **options)]
    else:
        seeds, members = seed, train.fit_seeds(model, data, data, seeds=seed, **options).members
    same = functools.partial(np.testing.assert_allclose, rtol=1e-5)  # another program rounds them otherwise
    for seed, fitted in zip(seeds, members, strict=True):
        key, _ = train.split_seed(seed)
        jax.tree.map(same, fitted.final_state.params, jax.jit(lambda key: model.init(key, (4, 4, 1))[0])(key))
