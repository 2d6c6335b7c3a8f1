"""Made data: the same from the same seed, as many of each class, and only what should tell the class tells it."""

import numpy as np
import pytest

from common import synthetic
from common.synthetic import SYNTHETIC, WORDS, moving_blob, negation, passing_pulse, two_vowels
from jaxconv import InputError

EVERY = pytest.mark.parametrize("name", SYNTHETIC)


@EVERY
def test_the_seed_decides_and_the_classes_are_even(name):
    make, classes = SYNTHETIC[name]
    count = 5 * len(classes) + 1
    x, labels = make(count, 3)
    again, labels_again = make(count, 3)
    other, labels_other = make(count, 4)
    assert x.tobytes() == again.tobytes() and labels.tobytes() == labels_again.tobytes()
    assert (x != other).any() and (labels != labels_other).any()
    assert len(x) == len(labels) == count and labels.dtype == np.int32 and x.dtype in (np.uint8, np.float32)
    assert sorted(np.bincount(labels, minlength=len(classes))) == [5] * (len(classes) - 1) + [6]
    assert np.isfinite(x).all()


def test_the_negation_counts_one_to_four_words_before():
    """The rule read off the words, one sentence after the other."""
    x, labels = negation(400, 0, length=12)
    assert len(set(WORDS)) == 100 and x.shape == (400, 12, 100) and (x.sum(axis=2) == 255).all()
    near = []
    for example, label in zip(x, labels):
        words = synthetic.sentence(example).split()
        [verdict] = [i for i, word in enumerate(words) if word in synthetic.GOOD + synthetic.BAD]
        [no] = [i for i, word in enumerate(words) if word in synthetic.NEGATIONS]
        counts = 1 <= verdict - no <= 4
        assert label == (words[verdict] in synthetic.GOOD) ^ counts
        near += [verdict - no] * counts
    assert len(near) == 200 and np.bincount(near).min(initial=99, where=np.arange(5) > 0) > 30


def test_neither_the_words_nor_their_places_tell_the_class():
    """Whatever the word of praise or blame, and wherever it stands, both classes are as frequent."""
    x, labels = negation(8000, 1, length=8)
    words = x.argmax(axis=2)
    at = ((words >= 4) & (words < 20)).argmax(axis=1)
    verdict, no = words[np.arange(8000), at], ((words < 4) @ np.arange(8)).astype(int)
    assert set(at) == {4, 5, 6, 7} and set(no) == set(range(8))
    for seen in (verdict, at):
        for value in set(seen):
            share = labels[seen == value].mean()
            assert abs(share - 0.5) < 4 * 0.5 / np.sqrt((seen == value).sum()), value


def test_both_words_of_two_vowels_are_the_same_sounds_in_another_order():
    """Second formants, high in i and low in u: which is louder, in the first and the second half of the word."""
    waves, labels = two_vowels(600, 0)
    assert waves.shape == (600, 3600)
    hertz = np.fft.rfftfreq(600, 1 / 16_000)
    high, low = ((a < hertz) & (hertz < b) for a, b in ((2100, 2700), (750, 1250)))
    halves = []
    for start in (900, 2100):
        energy = np.abs(np.fft.rfft(waves[:, start : start + 600] * np.hanning(600))) ** 2
        halves.append(np.log(energy[:, high].mean(axis=1) / energy[:, low].mean(axis=1)))
    first, second = ({name: half[labels == i].mean() for i, name in enumerate(synthetic.VOWELS)} for half in halves)
    assert first["iu"] > second["iu"] + 0.5 and first["ui"] < second["ui"] - 0.5
    assert first["ia"] > second["ia"] + 0.5 and first["ai"] < second["ai"] - 0.5
    louder = np.sqrt((waves[:, 1500:2100] ** 2).mean(axis=1)) / np.sqrt((waves[:, :200] ** 2).mean(axis=1))
    assert louder.mean() > 1.2  # the word is in the middle, and before it is noise alone


def test_sensors_see_the_pulse_in_the_order_of_the_class():
    """Found by the best match with a pulse, which noise and drift hardly move; and at any time."""
    x, labels = passing_pulse(600, 0)
    t = np.arange(-6, 7)
    pulse = np.exp(-((t / 2) ** 2) / 2)
    pulse -= pulse.mean()
    found = np.array([[np.correlate(series, pulse, "same")[6:-6].argmax() for series in each.T] for each in x])
    orders = ["".join(str(sensor + 1) for sensor in np.argsort(times)) for times in found]
    right = np.mean([order == synthetic.ORDERS[label] for order, label in zip(orders, labels)])
    assert right > 0.8
    assert all(found[labels == i].std() > 10 for i in range(6))


def test_the_blob_goes_where_the_class_says():
    """The circular mean of the light, frame by frame: it moves by 0.7 to 1.6 pixels, one way; and begins anywhere."""
    x, labels = moving_blob(200, 0)
    assert x.shape == (200, 8, 16, 16, 1)
    turns = np.exp(2j * np.pi * np.arange(16) / 16)
    light = np.maximum(x[..., 0].astype(float) - 255 * 0.5, 0)
    angles = np.stack([np.angle(light.sum(axis=3) @ turns), np.angle(light.sum(axis=2) @ turns)], axis=-1)
    steps = np.angle(np.exp(1j * np.diff(angles, axis=1))) * 16 / (2 * np.pi)
    moved = np.median(steps, axis=1)
    for name, (down, right) in {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}.items():
        i = SYNTHETIC["moving_blob"].class_names.index(name)
        each = moved[labels == i]
        assert (0.5 < each @ [down, right]).all() and (each @ [down, right] < 1.8).all()
        assert (np.abs(each @ [right, down]) < 0.5).all()
        assert np.abs(np.exp(1j * angles[labels == i, 0]).mean(axis=0)).max() < 0.4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: negation(0, 0), r"negation: count=0 should be an int of at least 1"),
        (lambda: two_vowels(2, -1), r"two_vowels: seed=-1 should be an int of at least 0"),
        (lambda: negation(2, 0, length=5), r"negation: length=5 should be an int of at least 6"),
        (lambda: passing_pulse(2, 0, length=40), r"passing_pulse: length=40 should be an int of at least 48"),
        (lambda: moving_blob(2, 0, size=0), r"moving_blob: size=0 should be an int of at least 1"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
