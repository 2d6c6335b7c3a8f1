"""Residual networks for small images, and plain networks without shortcuts (lecture rows 003-20 to 003-22)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.layers import BatchNorm, Conv, Dense, Layer, as_layer, residual, serial
from jaxconv.layers.base import Shape, Tree, makes_layer
from jaxconv.models.registry import register_model
from jaxconv.ops import global_avg_pool, relu
from jaxconv.shapes import Window

LayerLike = Layer | Callable[..., jax.Array]

DEPTHS = (20, 32, 44, 56, 110)  # the depths in the paper


@makes_layer
@named_errors
def resnet(
    depth: int = 20,
    num_classes: int = 10,
    *,
    shortcut: str = "A",
    plain: bool = False,
    zero_init_residual: bool = False,
    impl: str = "auto",
) -> Layer:
    """ResNet for small images: residual blocks of two 3×3 convolutions.

    A block is ``relu(x + bn(conv(relu(bn(conv(x))))))``. Each of three stages has ``n = (depth − 2) / 6`` blocks: 16
    channels at the size of the image, 32 at half of it, 64 at a quarter. Global average pooling and one dense layer
    follow, so images of any size are accepted.

    Args:
        depth: number of layers with kernels, ``6n + 2``; the paper has 20, 32, 44, 56 and 110.
        num_classes: number of outputs.
        shortcut: shortcut of the blocks that halve the size and double the channels: ``"A"``, subsampling by 2 and
            zero-padded channels, which has no parameters and is the choice of the paper for these networks; ``"B"``, a
            1×1 convolution with batch norm.
        plain: leave out the shortcuts, for comparison.
        zero_init_residual: initialize the scale of the last batch norm of each block to 0, so that a block starts as
            ``relu(x)`` (Goyal et al., 2017, https://arxiv.org/abs/1706.02677); not in the original paper.
        impl: lowering of the convolutions.

    Raises:
        InputError: if ``depth`` is not 6n + 2, the shortcut is unknown, or both ``plain`` and ``zero_init_residual``
            are True.

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2.

    >>> from jaxconv.explain import summarize
    >>> summarize(resnet(), (32, 32, 3)).params
    269722
    """
    checks.at_least(8, depth=depth)
    if depth % 6 != 2:
        below = depth - (depth - 2) % 6
        raise InputError(f"depth={depth} should be 6n + 2, such as {below} or {below + 6}")
    checks.one_of("shortcut", shortcut, SHORTCUTS)
    checks.boolean("plain", plain)
    checks.boolean("zero_init_residual", zero_init_residual)
    if plain and zero_init_residual:
        raise InputError("plain=True cannot be combined with zero_init_residual=True: every output would be 0")

    layers: list[LayerLike] = [*_conv_bn(16, 3, impl=impl), relu]
    features = 16
    for stage in range(3):
        for block in range((depth - 2) // 6):
            halve = stage > 0 and block == 0
            features *= 2 if halve else 1
            first, last = _conv_bn(features, 3, 2 if halve else 1, impl), _conv_bn(features, 3, impl=impl)
            if zero_init_residual:
                last[1] = _zero_init_scale(last[1])
            body: list[LayerLike] = [*first, relu, *last]
            projection = SHORTCUTS[shortcut](features, impl) if halve else None
            layers += [*body, relu] if plain else [residual(*body, shortcut=projection), relu]
    return serial(*layers, global_avg_pool, Dense(num_classes))


for _depth in DEPTHS:
    register_model(f"resnet{_depth}", input_shape=(32, 32, 3), depth=_depth)(resnet)


def _conv_bn(features: int, kernel_size: int, stride: int = 1, impl: str = "auto") -> list[Layer]:
    # Pad one pixel on each side; with stride 2, "SAME" would pad on one side only.
    padding = kernel_size // 2
    return [Conv(features, kernel_size, stride=stride, padding=padding, use_bias=False, impl=impl), BatchNorm()]


def _subsample_and_pad_channels(x: jax.Array) -> jax.Array:
    """Take every second pixel and append C channels of zeros."""
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, x.shape[-1])))


@makes_layer
def _parameter_free_shortcut() -> Layer:
    # Set the window, from which receptive fields are computed.
    return as_layer(_subsample_and_pad_channels)._replace(window=Window(1, stride=2))


SHORTCUTS: dict[str, Callable[[int, str], LayerLike]] = {
    "A": lambda features, impl: _parameter_free_shortcut(),
    "B": lambda features, impl: serial(*_conv_bn(features, 1, 2, impl)),
}


@makes_layer
def _zero_init_scale(bn: Layer) -> Layer:
    """Return the batch norm with its scale initialized to 0."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = bn.init(key, input_shape)
        return params | {"scale": jnp.zeros_like(params["scale"])}, state

    return bn._replace(init=init)
