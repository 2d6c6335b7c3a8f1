"""Cover a part of the image and see what becomes of the answer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.attribution.targets import TargetFn, check_pictures, target_function
from jaxconv.layers import Layer
from jaxconv.shapes import IntOrInts, canonicalize_sizes


class OcclusionResult(NamedTuple):
    """What :func:`occlusion` found.

    Attributes:
        base_scores: what is asked about of each image as it is, ``(N,)``: a probability, or the score.
        occluded_scores: the same with the patch at each place, ``(N, rows, columns)``.
        attributions: for each pixel how much is lost, the mean over the patches that cover it, ``(N, H, W)``.
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
    """How much of the probability of a class is lost when a grey patch covers a part of the image.

    ``drop[p] = mean over the patches q that cover p of (probability(x) − probability(x with patch q))``. The patch
    goes over the image in steps, and stands at its far borders too, so that every pixel is covered.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats.
        target: the class, one for all or ``(N,)``; by default the likeliest of the image as it is.
        window_shape: its size, an int or ``(height, width)``; by default a quarter of the image, at least 1.
        stride: from one place to the next, at most the patch; by default half of the patch.
        baseline: the value of the patch, grey.
        layer, target_fn: ask about something else than the probability of a class, such as a filter of a layer:
            :func:`jaxconv.explain.max_activation`.
        batch_size: images at a time, about.

    Returns:
        An :class:`OcclusionResult`.

    Raises:
        InputError: a patch larger than the image; a stride larger than the patch, which would leave pixels uncovered;
            an output without classes and no score; a label outside the classes; no image.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, section 4.2. Lecture row 003-26.

    >>> from jaxconv import Dense, flatten, serial
    >>> model = serial(flatten, Dense(2))
    >>> params = {"dense1": {"kernel": jnp.eye(4)[:, :2], "bias": jnp.zeros(2)}}      # looks at the first two pixels
    >>> found = occlusion(model, params, {}, jnp.ones((1, 1, 4, 1)), 0, window_shape=1, baseline=0.0)
    >>> found.base_scores, found.attributions.round(2)
    (Array([0.5], dtype=float32), Array([[[ 0.23, -0.23,  0.  ,  0.  ]]], dtype=float32))
    """
    checks.at_least(1, batch_size=batch_size)
    checks.real("baseline", baseline)
    x = check_pictures(images)
    size = x.shape[1:3]
    patches = _patch(size, window_shape)
    starts = [_starts(n, p, s) for n, p, s in zip(size, patches, _stride(patches, stride), strict=True)]
    of_logits = lambda logits: jax.nn.softmax(logits, axis=-1)  # noqa: E731
    x, f = target_function(model, params, state, x, target, layer=layer, target_fn=target_fn, of_logits=of_logits)

    # Which rows and which columns each patch covers, so that it covers where both do.
    rows, columns = (_covers(n, p, first) for n, p, first in zip(size, patches, starts, strict=True))
    grey = jnp.full_like(x, baseline)

    def with_patch(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        covered = place[0][:, None] & place[1][None, :]
        return f(jnp.where(covered[None, :, :, None], grey, x))

    places = [np.repeat(rows, len(columns), axis=0), np.tile(columns, (len(rows), 1))]
    together = max(1, min(batch_size // len(x), len(places[0])))
    found = jax.lax.map(with_patch, (jnp.asarray(places[0]), jnp.asarray(places[1])), batch_size=together)
    before, probability = f(x), found.T.reshape(len(x), len(rows), len(columns))

    lost = before[:, None, None] - probability
    r, c = jnp.asarray(rows, lost.dtype), jnp.asarray(columns, lost.dtype)
    sums = jnp.einsum("nij,ih,jw->nhw", lost, r, c, precision="highest")
    return OcclusionResult(before, probability, sums / jnp.outer(r.sum(axis=0), c.sum(axis=0))[None])


def _patch(size: tuple[int, ...], patch: IntOrInts | None) -> tuple[int, ...]:
    patches = tuple(max(1, n // 4) for n in size) if patch is None else canonicalize_sizes(patch, 2, "patch")
    if any(p > n for p, n in zip(patches, size, strict=True)):
        raise InputError(f"patch {patches} is larger than the images, {size}: give a smaller patch")
    return patches


def _stride(patches: tuple[int, ...], stride: IntOrInts | None) -> tuple[int, ...]:
    strides = tuple(max(1, p // 2) for p in patches) if stride is None else canonicalize_sizes(stride, 2, "stride")
    if any(s > p for s, p in zip(strides, patches, strict=True)):
        raise InputError(
            f"stride {strides} is larger than the patch, {patches}, and would leave pixels uncovered: "
            "give at most the patch's size"
        )
    return strides


def _starts(n: int, patch: int, stride: int) -> list[int]:
    """Where a patch begins, in one dimension: every stride, and at the very end."""
    return sorted({*range(0, n - patch + 1, stride), n - patch})


def _covers(n: int, patch: int, starts: list[int]) -> np.ndarray:
    pixels = np.arange(n)
    return np.stack([(pixels >= first) & (pixels < first + patch) for first in starts])
