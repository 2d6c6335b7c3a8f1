"""Residual networks for small images, and the plain ones they are compared with (lecture rows 003-20 to 003-22)."""

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

Part = Layer | Callable[..., jax.Array]

DEPTHS = (20, 32, 44, 56, 110)  # those of the paper


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
    """Blocks of two 3×3 convolutions, each learning a difference.

    A block is ``relu(x + bn(conv(relu(bn(conv(x))))))``. There are ``n = (depth − 2) / 6`` of them at each of three
    sizes: the image's with 16 channels, half of it with 32, a quarter with 64. The mean of each feature map then goes
    to one dense layer, so that images of any size will do.

    Args:
        depth: of the layers with kernels, ``6n + 2``; the paper's are 20, 32, 44, 56 and 110.
        num_classes: the number of outputs.
        shortcut: what x becomes where the size halves and the channels double: ``"A"``, every second pixel with
            channels of zeros after its own, which has no parameters and is the paper's choice here, or ``"B"``, a
            1×1 convolution with a batch norm.
        plain: leave out the shortcuts, to see what they are for.
        zero_init_residual: let each block begin as ``relu(x)``: the scale of its last batch norm starts at 0 (Goyal
            et al., 2017, https://arxiv.org/abs/1706.02677). Not the paper's.
        impl: the convolutions' lowering.

    Raises:
        InputError: a depth that is not 6n + 2, an unknown shortcut, or a plain network that starts at zero.

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
        raise InputError("plain=True with zero_init_residual=True is zero everywhere and learns nothing: take one")

    parts: list[Part] = [*_conv_bn(16, 3, impl=impl), relu]
    features = 16
    for size in range(3):
        for block in range((depth - 2) // 6):
            halve = size > 0 and block == 0
            features *= 2 if halve else 1
            first, last = _conv_bn(features, 3, 2 if halve else 1, impl), _conv_bn(features, 3, impl=impl)
            if zero_init_residual:
                last[1] = _from_zero(last[1])
            body: list[Part] = [*first, relu, *last]
            around = SHORTCUTS[shortcut](features, impl) if halve else None
            parts += [*body, relu] if plain else [residual(*body, shortcut=around), relu]
    return serial(*parts, global_avg_pool, Dense(num_classes))


for _depth in DEPTHS:
    register_model(f"resnet{_depth}", input_shape=(32, 32, 3), depth=_depth)(resnet)


def _conv_bn(features: int, kernel_size: int, stride: int = 1, impl: str = "auto") -> list[Layer]:
    # One pixel on each side, also with stride 2, where "SAME" would pad on one side only.
    padding = kernel_size // 2
    return [Conv(features, kernel_size, stride=stride, padding=padding, use_bias=False, impl=impl), BatchNorm()]


def _every_second(x: jax.Array) -> jax.Array:
    """Every second pixel, and as many channels of zeros as there are."""
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, x.shape[-1])))


@makes_layer
def _shortcut_without_parameters() -> Layer:
    return as_layer(_every_second)._replace(window=Window(1, stride=2))  # so that receptive fields are known


SHORTCUTS: dict[str, Callable[[int, str], Part]] = {
    "A": lambda features, impl: _shortcut_without_parameters(),
    "B": lambda features, impl: serial(*_conv_bn(features, 1, 2, impl)),
}


@makes_layer
def _from_zero(bn: Layer) -> Layer:
    """The same batch norm, whose scale starts at 0."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = bn.init(key, input_shape)
        return params | {"scale": jnp.zeros_like(params["scale"])}, state

    return bn._replace(init=init)
