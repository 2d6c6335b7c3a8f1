"""Feature visualization: images that maximize a filter, and the dataset patches with its largest activations."""

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
    """Generate, for each filter of a layer, an image that maximizes it: ``argmax_x max_p y[p, k]``, x in [0, 1].

    Gradient ascent with Adam starts from gray with noise. Each step shifts the image at random (jitter), follows the
    gradient of the filter's maximum activation, clips to [0, 1], and mixes in the blurred image. Without jitter and
    blur, the result consists of high-frequency patterns that natural images do not have.

    Args:
        model, params, state: the network.
        input_shape: shape of one image, ``(H, W, C)``.
        layer: layer name; the channels of the last layer are the logits. Choose a convolution rather than the relu
            after it, whose gradient is 0 where its output is 0.
        channels: channel indices; by default all.
        key: random key of the initial noise and of the jitter.
        num_steps: number of Adam steps.
        learning_rate: learning rate of Adam: the approximate change of a pixel per step.
        jitter: maximum random shift in pixels, along both axes.
        blur: fraction of the blurred image that is mixed in at every step; 0 for none.
        batch_size: number of filters optimized at a time.

    Returns:
        ``(K, H, W, C)``, one image per channel, from 0 to 1.

    Raises:
        InputError: if the layer or a channel is unknown, or an option is out of range.

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

    def activations(image: jax.Array) -> jax.Array:
        y = feature_maps(model, params, state, image[None], layers=(layer,))[layer]
        return y.reshape(-1, y.shape[-1]).max(axis=0)

    num_channels = jax.eval_shape(activations, jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32)).shape[0]
    indices = _check_channels(layer, channels, num_channels)
    blur_kernel = filters.normalized(filters.BLUR)

    def optimize_image(channel_and_key: tuple[jax.Array, jax.Array]) -> jax.Array:
        channel, key = channel_and_key

        def loss(image: jax.Array, offset: jax.Array) -> jax.Array:
            # Pad with gray instead of rolling, which would wrap pixels around to the opposite side.
            padded = jnp.pad(image, ((jitter, jitter), (jitter, jitter), (0, 0)), constant_values=0.5)
            shifted = jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)
            return -jnp.take(activations(shifted), channel)

        def step(carry: tuple[jax.Array, Any], key: jax.Array) -> tuple[tuple[jax.Array, Any], None]:
            image, opt_state = carry
            offset = jax.random.randint(key, (2,), 0, 2 * jitter + 1)
            updates, opt_state = optimizer.update(jax.grad(loss)(image, offset), opt_state)
            image = jnp.clip(image + updates, 0, 1)
            if blur:
                image = (1 - blur) * image + blur * filters.apply_filter(image[None], blur_kernel)[0]
            return (image, opt_state), None

        image = 0.5 + 0.05 * jax.random.normal(jax.random.fold_in(key, 0), tuple(input_shape))
        keys = jax.random.split(jax.random.fold_in(key, 1), num_steps)
        (image, _), _ = jax.lax.scan(step, (jnp.clip(image, 0, 1), optimizer.init(image)), keys)
        return image

    keys = jax.random.split(key, len(indices))
    # The steps of one filter are sequential and small, so filters are optimized in parallel.
    return jax.lax.map(optimize_image, (jnp.asarray(indices), keys), batch_size=min(batch_size, len(indices)))


def _check_channels(layer: str, channels: Sequence[int] | None, num_channels: int) -> list[int]:
    """Return the channel indices as ints, by default all, or raise InputError."""
    indices = list(range(num_channels)) if channels is None else list(channels)
    outside = [c for c in indices if not is_int(c) or not 0 <= c < num_channels]
    if outside or not indices:
        problem = repr(outside[0]) if outside else "none"
        raise InputError(f"channels must be from 0 to {num_channels - 1} for layer {layer}, got {problem}")
    return [int(c) for c in indices]


class ActivatingPatches(NamedTuple):
    """Result of :func:`top_activating_patches` for K filters, in descending order of activation.

    Attributes:
        patches: image patches, ``(K, count, fh, fw, C)``, in the dtype of the images; zero-padded at the border.
        index: image index, ``(K, count)``.
        position: position in the layer's output, ``(K, count, ndim)``; ndim is 0 for a layer without spatial axes.
        activation: activation at this position, ``(K, count)``.
    """

    patches: np.ndarray
    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index, which is not used
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
    """Find, for each filter of a layer, the image patches with the largest activations.

    Each image contributes at most one patch, at the filter's maximum; ties are sorted by image and by position. A patch
    is the receptive field of the position, or the whole image if the receptive field is unknown
    (:func:`jaxconv.explain.receptive_field_of`).

    Args:
        model, params, state: the network.
        images: dataset ``(N, H, W, C)``, uint8 or floats.
        layer: layer name.
        channels: channel indices; by default all.
        count: number of patches per filter.
        batch_size: number of images per batch.

    Returns:
        :class:`ActivatingPatches` of NumPy arrays.

    Raises:
        InputError: if the layer or a channel is unknown, or there are fewer than ``count`` images.

    Source: Zeiler & Fergus, 2013, https://arxiv.org/abs/1311.2901, figure 2. Lecture rows 003-09, 004-04.

    >>> from jaxconv import Conv, serial
    >>> params = {"conv1": {"kernel": jnp.ones((2, 2, 1, 1)), "bias": jnp.zeros(1)}}
    >>> images = np.zeros((3, 4, 4, 1), np.float32)
    >>> images[1, 2:, 2:], images[2, 0, 0] = 1, 1
    >>> top = top_activating_patches(serial(Conv(1, 2)), params, {}, images, layer="conv1", count=2)
    >>> top.index.tolist(), top.position.tolist(), top.patches[0, 0, :, :, 0].tolist()
    ([[1, 2]], [[[2, 2], [0, 0]]], [[1.0, 1.0], [1.0, 1.0]])
    """
    check_layer(model, layer)
    checks.at_least(1, count=count)
    images = np.asarray(images)
    check_images(images[:1])
    if count > len(images):
        raise InputError(f"count must be at most the number of images, {len(images)}, got {count}")
    image_spec = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    y = jax.eval_shape(lambda x: feature_maps(model, params, state, x, layers=(layer,))[layer], image_spec)
    indices = _check_channels(layer, channels, y.shape[-1])

    def max_activations(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = feature_maps(model, params, state, x, layers=(layer,))[layer]
        y = y.reshape(len(y), -1, y.shape[-1])[..., jnp.asarray(indices)]
        return y.max(axis=1), y.argmax(axis=1)

    activations, flat_positions = per_image(max_activations, images, batch_size)
    index = np.argsort(-activations, axis=0, kind="stable")[:count].T
    activation = np.take_along_axis(activations.T, index, axis=1)
    spatial_shape = y.shape[1:-1]
    top_positions = np.take_along_axis(flat_positions.T, index, axis=1)
    if spatial_shape:
        positions = np.stack(np.unravel_index(top_positions, spatial_shape), axis=-1)
    else:
        positions = np.zeros((*top_positions.shape, 0), int)

    field = receptive_field_of(model, images.shape[1:], layer)
    patches = [
        [
            _crop(images[n], None if field is None else field.bounds(tuple(map(int, position))))
            for n, position in zip(*channel, strict=True)
        ]
        for channel in zip(index, positions, strict=True)
    ]
    return ActivatingPatches(np.asarray(patches), index, positions, activation)


def _crop(image: np.ndarray, bounds: Sequence[tuple[int, int]] | None) -> np.ndarray:
    """Crop an image to bounds ``(start, stop)`` per dimension, zero-padded outside; None returns the whole image.

    >>> _crop(np.arange(4).reshape(2, 2, 1), ((-1, 1), (0, 2)))[..., 0].tolist()
    [[0, 0], [0, 1]]
    """
    if bounds is None:
        return image
    slices = tuple(slice(max(low, 0), max(high, 0)) for low, high in bounds)
    overhang = [(max(0, -low), max(0, high - n)) for (low, high), n in zip(bounds, image.shape, strict=False)]
    # Bounds entirely outside the image contain only padding, of at most their own size.
    padding = [(min(low, b - a), min(high, b - a)) for (low, high), (a, b) in zip(overhang, bounds, strict=True)]
    return np.pad(image[slices], (*padding, (0, 0)))
