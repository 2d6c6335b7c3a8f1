"""Series and volumes are trained as images are: one run, written with one, two and three spatial dimensions."""

import functools

import jax
import numpy as np
import optax
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, global_avg_pool, relu, serial, train

pytestmark = pytest.mark.usefixtures("promoting")
AXES = {"series": ("T",), "image": ("T", "W"), "volume": ("T", "H", "W")}  # of which all but T have the size 1


def examples(axes, count, dtype=np.uint8):
    """Series of two channels; the class is the channel that has the largest value."""
    x = np.random.default_rng(0).integers(0, 256, (count, 9, 2)).astype(np.uint8)
    labels = x.max(axis=1).argmax(axis=1).astype(np.int32)
    x = x.reshape(count, 9, *[1] * (len(AXES[axes]) - 1), 2)
    return (x if dtype == np.uint8 else x.astype(dtype) / 255), labels


def network(axes):
    """Everything that slides, along T alone."""
    along = [1] * (len(AXES[axes]) - 1)
    body = [Conv(4, (3, *along), padding="SAME", use_bias=False), BatchNorm(), relu, MaxPool((2, *along))]
    return serial(*body, Conv(5, (2, *along), stride=(2, *along)), relu, flatten, Dense(2))


@functools.cache
def trained(axes, dtype=np.uint8):
    data = examples(axes, 50, dtype)
    return train.fit(network(axes), data, data, optimizer=optax.adam(1e-2), epochs=3, batch_size=16)


@pytest.mark.parametrize("axes", ["series", "volume"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_run_is_the_same_with_one_two_and_three_dimensions(axes, dtype):
    """Only the kernels' shapes differ; images, in two dimensions, are what all else is tested with."""
    ours, images = trained(axes, dtype), trained("image")
    assert [record["step"] for record in ours.history] == [4, 8, 12]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        each = ([record[name] for record in run.history] for run in (ours, images))
        np.testing.assert_allclose(*each, rtol=1e-4)
    for one, other in zip(*(jax.tree.leaves((run.params, run.state)) for run in (ours, images)), strict=True):
        np.testing.assert_allclose(one, other.reshape(one.shape), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("axes", ["series", "volume"])
def test_evaluate_and_predict_take_them(axes):
    x, labels = examples(axes, 21)
    run, model = trained(axes), network(axes)
    logits = np.asarray(model.apply(run.params, run.state, x.astype(np.float32) / 255)[0], np.float64)
    scored = train.evaluate(model, run.params, run.state, x, labels, batch_size=8)
    assert scored["count"] == 21 and scored["accuracy"] == (logits.argmax(axis=1) == labels).mean()
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(train.predict(model, run.params, run.state, x, batch_size=8), wanted, atol=1e-5)


@pytest.mark.parametrize("input_shape", [(3, 9), (3, 5, 6, 2)])
def test_three_steps_or_frames_are_no_channels(input_shape):
    """Of images, 3 at the front is taken for channels; these have it by right."""
    x = np.random.default_rng(0).random((4, *input_shape)).astype(np.float32)
    model = serial(Conv(2, (1,) * (len(input_shape) - 1)), global_avg_pool, Dense(2))
    params, state = model.init(jax.random.key(0), input_shape)
    assert train.predict(model, params, state, x).shape == (4, 2)


@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 2, 2, 2, 1), (0, 4, 1)])
def test_what_has_no_or_four_dimensions_is_refused(shape):
    x = np.zeros(shape, np.float32)
    with pytest.raises(
        InputError, match=r"predict: images \(.*\) should be \(N, H, W, C\), and at least one \(series are \(N, T, C\)"
    ):
        train.predict(serial(flatten, Dense(2)), {}, {}, x)


def test_an_image_without_its_batch_axis_is_refused_by_the_network():
    """It looks like a batch of series, but a network of images takes none."""
    model = serial(Conv(2, 3), flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (6, 7, 1))
    with pytest.raises(
        InputError, match=r"conv1: conv: x \(6, 7, 1\) should have 4 axes.*add the batch axis, x\[None\]"
    ):
        train.predict(model, params, state, np.zeros((6, 7, 1), np.float32))


def test_what_moves_images_refuses_series():
    run, (x, labels) = trained("series"), examples("series", 5)
    for look in (explain.translation_test, explain.corruption_accuracy):
        with pytest.raises(InputError, match=rf"{look.__name__}: images \(5, 9, 2\) should be \(N, H, W, C\)"):
            options = {"shifts": [1]} if look is explain.translation_test else {}
            look(network("series"), run.params, run.state, x, labels, **options)
