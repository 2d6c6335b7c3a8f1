"""Occlusion: the drop of the target when a window of the image is covered."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import TargetFn, check_nhwc_images, target_function
from jaxconv.layers import Layer
from jaxconv.shapes import IntOrInts, canonicalize_sizes


class OcclusionResult(NamedTuple):
    """Result of :func:`occlusion`.

    Attributes:
        base_scores: target of each unoccluded image, ``(N,)``: the class probability, or ``target_fn``.
        occluded_scores: target with the window at each position, ``(N, rows, columns)``.
        attributions: drop of the target per pixel, averaged over the windows that cover it, ``(N, H, W)``.
    """

    base_scores: jax.Array
    occluded_scores: jax.Array
    attributions: jax.Array


@named_errors
def occlusion(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    window_shape: IntOrInts | None = None,
    stride: IntOrInts | None = None,
    baseline: float = 0.5,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
    batch_size: int = 256,
) -> OcclusionResult:
    """Measure the drop of the class probability when a gray window covers a part of the image.

    ``drop[p] = mean over the windows q that cover p of (probability(x) − probability(x occluded by q))``. The windows
    are ``stride`` apart; a last one at the end of each axis ensures that every pixel is covered.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or floats.
        target: target class, one for all images or ``(N,)``; by default the predicted class of the unoccluded image.
        window_shape: window size, an int or ``(height, width)``; by default a quarter of the image, at least 1.
        stride: distance between windows, at most ``window_shape``; by default half of the window.
        baseline: value of the covered pixels; the default 0.5 is gray.
        layer, target_fn: function of a layer's output that replaces the class probability, such as
            :func:`jaxconv.explain.max_activation` for a filter.
        batch_size: approximate number of images per batch.

    Returns:
        An :class:`OcclusionResult`.

    Raises:
        InputError: if the window is larger than the image, the stride is larger than the window, the output has no
            classes and there is no ``target_fn``, a target is not a class index, or ``images`` is empty.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, section 4.2. Lecture row 003-26.

    >>> from jaxconv import Dense, flatten, serial
    >>> model = serial(flatten, Dense(2))
    >>> params = {"dense1": {"kernel": jnp.eye(4)[:, :2], "bias": jnp.zeros(2)}}      # logits: the first two pixels
    >>> result = occlusion(model, params, {}, jnp.ones((1, 1, 4, 1)), 0, window_shape=1, baseline=0.0)
    >>> result.base_scores, result.attributions.round(2)
    (Array([0.5], dtype=float32), Array([[[ 0.23, -0.23,  0.  ,  0.  ]]], dtype=float32))
    """
    checks.at_least(1, batch_size=batch_size)
    checks.real("baseline", baseline)
    x = check_nhwc_images(images)
    size = x.shape[1:3]
    window = _resolve_window_shape(size, window_shape)
    starts = [_window_starts(n, p, s) for n, p, s in zip(size, window, _resolve_stride(window, stride), strict=True)]
    of_logits = lambda logits: jax.nn.softmax(logits, axis=-1)  # noqa: E731
    x, f = target_function(model, params, state, x, target, layer=layer, target_fn=target_fn, of_logits=of_logits)

    # A window covers a pixel if it covers both its row and its column.
    rows, columns = (_coverage_masks(n, p, first) for n, p, first in zip(size, window, starts, strict=True))
    occluder = jnp.full_like(x, baseline)

    def occluded_score(masks: tuple[jax.Array, jax.Array]) -> jax.Array:
        covered = masks[0][:, None] & masks[1][None, :]
        return f(jnp.where(covered[None, :, :, None], occluder, x))

    all_masks = [np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))]
    masks_per_batch = max(1, min(batch_size // len(x), len(all_masks[0])))
    scores = jax.lax.map(
        occluded_score, (jnp.asarray(all_masks[0]), jnp.asarray(all_masks[1])), batch_size=masks_per_batch
    )
    base_scores, occluded_scores = f(x), scores.T.reshape(len(x), len(rows), len(columns))

    drop = base_scores[:, None, None] - occluded_scores
    row_masks, column_masks = jnp.asarray(rows, drop.dtype), jnp.asarray(columns, drop.dtype)
    sums = jnp.einsum("nij,ih,jw->nhw", drop, row_masks, column_masks, precision="highest")
    return OcclusionResult(
        base_scores, occluded_scores, sums / jnp.outer(row_masks.sum(axis=0), column_masks.sum(axis=0))[None]
    )


def _resolve_window_shape(size: tuple[int, ...], window_shape: IntOrInts | None) -> tuple[int, ...]:
    window = (
        tuple(max(1, n // 4) for n in size)
        if window_shape is None
        else canonicalize_sizes(window_shape, 2, "window_shape")
    )
    if any(w > n for w, n in zip(window, size, strict=True)):
        raise InputError(f"window_shape {window} must be at most the image size {size}")
    return window


def _resolve_stride(window: tuple[int, ...], stride: IntOrInts | None) -> tuple[int, ...]:
    strides = tuple(max(1, w // 2) for w in window) if stride is None else canonicalize_sizes(stride, 2, "stride")
    if any(s > w for s, w in zip(strides, window, strict=True)):
        raise InputError(
            f"stride must be at most window_shape {window}, got {strides}, which would leave pixels uncovered"
        )
    return strides


def _window_starts(size: int, window: int, stride: int) -> list[int]:
    """List the start of each window along an axis: one per stride, and one that ends at the border."""
    return sorted({*range(0, size - window + 1, stride), size - window})


def _coverage_masks(size: int, window: int, starts: list[int]) -> np.ndarray:
    pixels = np.arange(size)
    return np.stack([(pixels >= start) & (pixels < start + window) for start in starts])
