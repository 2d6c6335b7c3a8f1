"""Receptive fields of the layers of a model, and the coverage of the image by them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_layer, feature_maps
from jaxconv.layers import Layer, as_layer, output_shape
from jaxconv.layers.base import Shape
from jaxconv.shapes import PositionedReceptiveField, resolve_window


@named_errors
def receptive_field_of(model: Layer, input_shape: tuple[int, ...], layer: str) -> PositionedReceptiveField | None:
    """Compute the receptive field of a layer: ``.bounds((p, q))`` are the pixels that output (p, q) depends on.

    Each layer enlarges the size to ``size + (span − 1) · stride``, with the effective stride so far, and moves the
    offset by ``−low · stride``, with ``low`` the padding before the image. Parallel branches have the union, from the
    first to the last pixel of any branch. Only shapes are computed.

    Args:
        model: a Layer.
        input_shape: shape of one image, ``(H, W, C)``.
        layer: layer name, as in :func:`jaxconv.explain.feature_maps`.

    Returns:
        The receptive field. None if it is unknown: without spatial axes, after a transposed convolution, after a
        normalization over pixels, or after a function that changes the size and declares no window. A function that
        keeps the size, such as relu, is assumed to act on each position alone. At a border, pixels that would be
        reached through the padding of an earlier layer are included. Bounds outside the image contain no pixels, or,
        with ``padding_mode="circular"``, those of the opposite side.

    Raises:
        InputError: if the layer name is unknown or the model cannot take such an image.

    Lecture row 001-17.

    >>> from jaxconv.models import mnist_cnn
    >>> field = receptive_field_of(mnist_cnn(), (28, 28, 1), "conv2")
    >>> field.field, field.bounds((0, 10))
    (ReceptiveField(size=(8, 8), effective_stride=(2, 2)), ((0, 8), (20, 28)))
    >>> receptive_field_of(mnist_cnn(), (28, 28, 1), "dense1")
    """
    check_layer(model, layer)
    return all_receptive_fields(model, input_shape)[layer]


@named_errors
def all_receptive_fields(model: Layer, input_shape: tuple[int, ...]) -> dict[str, PositionedReceptiveField | None]:
    """Return :func:`receptive_field_of` every layer, by name, in the order in which they are computed.

    >>> from jaxconv import Conv, MaxPool, flatten, serial
    >>> model = serial(Conv(2, 3, padding="SAME"), MaxPool(2), flatten)
    >>> for name, field in all_receptive_fields(model, (4, 4, 1)).items():
    ...     print(name, field and field.bounds((0, 0)))
    conv1 ((-1, 2), (-1, 2))
    max_pool1 ((-1, 3), (-1, 3))
    flatten1 None
    """
    for size in input_shape:
        checks.at_least(1, input_shape=size)
    model = as_layer(model)
    params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    fields: dict[str, PositionedReceptiveField | None] = {}
    _visit("", model, params, state, input_shape, PositionedReceptiveField.identity(len(input_shape) - 1), fields)
    return fields


def _visit(
    path: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: Shape,
    field: PositionedReceptiveField | None,
    fields: dict[str, PositionedReceptiveField | None],
) -> tuple[Shape, PositionedReceptiveField | None]:
    """Record the fields of a layer and its children; return the shape and the field of its output."""
    if not layer.children:
        shape = output_shape(layer, params, state, input_shape)
        fields[path or layer.kind] = field = _field_after(layer, input_shape, shape, field)
        return shape, field
    branch_fields: list[PositionedReceptiveField | None] = []
    shape, child_field = input_shape, field
    for name, child in layer.children:
        if layer.merge is not None:
            shape, child_field = input_shape, field
        child_path = f"{path}/{name}" if path else name
        shape, child_field = _visit(
            child_path, child, params.get(name, {}), state.get(name, {}), shape, child_field, fields
        )
        branch_fields.append(child_field)
    if layer.merge is not None:
        shape, child_field = output_shape(layer, params, state, input_shape), _merge_fields(layer, branch_fields)
        fields[path or layer.kind] = child_field
    return shape, child_field


def _field_after(
    layer: Layer, input_shape: Shape, output_shape: Shape, field: PositionedReceptiveField | None
) -> PositionedReceptiveField | None:
    is_vector = len(output_shape) == 1  # no spatial positions
    if field is None or len(output_shape) != len(input_shape) or not (layer.facts.keeps_positions or is_vector):
        return None
    if layer.window is None:
        return field if output_shape[:-1] == input_shape[:-1] else None
    # Only the padding before the image matters here. ceil_mode=True accepts every window that the layer accepts.
    return field.after(resolve_window(layer.window, input_shape[:-1], ceil_mode=True))


def _merge_fields(
    layer: Layer, branch_fields: list[PositionedReceptiveField | None]
) -> PositionedReceptiveField | None:
    known = [field for field in branch_fields if field is not None]
    # With unequal strides, or an unknown merge function, the positions of the branches do not correspond.
    if (
        layer.facts.merges is None
        or len(known) < len(branch_fields)
        or len({field.field.effective_stride for field in known}) > 1
    ):
        return None
    merged, *rest = known
    for other in rest:
        merged = merged.union(other)
    return merged


@named_errors
def coverage_map(model: Layer, input_shape: tuple[int, ...], *, layer: str | None = None) -> np.ndarray:
    """Count, for each pixel, the outputs of a layer whose receptive field contains it: ints ``(H, W)``.

    Without padding the corners have the lowest counts, the more so the deeper the layer. For one convolution the map
    equals :func:`jaxconv.shapes.coverage`. A receptive field extends from the first to the last pixel: it includes the
    pixels between the kernel offsets of a dilated kernel and, at a border, those that would be reached through the
    padding of an earlier layer.

    Args:
        model: a Layer.
        input_shape: shape of one image, ``(H, W, C)``.
        layer: layer name; by default the last layer with a known receptive field.

    Raises:
        InputError: if the layer name is unknown or the receptive field of the layer is unknown.

    Lecture rows 001-23, 002-18.

    >>> from jaxconv import Conv, relu, serial
    >>> coverage_map(serial(Conv(8, 3), relu, Conv(8, 3)), (7, 7, 1))[0]
    array([1, 2, 3, 3, 3, 2, 1])
    >>> coverage_map(serial(Conv(8, 3)), (7, 7, 1)).diagonal()
    array([1, 4, 9, 9, 9, 4, 1])
    """
    model = as_layer(model)
    fields = all_receptive_fields(model, input_shape)
    if layer is not None:
        check_layer(model, layer)
    located = [name for name, field in fields.items() if field is not None]
    layer = (located or list(fields))[-1] if layer is None else layer
    field = fields[layer]
    if field is None:
        raise InputError(
            f"the receptive field of layer {layer} is unknown; layers with a known one: {', '.join(located) or 'none'}"
        )

    def output(key: jax.Array) -> jax.Array:
        params, state = model.init(key, input_shape)
        return feature_maps(model, params, state, jnp.zeros((1, *input_shape)), layers=(layer,))[layer]

    counts = np.ones((), int)
    spatial_shape = jax.eval_shape(output, jax.random.key(0)).shape[1:-1]
    for axis, (num_positions, size) in enumerate(zip(spatial_shape, input_shape[:-1], strict=True)):
        covered = np.zeros(size, int)
        for position in range(num_positions):
            start, stop = field.bounds([position] * len(spatial_shape))[axis]
            covered[max(start, 0) : max(stop, 0)] += 1
        counts = np.multiply.outer(counts, covered)
    return counts
