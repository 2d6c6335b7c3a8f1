"""LeNet-5: the version of the lectures (rows 000-14 to 000-21), and the original of LeCun et al., 1998.

The original differs in three respects: its pooling sums and has a trainable gain and bias, its second convolution
connects selected pairs of feature maps, and its output layer computes distances to ten fixed bitmaps of digits.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import glorot_uniform

from jaxconv import checks, ops
from jaxconv.errors import InputError, named_errors
from jaxconv.layers import Conv, Dense, Layer, MaxPool, serial
from jaxconv.layers.base import Shape, Tree, makes_layer, stateless
from jaxconv.layers.initializers import kernel_shape
from jaxconv.models.registry import register_model
from jaxconv.ops import flatten, relu, tanh
from jaxconv.shapes import IntOrInts, Window


@register_model(input_shape=(32, 32, 1))
@makes_layer
def lenet5(
    num_classes: int = 10,
    *,
    activation: Callable[[jax.Array], jax.Array] = tanh,
    pool: Callable[..., Layer] = MaxPool,
    impl: str = "auto",
) -> Layer:
    """Two convolutions, two poolings, three dense layers: 61,706 parameters on a 32×32×1 image.

    This is the version of textbooks and lectures. The original is :func:`jaxconv.models.lenet5_1998`: its pooling sums
    and has trainable gains, its second convolution is sparse, and its outputs are distances.

    Args:
        num_classes: number of outputs.
        activation: activation function: tanh, or relu, which the lectures recommend; sigmoid trains slowly.
        pool: function from a window size to a pooling layer: ``MaxPool``, ``AvgPool``, or ``LpPool``, the L2 norm.
        impl: lowering of the convolutions.

    Source: LeCun et al., 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf.

    >>> from jaxconv.explain import summarize
    >>> summarize(lenet5(), (32, 32, 1)).params
    61706
    """
    kernel_init = jax.nn.initializers.he_normal() if activation is relu else glorot_uniform()
    return serial(
        Conv(6, (5, 5), kernel_init=kernel_init, impl=impl),
        activation,
        pool(2),
        Conv(16, (5, 5), kernel_init=kernel_init, impl=impl),
        activation,
        pool(2),
        flatten,
        Dense(120, kernel_init=kernel_init),
        activation,
        Dense(84, kernel_init=kernel_init),
        activation,
        Dense(num_classes, kernel_init=glorot_uniform()),
    )


# Table I of the paper: the maps of S2 that are the inputs of each of the 16 maps of C3. Six maps have three cyclically
# adjacent inputs, six have four, three have two pairs, and the last has all six. Different inputs break the symmetry,
# so that the maps learn different features.
C3: tuple[tuple[int, ...], ...] = (
    *[(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)],
    *[(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)],
    *[(0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)],
    (0, 1, 2, 3, 4, 5),
)

# Bitmaps of the digits, 7 pixels wide and 12 high, the targets of the 84 units of F6. They were drawn by hand; the
# paper displays such a set but does not list its pixels.
GLYPHS = """
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
..###..  ...#...  .#####.  .#####.  #....#.  #######  ..####.  #######  .#####.  .#####.
.#...#.  ..##...  #.....#  #.....#  #....#.  #......  .#.....  ......#  #.....#  #.....#
#.....#  .#.#...  ......#  ......#  #....#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  ......#  ......#  #....#.  #......  #......  .....#.  #.....#  #.....#
#.....#  ...#...  .....#.  ..####.  #....#.  ######.  ######.  ....#..  .#####.  .######
#.....#  ...#...  ....#..  ......#  #######  ......#  #.....#  ....#..  #.....#  ......#
#.....#  ...#...  ...#...  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
#.....#  ...#...  ..#....  ......#  .....#.  ......#  #.....#  ...#...  #.....#  ......#
.#...#.  ...#...  .#.....  #.....#  .....#.  #.....#  #.....#  ..#....  #.....#  .....#.
..###..  .#####.  #######  .#####.  .....#.  .#####.  .#####.  ..#....  .#####.  .####..
.......  .......  .......  .......  .......  .......  .......  .......  .......  .......
"""


@register_model(input_shape=(32, 32, 1))
@makes_layer
@named_errors
def lenet5_1998(num_classes: int = 10, *, impl: str = "auto") -> Layer:
    """The original network, with 60,000 parameters on a 32×32×1 image: C1, S2, C3, S4, C5, F6 and an RBF output.

        C1  6 filters of 5×5             156        S4  as S2                           32
        S2  gain · (sum of 2×2) + bias    12        C5  120 filters of 5×5          48,120
        C3  16 maps, connected by C3   1,516        F6  84 units                    10,164

    Each of these layers is followed by :func:`scaled_tanh`. The logits are minus the squared distances between the
    output of F6 and ten fixed bitmaps of digits, so softmax cross-entropy is the loss of the paper (equation 9)
    without its constant for images that are not digits. The paper trains with a second-order method; here any optax
    optimizer can be used. Biases start at 0.

    Args:
        num_classes: number of outputs, at most 10, the number of bitmaps.
        impl: lowering of the convolutions.

    Raises:
        InputError: if ``num_classes`` is not in 1 to 10.

    Source: LeCun et al., 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf, section II and appendix A. Lecture
    row 000-21.

    >>> from jaxconv.explain import summarize
    >>> table = summarize(lenet5_1998(), (32, 32, 1))
    >>> table.params, [row.params for row in table.rows if row.params]
    (60000, [156, 12, 1516, 32, 48120, 10164])
    """
    checks.at_least(1, num_classes=num_classes)
    if num_classes > 10:
        raise InputError(f"num_classes must be at most 10, the number of digit bitmaps, got {num_classes}: use lenet5")
    conv = partial(Conv, kernel_size=5, kernel_init=fan_in_uniform, impl=impl)
    return serial(
        normalize_pixels,
        conv(6),
        scaled_tanh,
        Subsample(2),
        scaled_tanh,
        SparseConv(C3, 5, impl=impl),
        scaled_tanh,
        Subsample(2),
        scaled_tanh,
        conv(120),
        scaled_tanh,
        flatten,
        Dense(84, kernel_init=fan_in_uniform),
        scaled_tanh,
        partial(_distances, codes=rbf_codes()[:num_classes]),
    )


def _distances(x: jax.Array, codes: np.ndarray) -> jax.Array:
    return -rbf_distances(x, jnp.asarray(codes, x.dtype))


@makes_layer
def Subsample(window: int) -> Layer:
    """Trainable sum pooling: ``y[n, p, c] = scale[c] · Σ_u x[n, p·window + u, c] + bias[c]``, without overlap.

    Args:
        window: side of the window in pixels.

    Returns:
        A Layer with two parameters per channel. ``scale`` is one weight shared by the inputs of a window, and is
        initialized like a weight.

    >>> params = {"scale": jnp.array([0.5]), "bias": jnp.array([1.0])}
    >>> Subsample(2).apply(params, {}, jnp.arange(4.0).reshape(1, 2, 2, 1))[0].ravel()
    Array([4.], dtype=float32)
    """

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        *spatial, channels = input_shape
        scale = fan_in_uniform(key, (window ** len(spatial), channels))[0]
        return {"scale": scale, "bias": jnp.zeros(channels, jnp.float32)}, {}

    def subsample(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
        window_sum = ops.avg_pool(x, window) * window ** (x.ndim - 2)
        per_channel = (1,) * (x.ndim - 1) + (-1,)
        return window_sum * scale.reshape(per_channel) + bias.reshape(per_channel)

    return stateless(
        "subsample", subsample, init, ("scale", "bias"), window=Window.for_pooling(window, None, "VALID", 1)
    )


@makes_layer
@named_errors
def SparseConv(table: Sequence[Sequence[int]], kernel_size: IntOrInts, *, impl: str = "auto") -> Layer:
    """Convolution whose output map o depends only on the input maps ``table[o]`` and has no weights for the others.

        y[n, p, o] = bias[o] + Σ_u Σ_(c in table[o]) x[n, p + u, c] · kernel[u, (c, o)]

    The kernel ``(*window, pairs)`` has one filter per connected pair of maps, ordered by output map. It is scattered
    into a dense kernel ``(*window, C, O)`` of zeros before the convolution, which on a CPU is many times faster than
    one group per output map.

    Args:
        table: input maps of each output map.
        kernel_size, impl: as in :func:`jaxconv.Conv`.

    Raises:
        InputError: if an output map has no input map or lists one twice, or (from ``apply``) x lacks an input map.

    >>> params, _ = SparseConv([(0, 1), (1, 2), (0, 1, 2)], 5).init(jax.random.key(0), (9, 9, 3))
    >>> params["kernel"].shape, params["bias"].shape
    ((5, 5, 7), (3,))
    """
    for o, inputs in enumerate(table):
        if not 0 < len(set(inputs)) == len(inputs) or min(inputs) < 0:
            raise InputError(
                f"table[{o}] must list one or more distinct input maps, numbered from 0, got {tuple(inputs)}"
            )
    pairs = np.array([(c, o) for o, inputs in enumerate(table) for c in inputs])

    @named_errors(name="SparseConv")
    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        *window, _, _ = kernel_shape(kernel_size, input_shape, 1, 1)
        fan_in = [math.prod(window) * len(table[o]) for _, o in pairs]
        bound = (2.4 / np.array(fan_in, np.float32)).reshape(*[1] * len(window), -1)
        kernel = jax.random.uniform(key, (*window, len(pairs)), jnp.float32, -1, 1) * bound
        return {"kernel": kernel, "bias": jnp.zeros(len(table), jnp.float32)}, {}

    @named_errors(name="SparseConv")
    def sparse_conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        if x.shape[-1] <= pairs[:, 0].max():
            raise InputError(f"x {x.shape} has no channel {pairs[:, 0].max()}, which the table requires")
        zeros = jnp.zeros((*kernel.shape[:-1], x.shape[-1], len(table)), kernel.dtype)
        return ops.conv(x, zeros.at[..., pairs[:, 0], pairs[:, 1]].set(kernel), bias, impl=impl)

    return stateless("sparse_conv", sparse_conv, init, ("kernel", "bias"), window=Window(kernel_size))


def normalize_pixels(x: jax.Array) -> jax.Array:
    """Scale pixels from [0, 1] to [−0.1, 1.175], so that MNIST digits have about mean 0 and variance 1.

    >>> normalize_pixels(jnp.array([0.0, 1.0]))
    Array([-0.1  ,  1.175], dtype=float32)
    """
    return x * 1.275 - 0.1


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Scaled tanh, ``1.7159 · tanh(2/3 · x)``: it maps ±1 to ±1, where its curvature is largest and it is not flat.

    >>> scaled_tanh(jnp.array([0.0, 1.0, -1.0, 100.0])).round(3)
    Array([ 0.   ,  1.   , -1.   ,  1.716], dtype=float32)
    """
    return 1.7159 * tanh(x * (2 / 3))


def rbf_distances(x: jax.Array, codes: jax.Array) -> jax.Array:
    """Squared distances between rows and codes: ``y[n, k] = Σ_j (x[n, j] − codes[k, j])²``.

    >>> rbf_distances(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 2.0], [-1.0, 1.0]]))
    Array([[0., 5.]], dtype=float32)
    """
    return jnp.sum(jnp.square(x[:, None, :] - codes[None]), axis=-1)


def rbf_codes() -> np.ndarray:
    """Return the digit bitmaps as codes ``(10, 84)``: 1 for strokes, −1 for background, 12 × 7 pixels row by row.

    >>> for row in rbf_codes()[4].reshape(12, 7)[1:7]:
    ...     print("".join("#" if pixel > 0 else "." for pixel in row))
    #....#.
    #....#.
    #....#.
    #....#.
    #....#.
    #######
    """
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    pixels = np.array([[list(glyph_row) for glyph_row in row] for row in rows])  # (12, 10, 7)
    return np.where(pixels.transpose(1, 0, 2) == "#", 1.0, -1.0).reshape(10, -1).astype(np.float32)


def fan_in_uniform(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
    """Uniform initializer on ±2.4 / F, where F is the fan-in, the number of inputs of a unit (appendix A).

    >>> kernel = fan_in_uniform(jax.random.key(0), (5, 5, 6, 16))
    >>> bool(abs(kernel).max() <= 2.4 / 150), bool(abs(kernel).max() > 2.3 / 150)
    (True, True)
    """
    bound = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)
