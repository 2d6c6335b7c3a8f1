"""Compute speech features: log-mel energies (MFSC) and the mel-frequency cepstrum (MFCC).

    wave (…, samples) → frames → power spectrum → mel bands → log → (cosine transform) → features (…, frames, n)

=====================  ==========================================================================================
``frames``             overlapping segments of the wave: 25 ms long, one every 10 ms (at 16 kHz)
``power_spectrum``     energy of each frame by frequency, by the fast Fourier transform or a convolution
``dft_kernel``         kernel of that convolution: window and Fourier transform as the filters of one 1-D layer
``mel_filterbank``     triangular filters, evenly spaced on the mel scale of pitch
``log_mel``            logarithm of the energy in each band (MFSC), the input of convolutional networks
``mfcc``               cosine transform of ``log_mel`` (MFCC): decorrelated, without the similarity of neighbors
``stack_context``      each frame with its neighbors, as an image (frames, bands)
=====================  ==========================================================================================

All are pure functions of arrays, and differentiable with respect to the wave. Leading axes are kept: one wave is
``(samples,)``, a batch ``(N, samples)``.

Sources: Davis & Mermelstein, 1980, "Comparison of parametric representations for monosyllabic word recognition in
continuously spoken sentences", IEEE Trans. ASSP 28(4), https://doi.org/10.1109/TASSP.1980.1163420; Young et al., The
HTK Book, chapter 5 (the mel scale's formula). Lecture row 003-10.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxconv import checks, ops
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics

__all__ = [
    "WINDOWS",
    "dft_kernel",
    "frames",
    "hertz_to_mel",
    "log_mel",
    "mel_filterbank",
    "mel_to_hertz",
    "mfcc",
    "power_spectrum",
    "stack_context",
]

RATE, BANDS = 16_000, 40
FLOOR = 1e-6  # added to every band's energy, so that the logarithm of silence and its gradient are finite


def hertz_to_mel(hertz: ArrayLike) -> np.ndarray:
    """Convert hertz to the mel scale of pitch, by HTK's formula: ``mel = 2595 · log₁₀(1 + hertz/700)``.

    >>> hertz_to_mel([0, 700, 1000]).round(1)
    array([  0. , 781.2, 1000. ])
    """
    return 2595 * np.log10(1 + np.asarray(hertz, float) / 700)


def mel_to_hertz(mel: ArrayLike) -> np.ndarray:
    """Convert mel to hertz: ``hertz = 700 · (10^(mel/2595) − 1)``.

    >>> mel_to_hertz(hertz_to_mel([50, 4000])).round(6)
    array([  50., 4000.])
    """
    return 700 * (10 ** (np.asarray(mel, float) / 2595) - 1)


FRAME, HOP, SIZE = 400, 160, 512


@named_errors
def mel_filterbank(
    bands: int = BANDS, *, size: int = SIZE, rate: float = RATE, low: float = 0.0, high: float | None = None
) -> np.ndarray:
    """Return triangular filters from a power spectrum to mel bands: ``(size // 2 + 1, bands)`` floats.

        p_0 … p_{bands+1} evenly spaced in mel from low to high, in hertz;    f_k = k · rate / size
        bank[k, b] = max(0, min((f_k − p_b) / (p_{b+1} − p_b), (p_{b+2} − f_k) / (p_{b+2} − p_{b+1})))

    A band rises from the center of its lower neighbor, is 1 at its own center and falls to that of its upper neighbor,
    so the weights of a frequency between the first and the last center sum to 1. The sides are linear in hertz, as in
    Davis & Mermelstein; HTK's are linear in mel.

    Args:
        bands: number of bands.
        size: length of the Fourier transform.
        rate: samples per second.
        low, high: lower edge of the first band and upper edge of the last, in hertz; by default 0 and half the rate.

    Raises:
        InputError: if not ``low < high <= rate / 2``, or if a band contains no frequency of the transform.

    Lecture row 003-10: 40 bands.

    >>> bank = mel_filterbank(40)
    >>> bank.shape, bank[:, [0, 39]].argmax(axis=0) * 16_000 / 512              # peaks in hertz
    ((257, 40), array([  31.25, 7468.75]))
    """
    checks.at_least(1, bands=bands, size=size)
    checks.real("rate", rate, above=0)
    high = rate / 2 if high is None else high
    checks.real("low", low, minimum=0)
    checks.real("high", high)
    if not low < high <= rate / 2:
        raise InputError(f"low={low} and high={high} must satisfy low < high <= rate / 2 = {rate / 2}")
    edges = mel_to_hertz(np.linspace(hertz_to_mel(low), hertz_to_mel(high), bands + 2))
    f = (np.arange(size // 2 + 1) * rate / size)[:, None]
    rising = (f - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - f) / np.diff(edges)[1:]
    bank = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(bank.sum(axis=0) == 0)
    if empty.size:
        raise InputError(
            f"band {empty[0]} of bands={bands} lies between two frequencies of a transform of "
            f"size={size}, {rate / size:g} Hz apart: take fewer bands or a larger size"
        )
    return bank


@named_errors
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
    """Compute the log energy of every mel band and frame (MFSC):

        y[…, t, b] = ln(floor + Σ_k power_spectrum(wave)[…, t, k] · mel_filterbank(bands)[k, b])

    Loudness adds a constant, and a higher voice is nearly a shift along the bands. So local patterns have the same
    meaning at many positions, as in an image.

    Args:
        wave, frame, hop, size, window, impl: as in :func:`power_spectrum`.
        bands, rate, low, high: as in :func:`mel_filterbank`.
        floor: energy added to every band, above 0, so that the logarithm of silence and its gradient are finite.

    Returns:
        ``(…, frames, bands)``, in at least float32.

    Lecture row 003-10.

    >>> import jax
    >>> wave = jax.random.normal(jax.random.key(0), (2, 3600))
    >>> louder = log_mel(2 * wave) - log_mel(wave)
    >>> louder.shape, bool(jnp.allclose(louder, 2 * jnp.log(2.), atol=1e-4))
    ((2, 21, 40), True)
    """
    checks.real("floor", floor, above=0)
    spectrum = power_spectrum(wave, frame=frame, hop=hop, size=size, window=window, impl=impl)
    bank = jnp.asarray(mel_filterbank(bands, size=size, rate=rate, low=low, high=high), spectrum.dtype)
    return jnp.log(jnp.matmul(spectrum, bank, precision="highest") + jnp.asarray(floor, spectrum.dtype))


@named_errors
def mfcc(
    wave: Float[ArrayLike, "*batch samples"], coefficients: int = 13, *, bands: int = BANDS, **options: object
) -> Float[Array, "*batch t c"]:
    """Compute the mel-frequency cepstrum, the first coefficients of the cosine transform of :func:`log_mel`:

        y[…, t, c] = s_c · Σ_b log_mel(wave)[…, t, b] · cos(π·c·(b + ½) / bands),    s_0 = √(1/bands), s_c = √(2/bands)

    The transform is orthonormal; HTK also scales coefficient 0 by √(2/bands). The first coefficients describe the
    envelope of the spectrum without the pitch of the voice, and are nearly uncorrelated. Neighboring coefficients are
    not similar, so convolution along them is not meaningful: CNNs take ``log_mel`` as input.

    Args:
        wave: as in :func:`frames`.
        coefficients: number of coefficients, from 0 (the loudness) on; at most ``bands``.
        bands: number of mel bands.
        options: other arguments of :func:`log_mel`.

    Raises:
        InputError: if ``coefficients > bands``, or as in :func:`log_mel`.

    Lecture row 003-10.

    >>> import jax
    >>> mfcc(jax.random.normal(jax.random.key(0), (2, 3600)), 12).shape
    (2, 21, 12)
    """
    checks.at_least(1, coefficients=coefficients, bands=bands)
    if coefficients > bands:
        raise InputError(f"coefficients={coefficients} must be at most bands={bands}")
    energies = log_mel(wave, bands, **options)  # type: ignore[arg-type]
    cosines = np.cos(np.pi * np.outer(np.arange(bands) + 0.5, np.arange(coefficients)) / bands)
    scales = np.where(np.arange(coefficients) == 0, np.sqrt(1 / bands), np.sqrt(2 / bands))
    return jnp.matmul(energies, jnp.asarray(cosines * scales, energies.dtype), precision="highest")


WINDOWS = {
    "hamming": (0.54, 0.46),
    "hann": (0.5, 0.5),
    "rectangular": (1.0, 0.0),
}  # (a, b) of a − b·cos(2πt / (frame − 1))


@named_errors
def frames(wave: Float[ArrayLike, "*batch samples"], frame: int = FRAME, hop: int = HOP) -> Float[Array, "*batch t f"]:
    """Split a wave into overlapping frames: ``y[…, t, i] = wave[…, t·hop + i]``.

    There are ``⌊(samples − frame)/hop⌋ + 1`` frames.

    Args:
        wave: floats; scale integers such as int16 first.
        frame: samples per frame; 400 are 25 ms at 16 kHz.
        hop: samples from the start of a frame to the next; 160 are 10 ms.

    Raises:
        InputError: if the wave is shorter than a frame, or a size is below 1.
        DtypeError: if the wave holds integers.

    >>> frames(jnp.arange(7.), frame=3, hop=2)
    Array([[0., 1., 2.],
           [2., 3., 4.],
           [4., 5., 6.]], dtype=float32)
    """
    wave = _validate_wave(wave, frame, hop)
    starts = np.arange((wave.shape[-1] - frame) // hop + 1) * hop
    return wave[..., starts[:, None] + np.arange(frame)]


@named_errors
def power_spectrum(
    wave: Float[ArrayLike, "*batch samples"],
    *,
    frame: int = FRAME,
    hop: int = HOP,
    size: int = SIZE,
    window: str = "hamming",
    impl: str = "fft",
) -> Float[Array, "*batch t k"]:
    """Compute the energy of every frame at every frequency ``k · rate / size``:

        y[…, t, k] = |Σ_i w[i] · wave[…, t·hop + i] · exp(−2πj·k·i / size)|²,    k = 0 … size/2

    Args:
        wave, frame, hop: as in :func:`frames`.
        size: length of the Fourier transform, at least ``frame``; zero padding beyond it interpolates the spectrum.
        window: ``"hamming"``, ``"hann"`` or ``"rectangular"``: w[i] = a − b·cos(2π·i/(frame − 1)). Tapering the ends of
            a frame reduces spectral leakage.
        impl: ``"fft"``, or ``"conv"``: a 1-D convolution of stride ``hop`` with :func:`dft_kernel`. The results are
            equal up to rounding.

    Returns:
        ``(…, frames, size // 2 + 1)``, in at least float32.

    Raises:
        InputError: as in :func:`frames`, or if ``size < frame``, or ``window`` or ``impl`` is unknown.

    >>> tone = jnp.cos(2 * jnp.pi * 1000 * jnp.arange(1600) / 16_000)            # 1 kHz
    >>> spectrum = power_spectrum(tone)
    >>> spectrum.shape, int(spectrum[0].argmax()) * 16_000 / 512
    ((8, 257), 1000.0)
    """
    checks.one_of("impl", impl, ["fft", "conv"])
    wave = numerics.upcast(_validate_wave(wave, frame, hop))
    taper = _window_values(window, frame, size)
    if impl == "conv":
        batch, samples = wave.shape[:-1], wave.shape[-1]
        kernel = jnp.asarray(dft_kernel(frame, size, window), wave.dtype)
        pair = ops.conv(wave.reshape(-1, samples, 1), kernel, stride=hop, precision="highest")
        real, imaginary = jnp.split(pair.reshape(*batch, *pair.shape[1:]), 2, axis=-1)
    else:
        windows = frames(wave, frame, hop)
        tapers = jnp.broadcast_to(jnp.asarray(taper, wave.dtype), windows.shape)
        spectrum = jnp.fft.rfft(windows * tapers, n=size)
        real, imaginary = jnp.real(spectrum), jnp.imag(spectrum)
    return real**2 + imaginary**2


@named_errors
def dft_kernel(frame: int = FRAME, size: int = SIZE, window: str = "hamming") -> np.ndarray:
    """Return window and Fourier transform as a kernel of :func:`jaxconv.ops.conv`, ``(frame, 1, 2·(size/2 + 1))``.

        kernel[i, 0, k] = w[i]·cos(2π·k·i/size),    kernel[i, 0, size/2 + 1 + k] = −w[i]·sin(2π·k·i/size)

    The first step of the front end is a convolution with stride ``hop`` and a fixed pair of filters per frequency.

    >>> dft_kernel(4, 4, "rectangular")[:, 0].round().astype(int)       # three cosines, three sines
    array([[ 1,  1,  1,  0,  0,  0],
           [ 1,  0, -1,  0, -1,  0],
           [ 1, -1,  1,  0,  0,  0],
           [ 1,  0, -1,  0,  1,  0]])
    """
    taper = _window_values(window, frame, size)
    angle = 2 * np.pi * np.outer(np.arange(frame), np.arange(size // 2 + 1)) / size
    return (taper[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1))[:, None]


def _validate_wave(wave: ArrayLike, frame: int, hop: int) -> jax.Array:
    wave = checks.as_array(wave=wave)
    checks.floating_dtype(wave=wave)
    checks.at_least(1, frame=frame, hop=hop)
    if wave.ndim < 1 or wave.shape[-1] < frame:
        raise InputError(f"wave {wave.shape} should be (…, samples), with at least the {frame} samples of a frame")
    return wave


def _window_values(name: str, frame: int, size: int) -> np.ndarray:
    """Return the window. Raise InputError for an unknown name, or a frame longer than the transform."""
    checks.one_of("window", name, WINDOWS)
    checks.at_least(1, frame=frame, size=size)
    if size < frame:
        raise InputError(f"size={size} should be at least frame={frame}: the transform would truncate the frame")
    a, b = WINDOWS[name]
    return a - b * np.cos(2 * np.pi * np.arange(frame) / max(1, frame - 1))


@named_errors
def stack_context(features: Float[ArrayLike, "*batch t b"], context: int = 10) -> Float[Array, "*batch t w b"]:
    """Stack every frame with ``context`` frames on each side: ``y[…, t, u, b] = features[…, t + u − context, b]``.

    The first and the last frame are repeated beyond the ends. Every frame becomes an image of ``2·context + 1`` frames,
    from which a network classifies the sound at its center.

    Raises:
        InputError: if there is no frame, or ``context`` is negative.
        DtypeError: if the features are integers.

    Lecture row 003-10: context 10 gives (21, 40).

    >>> import jax.numpy as jnp
    >>> stack_context(jnp.arange(4.)[:, None], 1)[:, :, 0]
    Array([[0., 0., 1.],
           [0., 1., 2.],
           [1., 2., 3.],
           [2., 3., 3.]], dtype=float32)
    >>> stack_context(jnp.zeros((2, 50, 40))).shape
    (2, 50, 21, 40)
    """
    features = checks.as_array(features=features)
    checks.floating_dtype(features=features)
    checks.at_least(0, context=context)
    if features.ndim < 2 or not features.shape[-2]:
        raise InputError(f"features {features.shape} should be (…, frames, bands), at least one frame")
    num_frames = features.shape[-2]
    indices = np.arange(num_frames)[:, None] + np.arange(-context, context + 1)
    return features[..., np.clip(indices, 0, num_frames - 1), :]
