"""Tests of translation: accuracy, features and layers of a network when its images are moved."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_images, check_labelled, feature_maps, per_image
from jaxconv.explain.receptive_fields import all_receptive_fields
from jaxconv.layers import Layer, as_layer
from jaxconv.layers.traversal import intercept, kernels_by_layer
from jaxconv.shapes import PositionedReceptiveField, is_int

AXES = {"x": (0, 1), "y": (1, 0), "both": (1, 1)}  # of a shift by 1: pixels down, pixels right
COMES_IN = ("zeros", "replicate", "circular")


class ShiftResult(NamedTuple):
    """How a network does on images that are moved by so many pixels.

    Attributes:
        shift: pixels, to the right or down; below 0 to the left or up.
        accuracy: the share of the images that are classified as they are labelled.
        consistency: the share whose class is the one of the image that was not moved.
        feature_distance: mean ‖f(moved x) − f(x)‖ / ‖f(x)‖ of the features f.
    """

    shift: int
    accuracy: float
    consistency: float
    feature_distance: float


@named_errors
def translation_test(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    shifts: Sequence[int] = range(-8, 9),
    axis: str = "both",
    padding_mode: str = "zeros",
    batch_size: int = 256,
) -> list[ShiftResult]:
    """Accuracy, and how far the features move, against how far the images are moved.

        distance(s) = mean_n ‖f(moved_s(x[n])) − f(x[n])‖ / ‖f(x[n])‖

    The features f are what the last layer with a kernel is given, flattened: the last features before the logits.
    (Where no layer has a kernel, f is the logits. Of a network that is only one dense layer they are the pixels.) A
    distance of √2 is that of unrelated features of one length. It is infinite where f(x) is 0 and f(moved x) is not.
    All shifts run in one compiled program.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats.
        labels: ``(N,)`` class numbers.
        shifts: whole pixels, less than the image's size; positive is to the right or down.
        axis: ``"x"`` moves along a row, ``"y"`` along a column, ``"both"`` along the diagonal by as much each way.
        padding_mode: what comes in: ``"zeros"``, ``"replicate"`` (the image's own border, the background of most), or
            ``"circular"`` (what has left on the other side).
        batch_size: images at a time.

    Returns:
        One :class:`ShiftResult` for each shift.

    Raises:
        InputError: no image, labels that do not go with images or network, a shift that leaves nothing of an image,
            or an unknown axis or padding_mode.

    Lecture rows 001-04, 003-16.

    >>> from jaxconv import Conv, Dense, global_avg_pool, relu, serial
    >>> model = serial(Conv(4, 3, padding="SAME", padding_mode="circular"), relu, global_avg_pool, Dense(3))
    >>> params, state = model.init(jax.random.key(0), (6, 6, 1))
    >>> images = jax.random.uniform(jax.random.key(1), (5, 6, 6, 1))
    >>> [one] = translation_test(model, params, state, images, [0] * 5, shifts=[2], padding_mode="circular")
    >>> one.consistency, one.feature_distance < 1e-5
    (1.0, True)
    """
    images, labels = check_labelled(model, params, state, images, labels, batch_size)
    checks.one_of("axis", axis, AXES)
    checks.one_of("padding_mode", padding_mode, COMES_IN)
    least = min(images.shape[1:3][i] for i in (0, 1) if AXES[axis][i])
    shifts = list(shifts)
    for shift in shifts:
        if not is_int(shift) or abs(shift) >= least:
            raise InputError(
                f"a shift of {shift!r} should be an int from {1 - least} to {least - 1}: "
                f"of images {images.shape[1:3]} nothing would be left"
            )
    look = _features(as_layer(model), params, state)

    def each(x: jax.Array) -> dict[str, jax.Array]:
        before, label = look(x)

        def at(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
            features, said = look(shift_images(x, AXES[axis][0] * shift, AXES[axis][1] * shift, padding_mode))
            return said, relative(features - before, before, axis=1)

        said, distance = jax.lax.map(at, jnp.asarray(shifts, int))
        return {"before": label, "said": said.T, "distance": distance.T}  # a row for each image

    if not shifts:
        return []
    found = per_image(each, images, batch_size)
    right, same = found["said"] == labels[:, None], found["said"] == found["before"][:, None]
    means = zip(shifts, right.mean(0), same.mean(0), found["distance"].astype(float).mean(0), strict=True)
    return [ShiftResult(int(shift), *map(float, row)) for shift, *row in means]


@named_errors
def mean_shift_results(tests: Sequence[Sequence[ShiftResult]]) -> list[ShiftResult]:
    """The mean of several networks' translation tests, by the same shifts.

    Raises:
        InputError: no test, or tests by other shifts.

    >>> mean_shift_results([[ShiftResult(1, 0.5, 1.0, 0.0)], [ShiftResult(1, 1.0, 1.0, 0.5)]])
    [ShiftResult(shift=1, accuracy=0.75, consistency=1.0, feature_distance=0.25)]
    """
    if len({tuple(row.shift for row in rows) for rows in tests}) != 1:
        raise InputError("give at least one translation test, and all by the same shifts")
    return [_mean(rows[0].shift, rows) for rows in zip(*tests, strict=True)]


def average_by_distance(rows: Sequence[ShiftResult]) -> dict[int, ShiftResult]:
    """By how far the images are moved, the mean of one way and the other.

    >>> left, still, right = (-1, 0.5, 1.0, 0.0), (0, 1.0, 1.0, 0.0), (1, 1.0, 1.0, 0.5)
    >>> average_by_distance([ShiftResult(*row) for row in (left, still, right)])[1]
    ShiftResult(shift=1, accuracy=0.75, consistency=1.0, feature_distance=0.25)
    """
    distances = sorted({abs(row.shift) for row in rows})
    return {far: _mean(far, [row for row in rows if abs(row.shift) == far]) for far in distances}


def _mean(shift: int, rows: Sequence[ShiftResult]) -> ShiftResult:
    return ShiftResult(shift, *map(statistics.fmean, list(zip(*rows, strict=True))[1:]))


def shift_images(
    images: jax.Array, down: int | jax.Array, right: int | jax.Array, padding_mode: str = "zeros"
) -> jax.Array:
    """Images ``(N, H, W, C)`` moved by whole pixels, which may be traced: ``y[n, i, j] = x[n, i − down, j − right]``.

    >>> row, column = jnp.arange(1., 4.).reshape(1, 1, 3, 1), jnp.ones((1, 2, 1, 1))
    >>> shift_images(row, 0, 1).ravel(), shift_images(column, -1, 0).ravel()
    (Array([0., 1., 2.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    for axis, by in ((1, down), (2, right)):
        size = images.shape[axis]
        place = jnp.arange(size) - by
        inside = (place >= 0) & (place < size)
        index = jnp.mod(place, size) if padding_mode == "circular" else jnp.clip(place, 0, size - 1)
        images = jnp.take(images, index, axis=axis)
        if padding_mode == "zeros":
            images = jnp.where(jnp.expand_dims(inside, [i for i in range(images.ndim) if i != axis]), images, 0)
    return images


def relative(difference: jax.Array, to: jax.Array, axis: Any = None) -> jax.Array:
    """``‖difference‖ / ‖to‖``: 0 where there is no difference, and infinite where there is one to 0."""
    size, far = (jnp.sqrt(jnp.sum(jnp.square(a), axis=axis)) for a in (to, difference))
    return jnp.where(far == 0, 0, far / jnp.where(far == 0, 1, size))


def _features(model: Layer, params: Any, state: Any) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Of images, what the last layer with a kernel is given, ``(N, features)``, and the likeliest class."""
    last = list(kernels_by_layer(model, params))[-1:]

    def look(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen: list[jax.Array] = []

        def keep(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            seen.extend([x] if path in last else [])
            return apply(x)

        logits = intercept(model, params, state, x, keep)
        [features] = seen or [logits]
        return features.reshape(len(x), -1), jnp.argmax(logits, axis=1)

    return look


@named_errors
def equivariance_error(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    shift: int | tuple[int, int],
    nearest: bool = False,
) -> dict[str, jax.Array | None]:
    """How far each layer's output is from moving as the image moves.

        error = ‖f(x moved by s)[p] − f(x)[p − s/jump]‖ / ‖f(x)[p − s/jump]‖,    over all images and places p

    where both sides see pixels of the image and none that came in or is padding. So the border does not count, and
    whatever computes the same at every place, as convolution and pooling do, has 0 but for rounding. Where the image
    moves by no whole number of the layer's steps (a pool of stride 2 and a shift of 1), there is no place to compare
    with: this is where a network stops being equivariant, and how far it is from it ``nearest`` tells.

    It is a function of few images, which works under ``jax.jit``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats.
        shift: whole pixels down and right; one int for both. Negative is up and left.
        nearest: instead of None, compare with the nearest place, of two equally near the one below and to the right.

    Returns:
        The error of each layer whose outputs have places (those of a dense layer have none, and are left out); None
        where the layer's jump does not divide the shift, or no place sees nothing but the image.

    Raises:
        InputError: no image, or a shift that leaves nothing of it.

    Lecture rows 001-04, 004-03.

    >>> from jaxconv import Conv, Dense, MaxPool, flatten, serial
    >>> model = serial(Conv(2, 3), MaxPool(2), flatten, Dense(3))
    >>> params, state = model.init(jax.random.key(0), (10, 10, 1))
    >>> images = jax.random.uniform(jax.random.key(1), (2, 10, 10, 1))
    >>> error = equivariance_error(model, params, state, images, shift=1)
    >>> list(error), float(error["conv1"]) < 1e-5, error["max_pool1"]
    (['conv1', 'max_pool1'], True, None)
    >>> bool(equivariance_error(model, params, state, images, shift=1, nearest=True)["max_pool1"] > 0.1)
    True
    """
    x = check_images(images)
    pair = shift if isinstance(shift, tuple) else (shift, shift)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    if len(pair) != 2 or not all(is_int(s) and abs(s) < n for s, n in zip(pair, x.shape[1:3], strict=True)):
        raise InputError(
            f"shift={shift!r} should be an int, or two for down and right, each smaller than the image, {x.shape[1:3]}"
        )
    placed = {name: view for name, view in all_receptive_fields(model, x.shape[1:]).items() if view is not None}
    before = feature_maps(model, params, state, x, layers=tuple(placed))
    after = feature_maps(model, params, state, shift_images(x, *pair), layers=tuple(placed))
    found: dict[str, jax.Array | None] = {}
    for name, view in placed.items():
        jumps = view.field.effective_stride
        steps = [-(-(2 * s - j) // (2 * j)) for s, j in zip(pair, jumps, strict=True)]  # s / j, a half rounded down
        whole = all(step * j == s for step, s, j in zip(steps, pair, jumps, strict=True))
        seen = [_inside(view, d, before[name].shape[d + 1], x.shape[d + 1], pair[d], steps[d]) for d in (0, 1)]
        if not (whole or nearest) or not all(len(places) for places in seen):
            found[name] = None
            continue
        rows, columns = (slice(places[0], places[-1] + 1) for places in seen)
        from_rows, from_columns = (
            slice(places[0] - step, places[-1] + 1 - step) for places, step in zip(seen, steps, strict=True)
        )
        there, here = after[name][:, rows, columns], before[name][:, from_rows, from_columns]
        found[name] = relative(there - here, here)
    return found


def _inside(view: PositionedReceptiveField, d: int, out: int, size: int, shift: int, step: int) -> list[int]:
    """The places along a dimension that see only the moved image, and whose partners see only the image."""
    first, jump, field = view.offset[d], view.field.effective_stride[d], view.field.size[d]

    def sees_only(place: int, low: int, high: int) -> bool:
        start = first + place * jump
        return 0 <= place < out and low <= start and start + field <= high

    return [
        place
        for place in range(out)
        if sees_only(place, max(0, shift), min(size, size + shift)) and sees_only(place - step, 0, size)
    ]
