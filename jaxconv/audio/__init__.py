"""Sound as a network for speech sees it: log energies in bands of the ear's scale, or their cepstrum.

    wave (…, samples) → frames → power spectrum → mel bands → log → (cosine transform) → features (…, frames, n)

=====================  ==========================================================================================
``frames``             pieces of the wave that overlap: 25 ms long, one every 10 ms (at 16 kHz)
``power_spectrum``     the energy at every frequency of each frame, by the fast Fourier transform or by a convolution
``dft_kernel``         that convolution's kernel: window and Fourier transform as the filters of one 1-D layer
``mel_filterbank``     triangles, narrow where the ear is exact and wide where it is not
``log_mel``            the logarithm of the energy in each band, "MFSC": what a convolution is given
``mfcc``               its cosine transform, "MFCC": what decorrelates it, and takes away that neighbours are alike
``stack_context``      each frame with those around it, as an image (frames, bands)
=====================  ==========================================================================================

All are pure functions of arrays, linear but for the square and the logarithm, so a loss on features can be
differentiated by the wave. Any leading axes are kept: one wave is ``(samples,)``, a batch ``(N, samples)``.

Sources: Davis & Mermelstein, 1980, "Comparison of parametric representations for monosyllabic word recognition in
continuously spoken sentences", IEEE Trans. ASSP 28(4), https://doi.org/10.1109/TASSP.1980.1163420; Young et al., The
HTK Book, chapter 5 (the mel scale's formula). Lecture row 003-10.
"""

from jaxconv.audio.context import stack_context
from jaxconv.audio.mel import hertz_to_mel, log_mel, mel_filterbank, mel_to_hertz, mfcc
from jaxconv.audio.spectrum import WINDOWS, dft_kernel, frames, power_spectrum

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
