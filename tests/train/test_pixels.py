"""Pixels: non-finite values raise, unusual ranges warn once, and ``scale`` divides."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxconv import Dense, InputError, flatten, serial, train
from jaxconv.errors import RangeWarning
from jaxconv.train.pixels import check_pixels
from toy_training import net, toy

pytestmark = pytest.mark.usefixtures("promoting")

KEY = jax.random.key(0)
IMAGES, LABELS = toy(24)
FLOATS = IMAGES.astype(np.float32)
MODEL = serial(flatten, Dense(3))
PARAMS, STATE = MODEL.init(KEY, (4, 4, 1))


def fit(images=IMAGES, validation=IMAGES, **options):
    options = {"optimizer": optax.sgd(0.1), "epochs": 1, "batch_size": 8} | options
    return train.fit(MODEL, (images, LABELS), (validation, LABELS), **options)


def warnings_of(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        call()
    assert all(warning.category is RangeWarning and warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


RANGE = f"from {FLOATS.min():g} to {FLOATS.max():g}"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: train.predict(MODEL, PARAMS, STATE, FLOATS),
            f"predict: images range {RANGE}, not from 0 to 1: scale=255",
        ),
        (
            lambda: train.evaluate(MODEL, PARAMS, STATE, FLOATS, LABELS),
            f"evaluate: images range {RANGE}, not from 0 to 1",
        ),
        (
            lambda: fit(FLOATS),
            f"fit: the training images range {RANGE}, not from 0 to 1: scale=255 divides by 255, and",
        ),
        (lambda: fit(validation=FLOATS), f"fit: the validation images range {RANGE}, not from 0 to 1"),
    ],
)
def test_floats_in_other_range_warn_once(call, message):
    [actual] = warnings_of(lambda: [call() for _ in range(2)])
    assert actual.startswith(message)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.linspace(0, 1, 48), None),
        (np.linspace(-0.005, 1.005, 48), None),
        (np.linspace(-1, 1, 48), "from -1 to 1, not from 0 to 1: scale=1 keeps them unchanged"),
        (np.linspace(0, 16, 48), "from 0 to 16, not from 0 to 1: scale=16 divides by 16, and scale=1"),
        (np.linspace(0, 3.5, 48), "scale=4 divides by 4"),
        (np.arange(48) % 17, "from 0 to 16 and are divided by 255: scale=16 divides by 16"),
        (np.arange(48) % 2, "from 0 to 1 and are divided by 255: scale=1 divides by 1"),
        (np.arange(48) % 18, None),
        (np.zeros(48, int), None),
        (np.full(48, 7), None),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64])
def test_check_pixels_warning_per_range(images, message, dtype):
    array = images.reshape(3, 4, 4, 1).astype(np.uint8 if images.dtype.kind == "i" else dtype)
    messages = warnings_of(lambda: check_pixels("f", "they", array, None))
    assert (messages == []) if message is None else (len(messages) == 1 and message in messages[0])
    assert warnings_of(lambda: check_pixels("f", "they", array, 1.0)) == []


def test_scale_divides_pixels_in_every_function(rng):
    pixels = rng.integers(0, 17, (24, 4, 4, 1))
    expected_images = (pixels / 16).astype(np.float32)
    expected = fit(expected_images, expected_images)
    probabilities = train.predict(MODEL, PARAMS, STATE, expected_images)
    expected_scores = train.evaluate(MODEL, PARAMS, STATE, expected_images, LABELS)
    for images in (pixels.astype(np.uint8), pixels.astype(np.float32)):  # 1/16 is exact in float32
        scaled = fit(images, images, scale=16)
        assert train.tree_sha256(scaled.params) == train.tree_sha256(expected.params)
        assert scaled.history[0]["val_loss"] == expected.history[0]["val_loss"]
        np.testing.assert_array_equal(train.predict(MODEL, PARAMS, STATE, images, scale=16), probabilities)
        assert train.evaluate(MODEL, PARAMS, STATE, images, LABELS, scale=16) == expected_scores
    evaluator = train.Evaluator(MODEL, 8, scale=16)
    assert (
        evaluator(PARAMS, STATE, evaluator.batches(pixels.astype(np.uint8), LABELS)).accuracy
        == expected_scores["accuracy"]
    )
    assert train.to_float(pixels, 16).dtype == np.float32


def test_to_float_default_divides_uint8_by_255_only():
    # XLA may multiply by a rounded reciprocal.
    np.testing.assert_allclose(train.to_float(IMAGES), IMAGES / 255, rtol=2e-7)
    np.testing.assert_array_equal(train.to_float(FLOATS), FLOATS)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "255", True])
def test_invalid_scale_raises(scale):
    for call in (
        lambda: fit(scale=scale),
        lambda: train.predict(MODEL, PARAMS, STATE, IMAGES, scale=scale),
        lambda: train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS, scale=scale),
        lambda: train.Evaluator(MODEL, scale=scale),
        lambda: train.make_train_step(MODEL, optax.sgd(0.1), scale=scale),
    ):
        with pytest.raises(InputError, match=r": scale=.* should be a positive number"):
            call()


def images_with(value, *examples):
    images = FLOATS / 255
    for example in examples:
        images[example, 1, 2] = value
    return images


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_nonfinite_pixels_raise_with_example(value, word):
    images = images_with(value, 5, 7)
    message = rf"must be finite: example 5 has a pixel that is {word}, as have 2 of 24 examples"
    for call, description in (
        (lambda: fit(images), "fit: the training images"),
        (lambda: fit(validation=images), "fit: the validation images"),
        (lambda: fit(images, scale=1), "fit: the training images"),
        (lambda: train.predict(MODEL, PARAMS, STATE, images), "predict: images"),
        (lambda: train.evaluate(MODEL, PARAMS, STATE, jnp.asarray(images), LABELS), "evaluate: images"),
    ):
        with pytest.raises(InputError, match=f"^{description} {message}"):
            call()


class Source:
    """Custom random-access source."""

    image_shape, labels = (4, 4, 1), LABELS

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def stream(images, monkeypatch, **options):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 8 * 16)  # one step per execution
    data = IMAGES, LABELS
    options = {"optimizer": optax.sgd(0.1), "epochs": 2, "batch_size": 8} | options
    return train.fit(MODEL, Source(images), data, **options)


@pytest.mark.parametrize("position", [0, 23])
def test_nonfinite_pixels_of_stream_raise_with_example(monkeypatch, position):
    """In the first execution the pixels are checked before the step, later after a non-finite step."""
    example = int(train.epoch_permutation(0, 1, 24)[position])
    with pytest.raises(InputError, match=r"^fit: the training images ") as caught:
        stream(images_with(np.nan, example), monkeypatch)
    if position:
        assert f"of step 3 must be finite: example {example} has a pixel that is nan" in str(caught.value)


def test_stream_in_other_range_warns(monkeypatch):
    [actual] = warnings_of(lambda: stream(FLOATS, monkeypatch))
    assert actual.startswith("fit: the training images read first range from ")
    assert warnings_of(lambda: stream(FLOATS, monkeypatch, scale=255)) == []


def test_nonfinite_step_on_finite_pixels_suggests_lower_rate():
    with pytest.raises(InputError, match="A lower learning rate"):
        train.fit(net(), toy(), toy(), optimizer=optax.sgd(np.inf), epochs=1, batch_size=8)
