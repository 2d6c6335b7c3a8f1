"""A wave cut into frames, and the energy at every frequency of each."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxconv import checks, ops
from jaxconv.errors import InputError, known
from jaxconv.ops import numerics

FRAME, HOP, SIZE = 400, 160, 512
WINDOWS = {"hamming": (0.54, 0.46), "hann": (0.5, 0.5), "rectangular": (1.0, 0.0)}  # a − b·cos(2πt / (frame − 1))


def frames(wave: Float[ArrayLike, "*batch samples"], frame: int = FRAME, hop: int = HOP) -> Float[Array, "*batch t f"]:
    """Pieces of a wave: ``y[…, t, i] = wave[…, t·hop + i]``, as many as fit: ``⌊(samples − frame)/hop⌋ + 1``.

    Args:
        wave: floats; bytes or int16 are to be scaled first.
        frame: samples in a piece; 400 are 25 ms at 16 kHz.
        hop: samples from one piece to the next; 160 are 10 ms.

    Raises:
        InputError: a wave shorter than a frame, or sizes below 1.
        DtypeError: the wave holds integers.

    >>> frames(jnp.arange(7.), frame=3, hop=2)
    Array([[0., 1., 2.],
           [2., 3., 4.],
           [4., 5., 6.]], dtype=float32)
    """
    wave = _wave("frames", wave, frame, hop)
    starts = np.arange((wave.shape[-1] - frame) // hop + 1) * hop
    return wave[..., starts[:, None] + np.arange(frame)]


def power_spectrum(
    wave: Float[ArrayLike, "*batch samples"],
    *,
    frame: int = FRAME,
    hop: int = HOP,
    size: int = SIZE,
    window: str = "hamming",
    impl: str = "fft",
) -> Float[Array, "*batch t k"]:
    """The energy of every frame at every frequency ``k · rate / size``:

        y[…, t, k] = |Σ_i w[i] · wave[…, t·hop + i] · exp(−2πj·k·i / size)|²,    k = 0 … size/2

    Args:
        wave, frame, hop: as in :func:`frames`.
        size: of the Fourier transform, at least ``frame``; what is over is zeros, which only draws the curve finer.
        window: ``"hamming"``, ``"hann"`` or ``"rectangular"``: w[i] = a − b·cos(2π·i/(frame − 1)), which lets a frame
            begin and end softly, so that one tone is one peak.
        impl: ``"fft"``, or ``"conv"``: a 1-D convolution of stride ``hop`` with :func:`dft_kernel`. The numbers are
            the same but for rounding.

    Returns:
        ``(…, frames, size // 2 + 1)``, in at least float32.

    Raises:
        InputError: as in :func:`frames`; a size below the frame, an unknown window or impl.

    >>> tone = jnp.cos(2 * jnp.pi * 1000 * jnp.arange(1600) / 16_000)            # 1 kHz
    >>> spectrum = power_spectrum(tone)
    >>> spectrum.shape, int(spectrum[0].argmax()) * 16_000 / 512
    ((8, 257), 1000.0)
    """
    known("impl", impl, ["fft", "conv"], by="power_spectrum")
    wave = numerics.widened(_wave("power_spectrum", wave, frame, hop))
    taper = _window("power_spectrum", window, frame, size)
    if impl == "conv":
        batch, samples = wave.shape[:-1], wave.shape[-1]
        kernel = jnp.asarray(dft_kernel(frame, size, window), wave.dtype)
        pair = ops.conv(wave.reshape(-1, samples, 1), kernel, stride=hop, precision="highest")
        real, imaginary = jnp.split(pair.reshape(*batch, *pair.shape[1:]), 2, axis=-1)
    else:
        pieces = frames(wave, frame, hop)
        tapers = jnp.broadcast_to(jnp.asarray(taper, wave.dtype), pieces.shape)
        spectrum = jnp.fft.rfft(pieces * tapers, n=size)
        real, imaginary = jnp.real(spectrum), jnp.imag(spectrum)
    return real**2 + imaginary**2


def dft_kernel(frame: int = FRAME, size: int = SIZE, window: str = "hamming") -> np.ndarray:
    """Window and Fourier transform as the kernel of :func:`jaxconv.ops.conv`: ``(frame, 1, 2·(size/2 + 1))`` floats.

        kernel[i, 0, k] = w[i]·cos(2π·k·i/size),    kernel[i, 0, size/2 + 1 + k] = −w[i]·sin(2π·k·i/size)

    So the front end's first step is a convolution whose stride is the hop, with fixed filters, one pair a frequency.

    >>> dft_kernel(4, 4, "rectangular")[:, 0].round().astype(int)       # three cosines, and three sines
    array([[ 1,  1,  1,  0,  0,  0],
           [ 1,  0, -1,  0, -1,  0],
           [ 1, -1,  1,  0,  0,  0],
           [ 1,  0, -1,  0,  1,  0]])
    """
    taper = _window("dft_kernel", window, frame, size)
    angle = 2 * np.pi * np.outer(np.arange(frame), np.arange(size // 2 + 1)) / size
    return (taper[:, None] * np.concatenate([np.cos(angle), -np.sin(angle)], axis=1))[:, None]


def _wave(op: str, wave: ArrayLike, frame: int, hop: int) -> jax.Array:
    wave = checks.array(op, "wave", wave)
    checks.floating(op, wave=wave)
    checks.whole(op, 1, frame=frame, hop=hop)
    if wave.ndim < 1 or wave.shape[-1] < frame:
        raise InputError(f"{op}: wave {wave.shape} should be (…, samples), at least the {frame} of one frame")
    return wave


def _window(op: str, name: str, frame: int, size: int) -> np.ndarray:
    """The window's values; refuse what does not fit in the transform."""
    known("window", name, WINDOWS, by=op)
    checks.whole(op, 1, frame=frame, size=size)
    if size < frame:
        raise InputError(f"{op}: size={size} should be at least frame={frame}, or some of the wave would be left out")
    a, b = WINDOWS[name]
    return a - b * np.cos(2 * np.pi * np.arange(frame) / max(1, frame - 1))
