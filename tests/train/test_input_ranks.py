"""Series and volumes: the same training run with one, two and three spatial dimensions."""

import functools

import jax
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, global_avg_pool, relu, serial, train

pytestmark = pytest.mark.usefixtures("promoting")
AXES = {"series": ("T",), "image": ("T", "W"), "volume": ("T", "H", "W")}  # all axes but T have size 1


def examples(axes, count, dtype=np.uint8):
    """Return series of two channels; the class is the channel with the largest value."""
    x = np.random.default_rng(0).integers(0, 256, (count, 9, 2)).astype(np.uint8)
    labels = x.max(axis=1).argmax(axis=1).astype(np.int32)
    x = x.reshape(count, 9, *[1] * (len(AXES[axes]) - 1), 2)
    return (x if dtype == np.uint8 else x.astype(dtype) / 255), labels


def network(axes):
    """Return a network with all windowed layers, whose windows extend along T only."""
    ones = [1] * (len(AXES[axes]) - 1)
    body = [Conv(4, (3, *ones), padding="SAME", use_bias=False), BatchNorm(), relu, MaxPool((2, *ones))]
    return serial(*body, Conv(5, (2, *ones), stride=(2, *ones)), relu, flatten, Dense(2))


@functools.cache
def trained(axes, dtype=np.uint8):
    data = examples(axes, 50, dtype)
    return train.fit(network(axes), data, data, optimizer=optax.adam(1e-2), epochs=3, batch_size=16)


@pytest.mark.parametrize("axes", ["series", "volume"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_fit_gives_same_result_for_1_2_and_3_dimensions(axes, dtype):
    """Only the shapes of the kernels differ; images are covered by the other tests."""
    fitted, image_fitted = trained(axes, dtype), trained("image")
    assert [record["step"] for record in fitted.history] == [4, 8, 12]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        curves = ([record[name] for record in result.history] for result in (fitted, image_fitted))
        np.testing.assert_allclose(*curves, rtol=1e-4)
    leaves = (jax.tree.leaves((result.params, result.state)) for result in (fitted, image_fitted))
    for leaf, image_leaf in zip(*leaves, strict=True):
        np.testing.assert_allclose(leaf, image_leaf.reshape(leaf.shape), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", ["series", "volume"])
def test_evaluate_and_predict_accept_series_and_volumes(axes):
    x, labels = examples(axes, 21)
    run, model = trained(axes), network(axes)
    logits = np.asarray(model.apply(run.params, run.state, x.astype(np.float32) / 255)[0], np.float64)
    result = train.evaluate(model, run.params, run.state, x, labels, batch_size=8)
    assert result["count"] == 21 and result["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(train.predict(model, run.params, run.state, x, batch_size=8), expected, atol=1e-5)


@pytest.mark.parametrize("input_shape", [(3, 9), (3, 5, 6, 2)])
def test_predict_accepts_three_time_steps_or_frames(input_shape):
    """A first axis of 3 means channels-first in images, but is valid in series and volumes."""
    x = np.random.default_rng(0).random((4, *input_shape)).astype(np.float32)
    model = serial(Conv(2, (1,) * (len(input_shape) - 1)), global_avg_pool, Dense(2))
    params, state = model.init(jax.random.key(0), input_shape)
    assert train.predict(model, params, state, x).shape == (4, 2)


@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 2, 2, 2, 1), (0, 4, 1)])
def test_predict_with_0_or_4_spatial_dimensions_raises(shape):
    x = np.zeros(shape, np.float32)
    with pytest.raises(
        InputError, match=r"predict: images \(.*\) should be \(N, H, W, C\), and at least one \(series are \(N, T, C\)"
    ):
        train.predict(serial(flatten, Dense(2)), {}, {}, x)


def test_predict_image_without_batch_axis_raises():
    """The input has the rank of a batch of series, which a network for images rejects."""
    model = serial(Conv(2, 3), flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (6, 7, 1))
    with pytest.raises(
        InputError, match=r"conv1: conv: x \(6, 7, 1\) should have 4 axes.*add the batch axis, x\[None\]"
    ):
        train.predict(model, params, state, np.zeros((6, 7, 1), np.float32))


def test_image_transform_tests_reject_series():
    run, (x, labels) = trained("series"), examples("series", 5)
    for function in (explain.translation_test, explain.corruption_accuracy):
        with pytest.raises(InputError, match=rf"{function.__name__}: images \(5, 9, 2\) should be \(N, H, W, C\)"):
            options = {"shifts": [1]} if function is explain.translation_test else {}
            function(network("series"), run.params, run.state, x, labels, **options)
