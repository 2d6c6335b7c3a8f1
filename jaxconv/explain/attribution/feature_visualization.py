"""Feature visualization: the image that maximizes a filter, and the real patches that excite it most."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxconv import checks, filters
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_images, check_layer, feature_maps, per_image
from jaxconv.explain.receptive_fields import receptive_field_of
from jaxconv.layers import Layer, as_layer
from jaxconv.shapes import is_int


@named_errors
def maximize_activation(
    model: Layer,
    params: Any,
    state: Any,
    input_shape: tuple[int, int, int],
    *,
    layer: str,
    channels: Sequence[int] | None = None,
    key: jax.Array,
    num_steps: int = 256,
    learning_rate: float = 0.05,
    jitter: int = 2,
    blur: float = 0.2,
    batch_size: int = 64,
) -> jax.Array:
    """For each filter of a layer, an image that drives it most, from grey: ``argmax_x max_p y[p, k]``, x from 0 to 1.

    Each step of Adam moves the image up the gradient of the filter's strongest answer, in an image moved a little at
    random; then mixes in a little of the blurred image, and cuts off what is below 0 or above 1. Without these two
    the image climbs as well, by patterns of single pixels that no real image has.

    Args:
        model, params, state: the network.
        input_shape: of an image, ``(H, W, C)``.
        layer: whose filters; of the last layer, the classes' logits. Ask a convolution and not the relu behind it,
            which tells no way up where it answers 0.
        channels: which filters; by default all.
        key: of the noise to start from, and of the moves.
        num_steps: of Adam.
        learning_rate: how far a step moves a pixel, about.
        jitter: before each look the image is moved by up to so many pixels, along both axes.
        blur: the share of the blurred image that is mixed in at every step; 0 for none.
        batch_size: filters at a time.

    Returns:
        ``(K, H, W, C)``, a row for each channel, from 0 to 1.

    Raises:
        InputError: an unknown layer, a channel that it has not, or an option out of range.

    Source: Erhan et al., 2009, "Visualizing higher-layer features of a deep network"; jitter: Mordvintsev et al.,
    2015, "Inceptionism". Lecture rows 003-09, 004-04.

    >>> from jaxconv import Conv, serial
    >>> kernel = jnp.array([[1., -1.], [-1., 1.]])[:, :, None, None]
    >>> images = maximize_activation(serial(Conv(1, 2)), {"conv1": {"kernel": kernel, "bias": jnp.zeros(1)}}, {},
    ...     (2, 2, 1), layer="conv1", key=jax.random.key(0), num_steps=20, jitter=0, blur=0)
    >>> images[0, :, :, 0]
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    check_layer(model, layer)
    checks.at_least(1, num_steps=num_steps, batch_size=batch_size)
    checks.at_least(0, jitter=jitter)
    checks.real("learning_rate", learning_rate, above=0)
    if not checks.is_number(blur) or not 0 <= blur <= 1:
        raise InputError(f"blur={blur!r} should be from 0 to 1")
    if len(input_shape) != 3:
        raise InputError(f"input_shape {tuple(input_shape)} should be (H, W, C)")
    model, optimizer = as_layer(model), optax.adam(learning_rate)

    def answers(image: jax.Array) -> jax.Array:
        y = feature_maps(model, params, state, image[None], layers=(layer,))[layer]
        return y.reshape(-1, y.shape[-1]).max(axis=0)

    count = jax.eval_shape(answers, jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)).shape[0]
    numbers = check_channels(layer, channels, count)
    blur_kernel = filters.normalized(filters.BLUR)

    def climb(of: tuple[jax.Array, jax.Array]) -> jax.Array:
        channel, key = of

        def loss(image: jax.Array, move: jax.Array) -> jax.Array:
            # Moved, with grey coming in: what is rolled out on one side would come in on the other.
            room = jnp.pad(image, ((jitter, jitter), (jitter, jitter), (0, 0)), constant_values=0.5)
            moved = jax.lax.dynamic_slice(room, (move[0], move[1], 0), image.shape)
            return -jnp.take(answers(moved), channel)

        def step(carry: tuple[jax.Array, Any], key: jax.Array) -> tuple[tuple[jax.Array, Any], None]:
            image, moments = carry
            move = jax.random.randint(key, (2,), 0, 2 * jitter + 1)
            updates, moments = optimizer.update(jax.grad(loss)(image, move), moments)
            image = jnp.clip(image + updates, 0, 1)
            if blur:
                image = (1 - blur) * image + blur * filters.apply_filter(image[None], blur_kernel)[0]
            return (image, moments), None

        image = 0.5 + 0.05 * jax.random.normal(jax.random.fold_in(key, 0), tuple(input_shape))
        keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)
        (image, _), _ = jax.lax.scan(step, (jnp.clip(image, 0, 1), optimizer.init(image)), keys)
        return image

    keys = jax.random.split(key, len(numbers))
    # One filter's climb is many small steps, one after another; many filters climb side by side.
    return jax.lax.map(climb, (jnp.asarray(numbers), keys), batch_size=min(batch_size, len(numbers)))


def check_channels(layer: str, channels: Sequence[int] | None, count: int) -> list[int]:
    """The numbers of a layer's filters that are asked about: by default all."""
    numbers = list(range(count)) if channels is None else list(channels)
    outside = [c for c in numbers if not is_int(c) or not 0 <= c < count]
    if outside or not numbers:
        said = f"channel {outside[0]!r} is none" if outside else "channels=() names none"
        raise InputError(f"{said} of the {count} of layer {layer}")
    return [int(c) for c in numbers]


class ActivatingPatches(NamedTuple):
    """What :func:`top_activating_patches` found, for each of K filters, the strongest first.

    Attributes:
        patches: what the filter saw there, ``(K, count, fh, fw, C)``, of the images' dtype; beyond a border zeros.
        index: of which image, ``(K, count)``.
        position: where in the layer's output, ``(K, count, ndim)``; of a layer without places ndim is 0.
        activation: the filter's answer there, ``(K, count)``.
    """

    patches: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # of a tuple's own index nobody has need here
    position: np.ndarray
    activation: np.ndarray


@named_errors
def top_activating_patches(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    layer: str,
    channels: Sequence[int] | None = None,
    count: int = 9,
    batch_size: int = 256,
) -> ActivatingPatches:
    """For each filter of a layer the images that excite it most, cropped to what it saw there.

    Of every image the filter's strongest place counts, so that an image gives one patch at most; of equal answers the
    earlier image and the first place come first. A patch is the receptive field of that place; where it is not known
    (:func:`jaxconv.explain.receptive_field_of`) it is the whole image.

    Args:
        model, params, state: the network.
        images: a data set, ``(N, H, W, C)``, bytes or floats.
        layer: whose filters.
        channels: which; by default all.
        count: how many patches of each.
        batch_size: images at a time.

    Returns:
        :class:`ActivatingPatches`, in numpy's memory.

    Raises:
        InputError: an unknown layer, a channel that it has not, no image, or fewer than ``count``.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, figure 2. Lecture rows 003-09, 004-04.

    >>> from jaxconv import Conv, serial
    >>> params = {"conv1": {"kernel": jnp.ones((2, 2, 1, 1)), "bias": jnp.zeros(1)}}
    >>> images = np.zeros((3, 4, 4, 1), np.float32)
    >>> images[1, 2:, 2:], images[2, 0, 0] = 1, 1
    >>> found = top_activating_patches(serial(Conv(1, 2)), params, {}, images, layer="conv1", count=2)
    >>> found.index.tolist(), found.position.tolist(), found.patches[0, 0, :, :, 0].tolist()
    ([[1, 2]], [[[2, 2], [0, 0]]], [[1.0, 1.0], [1.0, 1.0]])
    """
    check_layer(model, layer)
    checks.at_least(1, count=count)
    images = np.asarray(images)
    check_images(images[:1])
    if count > len(images):
        raise InputError(f"count={count} of {len(images)} images: ask for fewer, or give more images")
    one = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    y = jax.eval_shape(lambda x: feature_maps(model, params, state, x, layers=(layer,))[layer], one)
    numbers = check_channels(layer, channels, y.shape[-1])

    def strongest_places(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = feature_maps(model, params, state, x, layers=(layer,))[layer]
        y = y.reshape(len(y), -1, y.shape[-1])[..., jnp.asarray(numbers)]
        return y.max(axis=1), y.argmax(axis=1)

    answers, places = per_image(strongest_places, images, batch_size)
    index = np.argsort(-answers, axis=0, kind="stable")[:count].T
    activation = np.take_along_axis(answers.T, index, axis=1)
    sizes = y.shape[1:-1]
    flat = np.take_along_axis(places.T, index, axis=1)
    place = np.stack(np.unravel_index(flat, sizes), axis=-1) if sizes else np.zeros((*flat.shape, 0), int)

    field = receptive_field_of(model, images.shape[1:], layer)
    boxes = [[None if field is None else field.bounds(tuple(map(int, p))) for p in row] for row in place]
    patches = [[crop(images[n], box) for n, box in zip(*pair, strict=True)] for pair in zip(index, boxes, strict=True)]
    return ActivatingPatches(np.asarray(patches), index, place, activation)


def crop(image: np.ndarray, box: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """The pixels of a box, from and up to, one pair a dimension; beyond the image's border zeros.

    >>> crop(np.arange(4).reshape(2, 2, 1), ((-1, 1), (0, 2)))[..., 0].tolist()
    [[0, 0], [0, 1]]
    """
    if box is None:
        return image
    inside = tuple(slice(max(low, 0), max(high, 0)) for low, high in box)
    edges = [(max(0, -low), max(0, high - n)) for (low, high), n in zip(box, image.shape, strict=False)]
    # A box that lies beyond the border altogether is cut to its size from nothing but zeros.
    widths = [(min(low, b - a), min(high, b - a)) for (low, high), (a, b) in zip(edges, box, strict=True)]
    return np.pad(image[inside], (*widths, (0, 0)))
