"""Synthetic data: deterministic, balanced, and with one informative feature."""

import numpy as np
import pytest

from common import synthetic
from common.synthetic import SYNTHETIC, WORDS, moving_blob, negation, passing_pulse, two_vowels
from jaxconv import InputError

EVERY = pytest.mark.parametrize("name", SYNTHETIC)


@EVERY
def test_seed_determines_data_and_classes_are_balanced(name):
    make, class_names = SYNTHETIC[name]
    count = 5 * len(class_names) + 1
    x, labels = make(count, 3)
    x_again, labels_again = make(count, 3)
    x_other, labels_other = make(count, 4)
    assert x.tobytes() == x_again.tobytes() and labels.tobytes() == labels_again.tobytes()
    assert (x != x_other).any() and (labels != labels_other).any()
    assert len(x) == len(labels) == count and labels.dtype == np.int32 and x.dtype in (np.uint8, np.float32)
    assert sorted(np.bincount(labels, minlength=len(class_names))) == [5] * (len(class_names) - 1) + [6]
    assert np.isfinite(x).all()


def test_negation_acts_on_next_four_words():
    """Apply the rule to the words of each sentence."""
    x, labels = negation(400, 0, length=12)
    assert len(set(WORDS)) == 100 and x.shape == (400, 12, 100) and (x.sum(axis=2) == 255).all()
    distances = []
    for example, label in zip(x, labels):
        words = synthetic.sentence(example).split()
        [opinion] = [i for i, word in enumerate(words) if word in synthetic.GOOD + synthetic.BAD]
        [negation_index] = [i for i, word in enumerate(words) if word in synthetic.NEGATIONS]
        is_active = 1 <= opinion - negation_index <= 4
        assert label == (words[opinion] in synthetic.GOOD) ^ is_active
        distances += [opinion - negation_index] * is_active
    assert len(distances) == 200 and np.bincount(distances).min(initial=99, where=np.arange(5) > 0) > 30


def test_negation_words_and_positions_are_uninformative():
    """Both classes are equally frequent for each opinion word and each position."""
    x, labels = negation(8000, 1, length=8)
    words = x.argmax(axis=2)
    position = ((words >= 4) & (words < 20)).argmax(axis=1)
    opinion, negation_position = words[np.arange(8000), position], ((words < 4) @ np.arange(8)).astype(int)
    assert set(position) == {4, 5, 6, 7} and set(negation_position) == set(range(8))
    for feature in (opinion, position):
        for value in set(feature):
            fraction = labels[feature == value].mean()
            assert abs(fraction - 0.5) < 4 * 0.5 / np.sqrt((feature == value).sum()), value


def test_two_vowels_order_determines_class():
    """Compare the energy near the second formants, high in i and low in u, in both halves of the word."""
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
    assert louder.mean() > 1.2  # the word is in the middle, after noise alone


def test_passing_pulse_order_matches_class():
    """Locate the pulse by correlation, which is robust to noise and drift."""
    x, labels = passing_pulse(600, 0)
    t = np.arange(-6, 7)
    pulse = np.exp(-((t / 2) ** 2) / 2)
    pulse -= pulse.mean()
    arrivals = np.array([[np.correlate(series, pulse, "same")[6:-6].argmax() for series in example.T] for example in x])
    orders = ["".join(str(sensor + 1) for sensor in np.argsort(times)) for times in arrivals]
    accuracy = np.mean([order == synthetic.ORDERS[label] for order, label in zip(orders, labels)])
    assert accuracy > 0.8
    assert all(arrivals[labels == i].std() > 10 for i in range(6))


def test_moving_blob_direction_matches_class():
    """Track the circular mean of the brightness: it moves by 0.7 to 1.6 pixels per frame, from a random start."""
    x, labels = moving_blob(200, 0)
    assert x.shape == (200, 8, 16, 16, 1)
    phases = np.exp(2j * np.pi * np.arange(16) / 16)
    brightness = np.maximum(x[..., 0].astype(float) - 255 * 0.5, 0)
    angles = np.stack([np.angle(brightness.sum(axis=3) @ phases), np.angle(brightness.sum(axis=2) @ phases)], axis=-1)
    steps = np.angle(np.exp(1j * np.diff(angles, axis=1))) * 16 / (2 * np.pi)
    velocity = np.median(steps, axis=1)
    for name, (down, right) in {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}.items():
        i = SYNTHETIC["moving_blob"].class_names.index(name)
        of_class = velocity[labels == i]
        assert (0.5 < of_class @ [down, right]).all() and (of_class @ [down, right] < 1.8).all()
        assert (np.abs(of_class @ [right, down]) < 0.5).all()
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
def test_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()
