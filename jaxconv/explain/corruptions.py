"""Corrupted images (rotated, blurred, thickened, in noise) of known severity, and the accuracy on them."""

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

Strength = float | jax.Array
RADIUS = 3  # of the thickest stroke, and a third of the widest blur's


class Corruption(NamedTuple):
    """One way to make images harder to know.

    Attributes:
        apply: ``(key, images, strength) -> images`` of floats from 0 to 1; the strength may be traced.
        severities: those that are asked about by default.
        unit: what a strength of 1 is.
        identity: the strength that leaves every image exactly as it is.
        minimum, maximum: the strengths that there are.
    """

    apply: Callable[[jax.Array, jax.Array, Strength], jax.Array]
    severities: tuple[float, ...]
    unit: str
    identity: float = 0.0
    minimum: float = 0.0
    maximum: float = float("inf")


@named_errors
def corrupt(images: Any, name: str, severity: Strength, *, key: jax.Array | None = None) -> jax.Array:
    """Images after a distortion of :data:`CORRUPTIONS`, each image with its own randomness.

    Args:
        images: ``(N, H, W, C)``, bytes or floats from 0 to 1.
        name: ``rotation``, ``scale``, ``shear``, ``shift``, ``stroke_width``, ``noise``, ``salt_and_pepper``, ``blur``,
            ``contrast`` or ``occlusion``.
        severity: in the unit of the distortion; it may be traced.
        key: of noise and places; by default always the same.

    Returns:
        Floats of the same shape.

    Raises:
        InputError: an unknown distortion, or a strength that it has not.

    Lecture row 004-14.

    >>> stroke = jnp.zeros((1, 5, 5, 1)).at[0, :, 2].set(1)
    >>> corrupt(stroke, "stroke_width", 1.0)[0, 0, :, 0].tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    check_strengths(name, [severity])
    x = check_images(images)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    key = jax.random.key(0) if key is None else key
    return each_by_its_own(name, jax.random.split(key, len(x)), x, jnp.asarray(severity, x.dtype))


@named_errors
def at_strengths(image: Any, name: str, severities: Sequence[float]) -> jax.Array:
    """One image at several strengths of a distortion, ``(S, H, W, C)``, to look at; compiled once a distortion.

    >>> at_strengths(np.full((2, 2, 1), 255, np.uint8), "contrast", [1.0, 0.5]).shape
    (2, 2, 2, 1)
    """
    check_strengths(name, severities)
    return _at_strengths(name)(check_images(np.asarray(image)[None]), jnp.asarray(severities, float))


@functools.lru_cache(maxsize=64)
def _at_strengths(name: str) -> Callable[[jax.Array, jax.Array], jax.Array]:
    one = lambda image, strength: corrupt(image, name, strength)[0]  # noqa: E731
    return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def each_by_its_own(name: str, keys: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
    """A distortion where every image has a key, so that it does not matter which images are beside it."""
    apply = CORRUPTIONS[name].apply
    return jax.vmap(lambda key, image: apply(key, image[None], severity)[0])(keys, images)


def check_strengths(name: str, severities: Sequence[Strength]) -> None:
    """Refuse an unknown distortion, and a strength that it has not."""
    checks.one_of("corruption", name, CORRUPTIONS)
    _, _, unit, _, least, most = CORRUPTIONS[name]
    for strength in severities:
        if isinstance(strength, jax.core.Tracer):
            continue
        array = np.asarray(strength)
        if array.shape or array.dtype.kind not in "iuf" or not least <= array <= most or not np.isfinite(array):
            raise InputError(f"{name} of {strength!r} should be from {least:g} to {most:g} ({unit})")


def _shift(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    """Up, down, left or right, by chance."""
    sign = jnp.where(jax.random.bernoulli(key, shape=(len(images),)), 1, -1).astype(images.dtype) * severity
    upright = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=(len(images),))
    return affine_transform(images, translate=(jnp.where(upright, sign, 0), jnp.where(upright, 0, sign)))


def _stroke_width(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    """The brightest (or, below 0, the darkest) pixel within a square; between two whole radii, a blend of both."""
    square = functools.partial(ops.max_pool, stride=1, padding="SAME")
    y = jnp.zeros_like(images)
    for radius in range(-RADIUS, RADIUS + 1):
        size = 2 * abs(radius) + 1
        level = images if not radius else square(images, size) if radius > 0 else -square(-images, size)
        y += jnp.maximum(1 - jnp.abs(severity - radius), 0) * level
    return y


def _noise(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    return jnp.clip(images + severity * jax.random.normal(key, images.shape, images.dtype), 0, 1)


def _specks(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    """Black or white, all channels of a pixel alike."""
    pixels = (*images.shape[:3], 1)
    there = jax.random.uniform(key, pixels, images.dtype) < severity
    colour = jax.random.bernoulli(jax.random.fold_in(key, 1), shape=pixels).astype(images.dtype)
    return jnp.where(there, colour, images)


def _blur(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    """Gaussian, cut off at nine pixels, which is three deviations of the widest."""
    at = jnp.arange(-3 * RADIUS, 3 * RADIUS + 1, dtype=images.dtype)
    narrow = jnp.maximum(severity, 1e-3)  # of 0, all but the middle tap are exactly 0
    taps = jnp.exp(-(at**2) / (2 * narrow**2))
    taps = taps / taps.sum()
    return filters.apply_filter(filters.apply_filter(images, taps[:, None]), taps[None])


def _contrast(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    return jnp.clip(severity * images + (1 - severity) * images.mean((1, 2, 3), keepdims=True), 0, 1)


def _block(key: jax.Array, images: jax.Array, severity: Strength) -> jax.Array:
    """A grey square, all of it within the image."""
    covered = jnp.ones((len(images), 1, 1, 1), bool)
    for axis in (1, 2):
        size = images.shape[axis]
        share = jax.random.uniform(jax.random.fold_in(key, axis), (len(images), 1, 1, 1))
        side = jnp.minimum(jnp.round(severity), size).astype(int)
        first = jnp.floor(share * (size - side + 1).astype(share.dtype)).astype(int)
        place = jax.lax.broadcasted_iota(int, (1, *images.shape[1:3], 1), axis)
        covered &= (place >= first) & (place < first + side)
    return jnp.where(covered, jnp.asarray(0.5, images.dtype), images)


CORRUPTIONS: dict[str, Corruption] = {
    "rotation": Corruption(
        lambda key, x, strength: affine_transform(x, degrees=strength),
        (-60, -45, -30, -15, 0, 15, 30, 45, 60),
        "degrees counter-clockwise",
        minimum=-360,
        maximum=360,
    ),
    "scale": Corruption(
        lambda key, x, strength: affine_transform(x, scale=strength),
        (0.4, 0.55, 0.7, 0.85, 1, 1.15, 1.3, 1.5),
        "times as large",
        identity=1,
        minimum=0.01,
        maximum=100,
    ),
    "shear": Corruption(
        lambda key, x, strength: affine_transform(x, shear=strength),
        (-45, -30, -15, 0, 15, 30, 45),
        "degrees to the left",
        minimum=-80,
        maximum=80,
    ),
    "shift": Corruption(_shift, (0, 1, 2, 3, 4, 6, 8), "pixels, up, down, left or right"),
    "stroke_width": Corruption(
        _stroke_width, (-1, -0.5, 0, 0.5, 1, 1.5, 2), "pixels more on each side", minimum=-RADIUS, maximum=RADIUS
    ),
    "noise": Corruption(_noise, (0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8), "standard deviation"),
    "salt_and_pepper": Corruption(_specks, (0, 0.05, 0.1, 0.2, 0.3, 0.5), "share of pixels, black or white", maximum=1),
    "blur": Corruption(_blur, (0, 0.5, 1, 1.5, 2, 3), "pixels, standard deviation", maximum=RADIUS),
    "contrast": Corruption(_contrast, (1, 0.7, 0.5, 0.3, 0.2, 0.1), "times as much", identity=1, maximum=100),
    "occlusion": Corruption(_block, (0, 4, 6, 8, 10, 12, 16), "pixels, side of a grey square"),
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
    """Accuracy on distorted images, distortion by distortion, strength by strength.

        accuracy(d, s) = share of images n with argmax f(d_s(x[n])) = label[n]

    The strength is an argument of what is compiled, so each distortion compiles once, and the network once. Image n
    has the same noise at every strength, whatever the batch size.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats from 0 to 1.
        labels: ``(N,)`` class numbers.
        corruptions: names of :data:`CORRUPTIONS`, or a dict of the strengths to ask about; by default all.
        batch_size: images at a time.
        key: of noise and places; by default always the same.

    Returns:
        For each distortion, pairs ``(strength, accuracy)`` in the order of the strengths.

    Raises:
        InputError: no image, floats outside 0 to 1, labels that do not go with the images or the network, an unknown
            distortion, or a strength that it has not.

    Source: the "unusual" digits of LeCun's demo, http://yann.lecun.com/exdb/lenet/. Lecture row 004-14.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=2)
    >>> params, state = model.init(jax.random.key(0), (4, 4, 1))
    >>> images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, int)
    >>> corruption_accuracy(model, params, state, images, labels, corruptions={"contrast": [1, 0.5]})
    {'contrast': [(1.0, 1.0), (0.5, 1.0)]}
    """
    images, labels = check_labelled(model, params, state, images, labels, batch_size)
    asked = _asked(corruptions)
    low, high = images.min(), images.max()
    if images.dtype != np.uint8 and not (low >= 0 and high <= 1):
        raise InputError(f"images from {low:g} to {high:g}: corruptions are of floats from 0 to 1")
    model, key = as_layer(model), jax.random.key(0) if key is None else key
    options = compiler_options()
    network = jax.jit(lambda *given: jnp.argmax(model.apply(*given)[0], axis=1), compiler_options=options)
    numbers, size = np.arange(len(images), dtype=np.int32), min(batch_size, len(images))

    def accuracy(name: str, strength: float) -> float:
        right = 0
        for x, number, mask in iterate_batches(images, numbers, size):  # of an image's number its key is made
            said = np.asarray(network(params, state, _program(name)(key, number, x, strength)))
            right += int((said == labels[number])[np.asarray(mask)].sum())
        return right / len(labels)

    return {
        name: [(float(strength), accuracy(name, float(strength))) for strength in strengths]
        for name, strengths in asked.items()
    }


def _asked(distortions: Sequence[str] | Mapping[str, Sequence[float]] | None) -> dict[str, Sequence[float]]:
    """Each distortion that is asked about with its strengths."""
    names = CORRUPTIONS if distortions is None else [distortions] if isinstance(distortions, str) else distortions
    asked: dict[str, Sequence[float]] = {}
    for name in names:
        check_strengths(name, [])
        asked[name] = distortions[name] if isinstance(distortions, Mapping) else CORRUPTIONS[name].severities
        if np.ndim(asked[name]) != 1 or not len(asked[name]):
            raise InputError(f"{name} of {asked[name]!r}: give a list of severities, [0.1, 0.2]")
        check_strengths(name, asked[name])
    return asked


@functools.lru_cache(maxsize=64)
def _program(name: str) -> Callable[..., jax.Array]:
    """A distortion, compiled once for images of one size, whatever network sees them."""

    @jax.jit
    def program(key: jax.Array, number: jax.Array, images: jax.Array, strength: float) -> jax.Array:
        keys, x = jax.vmap(functools.partial(jax.random.fold_in, key))(number), to_float(images)
        return each_by_its_own(name, keys, x, jnp.asarray(strength, x.dtype))

    return program
