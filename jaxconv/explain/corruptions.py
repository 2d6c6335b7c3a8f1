"""Image corruptions (rotation, blur, stroke width, noise, …) of known severity, and the accuracy under them."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks, filters, ops
from jaxconv.data.augment import affine_transform
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_images, check_labelled
from jaxconv.layers import Layer, as_layer
from jaxconv.runtime import compiler_options
from jaxconv.train import iterate_batches, to_float

Severity = float | jax.Array
MAX_RADIUS = 3  # pixels: limit of stroke_width, and of the standard deviation of blur


class Corruption(NamedTuple):
    """An image corruption with adjustable severity.

    Attributes:
        apply: ``(key, images, severity) -> images`` of floats in [0, 1]; the severity may be traced.
        severities: default severities of :func:`corruption_accuracy`.
        unit: unit of the severity.
        identity: severity that leaves the images unchanged.
        minimum, maximum: range of valid severities.
    """

    apply: Callable[[jax.Array, jax.Array, Severity], jax.Array]
    severities: tuple[float, ...]
    unit: str
    identity: float = 0.0
    minimum: float = 0.0
    maximum: float = float("inf")


@named_errors
def corrupt(images: Any, name: str, severity: Severity, *, key: jax.Array | None = None) -> jax.Array:
    """Apply a corruption of :data:`CORRUPTIONS`, with independent randomness for each image.

    Args:
        images: ``(N, H, W, C)``, uint8 or floats in [0, 1].
        name: ``rotation``, ``scale``, ``shear``, ``shift``, ``stroke_width``, ``noise``, ``salt_and_pepper``, ``blur``,
            ``contrast`` or ``occlusion``.
        severity: severity in the unit of the corruption; may be traced.
        key: random key of noise and positions; by default ``jax.random.key(0)``.

    Returns:
        Floats of the same shape.

    Raises:
        InputError: if the corruption is unknown, the severity is out of range, or ``images`` is not ``(N, H, W, C)``.

    Lecture row 004-14.

    >>> stroke = jnp.zeros((1, 5, 5, 1)).at[0, :, 2].set(1)
    >>> corrupt(stroke, "stroke_width", 1.0)[0, 0, :, 0].tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    check_severities(name, [severity])
    x = check_images(images)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    key = jax.random.key(0) if key is None else key
    return corrupt_per_image(name, jax.random.split(key, len(x)), x, jnp.asarray(severity, x.dtype))


@named_errors
def corrupt_at_severities(image: Any, name: str, severities: Sequence[float]) -> jax.Array:
    """Return one image at S severities of a corruption, ``(S, H, W, C)``; compiled once per corruption.

    >>> corrupt_at_severities(np.full((2, 2, 1), 255, np.uint8), "contrast", [1.0, 0.5]).shape
    (2, 2, 2, 1)
    """
    check_severities(name, severities)
    return _compiled_severities(name)(check_images(np.asarray(image)[None]), jnp.asarray(severities, float))


@functools.lru_cache(maxsize=64)
def _compiled_severities(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    corrupt_one = lambda image, severity: corrupt(image, name, severity)[0]  # noqa: E731
    return jax.jit(jax.vmap(corrupt_one, in_axes=(None, 0)))


def corrupt_per_image(name: str, keys: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
    """Apply a corruption with one key per image, so that the result does not depend on the batching."""
    apply = CORRUPTIONS[name].apply
    return jax.vmap(lambda key, image: apply(key, image[None], severity)[0])(keys, images)


def check_severities(name: str, severities: Sequence[Severity]) -> None:
    """Raise InputError for an unknown corruption or a severity out of its range; traced severities pass."""
    checks.one_of("corruption", name, CORRUPTIONS)
    _, _, unit, _, minimum, maximum = CORRUPTIONS[name]
    for severity in severities:
        if isinstance(severity, jax.core.Tracer):
            continue
        array = np.asarray(severity)
        if array.shape or array.dtype.kind not in "iuf" or not minimum <= array <= maximum or not np.isfinite(array):
            raise InputError(f"severity of {name} must be from {minimum:g} to {maximum:g} ({unit}), got {severity!r}")


def _shift(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    """Shift each image up, down, left or right, at random."""
    offset = jnp.where(jax.random.bernoulli(key, shape=(len(images),)), 1, -1).astype(images.dtype) * severity
    vertical = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(len(images),))
    return affine_transform(images, translate=(jnp.where(vertical, offset, 0), jnp.where(vertical, 0, offset)))


def _stroke_width(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    """Take the maximum (or, below 0, the minimum) over a square; interpolate between integer radii."""
    pool = functools.partial(ops.max_pool, stride=1, padding="SAME")
    y = jnp.zeros_like(images)
    for radius in range(-MAX_RADIUS, MAX_RADIUS + 1):
        size = 2 * abs(radius) + 1
        pooled = images if not radius else pool(images, size) if radius > 0 else -pool(-images, size)
        y += jnp.maximum(1 - jnp.abs(severity - radius), 0) * pooled
    return y


def _noise(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    return jnp.clip(images + severity * jax.random.normal(key, images.shape, images.dtype), 0, 1)


def _salt_and_pepper(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    """Set random pixels to black or white, all channels of a pixel alike."""
    mask_shape = (*images.shape[:3], 1)
    is_replaced = jax.random.uniform(key, mask_shape, images.dtype) < severity
    value = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=mask_shape).astype(images.dtype)
    return jnp.where(is_replaced, value, images)


def _blur(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    """Blur with a Gaussian truncated at 9 pixels: 3 standard deviations at the largest severity."""
    offsets = jnp.arange(-3 * MAX_RADIUS, 3 * MAX_RADIUS + 1, dtype=images.dtype)
    sigma = jnp.maximum(severity, 1e-3)  # at severity 0 all weights but the middle one underflow to exactly 0
    weights = jnp.exp(-(offsets**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    return filters.apply_filter(filters.apply_filter(images, weights[:, None]), weights[None])


def _contrast(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    return jnp.clip(severity * images + (1 - severity) * images.mean((1, 2, 3), keepdims=True), 0, 1)


def _occlusion(key: jax.Array, images: jax.Array, severity: Severity) -> jax.Array:
    """Cover each image with a gray square at a random position inside the image."""
    covered = jnp.ones((len(images), 1, 1, 1), bool)
    for axis in (1, 2):
        size = images.shape[axis]
        fraction = jax.random.uniform(jax.random.fold_in(key, axis), (len(images), 1, 1, 1))
        side = jnp.minimum(jnp.round(severity), size).astype(int)
        start = jnp.floor(fraction * (size - side + 1).astype(fraction.dtype)).astype(int)
        position = jax.lax.broadcasted_iota(int, (1, *images.shape[1:3], 1), axis)
        covered &= (position >= start) & (position < start + side)
    return jnp.where(covered, jnp.asarray(0.5, images.dtype), images)


CORRUPTIONS: dict[str, Corruption] = {
    "rotation": Corruption(
        lambda key, x, severity: affine_transform(x, degrees=severity),
        (-60, -45, -30, -15, 0, 15, 30, 45, 60),
        "degrees counter-clockwise",
        minimum=-360,
        maximum=360,
    ),
    "scale": Corruption(
        lambda key, x, severity: affine_transform(x, scale=severity),
        (0.4, 0.55, 0.7, 0.85, 1, 1.15, 1.3, 1.5),
        "factor",
        identity=1,
        minimum=0.01,
        maximum=100,
    ),
    "shear": Corruption(
        lambda key, x, severity: affine_transform(x, shear=severity),
        (-45, -30, -15, 0, 15, 30, 45),
        "degrees to the left",
        minimum=-80,
        maximum=80,
    ),
    "shift": Corruption(_shift, (0, 1, 2, 3, 4, 6, 8), "pixels, up, down, left or right"),
    "stroke_width": Corruption(
        _stroke_width,
        (-1, -0.5, 0, 0.5, 1, 1.5, 2),
        "pixels added on each side",
        minimum=-MAX_RADIUS,
        maximum=MAX_RADIUS,
    ),
    "noise": Corruption(_noise, (0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8), "standard deviation"),
    "salt_and_pepper": Corruption(
        _salt_and_pepper, (0, 0.05, 0.1, 0.2, 0.3, 0.5), "fraction of pixels, black or white", maximum=1
    ),
    "blur": Corruption(_blur, (0, 0.5, 1, 1.5, 2, 3), "pixels, standard deviation", maximum=MAX_RADIUS),
    "contrast": Corruption(_contrast, (1, 0.7, 0.5, 0.3, 0.2, 0.1), "factor", identity=1, maximum=100),
    "occlusion": Corruption(_occlusion, (0, 4, 6, 8, 10, 12, 16), "pixels, side of a gray square"),
}


@named_errors
def corruption_accuracy(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    corruptions: Sequence[str] | Mapping[str, Sequence[float]] | None = None,
    batch_size: int = 256,
    key: jax.Array | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Measure the accuracy on corrupted images, for every corruption and severity.

        accuracy(d, s) = fraction of images n with argmax f(d_s(x[n])) = label[n]

    The severity is an argument of the compiled functions, so each corruption and the network compile once. Image n has
    the same noise at every severity and for every batch size.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or floats in [0, 1].
        labels: ``(N,)`` class indices.
        corruptions: names of :data:`CORRUPTIONS`, or a dict of severities by name; by default all.
        batch_size: number of images per batch.
        key: random key of noise and positions; by default ``jax.random.key(0)``.

    Returns:
        For each corruption, pairs ``(severity, accuracy)`` in the order of the severities.

    Raises:
        InputError: if ``images`` is empty or outside [0, 1], the labels do not match the images or the model, a
            corruption is unknown, or a severity is out of range.

    Source: the "unusual" digits of LeCun's demo, http://yann.lecun.com/exdb/lenet/. Lecture row 004-14.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=2)
    >>> params, state = model.init(jax.random.key(0), (4, 4, 1))
    >>> images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, int)
    >>> corruption_accuracy(model, params, state, images, labels, corruptions={"contrast": [1, 0.5]})
    {'contrast': [(1.0, 1.0), (0.5, 1.0)]}
    """
    images, labels = check_labelled(model, params, state, images, labels, batch_size)
    severities_by_name = _resolve_severities(corruptions)
    minimum, maximum = images.min(), images.max()
    if images.dtype != np.uint8 and not (minimum >= 0 and maximum <= 1):
        raise InputError(f"images must be uint8 or floats in [0, 1], got values from {minimum:g} to {maximum:g}")
    model, key = as_layer(model), jax.random.key(0) if key is None else key
    options = compiler_options()
    predict = jax.jit(lambda *args: jnp.argmax(model.apply(*args)[0], axis=1), compiler_options=options)
    indices, size = np.arange(len(images), dtype=np.int32), min(batch_size, len(images))

    def accuracy(name: str, severity: float) -> float:
        num_correct = 0
        for x, index, mask in iterate_batches(images, indices, size):  # the key of an image derives from its index
            predicted = np.asarray(predict(params, state, _compiled_corruption(name)(key, index, x, severity)))
            num_correct += int((predicted == labels[index])[np.asarray(mask)].sum())
        return num_correct / len(labels)

    return {
        name: [(float(severity), accuracy(name, float(severity))) for severity in severities]
        for name, severities in severities_by_name.items()
    }


def _resolve_severities(
    corruptions: Sequence[str] | Mapping[str, Sequence[float]] | None,
) -> dict[str, Sequence[float]]:
    """Return the severities by corruption name, checked."""
    names = CORRUPTIONS if corruptions is None else [corruptions] if isinstance(corruptions, str) else corruptions
    severities: dict[str, Sequence[float]] = {}
    for name in names:
        check_severities(name, [])
        severities[name] = corruptions[name] if isinstance(corruptions, Mapping) else CORRUPTIONS[name].severities
        if np.ndim(severities[name]) != 1 or not len(severities[name]):
            raise InputError(f"severities of {name} must be a list such as [0.1, 0.2], got {severities[name]!r}")
        check_severities(name, severities[name])
    return severities


@functools.lru_cache(maxsize=64)
def _compiled_corruption(name: str) -> Callable[..., jax.Array]:
    """Return a corruption compiled for batches of images; cached for all networks."""

    @jax.jit
    def corrupt_batch(key: jax.Array, indices: jax.Array, images: jax.Array, severity: float) -> jax.Array:
        keys, x = jax.vmap(functools.partial(jax.random.fold_in, key))(indices), to_float(images)
        return corrupt_per_image(name, keys, x, jnp.asarray(severity, x.dtype))

    return corrupt_batch
