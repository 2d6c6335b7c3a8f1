"""Receptive fields of the layers of a model, found by walking through it, and the coverage of the image."""

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
    """Where the receptive field of a layer's outputs lies: ``.bounds((p, q))`` is what output (p, q) sees.

    Layer by layer ``field + (span − 1) · jump``, and the first window begins ``low · jump`` before the one before it;
    branches together see all from the first to the last pixel of any. Only shapes are computed.

    Args:
        model: a Layer.
        input_shape: one image's, ``(H, W, C)``.
        layer: its name, as in :func:`jaxconv.explain.feature_maps`.

    Returns:
        The view; or None where it is not known: once the image's axes are gone, behind a transposed convolution, a
        norm over many pixels, or a function that changes the size and shows no window. Of a function that keeps the
        size, such as relu, it is taken that it looks at each place alone. At a border, what would be seen through the
        padding of a layer in between counts as seen. Beyond the border there are no pixels (those of the other side,
        with ``padding_mode="circular"``).

    Raises:
        InputError: a layer that the model has not, with those that it has; an image that it cannot take.

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
    """:func:`receptive_field_of` every layer, by its name, in the order in which they are computed.

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
    found: dict[str, PositionedReceptiveField | None] = {}
    _go("", model, params, state, input_shape, PositionedReceptiveField.identity(len(input_shape) - 1), found)
    return found


def _go(
    path: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: Shape,
    view: PositionedReceptiveField | None,
    found: dict[str, PositionedReceptiveField | None],
) -> tuple[Shape, PositionedReceptiveField | None]:
    """Note the views of a layer and its parts, and return the shape and the view that the next layer starts from."""
    if not layer.children:
        shape = output_shape(layer, params, state, input_shape)
        found[path or layer.kind] = view = _look(layer, input_shape, shape, view)
        return shape, view
    ends: list[PositionedReceptiveField | None] = []
    shape, seen = input_shape, view
    for name, part in layer.children:
        if layer.merge is not None:
            shape, seen = input_shape, view
        below = f"{path}/{name}" if path else name
        shape, seen = _go(below, part, params.get(name, {}), state.get(name, {}), shape, seen, found)
        ends.append(seen)
    if layer.merge is not None:
        shape, seen = output_shape(layer, params, state, input_shape), _together(layer, ends)
        found[path or layer.kind] = seen
    return shape, seen


def _look(
    layer: Layer, input_shape: Shape, shape: Shape, view: PositionedReceptiveField | None
) -> PositionedReceptiveField | None:
    rows = len(shape) == 1  # no positions that could mix
    if view is None or len(shape) != len(input_shape) or not (layer.facts.keeps_positions or rows):
        return None
    if layer.window is None:
        return view if shape[:-1] == input_shape[:-1] else None
    # Only the padding before the image is needed. That there is a place for the window its layer has checked, and
    # this is the more lenient of its two ways.
    return view.after(resolve_window(layer.window, input_shape[:-1], ceil_mode=True))


def _together(layer: Layer, ends: list[PositionedReceptiveField | None]) -> PositionedReceptiveField | None:
    views = [view for view in ends if view is not None]
    # Outputs of branches that step unequally do not belong to the same pixels; nor is it known what another join does.
    if layer.facts.merges is None or len(views) < len(ends) or len({view.field.effective_stride for view in views}) > 1:
        return None
    together, *others = views
    for other in others:
        together = together.union(other)
    return together


@named_errors
def coverage_map(model: Layer, input_shape: tuple[int, ...], *, layer: str | None = None) -> np.ndarray:
    """How many outputs of a layer have each pixel within their receptive field: ints ``(H, W)``.

    Without padding the corners are used least, the more so the deeper the layer. For one convolution this is
    :func:`jaxconv.shapes.coverage`. A field goes from the first to the last pixel that an output sees: pixels between
    that are not looked at, as in the holes of a dilated kernel, count as seen, and at a border so do those that only
    the padding of a layer in between would see.

    Args:
        model: a Layer.
        input_shape: one image's, ``(H, W, C)``.
        layer: its name; by default the last one whose outputs have places.

    Raises:
        InputError: a layer that the model has not, or one whose outputs have no known place in the image.

    Lecture rows 001-23, 002-18.

    >>> from jaxconv import Conv, relu, serial
    >>> coverage_map(serial(Conv(8, 3), relu, Conv(8, 3)), (7, 7, 1))[0]
    array([1, 2, 3, 3, 3, 2, 1])
    >>> coverage_map(serial(Conv(8, 3)), (7, 7, 1)).diagonal()
    array([1, 4, 9, 9, 9, 4, 1])
    """
    model = as_layer(model)
    views = all_receptive_fields(model, input_shape)
    if layer is not None:
        check_layer(model, layer)
    placed = [name for name, view in views.items() if view is not None]
    layer = (placed or list(views))[-1] if layer is None else layer
    view = views[layer]
    if view is None:
        raise InputError(
            f"the outputs of {layer} have no known place in the image; those of these have: "
            f"{', '.join(placed) or 'none'}"
        )

    def output(key: jax.Array) -> jax.Array:
        params, state = model.init(key, input_shape)
        return feature_maps(model, params, state, jnp.zeros((1, *input_shape)), layers=(layer,))[layer]

    counts = np.ones((), int)
    places = jax.eval_shape(output, jax.random.key(0)).shape[1:-1]
    for axis, (out, size) in enumerate(zip(places, input_shape[:-1], strict=True)):
        seen = np.zeros(size, int)
        for p in range(out):
            low, high = view.bounds([p] * len(places))[axis]
            seen[max(low, 0) : max(high, 0)] += 1
        counts = np.multiply.outer(counts, seen)
    return counts
