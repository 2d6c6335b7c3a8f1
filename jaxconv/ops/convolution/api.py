"""Convolution: the public function and the table of its lowerings.

    y[n, p, o] = bias[o] + Σ_u Σ_c  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o]

This file validates the arguments and resolves them to plain integers. Every lowering in
:mod:`jaxconv.ops.convolution.lowerings` computes the same sum from the same arguments. To add a lowering, write a
function and add a line to ``LOWERINGS``: all tests and comparisons then include it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.convolution import dispatch, lowerings
from jaxconv.ops.sharding import over_devices
from jaxconv.shapes import IntOrInts, Padding, ResolvedWindow, Window, is_int, resolve_window

if TYPE_CHECKING:
    from jax.experimental.sparse import BCOO

LOWERINGS: dict[str, Callable[..., jax.Array]] = {
    "lax": lowerings.lax_conv,
    "explicit": lowerings.explicit_conv,
    "im2col": lowerings.im2col_conv,
    "toeplitz": lowerings.toeplitz_conv,
    "fft": lowerings.fft_conv,
}
# PyTorch's names of the padding modes, which jaxconv uses, to numpy's.
PADDING_MODES = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
    "symmetric": "symmetric",
}


@named_errors
def conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*window c_per_group o"],
    bias: Float[Array, " o"] | None = None,
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    flip_kernel: bool = False,
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "n *out o"]:
    """Convolve images with a kernel:

        y[n, p, o] = bias[o] + Σ_u Σ_c  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o]

    The kernel is not flipped: this is the cross-correlation that CNN libraries call convolution. The rank of the kernel
    determines the number of spatial dimensions: ``(kh, kw, C, O)`` for images. Sums of half-precision inputs are in
    float32 and rounded once, at the end; ``auto`` on a GPU or TPU also rounds before the bias.

    Args:
        x: images ``(N, *spatial, C)``.
        kernel: ``(*window, C // groups, O)``.
        bias: vector ``(O,)``, or None.
        stride: distance between windows in pixels, an int or one per dimension.
        padding: ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, ``"FULL"``, ``"CAUSAL"``, an int, or one int or
            ``(low, high)`` pair per dimension, as explained in :func:`jaxconv.shapes.resolve_padding`.
        dilation: distance between neighboring kernel entries in pixels.
        groups: number of groups into which channels and filters are split; each filter uses the channels of its group.
            ``groups=C`` is a depthwise convolution.
        padding_mode: content of the padding: ``"zeros"``, ``"circular"``, ``"reflect"`` (edge pixel not repeated),
            ``"replicate"`` or ``"symmetric"`` (edge pixel repeated).
        flip_kernel: flip the kernel along every window axis first: mathematical convolution, which is commutative and
            associative (row 002-22).
        impl: lowering: ``"lax"`` (``lax.conv_general_dilated``), ``"explicit"`` (the sum above over kernel offsets),
            ``"im2col"`` (one matrix product), ``"toeplitz"`` (one sparse matrix), ``"fft"`` or ``"auto"``. On a CPU
            ``"auto"`` picks the fastest lowering for the forward pass and for each gradient; elsewhere it is lax. All
            give the same output and gradients up to rounding. The rounding error of ``"fft"`` is relative to the
            largest pixel of an image, and a NaN reaches the whole output of its image. ``"explicit"`` and ``"im2col"``
            compile one operation per kernel offset, which is slow for windows of hundreds of pixels; ``"auto"`` uses
            lax for these.
        precision: precision of the matrix products; pass ``"highest"`` to compare results on a GPU or TPU. Ignored by
            ``"toeplitz"``, whose products are elementwise.

    Returns:
        Feature maps ``(N, *out, O)`` of x's dtype.

    Raises:
        InputError: if shapes do not match, the output is empty, or an option is unknown.
        DtypeError: if x or kernel holds integers, or their dtypes differ.

    Lecture rows 000-01, 001-20, 002-07.

    >>> edge = jnp.array([[25., 25., 25., 0., 0., 0.]] * 3)[None, :, :, None]      # bright on the left
    >>> vertical = jnp.array([[1., 0., -1.]] * 3)[:, :, None, None]
    >>> conv(edge, vertical)[0, :, :, 0]
    Array([[ 0., 75., 75.,  0.]], dtype=float32)
    """
    x, kernel = checks.as_arrays(x=x, kernel=kernel)
    _check(x, kernel, groups)
    checks.boolean("flip_kernel", flip_kernel)
    checks.precision(precision)
    checks.one_of("impl", impl, ["auto", *LOWERINGS])
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)
    window = resolve_window(Window(kernel.shape[:-2], stride, padding, dilation), x.shape[1:-1])
    if padding_mode != "zeros":
        x, window = _pad(x, window, padding_mode)
    if flip_kernel:
        kernel = jnp.flip(kernel, range(kernel.ndim - 2))
    lowering = dispatch.conv if impl == "auto" else LOWERINGS[impl]
    y = over_devices(partial(lowering, window=window, groups=groups, precision=precision), x, kernel)
    return numerics.add_bias(y, bias, x.dtype)


@named_errors
def convolution_matrix(
    kernel: Float[Array, "*window c_per_group o"],
    input_shape: Sequence[int],
    *,
    stride: IntOrInts = 1,
    padding: Padding = "VALID",
    dilation: IntOrInts = 1,
    groups: int = 1,
) -> "BCOO":
    """Matrix of a convolution as a fully connected layer: sparse, with shared weights.

        conv(x, kernel)[0].ravel() == convolution_matrix(kernel, x.shape[1:]) @ x[0].ravel()

    Args:
        kernel, stride, padding, dilation, groups: as in :func:`conv`.
        input_shape: shape of one example, ``(*spatial, C)``.

    Returns:
        A ``jax.experimental.sparse.BCOO`` of shape ``(prod(out)·O, prod(input_shape))``, differentiable with respect to
        the kernel. It stores the kernel entries that meet pixels, not padding; ``.todense()`` converts it to an array.

    Raises:
        InputError: as for :func:`conv`.

    Lecture rows 000-08 to 000-10.

    >>> convolution_matrix(jnp.array([1., 2., 3.])[:, None, None], (5, 1)).todense()
    Array([[1., 2., 3., 0., 0.],
           [0., 1., 2., 3., 0.],
           [0., 0., 1., 2., 3.]], dtype=float32)
    >>> lenet1 = convolution_matrix(jax.random.normal(jax.random.key(0), (5, 5, 1, 6)), (32, 32, 1))
    >>> lenet1.size, lenet1.nse, len(set(lenet1.data.tolist()))
    (4816896, 117600, 150)
    """
    kernel = checks.as_array(kernel=kernel)
    sizes = input_shape if isinstance(input_shape, Sequence) else ()
    if len(sizes) != kernel.ndim - 1 or not all(is_int(n) and n >= 0 for n in sizes):
        raise InputError(
            f"input_shape {input_shape!r} must be that of one example, (*spatial, C), for kernel {kernel.shape}"
        )
    _check(jax.ShapeDtypeStruct((0, *input_shape), kernel.dtype), kernel, groups)
    size = tuple(input_shape[:-1])
    window = resolve_window(Window(kernel.shape[:-2], stride, padding, dilation), size)
    return lowerings.toeplitz_matrix(kernel, size, window, groups)


def _pad(x: jax.Array, window: ResolvedWindow, padding_mode: str) -> tuple[jax.Array, ResolvedWindow]:
    """Apply non-zero padding before the lowering, which then pads nothing."""
    if 0 in x.shape[1:-1]:
        raise InputError(f"padding_mode={padding_mode!r} has no pixel to repeat in x {x.shape}; it needs at least one")
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), mode=PADDING_MODES[padding_mode])
    return x, window._replace(padding=((0, 0),) * len(window.size))


def _check(x: Any, kernel: jax.Array, groups: int) -> None:
    checks.kernel(kernel)
    checks.rank(x, kernel.ndim, f"(N, *spatial, C), to go with the kernel {kernel.shape}")
    checks.floating_dtype(x=x, kernel=kernel)
    checks.channels(x, kernel, groups)
