"""Speech features against scipy's windows and cosine transform, numpy's FFT, and loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.fft import dct
from scipy.signal import get_window

from common import audio
from jaxconv import DtypeError, InputError

SMALL = {"frame": 12, "hop": 5, "size": 16}  # no size divides another, and the transform is longer than the frame


def spectrum_by_loops(wave, frame, hop, size, window):
    """Compute the power spectrum frame by frame, with scipy's window and numpy's complex FFT."""
    taper = np.ones(frame) if window == "rectangular" else get_window(window, frame, fftbins=False)
    spectra, start = [], 0
    while start + frame <= len(wave):
        transform = np.fft.fft(np.concatenate([wave[start : start + frame] * taper, np.zeros(size - frame)]))
        spectra.append(np.abs(transform[: size // 2 + 1]) ** 2)
        start += hop
    return np.array(spectra)


def bank_by_loops(bands, size, rate, low, high):
    """Compute the triangular filters entry by entry."""
    mel = [2595 * math.log10(1 + hertz / 700) for hertz in (low, high)]
    corners = [700 * (10 ** ((mel[0] + i * (mel[1] - mel[0]) / (bands + 1)) / 2595) - 1) for i in range(bands + 2)]
    bank = np.zeros((size // 2 + 1, bands))
    for b in range(bands):
        left, center, right = corners[b : b + 3]
        for k in range(size // 2 + 1):
            hertz = k * rate / size
            if left < hertz <= center:
                bank[k, b] = (hertz - left) / (center - left)
            elif center < hertz < right:
                bank[k, b] = (right - hertz) / (right - center)
    return bank


@pytest.mark.parametrize("samples", [12, 16, 17, 41])
def test_frames_match_slices(rng, samples):
    wave = rng.normal(size=samples).astype(np.float32)
    expected = [wave[start : start + 12] for start in range(0, samples - 11, 5)]
    np.testing.assert_array_equal(audio.frames(wave, 12, 5), expected)


@pytest.mark.parametrize("impl", ["fft", "conv"])
@pytest.mark.parametrize("window", audio.WINDOWS)
@pytest.mark.parametrize("size", [12, 15, 16])
def test_power_spectrum_matches_full_fft(x64, rng, impl, window, size):
    waves = rng.normal(size=(2, 3, 43))
    y = audio.power_spectrum(waves, frame=12, hop=5, size=size, window=window, impl=impl)
    assert y.shape == (2, 3, 7, size // 2 + 1)
    for index in np.ndindex(2, 3):
        expected = spectrum_by_loops(waves[index], 12, 5, size, window)
        np.testing.assert_allclose(y[index], expected, rtol=1e-10, atol=1e-10)


def test_fft_and_conv_agree_at_speech_size(rng):
    wave = rng.normal(size=3600).astype(np.float32)
    by_fft, by_conv = (audio.log_mel(wave, impl=impl) for impl in ("fft", "conv"))
    np.testing.assert_allclose(by_fft, by_conv, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("bands", "size", "rate", "low", "high"),
    [(40, 512, 16_000, 0, 8000), (7, 129, 8000, 130.5, 3900), (1, 16, 100, 3, 50)],
)
def test_mel_filterbank_matches_loops(bands, size, rate, low, high):
    bank = audio.mel_filterbank(bands, size=size, rate=rate, low=low, high=high)
    np.testing.assert_allclose(bank, bank_by_loops(bands, size, rate, low, high), rtol=1e-9, atol=1e-12)


def test_mel_filterbank_weights_sum_to_one():
    """The weights sum to 1 between the centers of the first and the last band."""
    bank = audio.mel_filterbank(40)
    hertz = np.arange(257) * 16_000 / 512
    first, last = audio.mel_to_hertz(np.linspace(0, audio.hertz_to_mel(8000), 42))[[1, 40]]
    np.testing.assert_allclose(bank.sum(axis=1)[(first <= hertz) & (hertz <= last)], 1, rtol=1e-12)


def test_mel_scale_reference_values():
    """1000 mel are 1000 Hz by definition; the scale is nearly linear below, and logarithmic far above."""
    assert abs(audio.hertz_to_mel(1000) - 1000) < 0.1
    np.testing.assert_allclose(audio.mel_to_hertz(audio.hertz_to_mel([0.0, 31.25, 8000.0])), [0, 31.25, 8000])
    assert abs(audio.hertz_to_mel(2e6) - audio.hertz_to_mel(1e6) - 2595 * math.log10(2)) < 1


def test_log_mel_and_mfcc_match_formulas(x64, rng):
    wave = rng.normal(size=67)
    options = {"rate": 1000, "low": 20, "high": 450} | SMALL
    energies = spectrum_by_loops(wave, 12, 5, 16, "hamming") @ bank_by_loops(5, 16, 1000, 20, 450)
    np.testing.assert_allclose(audio.log_mel(wave, 5, **options), np.log(energies + 1e-6), rtol=1e-10)
    for coefficients in (1, 3, 5):
        expected = dct(np.log(energies + 1e-6), type=2, norm="ortho", axis=-1)[:, :coefficients]
        np.testing.assert_allclose(audio.mfcc(wave, coefficients, bands=5, **options), expected, rtol=1e-9, atol=1e-10)


def test_tone_peaks_in_its_band_and_gain_adds_constant(rng):
    for band in (5, 20, 38):
        center = audio.mel_to_hertz(np.linspace(0, audio.hertz_to_mel(8000), 42))[band + 1]
        tone = np.sin(2 * np.pi * center * np.arange(3600) / 16_000).astype(np.float32)
        features = audio.log_mel(tone)
        assert features.shape == (21, 40) and (features.argmax(axis=1) == band).all()
    noise = rng.normal(size=3600).astype(np.float32)
    np.testing.assert_allclose(audio.log_mel(10 * noise) - audio.log_mel(noise), 2 * np.log(10), atol=1e-4)
    cepstrum = audio.mfcc(10 * noise) - audio.mfcc(noise)  # only coefficient 0 changes
    np.testing.assert_allclose(cepstrum[:, 0], 2 * np.log(10) * math.sqrt(40), rtol=1e-4)
    np.testing.assert_allclose(cepstrum[:, 1:], 0, atol=1e-3)


@pytest.mark.parametrize("impl", ["fft", "conv"])
def test_mfcc_gradient_matches_finite_differences(x64, rng, impl):
    @jax.jit
    def f(wave):
        return audio.mfcc(wave, 3, bands=4, rate=1000, impl=impl, **SMALL)

    check_grads(f, (jnp.asarray(rng.normal(size=(2, 27))),), order=1, modes=("rev",), eps=1e-6, rtol=1e-6)


def test_silence_has_finite_features_and_gradient():
    silence = jnp.zeros(800)
    features, vjp = jax.vjp(audio.log_mel, silence)
    np.testing.assert_allclose(features, math.log(1e-6), rtol=1e-6)
    np.testing.assert_array_equal(vjp(jnp.ones_like(features))[0], silence)


def test_bfloat16_is_accumulated_in_float32(rng):
    wave = jnp.asarray(rng.normal(size=800), jnp.bfloat16)
    features = audio.log_mel(wave)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, audio.log_mel(wave.astype(jnp.float32)))


@pytest.mark.parametrize("context", [0, 1, 4])
def test_stack_context_matches_loops(rng, context):
    features = rng.normal(size=(2, 3, 2)).astype(np.float32)
    y = audio.stack_context(features, context)
    assert y.shape == (2, 3, 2 * context + 1, 2)
    for n, t, u in np.ndindex(2, 3, 2 * context + 1):
        np.testing.assert_array_equal(y[n, t, u], features[n, min(max(t + u - context, 0), 2)])


def test_003_10_forty_bands_in_a_context_of_ten(rng):
    wave = rng.normal(size=8000).astype(np.float32)
    windows = jax.jit(lambda wave: audio.stack_context(audio.log_mel(wave)))(wave)
    assert windows.shape == (48, 21, 40)
    np.testing.assert_allclose(windows[10], audio.log_mel(wave)[:21], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: audio.frames(np.zeros(399, np.float32)), InputError, r"frames: wave \(399,\) should be .* 400 samp"),
        (lambda: audio.frames(np.float32(1)), InputError, r"frames: wave \(\) should be \(…, samples\)"),
        (lambda: audio.frames(np.zeros(9, np.int16)), DtypeError, r"frames: wave is int16; convert it first"),
        (
            lambda: audio.frames(np.zeros(9, np.float32), 4, 0),
            InputError,
            r"frames: hop=0 should be an int of at least",
        ),
        (lambda: call_with_options(window="haming"), InputError, r"unknown window 'haming': did you mean 'hamming'"),
        (lambda: call_with_options(impl="dft"), InputError, r"unknown impl 'dft':.* Known: fft, conv"),
        (lambda: call_with_options(size=256), InputError, r"power_spectrum: size=256 should be at least frame=400"),
        (lambda: call_with_options(floor=0), InputError, r"log_mel: floor=0 should be a number above 0"),
        (
            lambda: call_with_options(high=9000),
            InputError,
            r"low=0.0 and high=9000 must satisfy low < high <= rate / 2 = 8000",
        ),
        (lambda: call_with_options(low=500, high=400), InputError, r"low=500 and high=400 must satisfy low < high"),
        (
            lambda: call_with_options(bands=200),
            InputError,
            r"band 0 of bands=200 lies between two frequencies .* 31.25 Hz apart",
        ),
        (
            lambda: call_with_options(audio.mfcc, coefficients=41),
            InputError,
            r"mfcc: coefficients=41 must be at most bands=40",
        ),
        (
            lambda: call_with_options(audio.mfcc, coefficients=0),
            InputError,
            r"mfcc: coefficients=0 should be an int of at least",
        ),
        (lambda: audio.stack_context(np.zeros((0, 4), np.float32)), InputError, r"features \(0, 4\) should be"),
        (lambda: audio.stack_context(np.zeros((3, 4), np.float32), -1), InputError, r"context=-1 should be an int"),
    ],
)
def test_invalid_arguments_raise(call, error, message):
    with pytest.raises(error, match=message):
        call()


def call_with_options(function=audio.log_mel, **options):
    return function(np.zeros(800, np.float32), **options)
