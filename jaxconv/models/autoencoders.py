"""An autoencoder: a convnet that makes an image a few numbers, and one that makes the image of them. Neither pools."""

from functools import partial
from typing import Any

import jax

from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Conv, ConvTranspose, Dense, Layer, serial
from jaxconv.layers.base import makes_layer
from jaxconv.ops import flatten, relu

HALVE: dict[str, Any] = {"kernel_size": 4, "stride": 2, "padding": 1}  # 28 → 14 → 7, and what undoes it: 7 → 14 → 28
FEATURES = (16, 32)  # after the first halving, and after the second


@makes_layer
def encoder(latent_dim: int, *, features: tuple[int, int] = FEATURES) -> Layer:
    """Two convolutions with stride 2, each of which halves the image, and a dense layer to ``latent_dim`` numbers.

    Windows of 4 pixels with stride 2 and one pixel of padding make exactly half of an even size:
    ``(n + 2·1 − 4) / 2 + 1 = n / 2``.

    Args:
        latent_dim: how many numbers an image becomes; twice as many for a variational one, means and log variances.
        features: filters of the two convolutions.

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
    """From a code to an image: the encoder backwards, its convolutions transposed.

    A transposed convolution of the same window, stride and padding makes exactly twice of any size:
    ``(n − 1)·2 + 4 − 2·1 = 2·n``. As the window is twice the stride, every pixel within the border is covered by four
    stamps, and there is no checkerboard.

    Args:
        out_shape: of an image, ``(H, W, C)``, H and W multiples of 4.
        features: filters of the encoder's convolutions, in the encoder's order.

    Returns:
        A Layer from ``(N, latent_dim)`` to logits ``(N, *out_shape)``: their sigmoid is the image.

    Raises:
        InputError: a size that cannot be halved twice.

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

    small = Dense(height // 4 * (width // 4) * second)
    larger, whole = ConvTranspose(first, **HALVE), ConvTranspose(channels, **HALVE)
    return serial(
        small, relu, partial(_unflatten, shape=(height // 4, width // 4, second)), larger, relu, whole, name="decoder"
    )


def _unflatten(x: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    return x.reshape(-1, *shape)
