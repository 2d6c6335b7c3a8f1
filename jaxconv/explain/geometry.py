"""Where a network looks: whether its layers move with the image, and which pixels are looked at most."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError
from jaxconv.explain.equivariance import moved, relative
from jaxconv.explain.intermediates import check_images, check_layer, feature_maps
from jaxconv.explain.receptive_fields import fields
from jaxconv.layers import Layer, as_layer
from jaxconv.shapes import PlacedView, is_int


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
    x = check_images("equivariance_error", images)
    pair = shift if isinstance(shift, tuple) else (shift, shift)
    if x.ndim != 4:
        raise InputError(f"equivariance_error: images {x.shape} should be (N, H, W, C)")
    if len(pair) != 2 or not all(is_int(s) and abs(s) < n for s, n in zip(pair, x.shape[1:3], strict=True)):
        raise InputError(
            f"equivariance_error: shift={shift!r} should be an int, or two for down and right, each smaller than the "
            f"image, {x.shape[1:3]}"
        )
    placed = {name: view for name, view in fields(model, x.shape[1:]).items() if view is not None}
    before = feature_maps(model, params, state, x, layers=tuple(placed))
    after = feature_maps(model, params, state, moved(x, *pair), layers=tuple(placed))
    found: dict[str, jax.Array | None] = {}
    for name, view in placed.items():
        jumps = view.view.jump
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


def coverage_map(model: Layer, in_shape: tuple[int, ...], *, layer: str | None = None) -> np.ndarray:
    """How many outputs of a layer have each pixel within their receptive field: ints ``(H, W)``.

    Without padding the corners are used least, the more so the deeper the layer. For one convolution this is
    :func:`jaxconv.shapes.coverage`. A field goes from the first to the last pixel that an output sees: pixels between
    that are not looked at, as in the holes of a dilated kernel, count as seen, and at a border so do those that only
    the padding of a layer in between would see.

    Args:
        model: a Layer.
        in_shape: one image's, ``(H, W, C)``.
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
    views = fields(model, in_shape)
    if layer is not None:
        check_layer("coverage_map", model, layer)
    placed = [name for name, view in views.items() if view is not None]
    layer = (placed or list(views))[-1] if layer is None else layer
    view = views[layer]
    if view is None:
        raise InputError(
            f"coverage_map: the outputs of {layer} have no known place in the image; those of these have: "
            f"{', '.join(placed) or 'none'}"
        )

    def output(key: jax.Array) -> jax.Array:
        params, state = model.init(key, in_shape)
        return feature_maps(model, params, state, jnp.zeros((1, *in_shape)), layers=(layer,))[layer]

    counts = np.ones((), int)
    places = jax.eval_shape(output, jax.random.key(0)).shape[1:-1]
    for axis, (out, size) in enumerate(zip(places, in_shape[:-1], strict=True)):
        seen = np.zeros(size, int)
        for p in range(out):
            low, high = view.box([p] * len(places))[axis]
            seen[max(low, 0) : max(high, 0)] += 1
        counts = np.multiply.outer(counts, seen)
    return counts


def _inside(view: PlacedView, d: int, out: int, size: int, shift: int, step: int) -> list[int]:
    """The places along a dimension that see only the moved image, and whose partners see only the image."""
    first, jump, field = view.start[d], view.view.jump[d], view.view.field[d]

    def sees_only(place: int, low: int, high: int) -> bool:
        start = first + place * jump
        return 0 <= place < out and low <= start and start + field <= high

    return [
        place
        for place in range(out)
        if sees_only(place, max(0, shift), min(size, size + shift)) and sees_only(place - step, 0, size)
    ]
