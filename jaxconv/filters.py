"""Fixed kernels of classical image processing, and functions that apply them.

===========  =============================  =======================================================  ===  ==========
constant     kernel, row by row             response                                                 sum  row
===========  =============================  =======================================================  ===  ==========
BLUR         0 1 0 / 1 4 1 / 0 1 0          weighted sum of a pixel and its neighbors                8    002-04
SHARPEN      0 −1 0 / −1 8 −1 / 0 −1 0      a pixel plus its difference from its neighbors           4    002-04
LAPLACIAN    0 −1 0 / −1 4 −1 / 0 −1 0      difference of a pixel from its neighbors: all edges      0    002-04
SOBEL_X      1 0 −1 / 2 0 −2 / 1 0 −1       vertical edges, positive where the left is brighter      0    002-15
SOBEL_Y      1 2 1 / 0 0 0 / −1 −2 −1       horizontal edges, positive where the top is brighter     0    003-07
VERTICAL     1 0 −1 / 1 0 −1 / 1 0 −1       vertical edges, with equal rows                          0    002-07
HORIZONTAL   1 1 1 / 0 0 0 / −1 −1 −1       horizontal edges, with equal columns                     0    002-14
BOX_H        5×5: −1 above, 1 below         top and bottom of a box, applied to H of `edges`         0    003-08
BOX_V        5×5: 1 left, −1 right          left and right side of a box, applied to V of `edges`    0    003-08
===========  =============================  =======================================================  ===  ==========

The response to a constant image c is c times the sum of the kernel. BLUR therefore makes an image eight times brighter;
:func:`normalized` divides a kernel by its sum. Kernels are arrays ``(kh, kw)``; images are ``(N, H, W, C)``.

:func:`whitening_kernel` computes a kernel from images, for a fixed first layer of a network.

By default the functions preserve the size of an image and replicate its border (``padding_mode="replicate"``), since
zero padding would add an edge around every bright image. Sums are computed at full precision on every device.
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


def _read_only_kernel(*rows: list[int]) -> np.ndarray:
    kernel = np.array(rows, float)
    kernel.setflags(write=False)
    return kernel


BLUR = _read_only_kernel([0, 1, 0], [1, 4, 1], [0, 1, 0])
SHARPEN = _read_only_kernel([0, -1, 0], [-1, 8, -1], [0, -1, 0])
LAPLACIAN = _read_only_kernel([0, -1, 0], [-1, 4, -1], [0, -1, 0])
SOBEL_X = _read_only_kernel([1, 0, -1], [2, 0, -2], [1, 0, -1])
SOBEL_Y = _read_only_kernel([1, 2, 1], [0, 0, 0], [-1, -2, -1])
VERTICAL = _read_only_kernel([1, 0, -1], [1, 0, -1], [1, 0, -1])
HORIZONTAL = _read_only_kernel([1, 1, 1], [0, 0, 0], [-1, -1, -1])
BOX_H = _read_only_kernel([-1] * 5, [0] * 5, [0] * 5, [0] * 5, [1] * 5)
BOX_V = _read_only_kernel(*[[1, 0, 0, 0, -1]] * 5)


@named_errors
def apply_filter(
    x: Float[Array, "n h w c"],
    kernel: Float[ArrayLike, "kh kw"],
    *,
    padding: Padding = "SAME",
    padding_mode: str = "replicate",
) -> Float[Array, "n out_h out_w c"]:
    """Apply one kernel to every channel separately: ``y[n, i, j, c] = Σ_u Σ_v x[n, i + u, j + v, c] · kernel[u, v]``.

    The kernel is not flipped, as in :func:`jaxconv.ops.conv`.

    Args:
        x: images.
        kernel: kernel ``(kh, kw)``, converted to the dtype of x.
        padding, padding_mode: as in :func:`jaxconv.ops.conv`; by default the size of the image is preserved.

    Raises:
        InputError: if x is not ``(N, H, W, C)`` or kernel is not ``(kh, kw)``.
        DtypeError: if x has an integer dtype.

    Lecture rows 002-04, 002-08.

    >>> constant = jnp.full((1, 4, 5, 3), 2.0)
    >>> [apply_filter(constant, kernel)[0, 0, 0, 0].item() for kernel in (BLUR, SHARPEN, LAPLACIAN, SOBEL_X)]
    [16.0, 8.0, 0.0, 0.0]
    >>> apply_filter(constant, normalized(BLUR))[0, 0, 0, 0].item()
    2.0
    """
    x = _as_images(x)
    channels = x.shape[-1]
    kernel = jnp.asarray(kernel, x.dtype)
    _check_kernel(kernel)
    depthwise = jnp.repeat(kernel[:, :, None, None], channels, axis=3)
    return ops.conv(x, depthwise, groups=channels, padding=padding, padding_mode=padding_mode, precision="highest")


@named_errors
def conv_kernel(kernel: Float[ArrayLike, "kh kw"], channels: int) -> Float[Array, "kh kw c 1"]:
    """Repeat a kernel for every channel, as one filter of :func:`jaxconv.ops.conv`, which sums over the channels.

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
    _check_kernel(kernel)
    checks.at_least(1, channels=channels)
    return jnp.repeat(kernel[:, :, None, None], channels, axis=2)


@named_errors
def normalized(kernel: Float[ArrayLike, "kh kw"]) -> np.ndarray:
    """Divide a kernel by its sum, so that it preserves brightness: ``kernel / Σ kernel``.

    Raises:
        InputError: if the kernel sums to 0, as edge kernels do.

    The lecture omits this step (row 002-04).

    >>> normalized(SHARPEN)
    array([[ 0.  , -0.25,  0.  ],
           [-0.25,  2.  , -0.25],
           [ 0.  , -0.25,  0.  ]])
    """
    kernel = np.asarray(kernel, float)
    total = kernel.sum()
    if abs(total) <= 1e-6 * np.abs(kernel).sum():
        raise InputError(f"kernel {kernel.tolist()} sums to 0, as edge kernels do, and cannot be normalized")
    return kernel / total


@named_errors
def edges(
    x: Float[Array, "n h w c"], *, padding: Padding = "SAME", padding_mode: str = "replicate"
) -> tuple[Float[Array, "n out_h out_w c"], Float[Array, "n out_h out_w c"]]:
    """Compute signed horizontal and vertical edges (H, V) of every channel, with SOBEL_Y and −SOBEL_X.

    The signs are those of row 003-07: H is positive where brightness decreases downwards, V where it increases to the
    right. (Row 002-15 has the opposite sign for vertical edges: it is SOBEL_X.)

    >>> h, v = edges(jnp.array([[0., 0., 1.], [0., 0., 1.]])[None, :, :, None])
    >>> v[0, :, :, 0]
    Array([[0., 4., 4.],
           [0., 4., 4.]], dtype=float32)
    >>> float(abs(h).max())
    0.0
    """
    x = _as_images(x)
    horizontal = apply_filter(x, SOBEL_Y, padding=padding, padding_mode=padding_mode)
    return horizontal, apply_filter(x, -SOBEL_X, padding=padding, padding_mode=padding_mode)


@named_errors
def sobel(
    x: Float[Array, "n h w c"], *, combine: str = "l2", padding: Padding = "SAME", padding_mode: str = "replicate"
) -> Float[Array, "n out_h out_w c"]:
    """Edge magnitude in all directions: ``√(H² + V²)``, or ``|H| + |V|``, with H and V of :func:`edges`.

    Both have derivative 0 where the image is constant, so a loss on edges can be differentiated.

    Args:
        x: images.
        combine: ``"l2"``, the Euclidean norm of the gradient, equal in all directions; or ``"l1"``, the sum of the
            absolute values, which is up to √2 times larger on diagonals.
        padding, padding_mode: as in :func:`apply_filter`.

    Raises:
        InputError: if ``combine`` is unknown or x is not ``(N, H, W, C)``.
        DtypeError: if x has an integer dtype.

    Lecture row 003-07.

    >>> corner = jnp.zeros((1, 4, 4, 1)).at[0, 2:, 2:].set(1.)
    >>> sobel(corner, combine="l1")[0, :, :, 0]
    Array([[0., 0., 0., 0.],
           [0., 2., 4., 4.],
           [0., 4., 6., 4.],
           [0., 4., 4., 0.]], dtype=float32)
    """
    checks.one_of("combine", combine, ["l1", "l2"])
    h, v = edges(_as_images(x), padding=padding, padding_mode=padding_mode)
    if combine == "l1":
        return h * jnp.sign(h) + v * jnp.sign(v)  # jnp.abs has derivative 1 at 0
    # Divide by the larger value, as a constant, since squares may overflow or underflow.
    scale = jax.lax.stop_gradient(jnp.maximum(jnp.abs(h), jnp.abs(v)))
    scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
    square = (h / scale) ** 2 + (v / scale) ** 2
    # The derivative of √ at 0 is infinite and would give NaN even in the branch not taken, so replace 0 inside too.
    return jnp.where(square == 0, 0, scale * jnp.sqrt(jnp.where(square == 0, 1, square)))


@named_errors
def box_detector(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Detect the centers of bright solid 5×5 boxes, by BOX_H on horizontal edges plus BOX_V on vertical edges.

        y = edges(x)[0] ⋆ BOX_H + edges(x)[1] ⋆ BOX_V

    With the signs of :func:`edges` a bright box has H = −4 along its top and 4 along its bottom, V = 4 along its left
    and −4 along its right, so all four sides contribute positively. Kernels are not flipped (flipping all of them
    would change two signs, with no effect), and the border is replicated through both steps.

    A box that is 1 brighter than its surroundings has a unique peak of 72 at its center. Boxes of other sizes have
    lower peaks (3×3: 48, 4×4: 60, 6×6 and larger: 38), a hollow box 24, and a dark box −72.

    Args:
        x: images; every channel is processed separately.

    Lecture row 003-08.

    >>> box = jnp.zeros((1, 11, 12, 1)).at[0, 3:8, 4:9].set(1.)
    >>> y = box_detector(box)
    >>> float(y.max()), float(y[0, 5, 6, 0])
    (72.0, 72.0)
    """
    x = _as_images(x)
    h, v = edges(x, padding=3)  # 1 for the Sobel kernel and 2 for the box kernel
    return apply_filter(h, BOX_H, padding="VALID") + apply_filter(v, BOX_V, padding="VALID")


@named_errors
def whitening_kernel(
    x: Float[Array, "n h w c"], size: IntOrInts = 2, *, eps: float = 5e-4
) -> Float[Array, "kh kw c filters"]:
    """Compute PCA whitening filters, whose responses to these images are uncorrelated with unit variance.

        M = mean of p pᵀ over all windows p = Σ_k λ_k e_k e_kᵀ,    filter k = e_k / √(λ_k + eps)

    The D = kh·kw·C filters are sorted by decreasing λ and followed by their D negatives, so that a subsequent relu
    loses no information. M is not centered, so the mean of the images should be about 0.

    Args:
        x: images, such as some thousands of training images.
        size: size of the window; an int, or two ints for height and width.
        eps: regularization; it limits the amplification of directions with little variance, which are mostly noise.

    Returns:
        A kernel for :func:`jaxconv.ops.conv`, ``(kh, kw, C, 2·D)``, in at least float32.

    Raises:
        InputError: if x is not ``(N, H, W, C)``, the window is larger than the image, or eps is negative.
        DtypeError: if x has an integer dtype.

    Source: Page, 2018, https://myrtle.ai/learn/how-to-train-your-resnet-8-bag-of-tricks/; as in
    https://arxiv.org/abs/2404.00498.

    >>> x = jax.random.normal(jax.random.key(0), (50, 9, 9, 1)).cumsum(axis=2)      # neighboring pixels correlate
    >>> y = ops.conv(x, whitening_kernel(x, eps=0))[..., :4].reshape(-1, 4)
    >>> bool(jnp.allclose(y.T @ y / len(y), jnp.eye(4), atol=1e-3))
    True
    """
    x = numerics.upcast(_as_images(x))
    checks.real("eps", eps, minimum=0)
    kh, kw = window = canonicalize_sizes(size, 2, "size")
    if kh > x.shape[1] or kw > x.shape[2]:
        raise InputError(f"size {window} is larger than the image, {x.shape[1:3]}")
    slices = tap_slices(x, resolve_window(Window(window), x.shape[1:3]))
    windows = jnp.concatenate([pixels for _, pixels in slices], axis=-1).reshape(-1, kh * kw * x.shape[-1])
    moments = jnp.matmul(windows.T, windows, precision="highest") / len(windows)
    eigenvalues, eigenvectors = jnp.linalg.eigh(moments)  # in ascending order; rounding may make them negative
    filters = (eigenvectors / jnp.sqrt(jnp.maximum(eigenvalues, 0) + eps)[None])[:, ::-1]
    return jnp.concatenate([filters, -filters], axis=1).reshape(kh, kw, x.shape[-1], -1)


def _as_images(x: jax.Array) -> jax.Array:
    x = checks.as_array(x=x)
    checks.rank(x, 4, "(N, H, W, C)")
    checks.floating_dtype(x=x)
    return x


def _check_kernel(kernel: jax.Array) -> None:
    if kernel.ndim != 2:
        raise InputError(f"kernel {kernel.shape} should be (kh, kw), one kernel for all channels")
