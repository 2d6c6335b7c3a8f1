"""Convolution: one sum, and the table of its lowerings.

    y[n, p, o] = bias[o] + Σ_u Σ_c  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o]

This file checks the arguments and resolves them to plain integers. Each lowering, a file beside this one, then
computes the same sum in its own way, from exactly the same arguments. To add one, add its file and a line to
``LOWERINGS``: every test and every comparison runs it from then on.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxconv.errors import InputError, unknown
from jaxconv.ops import checks
from jaxconv.ops.conv import explicit, lax
from jaxconv.shapes import Padding, ResolvedWindow, Sizes, Window, resolve

LOWERINGS: dict[str, Callable[..., jax.Array]] = {"lax": lax.conv, "explicit": explicit.conv}
# Our names, which are PyTorch's, and numpy's for the same.
PAD_MODES = {
    "zeros": "constant",
    "circular": "wrap",
    "reflect": "reflect",
    "replicate": "edge",
    "symmetric": "symmetric",
}


def conv(
    x: Float[Array, "n *spatial c"],
    kernel: Float[Array, "*window c_per_group o"],
    bias: Float[Array, " o"] | None = None,
    *,
    stride: Sizes = 1,
    padding: Padding = "VALID",
    dilation: Sizes = 1,
    groups: int = 1,
    pad_mode: str = "zeros",
    impl: str = "auto",
    precision: jax.lax.PrecisionLike = None,
) -> Float[Array, "n *out o"]:
    """Slide a kernel over an image and take a weighted sum at every place.

        y[n, p, o] = bias[o] + Σ_u Σ_c  x[n, p·stride + u·dilation − low, c] · kernel[u, c, o]

    The kernel is not flipped: this is the cross-correlation that every CNN library calls convolution. The kernel's
    rank says how many spatial dimensions there are: ``(kh, kw, C, O)`` for images.

    Args:
        x: the images, channels last.
        kernel: the taps, then input channels (of one group), then filters.
        bias: one number a filter, or none.
        stride: pixels from one place to the next; an int, or one a dimension.
        padding: ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, ``"FULL"``, ``"CAUSAL"``, an int, ints or ``(low, high)``
            pairs, one a dimension (:func:`jaxconv.shapes.resolve_padding` says what each means).
        dilation: pixels from one tap to the next.
        groups: split the channels into so many groups, each seen by its own share of the filters. ``groups=C`` is
            a depthwise convolution.
        pad_mode: what the padding holds: ``"zeros"``, ``"circular"``, ``"reflect"`` (edge pixel not repeated),
            ``"replicate"`` or ``"symmetric"`` (edge pixel repeated).
        impl: the lowering: ``"lax"`` (``lax.conv_general_dilated``), ``"explicit"`` (the sum over taps, as written
            above) or ``"auto"``. All give the same array, but for rounding.
        precision: of the products; pass ``"highest"`` to compare results on a GPU or TPU.

    Returns:
        The feature maps ``(N, *out, O)``, of x's dtype.

    Raises:
        InputError: shapes that do not fit together, an empty output, an unknown option.
        DtypeError: integers, or x and kernel of different dtypes.

    Lecture rows 000-01, 001-20, 002-07.

    >>> edge = jnp.array([[25., 25., 25., 0., 0., 0.]] * 3)[None, :, :, None]      # bright on the left
    >>> vertical = jnp.array([[1., 0., -1.]] * 3)[:, :, None, None]
    >>> conv(edge, vertical)[0, :, :, 0]
    Array([[ 0., 75., 75.,  0.]], dtype=float32)
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    _check(x, kernel, groups)
    if impl != "auto" and impl not in LOWERINGS:
        raise unknown("impl", impl, ["auto", *LOWERINGS])
    if pad_mode not in PAD_MODES:
        raise unknown("pad_mode", pad_mode, PAD_MODES)
    try:
        window = resolve(Window(kernel.shape[:-2], stride, padding, dilation), x.shape[1:-1])
    except InputError as error:
        raise InputError(f"conv: {error}") from None
    if pad_mode != "zeros":
        x, window = _pad(x, window, pad_mode)
    y = LOWERINGS["lax" if impl == "auto" else impl](x, kernel, window, groups=groups, precision=precision)
    if bias is None:
        return y
    bias = jnp.asarray(bias)
    checks.floating("conv", x=x, bias=bias)
    checks.vector("conv", "bias", bias, kernel.shape[-1])
    return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def _pad(x: jax.Array, window: ResolvedWindow, pad_mode: str) -> tuple[jax.Array, ResolvedWindow]:
    """Pad with something else than zeros now, so that no lowering needs to know of it."""
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)), mode=PAD_MODES[pad_mode])
    return x, window._replace(padding=((0, 0),) * len(window.size))


def _check(x: jax.Array, kernel: jax.Array, groups: int) -> None:
    if not 3 <= kernel.ndim <= 5:
        raise InputError(
            f"conv: kernel {kernel.shape} should be (*window, C // groups, O) with 1 to 3 window dimensions: "
            "a 3×3 kernel for one channel and one filter is kernel[:, :, None, None]"
        )
    if 0 in kernel.shape:
        raise InputError(f"conv: kernel {kernel.shape} is empty")
    checks.rank("conv", x, kernel.ndim, f"(N, *spatial, C), to go with the kernel {kernel.shape}")
    checks.floating("conv", x=x, kernel=kernel)
    *_, c_per_group, features = kernel.shape
    if not isinstance(groups, int) or groups < 1 or features % groups:
        raise InputError(f"conv: groups={groups} does not divide the {features} filters of kernel {kernel.shape}")
    wanted = c_per_group * groups
    if x.shape[-1] == wanted:
        return
    if x.shape[1] == wanted:
        raise InputError(f"conv: x {x.shape} looks channels-first; move axis 1 to the end, jnp.moveaxis(x, 1, -1)")
    raise InputError(
        f"conv: x has {x.shape[-1]} channels but kernel {kernel.shape} takes {c_per_group} × groups={groups}"
    )
