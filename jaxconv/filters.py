"""Kernels made by hand: what people convolved images with before kernels were learned, and how to apply them.

===========  =============================  =======================================================  ===  ==========
constant     taps, row by row               what it answers to                                       sum  row
===========  =============================  =======================================================  ===  ==========
BLUR         0 1 0 / 1 4 1 / 0 1 0          a pixel together with its neighbours                     8    002-04
SHARPEN      0 −1 0 / −1 8 −1 / 0 −1 0      a pixel, and how it differs from its neighbours          4    002-04
LAPLACIAN    0 −1 0 / −1 4 −1 / 0 −1 0      how a pixel differs from its neighbours: every edge      0    002-04
SOBEL_X      1 0 −1 / 2 0 −2 / 1 0 −1       vertical edges, positive where the left is brighter      0    002-15
SOBEL_Y      1 2 1 / 0 0 0 / −1 −2 −1       horizontal edges, positive where the top is brighter     0    003-07
VERTICAL     1 0 −1 / 1 0 −1 / 1 0 −1       vertical edges, the three rows alike                     0    002-07
HORIZONTAL   1 1 1 / 0 0 0 / −1 −1 −1       horizontal edges, the three columns alike                0    002-14
BOX_H        5×5: −1 above, 1 below         given H of `edges`: the top and the bottom of a box      0    003-08
BOX_V        5×5: 1 left, −1 right          given V of `edges`: its left and its right side          0    003-08
===========  =============================  =======================================================  ===  ==========

On a constant image c a kernel gives c times its sum: so an image blurred by these taps is eight times too bright, and
:func:`normalized` makes that good. Kernels are arrays ``(kh, kw)``; images are ``(N, H, W, C)``.

:func:`whitening_kernel` is the one that is made from images, as the first layer of a network that need not learn it.

The functions keep an image's size, and take it to go on beyond its border as it ends there
(``padding_mode="replicate"``): with zeros outside, every bright image would have a frame of edges. Sums are taken at
full precision on every device.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from jaxconv import checks, ops
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.sliding_window import tap_slices
from jaxconv.shapes import IntOrInts, Padding, Window, canonicalize_sizes, resolve_window

__all__ = [
    "BLUR",
    "BOX_H",
    "BOX_V",
    "HORIZONTAL",
    "LAPLACIAN",
    "SHARPEN",
    "SOBEL_X",
    "SOBEL_Y",
    "VERTICAL",
    "apply_filter",
    "box_detector",
    "conv_kernel",
    "edges",
    "normalized",
    "sobel",
    "whitening_kernel",
]


def _taps(*rows: list[int]) -> np.ndarray:
    kernel = np.array(rows, float)
    kernel.setflags(write=False)  # shared by everyone who imports it
    return kernel


BLUR = _taps([0, 1, 0], [1, 4, 1], [0, 1, 0])
SHARPEN = _taps([0, -1, 0], [-1, 8, -1], [0, -1, 0])
LAPLACIAN = _taps([0, -1, 0], [-1, 4, -1], [0, -1, 0])
SOBEL_X = _taps([1, 0, -1], [2, 0, -2], [1, 0, -1])
SOBEL_Y = _taps([1, 2, 1], [0, 0, 0], [-1, -2, -1])
VERTICAL = _taps([1, 0, -1], [1, 0, -1], [1, 0, -1])
HORIZONTAL = _taps([1, 1, 1], [0, 0, 0], [-1, -1, -1])
BOX_H = _taps([-1] * 5, [0] * 5, [0] * 5, [0] * 5, [1] * 5)
BOX_V = _taps(*[[1, 0, 0, 0, -1]] * 5)


@named_errors
def apply_filter(
    x: Float[Array, "n h w c"],
    kernel: Float[ArrayLike, "kh kw"],
    *,
    padding: Padding = "SAME",
    padding_mode: str = "replicate",
) -> Float[Array, "n out_h out_w c"]:
    """One kernel on every channel, each on its own: ``y[n, i, j, c] = Σ_u Σ_v x[n, i + u, j + v, c] · kernel[u, v]``.

    The kernel is not flipped, as in :func:`jaxconv.ops.conv`.

    Args:
        x: the images.
        kernel: the taps; taken in x's dtype.
        padding, padding_mode: as in :func:`jaxconv.ops.conv`; by default the image keeps its size.

    Raises:
        InputError: x is not ``(N, H, W, C)`` or kernel not ``(kh, kw)``.
        DtypeError: x holds integers.

    Lecture rows 002-04, 002-08.

    >>> constant = jnp.full((1, 4, 5, 3), 2.0)
    >>> [apply_filter(constant, kernel)[0, 0, 0, 0].item() for kernel in (BLUR, SHARPEN, LAPLACIAN, SOBEL_X)]
    [16.0, 8.0, 0.0, 0.0]
    >>> apply_filter(constant, normalized(BLUR))[0, 0, 0, 0].item()
    2.0
    """
    x = _images(x)
    channels = x.shape[-1]
    kernel = jnp.asarray(kernel, x.dtype)
    _check_taps(kernel)
    one_each = jnp.repeat(kernel[:, :, None, None], channels, axis=3)
    return ops.conv(x, one_each, groups=channels, padding=padding, padding_mode=padding_mode, precision="highest")


@named_errors
def conv_kernel(kernel: Float[ArrayLike, "kh kw"], channels: int) -> Float[Array, "kh kw c 1"]:
    """The same taps for each channel, as one filter of :func:`jaxconv.ops.conv`, which adds the channels up.

    Lecture rows 002-07, 002-17.

    >>> edge = jnp.array([[25., 25., 25., 0., 0., 0.]] * 3)[None, :, :, None]      # bright on the left
    >>> rgb = jnp.concatenate([edge, edge, edge], axis=-1)
    >>> kernel = conv_kernel(VERTICAL, 3)
    >>> ops.conv(rgb, kernel)[0, :, :, 0]                                          # 75 + 75 + 75
    Array([[  0., 225., 225.,   0.]], dtype=float32)
    >>> ops.conv(rgb, kernel.at[:, :, 1:].set(0))[0, :, :, 0]                      # edges of the red channel only
    Array([[ 0., 75., 75.,  0.]], dtype=float32)
    """
    kernel = checks.as_array(kernel=kernel)
    _check_taps(kernel)
    checks.at_least(1, channels=channels)
    return jnp.repeat(kernel[:, :, None, None], channels, axis=2)


@named_errors
def normalized(kernel: Float[ArrayLike, "kh kw"]) -> np.ndarray:
    """The taps divided by their sum, so that they keep an image's brightness: ``kernel / Σ kernel``.

    Raises:
        InputError: the taps sum to 0, as those of edge kernels do.

    The lecture leaves this out (row 002-04).

    >>> normalized(SHARPEN)
    array([[ 0.  , -0.25,  0.  ],
           [-0.25,  2.  , -0.25],
           [ 0.  , -0.25,  0.  ]])
    """
    kernel = np.asarray(kernel, float)
    total = kernel.sum()
    if abs(total) <= 1e-6 * np.abs(kernel).sum():
        raise InputError(f"the taps {kernel.tolist()} sum to 0; they find edges and keep no brightness")
    return kernel / total


@named_errors
def edges(
    x: Float[Array, "n h w c"], *, padding: Padding = "SAME", padding_mode: str = "replicate"
) -> tuple[Float[Array, "n out_h out_w c"], Float[Array, "n out_h out_w c"]]:
    """The horizontal and the vertical edges of every channel, signed: what SOBEL_Y and −SOBEL_X give.

    These are the signs of row 003-07: H is positive where it gets darker downwards, V where it gets brighter to the
    right. (Row 002-15 has the other sign for vertical edges: it is SOBEL_X.)

    >>> h, v = edges(jnp.array([[0., 0., 1.], [0., 0., 1.]])[None, :, :, None])
    >>> v[0, :, :, 0]
    Array([[0., 4., 4.],
           [0., 4., 4.]], dtype=float32)
    >>> float(abs(h).max())
    0.0
    """
    x = _images(x)
    horizontal = apply_filter(x, SOBEL_Y, padding=padding, padding_mode=padding_mode)
    return horizontal, apply_filter(x, -SOBEL_X, padding=padding, padding_mode=padding_mode)


@named_errors
def sobel(
    x: Float[Array, "n h w c"], *, combine: str = "l2", padding: Padding = "SAME", padding_mode: str = "replicate"
) -> Float[Array, "n out_h out_w c"]:
    """All edges, whatever their direction: ``√(H² + V²)``, or ``|H| + |V|``, of the H and V of :func:`edges`.

    Both have the derivative 0 where the image is flat, so a loss of edges can be differentiated.

    Args:
        x: the images.
        combine: ``"l2"``, the length of the gradient, which sees all directions alike; or ``"l1"``, the sum of the
            absolute values, which is up to √2 larger on diagonals.
        padding, padding_mode: as in :func:`apply_filter`.

    Raises:
        InputError: an unknown ``combine``, or x is not ``(N, H, W, C)``.
        DtypeError: x holds integers.

    Lecture row 003-07.

    >>> corner = jnp.zeros((1, 4, 4, 1)).at[0, 2:, 2:].set(1.)
    >>> sobel(corner, combine="l1")[0, :, :, 0]
    Array([[0., 0., 0., 0.],
           [0., 2., 4., 4.],
           [0., 4., 6., 4.],
           [0., 4., 4., 0.]], dtype=float32)
    """
    checks.one_of("combine", combine, ["l1", "l2"])
    h, v = edges(_images(x), padding=padding, padding_mode=padding_mode)
    if combine == "l1":
        return h * jnp.sign(h) + v * jnp.sign(v)  # jnp.abs has the derivative 1 at 0
    # In units of the larger, a constant to every derivative: squares may be too large or too small for the dtype.
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(h), jnp.abs(v)))
    unit = jnp.where((unit > 0) & jnp.isfinite(unit), unit, 1)
    square = (h / unit) ** 2 + (v / unit) ** 2
    # √ has an infinite slope at 0, and infinity times 0 is NaN: so 0 must not reach it, not even unchosen.
    return jnp.where(square == 0, 0, unit * jnp.sqrt(jnp.where(square == 0, 1, square)))


@named_errors
def box_detector(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """How much every pixel is the centre of a bright solid 5×5 box: BOX_H over the horizontal edges, plus BOX_V over
    the vertical ones.

        y = edges(x)[0] ⋆ BOX_H + edges(x)[1] ⋆ BOX_V

    With the signs of :func:`edges` a bright box has H = −4 along its top and 4 along its bottom, V = 4 along its left
    and −4 along its right, so all four sides count as positive. Nothing is flipped (flipping all kernels would change
    nothing: two minus signs), and the image goes on beyond its border as it ends there, through both steps.

    A box that is 1 brighter than what is around it has its peak at 72, alone at the centre. Boxes of other sizes stay
    below (3×3: 48, 4×4: 60, 6×6 and more: 38), a hollow one reaches 24, and a dark one −72.

    Args:
        x: the images; every channel on its own.

    Lecture row 003-08.

    >>> box = jnp.zeros((1, 11, 12, 1)).at[0, 3:8, 4:9].set(1.)
    >>> y = box_detector(box)
    >>> float(y.max()), float(y[0, 5, 6, 0])
    (72.0, 72.0)
    """
    x = _images(x)
    h, v = edges(x, padding=3)  # 1 for Sobel's taps and 2 for the box's
    return apply_filter(h, BOX_H, padding="VALID") + apply_filter(v, BOX_V, padding="VALID")


@named_errors
def whitening_kernel(
    x: Float[Array, "n h w c"], size: IntOrInts = 2, *, eps: float = 5e-4
) -> Float[Array, "kh kw c filters"]:
    """Filters whose answers to the windows of these images are uncorrelated and all of one size, and their negatives.

        M = mean of p pᵀ over all windows p = Σ_k λ_k e_k e_kᵀ,    filter k = e_k / √(λ_k + eps)

    The D = kh·kw·C filters come by λ, the largest first, and after them the same D times −1: so nothing is lost by a
    relu that follows. M is about 0 and not about the mean, so the images should have a mean of about 0.

    Args:
        x: the images, such as some thousands of those to train on.
        size: of the window; an int, or two for height and width.
        eps: keeps what the images hardly vary in, noise as a rule, from being blown up.

    Returns:
        The kernel of :func:`jaxconv.ops.conv`, ``(kh, kw, C, 2·D)``, in at least float32.

    Raises:
        InputError: x is not ``(N, H, W, C)``, the window is larger than the image, or eps is negative.
        DtypeError: x holds integers.

    Source: Page, 2018, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/; as in
    https://arxiv.org/abs/2404.00498.

    >>> x = jax.random.normal(jax.random.key(0), (50, 9, 9, 1)).cumsum(axis=2)      # a pixel is like its neighbour
    >>> y = ops.conv(x, whitening_kernel(x, eps=0))[..., :4].reshape(-1, 4)
    >>> bool(jnp.allclose(y.T @ y / len(y), jnp.eye(4), atol=1e-3))
    True
    """
    x = numerics.upcast(_images(x))
    checks.real("eps", eps, minimum=0)
    high, wide = window = canonicalize_sizes(size, 2, "size")
    if high > x.shape[1] or wide > x.shape[2]:
        raise InputError(f"size {window} is larger than the image, {x.shape[1:3]}")
    seen = tap_slices(x, resolve_window(Window(window), x.shape[1:3]))
    windows = jnp.concatenate([pixels for _, pixels in seen], axis=-1).reshape(-1, high * wide * x.shape[-1])
    moments = jnp.matmul(windows.T, windows, precision="highest") / len(windows)
    values, vectors = jnp.linalg.eigh(moments)  # the smallest first, and by rounding it may be below 0
    filters = (vectors / jnp.sqrt(jnp.maximum(values, 0) + eps)[None])[:, ::-1]
    return jnp.concatenate([filters, -filters], axis=1).reshape(high, wide, x.shape[-1], -1)


def _images(x: jax.Array) -> jax.Array:
    x = checks.as_array(x=x)
    checks.rank(x, 4, "(N, H, W, C)")
    checks.floating_dtype(x=x)
    return x


def _check_taps(kernel: jax.Array) -> None:
    if kernel.ndim != 2:
        raise InputError(f"kernel {kernel.shape} should be (kh, kw), the same taps for every channel")
