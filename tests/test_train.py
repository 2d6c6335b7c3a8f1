"""Training: against gradient descent written in numpy, and the promises about order, padding and compiling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, Dropout, InputError, Layer, flatten, models, relu, serial, train
from jaxconv.train.fit import mean_metrics
from jaxconv.train.progress import Progress

KEY = jax.random.key(0)


pytestmark = pytest.mark.usefixtures("promoting")


def toy(count=50, size=4, classes=3, seed=0):
    """Images whose brightest column is their class: a convnet learns it in seconds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    images = rng.integers(0, 120, (count, size, size, 1), np.uint8)
    images[np.arange(count), :, labels] += 120
    return images, labels


def net():
    return serial(Conv(4, 3, padding="SAME"), BatchNorm(), relu, flatten, Dropout(0.2), Dense(3))


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
        order = train.epoch_order(4, epoch, 22)
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
    assert fitted.steps == 9


def test_a_padded_batch_trains_as_the_short_one_would():
    images, labels = toy(count=5)
    model, optimizer = serial(Conv(4, 3), BatchNorm(), relu, flatten, Dense(3)), optax.sgd(0.1, momentum=0.9)
    short = train.Batch(images, labels)
    [padded] = train.batches(images, labels, 8)
    assert padded.image.shape[0] == 8
    results = []
    for batch in (short, padded):
        ts = train.init_state(model, optimizer, KEY, (4, 4, 1))
        for _ in range(3):
            ts, metrics = train.make_train_step(model, optimizer)(ts, batch)
        results.append((ts, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)


def test_same_seed_same_bits_other_seed_other_network():
    def params(seed):
        fitted = train.fit(net(), toy(), toy(), optimizer=optax.adam(1e-2), epochs=2, batch_size=16, seed=seed)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves((fitted.params, fitted.state))])

    first = params(1)
    assert first.tobytes() == params(1).tobytes()
    assert not np.allclose(first, params(2))


def test_seed_and_epoch_both_change_the_order():
    orders = {tuple(train.epoch_order(seed, epoch, 50)) for seed in (0, 1, 2) for epoch in (1, 2, 3)}
    assert len(orders) == 9


def test_every_step_drops_others():
    model = serial(flatten, Dropout(0.5), Dense(3))
    ts = train.init_state(model, optax.sgd(0.0), KEY, (4, 4, 1))  # nothing is learned: only the dropout differs
    step, [batch] = train.make_train_step(model, optax.sgd(0.0), KEY), train.batches(*toy(16), 16)
    losses = []
    for _ in range(4):
        ts, metrics = step(ts, batch)
        losses.append(float(metrics.loss))
    assert len(set(losses)) == 4


@pytest.mark.parametrize("alone", [False, True])
def test_every_function_is_traced_once_however_ragged_the_data(alone):
    seen = []

    def apply(params, state, x, *, train=False, key=None):  # without mask, as a user might write it
        seen.append((train, x.shape[0]))
        return (x.reshape(len(x), -1) @ params["kernel"] if alone else x), state

    def init(key, in_shape):
        return ({"kernel": jnp.ones((16, 3))} if alone else {}), {}

    spy = Layer("spy", init, apply)
    model = spy if alone else serial(spy, flatten, Dense(3))
    fitted = train.fit(model, toy(50), toy(21, seed=1), optimizer=optax.sgd(0.1), epochs=3, batch_size=16)
    train.evaluate(model, fitted.params, fitted.state, *toy(39, seed=2), batch_size=16)
    assert seen.count((True, 16)) == 1 and seen.count((False, 16)) == 1
    assert {batch for _, batch in seen} == {1, 16}  # 1: shapes asked for, nothing compiled


def test_evaluate_scores_every_example_once(rng):
    images, labels = toy(count=103)
    model = net()
    params, state = model.init(KEY, (4, 4, 1))
    logits = np.asarray(model.apply(params, state, images.astype(np.float32) / 255)[0], np.float64)
    wanted = (np.log(np.exp(logits).sum(1)) - logits[np.arange(103), labels]).mean()
    for batch_size in (1, 10, 103, 500):
        scored = train.evaluate(model, params, state, images, labels, batch_size=batch_size)
        assert scored["count"] == 103
        assert scored["accuracy"] == (logits.argmax(1) == labels).mean()
        np.testing.assert_allclose(scored["loss"], wanted, rtol=1e-5)


def test_mean_metrics_are_of_examples_not_of_batches():
    many = train.Metrics(*map(np.float32, (100, 100, 100)))
    few = train.Metrics(*map(np.float32, (0, 0, 1)))
    assert mean_metrics([many, few])["accuracy"] == 100 / 101


def test_predict_gives_probabilities_in_order():
    images, _ = toy(count=11)
    model = net()
    params, state = model.init(KEY, (4, 4, 1))
    got = train.predict(model, params, state, images, batch_size=4)
    wanted = jax.nn.softmax(model.apply(params, state, images.astype(np.float32) / 255)[0])
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


def test_an_epoch_sees_every_example_once():
    images, labels = np.arange(10, dtype=np.uint8)[:, None, None, None], np.arange(10)
    seen = [
        label
        for batch in train.batches(images, labels, 4, train.epoch_order(3, 1, 10))
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
        on_epoch=lambda record, ts, is_best: told.append((record["epoch"], is_best, int(ts.step))),
    )
    ranks = [(record["val_accuracy"], -record["val_loss"]) for record in fitted.history]
    assert fitted.best_epoch <= 4 and ranks[fitted.best_epoch - 1] == max(ranks)
    assert [best for _, best, _ in told] == [max(ranks[: i + 1]) > max(ranks[:i], default=(-1, 0)) for i in range(6)]
    assert [step for *_, step in told] == [2, 4, 6, 8, 10, 12]
    scored = train.evaluate(net(), fitted.params, fitted.state, *toy(40, seed=1))
    assert scored["accuracy"] == fitted.history[fitted.best_epoch - 1]["val_accuracy"]
    assert fitted.history[3]["accuracy"] > 0.8


def test_a_network_that_breaks_in_its_last_step_is_not_taken_for_trained():
    rate = optax.piecewise_constant_schedule(0.02, {3: 1e38})  # the fourth and last step overflows
    with pytest.raises(InputError, match="fit: the loss of epoch 1 is nan; a lower learning rate may help"):
        fit(optimizer=optax.sgd(rate), data=toy(32))


def test_schedules_start_peak_and_end_where_they_say():
    at = {name: [float(make(0.1, 100)(step)) for step in (0, 30, 100)] for name, make in train.SCHEDULES.items()}
    np.testing.assert_allclose(at["constant"], [0.1, 0.1, 0.1])
    np.testing.assert_allclose(at["cosine"], [0.1, 0.05 * (1 + np.cos(0.3 * np.pi)), 0], atol=1e-6)
    np.testing.assert_allclose(at["one_cycle"], [0.004, 0.1, 0], atol=1e-4)


GRADIENTS = np.array([[0.5, 1e-2], [-1.0, 2.0], [3.0, 0.1]])


def by_formula(name, lr=0.1):
    """Three steps from (1, −2), written out from each method's paper."""
    w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t, g in enumerate(GRADIENTS, start=1):
        if name == "sgd":
            w = w - lr * g
        elif name in ("momentum", "nesterov"):
            m = 0.9 * m + g
            w = w - lr * (m if name == "momentum" else 0.9 * m + g)
        elif name in ("adam", "adamw"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            decay = 1e-4 * w if name == "adamw" else 0
            w = w - lr * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + decay)
        elif name == "rmsprop":
            v = 0.9 * v + 0.1 * g**2
            w = w - lr * g / np.sqrt(v + 1e-7)  # Keras: ε inside the root
    return w


@pytest.mark.parametrize("name", train.OPTIMIZERS)
def test_every_optimizer_is_its_formula(x64, name):
    optimizer, w = train.make_optimizer(name, 0.1), jnp.array([1.0, -2.0])
    opt_state = optimizer.init(w)
    for g in GRADIENTS:
        updates, opt_state = optimizer.update(jnp.asarray(g), opt_state, w)
        w = w + updates
    np.testing.assert_allclose(w, by_formula(name), rtol=1e-6)


def test_speed_is_images_by_seconds():
    fitted = train.fit(models.mlp(3), toy(64), toy(64), optimizer=optax.sgd(0.1), epochs=1, batch_size=16)
    [record] = fitted.history
    np.testing.assert_allclose(record["images_per_second"], 64 / record["seconds"])


def test_the_bar_tells_the_step_before_the_last():
    with Progress(epochs=2, steps=3, batch_size=4, show=True) as bar:
        bar.looked -= 1  # a second ago
        first, last = (train.Metrics(*map(np.float32, sums)) for sums in ((2, 3, 4), (99, 0, 4)))
        bar.step(1, [first])
        bar.step(1, [first, last])
        [task] = bar.bar.tasks
    assert task.completed == 2 and task.total == 6 and task.description == "epoch 1/2"
    assert task.fields["measured"].startswith("loss 0.500  accuracy 0.750  ")
    assert 4 < float(task.fields["measured"].split()[4].replace(",", "")) <= 8  # 8 images in a second


def fit(data=None, validation=None, **options):
    options = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 8} | options
    return train.fit(net(), toy() if data is None else data, validation or toy(), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit(batch_size=0), r"fit: batch_size=0 should be at least 1"),
        (lambda: fit(batch_size=51), r"fit: batch_size=51 is larger than the 50 training examples"),
        (lambda: fit(epochs=0), r"fit: epochs=0 should be at least 1"),
        (lambda: fit((toy()[0], toy()[1] + 1)), r"fit: labels go from 1 to 3, but the model has 3 outputs: 0 to 2"),
        (lambda: fit((toy()[0], toy()[1][:9])), r"fit: labels int32\(9,\) should be 50 integers"),
        (lambda: fit((toy()[0], toy()[1] / 2)), r"fit: labels float64\(50,\) should be 50 integers"),
        (lambda: fit((np.zeros((50, 3, 32, 32), np.uint8), toy()[1])), r"look channels-first; move axis 1 to the end"),
        (lambda: fit((toy()[0][0], toy()[1])), r"fit: images \(4, 4, 1\) should be \(N, H, W, C\)"),
        (
            lambda: fit(validation=(toy()[0], toy()[1] + 1)),
            r"fit: labels go from 1 to 3, but the model has 3 outputs",
        ),
        (lambda: fit(seed=-1), r"fit: seed=-1 should be from 0 to 2³² − 1"),
        (lambda: fit((np.zeros((50, 3, 32, 40), np.uint8), toy()[1])), r"look channels-first"),
        (lambda: train.fit(models.mlp, toy(), toy(), optimizer=optax.sgd(0.1), epochs=1), r"write mlp\(…\)"),
        (lambda: train.make_optimizer(steps=2**31), r"2,147,483,648 steps are more than can be counted"),
        (lambda: fit(validation=toy(size=5)), r"training images are \(4, 4, 1\), validation images \(5, 5, 1\)"),
        (
            lambda: fit((toy()[0] / np.float32("nan"), toy()[1])),
            r"fit: the loss of epoch 1 is nan; a lower learning rate",
        ),
        (lambda: train.make_optimizer("adm"), r"unknown optimizer 'adm': did you mean 'adam'\?"),
        (lambda: train.make_optimizer(schedule="cosin"), r"unknown schedule 'cosin': did you mean 'cosine'\?"),
        (lambda: train.make_optimizer(learning_rate=0), r"learning_rate=0 should be a positive number"),
        (
            lambda: train.evaluate(serial(relu), {}, {}, *toy()),
            r"evaluate: the model makes \(4, 4, 1\) of an image; wanted one number a class",
        ),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
