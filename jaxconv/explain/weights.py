"""Kernels as images, their color, their change in training, and histograms of weights and feature maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

PER = ("filter", "layer")


class KernelChange(NamedTuple):
    """What became of each filter.

    Attributes:
        relative: ``(O,)``, ``‖after − before‖ / ‖before‖``; infinite for a filter that was 0 and is not any more.
        cosine: ``(O,)``, of the angle between them: 1 if it only grew, 0 if nothing of it is left; NaN for zeros.
    """

    relative: jax.Array
    cosine: jax.Array


@named_errors
def kernel_images(kernel: Any, *, normalize_by: str = "filter") -> jax.Array:
    """The filters of a first layer as images, grey or in colour, with 0 as the grey in the middle.

    ``image[o] = ½ + ½ · kernel[…, o] / largest``

    Args:
        kernel: ``(kh, kw, C, O)``, with the C of images: 1 or 3.
        normalize_by: where ``largest`` is the greatest absolute value, each ``"filter"`` or the whole ``"layer"``,
            so that weak filters look weak.

    Returns:
        ``(O, kh, kw, C)``, from 0 to 1.

    Raises:
        InputError: a kernel whose input is no image; :func:`kernel_channel_images` shows those.

    Lecture rows 002-05, 003-23.

    >>> kernel_images(jnp.array([1.0, 0.0, -2.0]).reshape(1, 3, 1, 1))[0, 0, :, 0]
    Array([0.75, 0.5 , 0.  ], dtype=float32)
    """
    kernel = _kernel(kernel)
    if kernel.shape[2] not in (1, 3):
        raise InputError(
            f"kernel {kernel.shape} looks at {kernel.shape[2]} channels, which are no image (1 or 3); "
            "kernel_channel_images shows each by itself"
        )
    return 0.5 + 0.5 * jnp.moveaxis(_scaled(kernel, normalize_by), -1, 0)


@named_errors
def kernel_channel_images(kernel: Any, *, per: str = "filter") -> jax.Array:
    """What each filter does with each channel of its input.

    Args:
        kernel: ``(kh, kw, C, O)``.
        per: as for :func:`kernel_images`.

    Returns:
        ``(O, C, kh, kw)``, from −1 to 1.

    Raises:
        InputError: no such kernel.

    Lecture row 002-05.

    >>> kernel_channel_images(jnp.array([1.0, -4.0]).reshape(1, 1, 2, 1)).tolist()
    [[[[0.25]], [[-1.0]]]]
    """
    return jnp.moveaxis(_scaled(_kernel(kernel), per), (2, 3), (1, 0))


@named_errors
def colorfulness(kernel: Any) -> jax.Array:
    """The share of each filter's energy that is not grey: 0 if it looks at all three channels alike, 1 if it only
    compares them.

    ``‖k − grey‖² / ‖k‖²`` where ``grey`` has the mean of the three channels in each. These are at right angles, so
    that ``‖k‖² = ‖grey‖² + ‖k − grey‖²``. A filter that looks at one channel alone has ⅔, and so have random ones on
    average; a filter of zeros has no colour: 0.

    Args:
        kernel: ``(kh, kw, 3, O)``.

    Returns:
        ``(O,)``, from 0 to 1.

    Raises:
        InputError: a kernel whose input has not three channels.

    Source: of AlexNet's first filters one half are edges without colour, the other blobs of colour (Krizhevsky et
    al., 2012, figure 3, https://papers.nips.cc/paper/4824). Lecture row 003-23.

    >>> grey, red_minus_green, red = [1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 0.0, 0.0]
    >>> colorfulness(jnp.array([grey, red_minus_green, red]).T.reshape(1, 1, 3, 3)).round(3)
    Array([0.   , 1.   , 0.667], dtype=float32)
    """
    kernel = _kernel(kernel)
    if kernel.shape[2] != 3:
        raise InputError(f"kernel {kernel.shape} has not the three channels of colours: (kh, kw, 3, O)")
    kernel = kernel / _or_one(jnp.max(jnp.abs(kernel), axis=(0, 1, 2), keepdims=True))
    colour = kernel - jnp.mean(kernel, axis=2, keepdims=True)
    energy = jnp.sum(kernel**2, axis=(0, 1, 2))
    return jnp.sum(colour**2, axis=(0, 1, 2)) / _or_one(energy)


@named_errors
def kernel_change(before: Any, after: Any) -> KernelChange:
    """How far training has moved each filter, and how much of its direction is left.

    Args:
        before, after: ``(kh, kw, C, O)``.

    Raises:
        InputError: kernels of two shapes.

    >>> found = kernel_change(jnp.ones((1, 2, 1, 1)), jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1))
    >>> round(float(found.relative[0]), 4), float(found.cosine[0])
    (1.4142, 0.0)
    """
    before, after = _kernel(before), _kernel(after)
    if before.shape != after.shape:
        raise InputError(f"kernels {before.shape} and {after.shape} are not of one layer")
    size = lambda kernel: jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2)))  # noqa: E731
    product = jnp.sum(before * after, axis=(0, 1, 2))
    cosine = jnp.clip(product / (size(before) * size(after)), -1, 1)
    return KernelChange(jnp.where(size(after - before) > 0, size(after - before) / size(before), 0), cosine)


def _kernel(kernel: Any) -> jax.Array:
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4 or 0 in kernel.shape or not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise InputError(f"kernel {kernel.dtype}{kernel.shape} should be floats, (kh, kw, C, O)")
    return kernel


def _scaled(kernel: jax.Array, per: str) -> jax.Array:
    checks.one_of("per", per, PER)
    axes = (0, 1, 2) if per == "filter" else (0, 1, 2, 3)
    return kernel / _or_one(jnp.max(jnp.abs(kernel), axis=axes, keepdims=True))


def _or_one(size: jax.Array) -> jax.Array:
    """What to divide by: of nothing but zeros, 1."""
    return jnp.where(size > 0, size, jnp.ones_like(size))


class Histogram(NamedTuple):
    """How many numbers there are between each edge and the next.

    Attributes:
        counts: ``(bins,)``; of the finite numbers.
        edges: ``(bins + 1,)``.
        nan: how many are no number.
        inf: how many are infinite.
    """

    counts: np.ndarray
    edges: np.ndarray
    nan: int
    inf: int


@named_errors
def histograms(arrays: Mapping[str, Any], *, bins: int | Sequence[float] = 50) -> dict[str, Histogram]:
    """A histogram of every array of params, or of feature maps.

    Args:
        arrays: dicts of arrays, nested or not: params, state, what :func:`feature_maps` returns.
        bins: how many, of one width, from an array's least finite number to its largest; or their edges, and what is
            beyond them is not counted.

    Returns:
        One for each array, named ``conv1/kernel``, in the order of the dicts.

    Raises:
        InputError: no array, or no bin.

    >>> found = histograms({"conv1": {"bias": np.array([0.0, 0.1, 1.0, np.nan])}}, bins=2)
    >>> found["conv1/bias"].counts.tolist(), found["conv1/bias"].edges.tolist(), found["conv1/bias"].nan
    ([2, 1], [0.0, 0.5, 1.0], 1)
    """
    if isinstance(bins, int):
        checks.at_least(1, bins=bins)
    elif len(bins) < 2 or np.any(np.diff(bins) <= 0):
        raise InputError(f"bins={bins!r} should be a number of bins, or edges that go up")
    found: dict[str, Histogram] = {}

    def collect(path: str, tree: Any) -> None:
        if isinstance(tree, Mapping):
            for name, below in tree.items():
                collect(f"{path}/{name}" if path else str(name), below)
            return
        array = np.asarray(tree).astype(np.float64).ravel()
        finite = array[np.isfinite(array)]
        nan = int(np.isnan(array).sum())
        counts, edges = np.histogram(finite, bins)
        found[path] = Histogram(counts, edges, nan, len(array) - len(finite) - nan)

    collect("", arrays)
    if not found or "" in found:
        raise InputError("dicts of arrays are wanted, such as params, and at least one array")
    return found
