"""Pixels that are no numbers are refused and named; a range that is hardly meant is told once; scale says otherwise."""

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


def told(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        call()
    assert all(each.category is RangeWarning and each.filename == __file__ for each in caught)
    return [str(each.message) for each in caught]


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
def test_floats_in_another_range_are_told_once(call, message):
    [said] = told(lambda: [call() for _ in range(2)])
    assert said.startswith(message)


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
@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16, np.float64])
def test_what_is_told_of_a_range(images, message, kind):
    array = images.reshape(3, 4, 4, 1).astype(np.uint8 if images.dtype.kind == "i" else kind)
    said = told(lambda: check_pixels("f", "they", array, None))
    assert (said == []) if message is None else (len(said) == 1 and message in said[0])
    assert told(lambda: check_pixels("f", "they", array, 1.0)) == []


def test_scale_divides_the_pixels_everywhere(rng):
    small = rng.integers(0, 17, (24, 4, 4, 1))
    wanted = (small / 16).astype(np.float32)
    by_hand = fit(wanted, wanted)
    probabilities = train.predict(MODEL, PARAMS, STATE, wanted)
    scores = train.evaluate(MODEL, PARAMS, STATE, wanted, LABELS)
    for images in (small.astype(np.uint8), small.astype(np.float32)):  # a sixteenth is exact
        scaled = fit(images, images, scale=16)
        assert train.tree_sha256(scaled.params) == train.tree_sha256(by_hand.params)
        assert scaled.history[0]["val_loss"] == by_hand.history[0]["val_loss"]
        np.testing.assert_array_equal(train.predict(MODEL, PARAMS, STATE, images, scale=16), probabilities)
        assert train.evaluate(MODEL, PARAMS, STATE, images, LABELS, scale=16) == scores
    evaluator = train.Evaluator(MODEL, 8, scale=16)
    assert evaluator(PARAMS, STATE, evaluator.batches(small.astype(np.uint8), LABELS)).accuracy == scores["accuracy"]
    assert train.to_float(small, 16).dtype == np.float32


def test_without_scale_bytes_are_divided_by_255_and_floats_are_not():
    np.testing.assert_allclose(train.to_float(IMAGES), IMAGES / 255, rtol=2e-7)  # a rounding, of a reciprocal another
    np.testing.assert_array_equal(train.to_float(FLOATS), FLOATS)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), "255", True])
def test_a_scale_that_divides_nothing_is_refused(scale):
    for call in (
        lambda: fit(scale=scale),
        lambda: train.predict(MODEL, PARAMS, STATE, IMAGES, scale=scale),
        lambda: train.evaluate(MODEL, PARAMS, STATE, IMAGES, LABELS, scale=scale),
        lambda: train.Evaluator(MODEL, scale=scale),
        lambda: train.make_train_step(MODEL, optax.sgd(0.1), scale=scale),
    ):
        with pytest.raises(InputError, match=r": scale=.* should be a positive number"):
            call()


def spoilt(value, *examples):
    images = FLOATS / 255
    for example in examples:
        images[example, 1, 2] = value
    return images


@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_pixels_that_are_no_numbers_are_named(value, word):
    bad = spoilt(value, 5, 7)
    rest = rf"must be finite: example 5 has a pixel that is {word}, as have 2 of 24 examples"
    for call, what in (
        (lambda: fit(bad), "fit: the training images"),
        (lambda: fit(validation=bad), "fit: the validation images"),
        (lambda: fit(bad, scale=1), "fit: the training images"),
        (lambda: train.predict(MODEL, PARAMS, STATE, bad), "predict: images"),
        (lambda: train.evaluate(MODEL, PARAMS, STATE, jnp.asarray(bad), LABELS), "evaluate: images"),
    ):
        with pytest.raises(InputError, match=f"^{what} {rest}"):
            call()


class Source:
    """Examples to stream, of a user's own."""

    image_shape, labels = (4, 4, 1), LABELS

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


def stream(images, monkeypatch, **options):
    monkeypatch.setitem(train.plan_epoch.__globals__, "PIXELS_PER_EXECUTION", 8 * 16)  # a step a chunk
    data = IMAGES, LABELS
    options = {"optimizer": optax.sgd(0.1), "epochs": 2, "batch_size": 8} | options
    return train.fit(MODEL, Source(images), data, **options)


@pytest.mark.parametrize("place", [0, 23])
def test_of_a_stream_the_example_is_named_too(monkeypatch, place):
    """In the first chunk at once, later when the step goes wrong."""
    example = int(train.epoch_permutation(0, 1, 24)[place])
    with pytest.raises(InputError, match=r"^fit: the training images ") as raised:
        stream(spoilt(np.nan, example), monkeypatch)
    if place:
        assert f"of step 3 must be finite: example {example} has a pixel that is nan" in str(raised.value)


def test_the_range_of_a_stream_is_told_too(monkeypatch):
    [said] = told(lambda: stream(FLOATS, monkeypatch))
    assert said.startswith("fit: the training images read first range from ")
    assert told(lambda: stream(FLOATS, monkeypatch, scale=255)) == []


def test_a_learning_rate_is_still_to_blame_where_the_data_are_sound():
    with pytest.raises(InputError, match="A lower learning rate"):
        train.fit(net(), toy(), toy(), optimizer=optax.sgd(np.inf), epochs=1, batch_size=8)
