"""Frequencies as the ear tells them apart: mel bands, their logarithms, and the cosine transform of these."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxconv import checks
from jaxconv.audio.spectrum import FRAME, HOP, SIZE, power_spectrum
from jaxconv.errors import InputError

RATE, BANDS = 16_000, 40
FLOOR = 1e-6  # added to every band's energy, so that silence has a logarithm, and that a slope


def hertz_to_mel(hertz: ArrayLike) -> np.ndarray:
    """The ear's scale of pitch, by HTK's formula: ``mel = 2595 · log₁₀(1 + hertz/700)``.

    >>> hertz_to_mel([0, 700, 1000]).round(1)
    array([  0. , 781.2, 1000. ])
    """
    return 2595 * np.log10(1 + np.asarray(hertz, float) / 700)


def mel_to_hertz(mel: ArrayLike) -> np.ndarray:
    """The other way: ``hertz = 700 · (10^(mel/2595) − 1)``.

    >>> mel_to_hertz(hertz_to_mel([50, 4000])).round(6)
    array([  50., 4000.])
    """
    return 700 * (10 ** (np.asarray(mel, float) / 2595) - 1)


def mel_filterbank(
    bands: int = BANDS, *, size: int = SIZE, rate: float = RATE, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Triangles that add up a power spectrum into bands: ``(size // 2 + 1, bands)`` floats.

        p_0 … p_{bands+1} evenly spaced in mel from low to high, in hertz;    f_k = k · rate / size
        bank[k, b] = max(0, min((f_k − p_b) / (p_{b+1} − p_b), (p_{b+2} − f_k) / (p_{b+2} − p_{b+1})))

    A band begins at its lower neighbour's centre, is 1 at its own and ends at its upper neighbour's, so between the
    first and the last centre every frequency counts for 1 in all. The sides are straight in hertz, as Davis &
    Mermelstein draw them; HTK's are straight in mel.

    Args:
        bands: how many.
        size: of the Fourier transform.
        rate: samples a second.
        low, high: where the first band begins and the last one ends, in hertz; by default 0 and half the rate.

    Raises:
        InputError: low and high out of order or above half the rate, or bands so narrow that one sees no frequency.

    Lecture row 003-10: 40 bands.

    >>> bank = mel_filterbank(40)
    >>> bank.shape, bank[:, [0, 39]].argmax(axis=0) * 16_000 / 512              # their peaks, in hertz
    ((257, 40), array([  31.25, 7468.75]))
    """
    checks.whole("mel_filterbank", 1, bands=bands, size=size)
    checks.number("mel_filterbank", "rate", rate, above=0)
    high = rate / 2 if high is None else high
    checks.number("mel_filterbank", "low", low, least=0)
    checks.number("mel_filterbank", "high", high)
    if not low < high <= rate / 2:
        raise InputError(
            f"mel_filterbank: low={low} and high={high} should go up, to half the rate at most: {rate / 2}"
        )
    edges = mel_to_hertz(np.linspace(hertz_to_mel(low), hertz_to_mel(high), bands + 2))
    f = (np.arange(size // 2 + 1) * rate / size)[:, None]
    rising = (f - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - f) / np.diff(edges)[1:]
    bank = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(bank.sum(axis=0) == 0)
    if empty.size:
        raise InputError(
            f"mel_filterbank: band {empty[0]} of bands={bands} lies between two frequencies of a transform of "
            f"size={size}, {rate / size:g} Hz apart: take fewer bands or a larger size"
        )
    return bank


def log_mel(
    wave: Float[ArrayLike, "*batch samples"],
    bands: int = BANDS,
    *,
    rate: float = RATE,
    low: float = 0.0,
    high: float | None = None,
    frame: int = FRAME,
    hop: int = HOP,
    size: int = SIZE,
    window: str = "hamming",
    impl: str = "fft",
    floor: float = FLOOR,
) -> Float[Array, "*batch t b"]:
    """The logarithm of the energy in every mel band of every frame ("MFSC"):

        y[…, t, b] = ln(floor + Σ_k power_spectrum(wave)[…, t, k] · mel_filterbank(bands)[k, b])

    In it, speaking louder adds a constant, and a higher voice is nearly a shift along the bands: an image on which the
    same small pattern means the same at many places.

    Args:
        wave, frame, hop, size, window, impl: as in :func:`power_spectrum`.
        bands, rate, low, high: as in :func:`mel_filterbank`.
        floor: energy that every band has; above 0, so that silence has a logarithm, and a gradient.

    Returns:
        ``(…, frames, bands)``, in at least float32.

    Lecture row 003-10.

    >>> import jax
    >>> wave = jax.random.normal(jax.random.key(0), (2, 3600))
    >>> louder = log_mel(2 * wave) - log_mel(wave)
    >>> louder.shape, bool(jnp.allclose(louder, 2 * jnp.log(2.), atol=1e-4))
    ((2, 21, 40), True)
    """
    checks.number("log_mel", "floor", floor, above=0)
    spectrum = power_spectrum(wave, frame=frame, hop=hop, size=size, window=window, impl=impl)
    bank = jnp.asarray(mel_filterbank(bands, size=size, rate=rate, low=low, high=high), spectrum.dtype)
    return jnp.log(jnp.matmul(spectrum, bank, precision="highest") + jnp.asarray(floor, spectrum.dtype))


def mfcc(
    wave: Float[ArrayLike, "*batch samples"], coefficients: int = 13, *, bands: int = BANDS, **options: object
) -> Float[Array, "*batch t c"]:
    """The first coefficients of the cosine transform of :func:`log_mel`, the mel-frequency cepstrum:

        y[…, t, c] = s_c · Σ_b log_mel(wave)[…, t, b] · cos(π·c·(b + ½) / bands),    s_0 = √(1/bands), s_c = √(2/bands)

    The scaling keeps lengths (the transform is orthonormal); HTK scales coefficient 0 by √(2/bands) too. Few
    coefficients are the spectrum's outline without the voice's pitch, hardly correlated with each other. But what was
    near is no longer near: convolving along them makes no sense, which is why a CNN is given log_mel.

    Args:
        wave: as in :func:`frames`.
        coefficients: how many, from 0 (the loudness) on; at most ``bands``.
        bands: how many of them are made of.
        options: the others of :func:`log_mel`.

    Raises:
        InputError: more coefficients than bands, and as in :func:`log_mel`.

    Lecture row 003-10.

    >>> import jax
    >>> mfcc(jax.random.normal(jax.random.key(0), (2, 3600)), 12).shape
    (2, 21, 12)
    """
    checks.whole("mfcc", 1, coefficients=coefficients, bands=bands)
    if coefficients > bands:
        raise InputError(f"mfcc: coefficients={coefficients} of bands={bands}: at most {bands} can be had")
    energies = log_mel(wave, bands, **options)  # type: ignore[arg-type]
    waves = np.cos(np.pi * np.outer(np.arange(bands) + 0.5, np.arange(coefficients)) / bands)
    scales = np.where(np.arange(coefficients) == 0, np.sqrt(1 / bands), np.sqrt(2 / bands))
    return jnp.matmul(energies, jnp.asarray(waves * scales, energies.dtype), precision="highest")
