"""The image that a filter wants to see: found by climbing its answer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxconv import checks, filters
from jaxconv.errors import InputError
from jaxconv.explain.intermediates import check_layer, feature_maps
from jaxconv.layers import Layer, as_layer
from jaxconv.shapes import is_int


def maximize_activation(
    model: Layer,
    params: Any,
    state: Any,
    in_shape: tuple[int, int, int],
    *,
    layer: str,
    channels: Sequence[int] | None = None,
    key: jax.Array,
    steps: int = 256,
    learning_rate: float = 0.05,
    jitter: int = 2,
    smoothing: float = 0.2,
    batch_size: int = 64,
) -> jax.Array:
    """For each filter of a layer, an image that drives it most, from grey: ``argmax_x max_p y[p, k]``, x from 0 to 1.

    Each step of Adam moves the image up the gradient of the filter's strongest answer, in an image moved a little at
    random; then mixes in a little of the blurred image, and cuts off what is below 0 or above 1. Without these two
    the image climbs as well, by patterns of single pixels that no real image has.

    Args:
        model, params, state: the network.
        in_shape: of an image, ``(H, W, C)``.
        layer: whose filters; of the last layer, the classes' logits. Ask a convolution and not the relu behind it,
            which tells no way up where it answers 0.
        channels: which filters; by default all.
        key: of the noise to start from, and of the moves.
        steps: of Adam.
        learning_rate: how far a step moves a pixel, about.
        jitter: before each look the image is moved by up to so many pixels, along both axes.
        smoothing: the share of the blurred image that is mixed in at every step; 0 for none.
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
    ...     (2, 2, 1), layer="conv1", key=jax.random.key(0), steps=20, jitter=0, smoothing=0)
    >>> images[0, :, :, 0]
    Array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    check_layer("maximize_activation", model, layer)
    checks.whole("maximize_activation", 1, steps=steps, batch_size=batch_size)
    checks.whole("maximize_activation", 0, jitter=jitter)
    checks.number("maximize_activation", "learning_rate", learning_rate, above=0)
    if not checks.is_number(smoothing) or not 0 <= smoothing <= 1:
        raise InputError(f"maximize_activation: smoothing={smoothing!r} should be from 0 to 1")
    if len(in_shape) != 3:
        raise InputError(f"maximize_activation: in_shape {tuple(in_shape)} should be (H, W, C)")
    model, optimizer = as_layer(model), optax.adam(learning_rate)

    def answers(image: jax.Array) -> jax.Array:
        y = feature_maps(model, params, state, image[None], layers=(layer,))[layer]
        return y.reshape(-1, y.shape[-1]).max(axis=0)

    count = jax.eval_shape(answers, jax.ShapeDtypeStruct(tuple(in_shape), jnp.float32)).shape[0]
    numbers = check_channels("maximize_activation", layer, channels, count)
    blur = filters.normalized(filters.BLUR)

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
            if smoothing:
                image = (1 - smoothing) * image + smoothing * filters.apply_filter(image[None], blur)[0]
            return (image, moments), None

        image = 0.5 + 0.05 * jax.random.normal(jax.random.fold_in(key, 0), tuple(in_shape))
        keys = jax.random.split(jax.random.fold_in(key, 1), steps)
        (image, _), _ = jax.lax.scan(step, (jnp.clip(image, 0, 1), optimizer.init(image)), keys)
        return image

    keys = jax.random.split(key, len(numbers))
    # One filter's climb is many small steps, one after another; many filters climb side by side.
    return jax.lax.map(climb, (jnp.asarray(numbers), keys), batch_size=min(batch_size, len(numbers)))


def check_channels(function: str, layer: str, channels: Sequence[int] | None, count: int) -> list[int]:
    """The numbers of a layer's filters that are asked about: by default all."""
    numbers = list(range(count)) if channels is None else list(channels)
    outside = [c for c in numbers if not is_int(c) or not 0 <= c < count]
    if outside or not numbers:
        said = f"channel {outside[0]!r} is none" if outside else "channels=() names none"
        raise InputError(f"{function}: {said} of the {count} of layer {layer}")
    return [int(c) for c in numbers]
