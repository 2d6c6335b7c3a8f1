"""Examples made on the spot: series, sounds and videos in which one thing tells the class, and nothing else does.

===================  ======================  ==================================================================
name                 one example             its class
===================  ======================  ==================================================================
``negation``         (40, 100) uint8         is the opinion good or bad: "not" counts up to four words on
``two_vowels``       (3600,) float32         which of six words of two vowels is spoken: a sound's wave
``passing_pulse``    (96, 3) float32         in which order do three sensors see a pulse go by
``moving_blob``      (8, 16, 16, 1) uint8    where does the blob go: up, down, left or right
===================  ======================  ==================================================================

Each is a function ``(count, seed) -> (x, labels)``: x has ``count`` examples, labels are their class numbers in int32,
as even as can be, and both are functions of the seed. Draw training, validation and test examples with three seeds.
That is made data: what is learned on it says what a network *can* tell, and nothing about the world.
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
REACH = 4  # so many words after a negation, praise is blame
WORDS = (*NEGATIONS, *GOOD, *BAD, *OTHERS)
FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}  # in hertz, of men
VOWELS = tuple(one + other for one in FORMANTS for other in FORMANTS if one != other)
RATE, SAMPLES = 16_000, 3600  # 21 frames of 25 ms, one every 10 ms
ORDERS = ("123", "132", "213", "231", "312", "321")
DIRECTIONS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


@named_errors
def negation(count: int, seed: int, *, length: int = 40) -> Examples:
    """Sentences with one word of praise or blame and one negation, which counts only if it stands one to four words
    before: ``"not very good"`` is bad, ``"good … not"`` and ``"not … … … … good"`` are good.

    So two words decide together, by how far apart they are and in which order; both fit in a window of five words, that
    is two to either side of its middle. Which words there are says nothing, and neither does where one of them stands.
    Half of the negations count, at each of the four distances as many, so a window of three words, which sees two of
    these, is right in 75 of 100 sentences at most. The other words are drawn one by one, so it is no English.

    Args:
        count: of sentences.
        seed: of all that is drawn.
        length: of each, in words; at least 6.

    Returns:
        Words as vectors ``(count, length, 100)`` in uint8, 255 at the word's place in ``WORDS`` and 0 elsewhere; and
        labels, 0 bad and 1 good.

    Lecture row 003-14: "not more than two words away".

    >>> x, labels = negation(4, seed=0, length=8)
    >>> x.shape, sentence(x[0]), ("bad", "good")[labels[0]]
    ((4, 8, 100), 'a dialogue after there barely lovely then as', 'bad')
    """
    checks.at_least(2 + REACH, length=length)
    rng, labels = _begin(count, seed, 2)
    rows, counts = np.arange(count), _even(rng, count, 2)
    words = len(WORDS) - len(OTHERS) + rng.integers(len(OTHERS), size=(count, length))
    praise = labels ^ counts  # a negation that counts turns praise into blame
    place = rng.integers(REACH, length, count)
    near = place - rng.integers(1, REACH + 1, count)
    far = rng.integers(length - REACH - 1, size=count)
    far += (REACH + 1) * (far >= place - REACH)  # anywhere but at the word and the four before it
    words[rows, place] = len(NEGATIONS) + len(GOOD) * (1 - praise) + rng.integers(len(GOOD), size=count)
    words[rows, np.where(counts, near, far)] = rng.integers(len(NEGATIONS), size=count)
    return 255 * np.eye(len(WORDS), dtype=np.uint8)[words], labels


def sentence(x: np.ndarray) -> str:
    """The words of one example of :func:`negation`.

    >>> sentence(np.eye(100)[[20, 24, 53, 0, 4]])
    'the film was not good'
    """
    return " ".join(WORDS[i] for i in x.argmax(axis=-1))


@named_errors
def two_vowels(count: int, seed: int) -> Examples:
    """Words of two of the vowels a, i and u, spoken by many voices at many moments, in noise.

        wave = Σ_v envelope_v(t) · Σ_h amplitude_v(h·f₀) · cos(2π·h·f₀·t + φ_h) + noise

    A voice is a tone f₀ (90 to 250 Hz) with all its overtones, loud near the vowel's three formants; the first vowel
    fades into the second. Both words of two vowels hold the same sounds: which comes first decides. When the word
    begins (within 75 ms), how long it lasts (130 to 150 ms), where the turn is, f₀, the length of the throat (which
    multiplies all formants by 0.9 to 1.2) and the noise (from 3 dB below the voice to 12 dB above) are drawn.

    Returns:
        Waves ``(count, 3600)`` in float32, 16,000 samples a second, and labels, places in ``VOWELS``.

    Source of the formants: Peterson & Barney, 1952, "Control methods used in a study of the vowels", JASA 24(2).

    >>> waves, labels = two_vowels(6, seed=0)
    >>> waves.shape, VOWELS, sorted(labels.tolist())
    ((6, 3600), ('ai', 'au', 'ia', 'iu', 'ua', 'ui'), [0, 1, 2, 3, 4, 5])
    """
    rng, labels = _begin(count, seed, len(VOWELS))

    def draw(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1))

    bins, t = np.arange(SAMPLES // 2 + 1), np.arange(SAMPLES) / SAMPLES
    hertz, throat = bins * RATE / SAMPLES, draw(0.9, 1.2)
    overtones = (bins > 0) & (bins % rng.integers(20, 57, (count, 1)) == 0)  # f₀ is so many times 4.4 Hz
    phases = np.exp(2j * np.pi * rng.random((count, len(bins))))
    begin, length, turn = draw(0.02, 0.33), draw(0.58, 0.66), draw(0.4, 0.6)
    wave = np.zeros((count, SAMPLES))
    for which in (0, 1):
        formants = np.array([FORMANTS[word[which]] for word in VOWELS])[labels]
        peaks = [1 / (1 + ((hertz - throat * f[:, None]) / 80) ** 2) for f in formants.T]
        vowel = np.fft.irfft(overtones * phases * (peaks[0] + 0.5 * peaks[1] + 0.25 * peaks[2]), n=SAMPLES)
        vowel /= vowel.std(axis=1, keepdims=True)
        ends = (begin, begin + turn * length) if which == 0 else (begin + turn * length, begin + length)
        wave += vowel * _sigmoid((t - ends[0]) / 0.015) * _sigmoid((ends[1] - t) / 0.015)
    noise = rng.normal(size=wave.shape) * 10 ** (-draw(-12, 3) / 20)
    return (wave + noise).astype(np.float32), labels


@named_errors
def passing_pulse(count: int, seed: int, *, length: int = 96) -> Examples:
    """What three sensors measure while something goes by: the same pulse, 3 to 6 steps later at each, in noise.

    Whatever the class is, each sensor alone sees a pulse like any other, at any time: only their order tells it.

    Args:
        count: of series.
        seed: of all that is drawn.
        length: of each, at least 48.

    Returns:
        Series ``(count, length, 3)`` in float32, and labels, places in ``ORDERS``: 231 is seen by the second sensor
        first, then by the third.

    Lecture row 003-02: a time series of several channels.

    >>> x, labels = passing_pulse(12, seed=0)
    >>> x.shape, np.bincount(labels)
    ((12, 96, 3), array([2, 2, 2, 2, 2, 2]))
    """
    checks.at_least(48, length=length)
    rng, labels = _begin(count, seed, len(ORDERS))
    lags = np.concatenate([np.zeros((count, 1)), rng.uniform(3, 6, (count, 2)).cumsum(axis=1)], axis=1)
    seen = lags + rng.uniform(16, length - 28, (count, 1))  # by the first, the second and the third in order
    order = np.array([[int(sensor) - 1 for sensor in name] for name in ORDERS])[labels]
    times = np.empty_like(seen)
    np.put_along_axis(times, order, seen, axis=1)
    t = np.arange(length)[None, :, None]
    width, height = rng.uniform(1.5, 3, (count, 1, 1)), rng.uniform(0.8, 2, (count, 1, 1))
    pulse = height * np.exp(-(((t - times[:, None]) / width) ** 2) / 2)
    slow = np.sin(2 * np.pi * (t * rng.uniform(0.5, 2, (count, 1, 3)) / length + rng.random((count, 1, 3))))
    return (pulse + 0.5 * slow + 0.3 * rng.normal(size=pulse.shape)).astype(np.float32), labels


@named_errors
def moving_blob(count: int, seed: int, *, frames: int = 8, size: int = 16) -> Examples:
    """Videos of a bright blob that moves one way; what leaves on one side comes in on the other.

    It begins anywhere, so every single frame shows it anywhere, whatever the class is. All frames together, in no
    order, tell at most whether it moves along rows or columns: to the left is to the right, played backwards.

    Args:
        count: of videos.
        seed: of all that is drawn.
        frames: of each.
        size: of a frame, in pixels a side.

    Returns:
        Videos ``(count, frames, size, size, 1)`` in uint8, and labels, places in ``DIRECTIONS``.

    Lecture rows 002-01 and 003-02: video as a convolution's input.

    >>> x, labels = moving_blob(8, seed=0)
    >>> x.shape, np.bincount(labels)
    ((8, 8, 16, 16, 1), array([2, 2, 2, 2]))
    """
    checks.at_least(1, frames=frames, size=size)
    rng, labels = _begin(count, seed, len(DIRECTIONS))
    velocity = rng.uniform(0.7, 1.6, (count, 1)) * np.array(list(DIRECTIONS.values()))[labels]
    centres = rng.uniform(0, size, (count, 1, 2)) + np.arange(frames)[None, :, None] * velocity[:, None]
    offsets = np.arange(size) - centres[..., None]  # (count, frames, 2, size)
    offsets = (offsets + size / 2) % size - size / 2  # the shorter way round
    bumps = np.exp(-((offsets / rng.uniform(1, 2, (count, 1, 1, 1))) ** 2) / 2)
    blob = bumps[:, :, 0, :, None] * bumps[:, :, 1, None, :]
    light = 0.2 + 0.6 * blob + 0.1 * rng.normal(size=blob.shape)
    return np.round(255 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], labels


class Made(NamedTuple):
    """A task: ``make(count, seed)``, and the name of each class."""

    make: Callable[..., Examples]
    classes: tuple[str, ...]


SYNTHETIC: dict[str, Made] = {
    "negation": Made(negation, ("bad", "good")),
    "two_vowels": Made(two_vowels, VOWELS),
    "passing_pulse": Made(passing_pulse, ORDERS),
    "moving_blob": Made(moving_blob, tuple(DIRECTIONS)),
}


def _begin(count: int, seed: int, classes: int) -> tuple[np.random.Generator, np.ndarray]:
    """What is drawn from, and the labels, drawn first."""
    checks.at_least(1, count=count)
    checks.at_least(0, seed=seed)
    rng = np.random.default_rng(seed)
    return rng, _even(rng, count, classes)


def _even(rng: np.random.Generator, count: int, classes: int) -> np.ndarray:
    """Class numbers in random order, of each class as many, but for one more or less."""
    return rng.permutation(np.arange(count, dtype=np.int32) % classes)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return (1 + np.tanh(x / 2)) / 2
