"""Convolutional autoencoder: an encoder from images to latent vectors, and its decoder. Neither uses pooling."""

from functools import partial
from typing import Any

import jax

from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Conv, ConvTranspose, Dense, Layer, serial
from jaxconv.layers.base import makes_layer
from jaxconv.ops import flatten, relu

# A convolution with this window halves the size, 28 → 14 → 7; the transposed convolution doubles it, 7 → 14 → 28.
HALVE: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}
FEATURES = (16, 32)  # channels after the first and the second convolution of the encoder


@makes_layer
def encoder(latent_dim: int, *, features: tuple[int, int] = FEATURES) -> Layer:
    """Return two convolutions with stride 2, which halve the image twice, and a dense layer to ``latent_dim`` values.

    A window of 4 pixels with stride 2 and one pixel of padding halves an even size exactly:
    ``(n + 2·1 − 4) / 2 + 1 = n / 2``.

    Args:
        latent_dim: size of the latent vector; for a variational autoencoder twice that, means and log variances.
        features: numbers of filters of the two convolutions.

    Lecture row 001-14.

    >>> params, state = encoder(16).init(jax.random.key(0), (28, 28, 1))
    >>> encoder(16).apply(params, state, jax.numpy.ones((3, 28, 28, 1)))[0].shape
    (3, 16)
    """
    first, second = features
    return serial(Conv(first, **HALVE), relu, Conv(second, **HALVE), relu, flatten, Dense(latent_dim), name="encoder")


@makes_layer
@named_errors
def decoder(out_shape: tuple[int, int, int], *, features: tuple[int, int] = FEATURES) -> Layer:
    """Return the mirror image of the encoder: a dense layer and two transposed convolutions.

    A transposed convolution of the same window, stride and padding doubles any size exactly:
    ``(n − 1)·2 + 4 − 2·1 = 2·n``. As the window is twice the stride, four windows overlap at every pixel inside the
    border, which avoids checkerboard artifacts.

    Args:
        out_shape: shape of an image, ``(H, W, C)``; H and W must be multiples of 4.
        features: numbers of filters of the encoder's convolutions, in the encoder's order.

    Returns:
        A Layer from ``(N, latent_dim)`` to logits ``(N, *out_shape)``; the sigmoid of the logits is the image.

    Raises:
        InputError: if ``out_shape`` is not ``(H, W, C)``, or H or W is not a multiple of 4.

    Source: Dumoulin & Visin, 2016, https://arxiv.org/abs/1603.07285; checkerboards: Odena et al., 2016,
    https://distill.pub/2016/deconv-checkerboard. Lecture row 001-14.

    >>> params, state = decoder((28, 28, 1)).init(jax.random.key(0), (16,))
    >>> decoder((28, 28, 1)).apply(params, state, jax.numpy.ones((3, 16)))[0].shape
    (3, 28, 28, 1)
    """
    if len(out_shape) != 3 or any(n < 4 or n % 4 for n in out_shape[:2]):
        raise InputError(f"out_shape {out_shape} should be (H, W, C), with H and W multiples of 4")
    height, width, channels = out_shape
    first, second = features
    return serial(
        Dense(height // 4 * (width // 4) * second),
        relu,
        partial(_unflatten, shape=(height // 4, width // 4, second)),
        ConvTranspose(first, **HALVE),
        relu,
        ConvTranspose(channels, **HALVE),
        name="decoder",
    )


def _unflatten(x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    return x.reshape(-1, *shape)
