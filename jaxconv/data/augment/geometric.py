"""Geometric augmentations: mirrored, moved by whole pixels, or turned and scaled with interpolation."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxconv import checks
from jaxconv.data.augment.base import Augment, batch, keys, within
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def random_horizontal_flip(p: float = 0.5) -> Augment:
    """Swap left and right in a fraction ``p`` of the images: ``y[n, i, j] = x[n, i, W − 1 − j]``.

    Not for digits and letters, which read differently then.

    Args:
        p: the chance of an image to be mirrored.

    Raises:
        InputError: a p that is no chance.

    >>> x = jnp.arange(3.).reshape(1, 1, 3, 1)
    >>> random_horizontal_flip(p=1)(jax.random.key(0), x).ravel()
    Array([2., 1., 0.], dtype=float32)
    """
    within(0, 1, p=p)

    @named_errors(name="random_horizontal_flip")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = batch(images)
        (key,) = keys(key, 1)
        chosen = jax.random.bernoulli(key, float(p), (len(images), 1, 1, 1))
        return jnp.where(chosen, images[:, :, ::-1], images)

    return augment


@named_errors
def alternating_flip(key: jax.Array, images: jax.Array, number: jax.Array, epoch: jax.Array | int) -> jax.Array:
    """Swap left and right in every other epoch: a coin is tossed for each image, once, and then it takes turns.

        y[n] = mirrored x[n]  if  coin(key, number[n]) + epoch  is odd,  x[n] otherwise

    Any two epochs in a row see each image as it is and mirrored. Where a coin is tossed each time
    (:func:`random_horizontal_flip`), half of the images are seen the same way twice.

    Args:
        key: a random key, the same in all epochs.
        images: floats, ``(N, H, W, C)``.
        number: of each image in its data set, ``(N,)``: what its coin belongs to, wherever it is in the batch.
        epoch: its number; may be traced.

    Raises:
        InputError: images of another shape, or not one number each.

    Source: Jordan, 2024, https://arxiv.org/abs/2404.00498.

    >>> x, key = jnp.arange(3.).reshape(1, 1, 3, 1), jax.random.key(0)
    >>> [alternating_flip(key, x, jnp.array([7]), epoch).ravel().astype(int).tolist() for epoch in range(3)]
    [[2, 1, 0], [0, 1, 2], [2, 1, 0]]
    """
    images, number = batch(images), jnp.asarray(number)
    if number.shape != images.shape[:1] or not jnp.issubdtype(number.dtype, jnp.integer):
        raise InputError(f"number {number.dtype}{number.shape} should be int{images.shape[:1]}, one an image")
    (key,) = keys(key, 1)
    coin = jax.vmap(lambda n: jax.random.bernoulli(jax.random.fold_in(key, n)))(number)
    chosen = coin ^ (jnp.asarray(epoch) % 2 == 1)
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


@named_errors
def random_translation(pixels: IntOrInts = 4, *, padding_mode: str = "zeros") -> Augment:
    """Move each image by up to ``pixels`` up or down and left or right, every distance as likely as every other.

        y[n, i, j] = x[n, i + a, j + b],    a and b from −pixels to pixels

    With 4 pixels this is the augmentation of He et al. for CIFAR-10, together with :func:`random_horizontal_flip`; with
    2 that of ConvNetJS.

    Args:
        pixels: how far at most; an int, or two for height and width.
        padding_mode: what moves in from outside: ``"zeros"``, ``"reflect"`` or another of :func:`jaxconv.ops.conv`;
            with ``"circular"`` what leaves on one side comes in on the other.

    Raises:
        InputError: an unknown padding_mode, or (while tracing) a shift that could leave nothing of the image.

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2; lecture row 004-13.

    >>> x = jnp.arange(1., 4.).reshape(1, 1, 3, 1)
    >>> random_translation((0, 1))(jax.random.key(0), x).ravel()
    Array([2., 3., 0.], dtype=float32)
    """
    most = canonicalize_sizes(pixels, 2, "pixels", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)

    @named_errors(name="random_translation")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = batch(images)
        return _window(key, padded(images, most, padding_mode), images.shape[1:3])

    return augment


@named_errors
def random_crop(size: IntOrInts, *, padding: IntOrInts = 0, padding_mode: str = "zeros") -> Augment:
    """Cut a window of ``size`` out of each image, every place as likely as every other.

        y[n, i, j] = x[n, i + a, j + b],    a from −padding to H + padding − size, and b likewise

    What comes out is of another size than what goes in, so the images that the network is tested on should be too.

    Args:
        size: of the window; an int, or two for height and width.
        padding: pixels added on each side first; an int, or two.
        padding_mode: what they hold, as in :func:`random_translation`.

    Raises:
        InputError: an unknown padding_mode, or (while tracing) a window larger than the padded image.

    >>> x = jnp.arange(16.).reshape(1, 4, 4, 1)
    >>> random_crop((1, 2))(jax.random.key(0), x).ravel()
    Array([14., 15.], dtype=float32)
    """
    window = canonicalize_sizes(size, 2, "size")
    widths = canonicalize_sizes(padding, 2, "padding", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)

    @named_errors(name="random_crop")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        return _window(key, padded(batch(images), widths, padding_mode), window)

    return augment


def padded(images: jax.Array, widths: tuple[int, ...], padding_mode: str) -> jax.Array:
    """Images with so many rows and columns more on each side."""
    if any(width >= n for width, n in zip(widths, images.shape[1:3], strict=True)):
        raise InputError(
            f"{widths} pixels on the sides of {images.shape[1:3]} images: each should be smaller than the "
            "image, or nothing of it may be left"
        )
    around = ((0, 0), *((width, width) for width in widths), (0, 0))
    return jnp.pad(images, around, mode=PADDING_MODES[padding_mode])


def _window(key: jax.Array, images: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """A window of each image, at a random place."""
    room = [n - s for n, s in zip(images.shape[1:3], size, strict=True)]
    if min(room) < 0:
        raise InputError(f"size {size} is larger than the image, {images.shape[1:3]} with its padding")
    draws = zip(keys(key, 2), room, strict=True)
    places = [jax.random.randint(key, (len(images),), 0, most + 1) for key, most in draws]

    def cut(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (top, left, 0), (*size, image.shape[-1]))

    return jax.vmap(cut)(images, *places)


LARGEST = 1e4  # of a scale or a distance: beyond it every image is blank


@named_errors
def affine_transform(
    images: jax.Array,
    *,
    degrees: float | jax.Array = 0.0,
    scale: float | jax.Array = 1.0,
    shear: float | jax.Array = 0.0,
    translate: tuple[float | jax.Array, float | jax.Array] = (0.0, 0.0),
) -> jax.Array:
    """Slant, enlarge, turn and then move images, about their centre; bilinear, with zeros outside.

        y[n, c + R·S·(p − c) + t] = x[n, p]        c: centre, t = translate
        R = [[cos, −sin], [sin, cos]](degrees),    S = scale · [[1, 0], [tan(shear), 1]],    on (row, column)

    Nothing here is random: :func:`random_affine` draws the numbers, and an experiment may fix them.

    Args:
        images: floats, ``(N, H, W, C)``.
        degrees: counter-clockwise as seen.
        scale: 2 makes what is seen twice as large.
        shear: degrees by which upright lines lean, to the left at the top.
        translate: pixels ``(rows, columns)`` down and right, also fractions and negative ones.

    Each option, and each entry of ``translate``, is a number for all images, or ``(N,)``.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: if an option has another shape, ``translate`` is no pair, or a scale is 0 or less.

    >>> x = jnp.arange(4.).reshape(1, 2, 2, 1)
    >>> affine_transform(x, translate=(0, 0.5))[0, :, :, 0]
    Array([[0. , 0.5],
           [1. , 2.5]], dtype=float32)
    """
    images = batch(images)
    if checks.is_number(scale) and not scale > 0:
        raise InputError(f"scale={scale!r} should be above 0; 1 leaves the size as it is")
    if not isinstance(translate, tuple | list) or len(translate) != 2:
        raise InputError(f"translate={translate!r} must be two, (rows, columns), such as (0, 0.5)")
    dtype, (height, width) = numerics.accumulator_dtype(images), images.shape[1:3]

    def each(option: str, value: float | jax.Array) -> jax.Array:
        array = checks.as_array(**{option: value})
        if array.shape not in ((), images.shape[:1]):
            raise InputError(f"{option} {array.shape} should be a number, or one for each of {len(images)} images")
        return jnp.broadcast_to(array.astype(dtype), len(images))

    def one(image: jax.Array, turn: jax.Array, size: jax.Array, lean: jax.Array, *move: jax.Array) -> jax.Array:
        # From where a pixel is seen back to where it comes from. Written out, since a product of matrices
        # on a GPU or TPU may keep 8 bits of a coordinate, and then the image is no longer straight.
        centre = (height - 1) / 2, (width - 1) / 2
        i = jnp.arange(height, dtype=dtype)[:, None] - centre[0] - move[0]
        j = jnp.arange(width, dtype=dtype)[None, :] - centre[1] - move[1]
        cos, sin = jnp.cos(turn) / size, jnp.sin(turn) / size
        i, j = cos * i + sin * j, cos * j - sin * i
        places = [i + centre[0], j - jnp.tan(lean) * i + centre[1]]
        sample = jax.vmap(lambda channel: map_coordinates(channel, places, order=1), in_axes=-1, out_axes=-1)
        return sample(image)

    options = [
        jnp.deg2rad(each("degrees", degrees)),
        each("scale", scale),
        jnp.deg2rad(each("shear", shear)),
        each("translate", translate[0]),
        each("translate", translate[1]),
    ]
    return jax.vmap(one)(images.astype(dtype), *options).astype(images.dtype)


@named_errors
def random_affine(
    degrees: float = 0.0,
    *,
    scale: Sequence[float] = (1.0, 1.0),
    shear: float = 0.0,
    translate: float = 0.0,
) -> Augment:
    """:func:`affine_transform` by numbers drawn for each image, every value of a range as likely as every other.

    Args:
        degrees: turned by up to so much either way.
        scale: the smallest and the largest factor.
        shear: slanted by up to so many degrees either way, at most 89.
        translate: moved by up to so many pixels up or down and left or right.

    Raises:
        InputError: an option out of range.

    Source: Simard et al., 2003, https://doi.org/10.1109/ICDAR.2003.1227801; lecture row 004-14.

    >>> x = jnp.zeros((2, 5, 5, 1)).at[:, 2].set(1)                # a bar, twice
    >>> y = jax.jit(random_affine(90, scale=(0.8, 1.2), translate=1))(jax.random.key(0), x)
    >>> y.shape, bool((y[0] == y[1]).all())
    ((2, 5, 5, 1), False)
    """
    return named_errors(_random_warp(degrees, scale, shear, translate), name="random_affine")


@named_errors
def random_rotation(degrees: float = 15.0) -> Augment:
    """Turn each image about its centre, by up to ``degrees`` either way; bilinear, with zeros outside.

    Args:
        degrees: up to 180, for a world without up and down.

    Raises:
        InputError: degrees that are not from 0 to 180.

    >>> x = jnp.ones((1, 3, 3, 1))
    >>> y = jax.jit(random_rotation(45))(jax.random.key(1), x)[0, :, :, 0]
    >>> float(y[1, 1]), bool(y[0, 0] < 1)                          # the centre stays; a corner leaves
    (1.0, True)
    """
    return named_errors(_random_warp(degrees, (1.0, 1.0), 0.0, 0.0), name="random_rotation")


def _random_warp(degrees: float, scale: Sequence[float], shear: float, translate: float) -> Augment:
    within(0, 180, degrees=degrees)
    within(0, 89, shear=shear)
    within(0, LARGEST, translate=translate)
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        raise InputError(f"scale={scale!r} should be two factors, the smallest and the largest: (0.9, 1.1)")
    low, high = scale
    within(1 / LARGEST, LARGEST, scale=low)
    within(low, LARGEST, scale=high)
    ranges = {
        "degrees": (-degrees, degrees),
        "scale": (low, high),
        "shear": (-shear, shear),
        "rows": (-translate, translate),
        "columns": (-translate, translate),
    }

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = batch(images)
        drawn = {
            option: jax.random.uniform(key, (len(images),), jnp.float32, *limits)
            for key, (option, limits) in zip(keys(key, len(ranges)), ranges.items(), strict=True)
        }
        rows, columns = drawn.pop("rows"), drawn.pop("columns")
        return affine_transform(images, **drawn, translate=(rows, columns))

    return augment
