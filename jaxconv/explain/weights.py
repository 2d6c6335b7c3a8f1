"""Kernels as images, their color and change in training, and histograms of weights and feature maps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

NORMALIZE_BY = ("filter", "layer")


class KernelChange(NamedTuple):
    """Change of each filter between two kernels.

    Attributes:
        relative: ``(O,)``, ``‖after − before‖ / ‖before‖``; infinite for a nonzero filter that was 0 before.
        cosine: ``(O,)``, cosine of the angle between the filters: 1 if only the norm changed, 0 if they are orthogonal;
            NaN if one of them is 0.
    """

    relative: jax.Array
    cosine: jax.Array


@named_errors
def kernel_images(kernel: Any, *, normalize_by: str = "filter") -> jax.Array:
    """Convert the filters of a first layer to gray or color images, with the value 0 as middle gray.

    ``image[o] = ½ + ½ · kernel[…, o] / largest``, where ``largest`` is the largest absolute value.

    Args:
        kernel: ``(kh, kw, C, O)``, with C = 1 or 3.
        normalize_by: scope of ``largest``: ``"filter"``, or ``"layer"`` to keep the relative strength of the filters.

    Returns:
        ``(O, kh, kw, C)``, from 0 to 1.

    Raises:
        InputError: if C is neither 1 nor 3 (use :func:`kernel_channel_images`) or ``normalize_by`` is unknown.

    Lecture rows 002-05, 003-23.

    >>> kernel_images(jnp.array([1.0, 0.0, -2.0]).reshape(1, 3, 1, 1))[0, 0, :, 0]
    Array([0.75, 0.5 , 0.  ], dtype=float32)
    """
    kernel = _as_kernel(kernel)
    if kernel.shape[2] not in (1, 3):
        raise InputError(
            f"kernel must have 1 or 3 input channels, got {kernel.shape}; use kernel_channel_images, "
            "which shows one channel at a time"
        )
    return 0.5 + 0.5 * jnp.moveaxis(_scale_by_max(kernel, "normalize_by", normalize_by), -1, 0)


@named_errors
def kernel_channel_images(kernel: Any, *, per: str = "filter") -> jax.Array:
    """Convert each channel of each filter to an image: ``image[o, c] = kernel[:, :, c, o] / largest``.

    Args:
        kernel: ``(kh, kw, C, O)``.
        per: scope of ``largest``, the largest absolute value: ``"filter"`` or ``"layer"``, as ``normalize_by`` of
            :func:`kernel_images`.

    Returns:
        ``(O, C, kh, kw)``, from −1 to 1.

    Raises:
        InputError: if ``kernel`` is not a nonempty float array ``(kh, kw, C, O)`` or ``per`` is unknown.

    Lecture row 002-05.

    >>> kernel_channel_images(jnp.array([1.0, -4.0]).reshape(1, 1, 2, 1)).tolist()
    [[[[0.25]], [[-1.0]]]]
    """
    return jnp.moveaxis(_scale_by_max(_as_kernel(kernel), "per", per), (2, 3), (1, 0))


@named_errors
def colorfulness(kernel: Any) -> jax.Array:
    """Compute the fraction of each filter's energy that is not gray: ``‖k − gray‖² / ‖k‖²``.

    ``gray`` has the mean of the three channels in each channel. It is orthogonal to the rest:
    ``‖k‖² = ‖gray‖² + ‖k − gray‖²``. The fraction is 0 if the three channels have equal weights and 1 if their weights
    sum to 0. It is ⅔ for a filter of one channel and, on average, for random filters. A filter of zeros has 0.

    Args:
        kernel: ``(kh, kw, 3, O)``.

    Returns:
        ``(O,)``, from 0 to 1.

    Raises:
        InputError: if the kernel does not have three input channels.

    Source: half of AlexNet's first filters are edges without color, the other half blobs of color (Krizhevsky et
    al., 2012, figure 3, https://papers.nips.cc/paper/4824). Lecture row 003-23.

    >>> gray, red_minus_green, red = [1.0, 1.0, 1.0], [1.0, -1.0, 0.0], [1.0, 0.0, 0.0]
    >>> colorfulness(jnp.array([gray, red_minus_green, red]).T.reshape(1, 1, 3, 3)).round(3)
    Array([0.   , 1.   , 0.667], dtype=float32)
    """
    kernel = _as_kernel(kernel)
    if kernel.shape[2] != 3:
        raise InputError(f"kernel must have 3 input channels, (kh, kw, 3, O), got {kernel.shape}")
    kernel = kernel / _nonzero(jnp.max(jnp.abs(kernel), axis=(0, 1, 2), keepdims=True))
    color = kernel - jnp.mean(kernel, axis=2, keepdims=True)
    energy = jnp.sum(kernel**2, axis=(0, 1, 2))
    return jnp.sum(color**2, axis=(0, 1, 2)) / _nonzero(energy)


@named_errors
def kernel_change(before: Any, after: Any) -> KernelChange:
    """Compute the relative change of each filter and the cosine between its old and new value.

    Args:
        before, after: ``(kh, kw, C, O)``.

    Raises:
        InputError: if the two shapes differ.

    >>> change = kernel_change(jnp.ones((1, 2, 1, 1)), jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1))
    >>> round(float(change.relative[0]), 4), float(change.cosine[0])
    (1.4142, 0.0)
    """
    before, after = _as_kernel(before), _as_kernel(after)
    if before.shape != after.shape:
        raise InputError(f"before and after must have the same shape, got {before.shape} and {after.shape}")
    norm = lambda kernel: jnp.sqrt(jnp.sum(kernel**2, axis=(0, 1, 2)))  # noqa: E731
    dot_product = jnp.sum(before * after, axis=(0, 1, 2))
    cosine = jnp.clip(dot_product / (norm(before) * norm(after)), -1, 1)
    return KernelChange(jnp.where(norm(after - before) > 0, norm(after - before) / norm(before), 0), cosine)


def _as_kernel(kernel: Any) -> jax.Array:
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4 or 0 in kernel.shape or not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise InputError(f"kernel must be nonempty floats (kh, kw, C, O), got {kernel.dtype}{kernel.shape}")
    return kernel


def _scale_by_max(kernel: jax.Array, argument: str, scope: str) -> jax.Array:
    checks.one_of(argument, scope, NORMALIZE_BY)
    axes = (0, 1, 2) if scope == "filter" else (0, 1, 2, 3)
    return kernel / _nonzero(jnp.max(jnp.abs(kernel), axis=axes, keepdims=True))


def _nonzero(divisor: jax.Array) -> jax.Array:
    """Return the divisor with every 0 replaced by 1."""
    return jnp.where(divisor > 0, divisor, jnp.ones_like(divisor))


class Histogram(NamedTuple):
    """Counts of the values between consecutive bin edges.

    Attributes:
        counts: ``(bins,)``, number of finite values per bin.
        edges: ``(bins + 1,)``.
        nan: number of NaN values.
        inf: number of infinite values.
    """

    counts: np.ndarray
    edges: np.ndarray
    nan: int
    inf: int


@named_errors
def histograms(arrays: Mapping[str, Any], *, bins: int | Sequence[float] = 50) -> dict[str, Histogram]:
    """Compute a histogram of every array, such as params or feature maps.

    Args:
        arrays: dict of arrays, possibly nested: params, state, or the result of :func:`feature_maps`.
        bins: number of bins of equal width, from the smallest finite value of an array to its largest; or the bin
            edges, where values outside are not counted.

    Returns:
        :class:`Histogram` by path, such as ``conv1/kernel``, in the order of the dicts.

    Raises:
        InputError: if there is no array, ``bins`` is less than 1, or the edges do not increase.

    >>> bias = histograms({"conv1": {"bias": np.array([0.0, 0.1, 1.0, np.nan])}}, bins=2)["conv1/bias"]
    >>> bias.counts.tolist(), bias.edges.tolist(), bias.nan
    ([2, 1], [0.0, 0.5, 1.0], 1)
    """
    if isinstance(bins, int):
        checks.at_least(1, bins=bins)
    elif len(bins) < 2 or np.any(np.diff(bins) <= 0):
        raise InputError(f"bins must be an int or increasing edges, got {bins!r}")
    results: dict[str, Histogram] = {}

    def collect(path: str, tree: Any) -> None:
        if isinstance(tree, Mapping):
            for name, subtree in tree.items():
                collect(f"{path}/{name}" if path else str(name), subtree)
            return
        array = np.asarray(tree).astype(np.float64).ravel()
        finite = array[np.isfinite(array)]
        num_nan = int(np.isnan(array).sum())
        counts, edges = np.histogram(finite, bins)
        results[path] = Histogram(counts, edges, num_nan, len(array) - len(finite) - num_nan)

    collect("", arrays)
    if not results or "" in results:
        raise InputError("arrays must be a dict of at least one array, such as params")
    return results
