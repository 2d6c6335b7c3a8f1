"""Evaluation: every example is counted once for any batch size, with one compilation."""

import jax
import numpy as np
import pytest

from jaxconv import Dense, InputError, flatten, relu, serial, train
from toy_training import net, toy

KEY = jax.random.key(0)
SHAPE = (4, 4, 1)


def by_numpy(model, params, state, images, labels):
    logits = np.asarray(model.apply(params, state, images.astype(np.float32) / 255)[0], np.float64)
    loss = (np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean()
    return loss, (logits.argmax(1) == labels).mean(), logits


def test_evaluate_counts_every_example_once():
    images, labels = toy(count=103)
    model = net()
    params, state = model.init(KEY, SHAPE)
    loss, accuracy, _ = by_numpy(model, params, state, images, labels)
    for batch_size in (1, 10, 103, 500):
        result = train.evaluate(model, params, state, images, labels, batch_size=batch_size)
        assert (result["count"], result["accuracy"]) == (103, accuracy)
        np.testing.assert_allclose(result["loss"], loss, rtol=1e-5)


def test_evaluator_compiles_once_for_any_data():
    model = net()
    evaluator = train.Evaluator(model, 16)
    for seed, count in enumerate((50, 3, 16)):
        params, state = model.init(jax.random.key(seed), SHAPE)
        images, labels = toy(count, seed=seed)
        result = evaluator(params, state, evaluator.batches(images, labels), logits=True)
        loss, accuracy, logits = by_numpy(model, params, state, images, labels)
        assert (result.examples, result.accuracy) == (count, accuracy)
        np.testing.assert_allclose(result.loss, loss, rtol=1e-5)
        np.testing.assert_allclose(result.logits, logits, rtol=1e-4, atol=1e-5)
    assert evaluator.program.num_compilations == 1
    with pytest.raises(
        InputError, match=r"evaluation was compiled for uint8\[16,4,4,1\] and now got uint8\[16,5,5,1\]"
    ):
        evaluator(params, state, evaluator.batches(*toy(16, size=5)))


def test_evaluator_of_stacked_networks_matches_each_network():
    model = net()
    images, labels = toy(21)
    networks = [model.init(jax.random.key(seed), SHAPE) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *networks)
    evaluator = train.Evaluator(model, 8, num_members=3)
    result = evaluator(*stacked, evaluator.batches(images, labels), logits=True)
    assert result.examples == 21 and result.logits.shape == (3, 21, 3)
    for i, (params, state) in enumerate(networks):
        loss, accuracy, logits = by_numpy(model, params, state, images, labels)
        assert result.accuracy[i] == accuracy
        np.testing.assert_allclose(result.loss[i], loss, rtol=1e-5)
        np.testing.assert_allclose(result.logits[i], logits, rtol=1e-4, atol=1e-5)


def test_predict_returns_probabilities_in_order():
    images, _ = toy(count=11)
    model = net()
    params, state = model.init(KEY, SHAPE)
    actual = train.predict(model, params, state, images, batch_size=4)
    expected = jax.nn.softmax(model.apply(params, state, images.astype(np.float32) / 255)[0])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_predict_compiles_once_per_model():
    traces = []

    def traced(x):
        traces.append(x.shape)
        return relu(x)

    model = serial(traced, flatten, Dense(3))
    images, _ = toy(9)
    networks = [model.init(jax.random.key(seed), SHAPE) for seed in range(3)]
    traces.clear()
    for params, state in networks:
        train.predict(model, params, state, images)
    assert len(traces) == 1


def test_predict_averages_views():
    images, _ = toy(count=5)
    model = net()
    params, state = model.init(KEY, SHAPE)
    actual = train.predict(model, params, state, images, views=lambda x: jax.numpy.stack([x, x[:, :, ::-1]]))
    per_view = [train.predict(model, params, state, view) for view in (images, images[:, :, ::-1])]
    np.testing.assert_allclose(actual, (per_view[0] + per_view[1]) / 2, rtol=1e-5)
    assert not np.allclose(per_view[0], per_view[1])
