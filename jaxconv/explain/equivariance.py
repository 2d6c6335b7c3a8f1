"""Translation tests: accuracy, features and equivariance of a network on shifted images."""

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

AXES = {"x": (0, 1), "y": (1, 0), "both": (1, 1)}  # (down, right) pixels of a shift by 1
PADDING_MODES = ("zeros", "replicate", "circular")


class ShiftResult(NamedTuple):
    """Accuracy, consistency and feature distance on images shifted by ``shift`` pixels.

    Attributes:
        shift: pixels to the right or down; negative to the left or up.
        accuracy: fraction of images that are classified correctly.
        consistency: fraction of images whose predicted class equals that of the unshifted image.
        feature_distance: mean ‖f(shifted x) − f(x)‖ / ‖f(x)‖ of the features f.
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
    """Measure accuracy, consistency and feature distance as a function of the shift of the images.

        distance(s) = mean_n ‖f(shifted_s(x[n])) − f(x[n])‖ / ‖f(x[n])‖

    The features f are the flattened input of the last layer with a kernel: the last features before the logits. (If no
    layer has a kernel, f is the logits. If the network is a single dense layer, f is the pixels.) Unrelated features of
    equal norm have a distance of √2. The distance is infinite if f(x) is 0 and f(shifted x) is not. All shifts run in
    one compiled function.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or floats.
        labels: ``(N,)`` class indices.
        shifts: integer pixels, smaller than the image; positive is to the right or down.
        axis: ``"x"`` shifts along rows, ``"y"`` along columns, ``"both"`` along the diagonal.
        padding_mode: values of the uncovered pixels: ``"zeros"``, ``"replicate"`` (nearest border pixel), or
            ``"circular"`` (pixels from the opposite side).
        batch_size: number of images per batch.

    Returns:
        One :class:`ShiftResult` per shift.

    Raises:
        InputError: if ``images`` is empty, the labels do not match the images or the model, a shift is not an int
            smaller than the image, or ``axis`` or ``padding_mode`` is unknown.

    Lecture rows 001-04, 003-16.

    >>> from jaxconv import Conv, Dense, global_avg_pool, relu, serial
    >>> model = serial(Conv(4, 3, padding="SAME", padding_mode="circular"), relu, global_avg_pool, Dense(3))
    >>> params, state = model.init(jax.random.key(0), (6, 6, 1))
    >>> images = jax.random.uniform(jax.random.key(1), (5, 6, 6, 1))
    >>> [result] = translation_test(model, params, state, images, [0] * 5, shifts=[2], padding_mode="circular")
    >>> result.consistency, result.feature_distance < 1e-5
    (1.0, True)
    """
    images, labels = check_labelled(model, params, state, images, labels, batch_size)
    checks.one_of("axis", axis, AXES)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)
    image_size = min(images.shape[1:3][i] for i in (0, 1) if AXES[axis][i])
    shifts = list(shifts)
    for shift in shifts:
        if not is_int(shift) or abs(shift) >= image_size:
            raise InputError(
                f"shifts must be ints from {1 - image_size} to {image_size - 1} for images of {images.shape[1:3]}, "
                f"got {shift!r}"
            )
    forward = _features_and_class(as_layer(model), params, state)

    def shift_batch(x: jax.Array) -> dict[str, jax.Array]:
        features, predicted = forward(x)

        def at_shift(shift: jax.Array) -> tuple[jax.Array, jax.Array]:
            shifted_features, shifted_predicted = forward(
                shift_images(x, AXES[axis][0] * shift, AXES[axis][1] * shift, padding_mode)
            )
            return shifted_predicted, relative_norm(shifted_features - features, features, axis=1)

        shifted_predicted, distance = jax.lax.map(at_shift, jnp.asarray(shifts, int))
        # Batch axis first, as per_image requires.
        return {"predicted": predicted, "shifted_predicted": shifted_predicted.T, "distance": distance.T}

    if not shifts:
        return []
    results = per_image(shift_batch, images, batch_size)
    is_correct = results["shifted_predicted"] == labels[:, None]
    is_consistent = results["shifted_predicted"] == results["predicted"][:, None]
    distance = results["distance"].astype(float)
    means = zip(shifts, is_correct.mean(0), is_consistent.mean(0), distance.mean(0), strict=True)
    return [ShiftResult(int(shift), *map(float, measures)) for shift, *measures in means]


@named_errors
def mean_shift_results(tests: Sequence[Sequence[ShiftResult]]) -> list[ShiftResult]:
    """Average the translation tests of several networks, shift by shift.

    Raises:
        InputError: if there is no test or the tests have different shifts.

    >>> mean_shift_results([[ShiftResult(1, 0.5, 1.0, 0.0)], [ShiftResult(1, 1.0, 1.0, 0.5)]])
    [ShiftResult(shift=1, accuracy=0.75, consistency=1.0, feature_distance=0.25)]
    """
    if len({tuple(row.shift for row in rows) for rows in tests}) != 1:
        raise InputError("tests must contain at least one translation test, all with the same shifts")
    return [_mean_result(rows[0].shift, rows) for rows in zip(*tests, strict=True)]


def average_by_distance(rows: Sequence[ShiftResult]) -> dict[int, ShiftResult]:
    """Average the results of the shifts −s and s; return a dict by distance |s|.

    >>> left, center, right = (-1, 0.5, 1.0, 0.0), (0, 1.0, 1.0, 0.0), (1, 1.0, 1.0, 0.5)
    >>> average_by_distance([ShiftResult(*row) for row in (left, center, right)])[1]
    ShiftResult(shift=1, accuracy=0.75, consistency=1.0, feature_distance=0.25)
    """
    distances = sorted({abs(row.shift) for row in rows})
    return {s: _mean_result(s, [row for row in rows if abs(row.shift) == s]) for s in distances}


def _mean_result(shift: int, rows: Sequence[ShiftResult]) -> ShiftResult:
    return ShiftResult(shift, *map(statistics.fmean, list(zip(*rows, strict=True))[1:]))


def shift_images(
    images: jax.Array, down: int | jax.Array, right: int | jax.Array, padding_mode: str = "zeros"
) -> jax.Array:
    """Shift images ``(N, H, W, C)`` by integer pixels: ``y[n, i, j] = x[n, i − down, j − right]``.

    ``down`` and ``right`` may be traced.

    >>> row, column = jnp.arange(1., 4.).reshape(1, 1, 3, 1), jnp.ones((1, 2, 1, 1))
    >>> shift_images(row, 0, 1).ravel(), shift_images(column, -1, 0).ravel()
    (Array([0., 1., 2.], dtype=float32), Array([1., 0.], dtype=float32))
    """
    for axis, shift in ((1, down), (2, right)):
        size = images.shape[axis]
        source = jnp.arange(size) - shift
        inside = (source >= 0) & (source < size)
        index = jnp.mod(source, size) if padding_mode == "circular" else jnp.clip(source, 0, size - 1)
        images = jnp.take(images, index, axis=axis)
        if padding_mode == "zeros":
            images = jnp.where(jnp.expand_dims(inside, [i for i in range(images.ndim) if i != axis]), images, 0)
    return images


def relative_norm(difference: jax.Array, reference: jax.Array, axis: Any = None) -> jax.Array:
    """Return ``‖difference‖ / ‖reference‖``; 0 if the difference is 0, and infinite if only the reference is."""
    reference_norm, distance = (jnp.sqrt(jnp.sum(jnp.square(a), axis=axis)) for a in (reference, difference))
    return jnp.where(distance == 0, 0, distance / jnp.where(distance == 0, 1, reference_norm))


def _features_and_class(model: Layer, params: Any, state: Any) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Return a function of images: the flattened input of the last layer with a kernel, and the predicted class."""
    last = list(kernels_by_layer(model, params))[-1:]

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        recorded: list[jax.Array] = []

        def record(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            recorded.extend([x] if path in last else [])
            return apply(x)

        logits = intercept(model, params, state, x, record)
        [features] = recorded or [logits]
        return features.reshape(len(x), -1), jnp.argmax(logits, axis=1)

    return forward


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
    """Compute the translation equivariance error of each layer's output.

        error = ‖f(x shifted by s)[p] − f(x)[p − s/stride]‖ / ‖f(x)[p − s/stride]‖,    over all images and positions p

    Only positions are compared whose receptive fields contain neither padding nor uncovered pixels. Layers that compute
    the same function at every position, such as convolution and pooling, have an error of 0 up to rounding. If the
    effective stride does not divide the shift (a pool of stride 2 and a shift of 1), no position corresponds, and the
    layer is not equivariant to this shift; ``nearest=True`` measures the error at the nearest position.

    All images are one batch; the function works under ``jax.jit``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or floats.
        shift: integer pixels (down, right), or one int for both; negative is up and left.
        nearest: compare with the nearest position instead of returning None; ties go down and to the right.

    Returns:
        Error by layer name, for layers with spatial outputs (dense layers are left out). It is None if the effective
        stride does not divide the shift, or if no position has its receptive field inside the image.

    Raises:
        InputError: if ``images`` is empty or the shift is not smaller than the image.

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
    shifts = shift if isinstance(shift, tuple) else (shift, shift)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    if len(shifts) != 2 or not all(is_int(s) and abs(s) < n for s, n in zip(shifts, x.shape[1:3], strict=True)):
        raise InputError(
            f"shift must be an int or a pair (down, right), each smaller than the image {x.shape[1:3]}, got {shift!r}"
        )
    fields = {name: field for name, field in all_receptive_fields(model, x.shape[1:]).items() if field is not None}
    original = feature_maps(model, params, state, x, layers=tuple(fields))
    shifted = feature_maps(model, params, state, shift_images(x, *shifts), layers=tuple(fields))
    errors: dict[str, jax.Array | None] = {}
    for name, field in fields.items():
        strides = field.field.effective_stride
        steps = [-(-(2 * s - j) // (2 * j)) for s, j in zip(shifts, strides, strict=True)]  # round(s / j), halves down
        divides = all(step * j == s for step, s, j in zip(steps, shifts, strides, strict=True))
        positions = [
            _valid_positions(field, d, original[name].shape[d + 1], x.shape[d + 1], shifts[d], steps[d]) for d in (0, 1)
        ]
        if not (divides or nearest) or not all(positions):
            errors[name] = None
            continue
        rows, columns = (slice(along[0], along[-1] + 1) for along in positions)
        source_rows, source_columns = (
            slice(along[0] - step, along[-1] + 1 - step) for along, step in zip(positions, steps, strict=True)
        )
        moved, reference = shifted[name][:, rows, columns], original[name][:, source_rows, source_columns]
        errors[name] = relative_norm(moved - reference, reference)
    return errors


def _valid_positions(
    receptive_field: PositionedReceptiveField, axis: int, num_positions: int, size: int, shift: int, step: int
) -> list[int]:
    """List the positions along an axis with receptive fields inside the shifted and the original image."""
    offset, stride = receptive_field.offset[axis], receptive_field.field.effective_stride[axis]
    field_size = receptive_field.field.size[axis]

    def is_within(position: int, low: int, high: int) -> bool:
        start = offset + position * stride
        return 0 <= position < num_positions and low <= start and start + field_size <= high

    return [
        position
        for position in range(num_positions)
        if is_within(position, max(0, shift), min(size, size + shift)) and is_within(position - step, 0, size)
    ]
