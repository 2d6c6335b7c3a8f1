"""Generate labeled sentences, sounds, series and videos in which exactly one feature determines the class.

===================  ======================  ==================================================================
name                 one example             class
===================  ======================  ==================================================================
``negation``         (40, 100) uint8         good or bad opinion: "not" acts on the four words after it
``two_vowels``       (3600,) float32         one of six words of two vowels, as a sound wave
``passing_pulse``    (96, 3) float32         order in which a pulse passes three sensors
``moving_blob``      (8, 16, 16, 1) uint8    direction of a moving blob: up, down, left or right
===================  ======================  ==================================================================

Each is a function ``(count, seed) -> (x, labels)``: ``count`` examples and their int32 labels. Classes are balanced,
and both arrays depend on the arguments alone. Draw training, validation and test examples with three different seeds.
Accuracy on synthetic data shows the capability of an architecture, not its performance on real data.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxconv import checks
from jaxconv.errors import named_errors

Examples = tuple[np.ndarray, np.ndarray]

NEGATIONS = ("not", "never", "hardly", "barely")
GOOD = ("good", "great", "fine", "lovely", "funny", "clever", "moving", "brilliant")
BAD = ("bad", "awful", "dull", "boring", "silly", "clumsy", "tedious", "dreadful")
OTHERS = tuple(
    "the a this that film story plot actor actress director music scene ending opening dialogue camera light sound "
    "and but or because while when where who which it they we you i is was seems looks feels became remains very quite "
    "rather really so too again still also then now here there first last long short old new whole half every some "
    "with without about after before under over of in on at to for from by as up out".split()
)
REACH = 4  # number of words after a negation whose meaning it inverts
WORDS = (*NEGATIONS, *GOOD, *BAD, *OTHERS)
FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}  # in hertz, of male voices
VOWELS = tuple(one + other for one in FORMANTS for other in FORMANTS if one != other)
RATE, SAMPLES = 16_000, 3600  # 21 frames of 25 ms, one every 10 ms
ORDERS = ("123", "132", "213", "231", "312", "321")
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


@named_errors
def negation(count: int, seed: int, *, length: int = 40) -> Examples:
    """Generate sentences with one positive or negative word, inverted by a negation one to four words before it.

    ``"not very good"`` is bad; ``"good … not"`` and ``"not … … … … good"`` are good.

    The class depends on the order and the distance of two words. Both fit into a window of five words, two on either
    side of the center. Neither the set of words nor the position of one of them is informative. Half of the negations
    are active, equally often at each of the four distances. A window of three words covers two of these distances, so
    its accuracy is at most 75 %. The other words are drawn independently.

    Args:
        count: number of sentences.
        seed: seed of the random generator.
        length: number of words of a sentence, at least 6.

    Returns:
        One-hot words ``(count, length, 100)`` in uint8, 255 at the word's index in ``WORDS`` and 0 elsewhere; and
        labels, 0 bad and 1 good.

    Lecture row 003-14: "not more than two words away".

    >>> x, labels = negation(4, seed=0, length=8)
    >>> x.shape, sentence(x[0]), ("bad", "good")[labels[0]]
    ((4, 8, 100), 'a dialogue after there barely lovely then as', 'bad')
    """
    checks.at_least(2 + REACH, length=length)
    rng, labels = _generator_and_labels(count, seed, 2)
    rows, is_active = np.arange(count), _balanced_labels(rng, count, 2)
    words = len(WORDS) - len(OTHERS) + rng.integers(len(OTHERS), size=(count, length))
    is_positive = labels ^ is_active  # an active negation inverts the label
    position = rng.integers(REACH, length, count)
    near = position - rng.integers(1, REACH + 1, count)
    far = rng.integers(length - REACH - 1, size=count)
    far += (REACH + 1) * (far >= position - REACH)  # skip the opinion word and the four positions before it
    words[rows, position] = len(NEGATIONS) + len(GOOD) * (1 - is_positive) + rng.integers(len(GOOD), size=count)
    words[rows, np.where(is_active, near, far)] = rng.integers(len(NEGATIONS), size=count)
    return 255 * np.eye(len(WORDS), dtype=np.uint8)[words], labels


def sentence(x: np.ndarray) -> str:
    """Return the words of one example of :func:`negation`.

    >>> sentence(np.eye(100)[[20, 24, 53, 0, 4]])
    'the film was not good'
    """
    return " ".join(WORDS[i] for i in x.argmax(axis=-1))


@named_errors
def two_vowels(count: int, seed: int) -> Examples:
    """Generate noisy words of two different vowels out of a, i and u, with random voices and onsets.

        wave = Σ_v envelope_v(t) · Σ_h amplitude_v(h·f₀) · cos(2π·h·f₀·t + φ_h) + noise

    A voice is a tone f₀ (90 to 250 Hz) with all its overtones, loudest near the three formants of the vowel; the first
    vowel fades into the second. The two words of a pair of vowels contain the same sounds, so their order determines
    the class. Random are the onset (within 75 ms), the duration (130 to 150 ms), the time of the transition, f₀, the
    length of the vocal tract (which scales all formants by 0.9 to 1.2) and the noise (from 3 dB below the voice to
    12 dB above it).

    Returns:
        Waves ``(count, 3600)`` in float32, 16,000 samples a second, and labels, indices in ``VOWELS``.

    Source of the formants: Peterson & Barney, 1952, "Control methods used in a study of the vowels", JASA 24(2).

    >>> waves, labels = two_vowels(6, seed=0)
    >>> waves.shape, VOWELS, sorted(labels.tolist())
    ((6, 3600), ('ai', 'au', 'ia', 'iu', 'ua', 'ui'), [0, 1, 2, 3, 4, 5])
    """
    rng, labels = _generator_and_labels(count, seed, len(VOWELS))

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1))

    bins, t = np.arange(SAMPLES // 2 + 1), np.arange(SAMPLES) / SAMPLES
    hertz, formant_scale = bins * RATE / SAMPLES, draw(0.9, 1.2)
    overtones = (bins > 0) & (bins % rng.integers(20, 57, (count, 1)) == 0)  # f₀ is this multiple of 4.4 Hz
    phases = np.exp(2j * np.pi * rng.random((count, len(bins))))
    onset, length, transition = draw(0.02, 0.33), draw(0.58, 0.66), draw(0.4, 0.6)
    wave = np.zeros((count, SAMPLES))
    for index in (0, 1):
        formants = np.array([FORMANTS[word[index]] for word in VOWELS])[labels]
        peaks = [1 / (1 + ((hertz - formant_scale * f[:, None]) / 80) ** 2) for f in formants.T]
        vowel = np.fft.irfft(overtones * phases * (peaks[0] + 0.5 * peaks[1] + 0.25 * peaks[2]), n=SAMPLES)
        vowel /= vowel.std(axis=1, keepdims=True)
        interval = (onset, onset + transition * length) if index == 0 else (onset + transition * length, onset + length)
        wave += vowel * _sigmoid((t - interval[0]) / 0.015) * _sigmoid((interval[1] - t) / 0.015)
    noise = rng.normal(size=wave.shape) * 10 ** (-draw(-12, 3) / 20)
    return (wave + noise).astype(np.float32), labels


@named_errors
def passing_pulse(count: int, seed: int, *, length: int = 96) -> Examples:
    """Generate noisy series of three sensors that record the same pulse, each 3 to 6 steps after the previous one.

    The signal of a single sensor is independent of the class; the order of the three determines it.

    Args:
        count: number of series.
        seed: seed of the random generator.
        length: number of steps of a series, at least 48.

    Returns:
        Series ``(count, length, 3)`` in float32, and labels, indices in ``ORDERS``: in 231, the pulse reaches sensor 2
        first, then 3, then 1.

    Lecture row 003-02: a time series of several channels.

    >>> x, labels = passing_pulse(12, seed=0)
    >>> x.shape, np.bincount(labels)
    ((12, 96, 3), array([2, 2, 2, 2, 2, 2]))
    """
    checks.at_least(48, length=length)
    rng, labels = _generator_and_labels(count, seed, len(ORDERS))
    lags = np.concatenate([np.zeros((count, 1)), rng.uniform(3, 6, (count, 2)).cumsum(axis=1)], axis=1)
    arrivals = lags + rng.uniform(16, length - 28, (count, 1))  # arrival times in order
    order = np.array([[int(sensor) - 1 for sensor in name] for name in ORDERS])[labels]
    times = np.empty_like(arrivals)
    np.put_along_axis(times, order, arrivals, axis=1)
    t = np.arange(length)[None, :, None]
    width, height = rng.uniform(1.5, 3, (count, 1, 1)), rng.uniform(0.8, 2, (count, 1, 1))
    pulse = height * np.exp(-(((t - times[:, None]) / width) ** 2) / 2)
    drift = np.sin(2 * np.pi * (t * rng.uniform(0.5, 2, (count, 1, 3)) / length + rng.random((count, 1, 3))))
    return (pulse + 0.5 * drift + 0.3 * rng.normal(size=pulse.shape)).astype(np.float32), labels


@named_errors
def moving_blob(count: int, seed: int, *, frames: int = 8, size: int = 16) -> Examples:
    """Generate videos of a bright blob that moves in one direction, with periodic borders.

    The starting point is random, so the position in a single frame is independent of the class. The unordered set of
    frames shows at most whether the blob moves along rows or columns: left is right played backwards.

    Args:
        count: number of videos.
        seed: seed of the random generator.
        frames: number of frames of a video.
        size: height and width of a frame.

    Returns:
        Videos ``(count, frames, size, size, 1)`` in uint8, and labels, indices in ``DIRECTIONS``.

    Lecture rows 002-01 and 003-02: video as a convolution's input.

    >>> x, labels = moving_blob(8, seed=0)
    >>> x.shape, np.bincount(labels)
    ((8, 8, 16, 16, 1), array([2, 2, 2, 2]))
    """
    checks.at_least(1, frames=frames, size=size)
    rng, labels = _generator_and_labels(count, seed, len(DIRECTIONS))
    velocity = rng.uniform(0.7, 1.6, (count, 1)) * np.array(list(DIRECTIONS.values()))[labels]
    centers = rng.uniform(0, size, (count, 1, 2)) + np.arange(frames)[None, :, None] * velocity[:, None]
    offsets = np.arange(size) - centers[..., None]  # (count, frames, 2, size)
    offsets = (offsets + size / 2) % size - size / 2  # distance across the periodic border
    bumps = np.exp(-((offsets / rng.uniform(1, 2, (count, 1, 1, 1))) ** 2) / 2)
    blob = bumps[:, :, 0, :, None] * bumps[:, :, 1, None, :]
    brightness = 0.2 + 0.6 * blob + 0.1 * rng.normal(size=blob.shape)
    return np.round(255 * np.clip(brightness, 0, 1)).astype(np.uint8)[..., None], labels


class SyntheticDataset(NamedTuple):
    """A synthetic dataset: its function ``make(count, seed)`` and its class names."""

    make: Callable[..., Examples]
    class_names: tuple[str, ...]


SYNTHETIC: dict[str, SyntheticDataset] = {
    "negation": SyntheticDataset(negation, ("bad", "good")),
    "two_vowels": SyntheticDataset(two_vowels, VOWELS),
    "passing_pulse": SyntheticDataset(passing_pulse, ORDERS),
    "moving_blob": SyntheticDataset(moving_blob, tuple(DIRECTIONS)),
}


def _generator_and_labels(count: int, seed: int, num_classes: int) -> tuple[np.random.Generator, np.ndarray]:
    """Return the random generator, and the labels as its first draw."""
    checks.at_least(1, count=count)
    checks.at_least(0, seed=seed)
    rng = np.random.default_rng(seed)
    return rng, _balanced_labels(rng, count, num_classes)


def _balanced_labels(rng: np.random.Generator, count: int, num_classes: int) -> np.ndarray:
    """Draw labels in random order whose class counts differ by at most one."""
    return rng.permutation(np.arange(count, dtype=np.int32) % num_classes)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2
