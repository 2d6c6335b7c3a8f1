"""Geometric augmentations: flips, translations and crops by whole pixels, and interpolated affine transformations."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.ndimage import map_coordinates

from jaxconv import checks
from jaxconv.data.augment.base import Augment, check_range, split_key, validate_images
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def random_horizontal_flip(p: float = 0.5) -> Augment:
    """Flip each image left to right with probability ``p``: ``y[n, i, j] = x[n, i, W − 1 − j]``.

    It is unsuitable for digits and letters, whose mirror images are not valid examples.

    Args:
        p: probability of a flip.

    Raises:
        InputError: if ``p`` is not in [0, 1].

    >>> x = jnp.arange(3.).reshape(1, 1, 3, 1)
    >>> random_horizontal_flip(p=1)(jax.random.key(0), x).ravel()
    Array([2., 1., 0.], dtype=float32)
    """
    check_range(0, 1, p=p)

    @named_errors(name="random_horizontal_flip")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = validate_images(images)
        (key,) = split_key(key, 1)
        flip = jax.random.bernoulli(key, float(p), (len(images), 1, 1, 1))
        return jnp.where(flip, images[:, :, ::-1], images)

    return augment


@named_errors
def alternating_flip(key: jax.Array, images: jax.Array, number: jax.Array, epoch: jax.Array | int) -> jax.Array:
    """Flip each image left to right in every other epoch, with a random first epoch per image.

        y[n] = flipped x[n]  if  coin(key, number[n]) + epoch  is odd,  x[n] otherwise

    Two consecutive epochs contain each image once flipped and once not. With independent flips
    (:func:`random_horizontal_flip`), half of the images are the same in both epochs.

    Args:
        key: random key, the same in all epochs.
        images: floats, ``(N, H, W, C)``.
        number: index of each image in its dataset, ``(N,)``; the coin depends on it, not on the position in the batch.
        epoch: index of the epoch; may be traced.

    Raises:
        InputError: if the shape of ``images`` is invalid, or ``number`` is not one integer per image.

    Source: Jordan, 2024, https://arxiv.org/abs/2404.00498.

    >>> x, key = jnp.arange(3.).reshape(1, 1, 3, 1), jax.random.key(0)
    >>> [alternating_flip(key, x, jnp.array([7]), epoch).ravel().astype(int).tolist() for epoch in range(3)]
    [[2, 1, 0], [0, 1, 2], [2, 1, 0]]
    """
    images, number = validate_images(images), jnp.asarray(number)
    if number.shape != images.shape[:1] or not jnp.issubdtype(number.dtype, jnp.integer):
        raise InputError(f"number {number.dtype}{number.shape} should be int{images.shape[:1]}, one per image")
    (key,) = split_key(key, 1)
    coin = jax.vmap(lambda n: jax.random.bernoulli(jax.random.fold_in(key, n)))(number)
    flip = coin ^ (jnp.asarray(epoch) % 2 == 1)
    return jnp.where(flip[:, None, None, None], images[:, :, ::-1], images)


@named_errors
def random_translation(pixels: IntOrInts = 4, *, padding_mode: str = "zeros") -> Augment:
    """Translate each image by up to ``pixels`` along both axes, uniformly at random.

        y[n, i, j] = x[n, i + a, j + b],    a, b ~ U{−pixels, …, pixels}

    Together with :func:`random_horizontal_flip`, 4 pixels are the augmentation of He et al. for CIFAR-10, and 2 pixels
    that of ConvNetJS.

    Args:
        pixels: largest distance; an int, or two for height and width.
        padding_mode: values outside of the image: ``"zeros"``, ``"reflect"`` or another mode of
            :func:`jaxconv.ops.conv`; ``"circular"`` wraps the image around.

    Raises:
        InputError: if ``padding_mode`` is unknown, or (while tracing) ``pixels`` is not smaller than the image.

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385, section 4.2; lecture row 004-13.

    >>> x = jnp.arange(1., 4.).reshape(1, 1, 3, 1)
    >>> random_translation((0, 1))(jax.random.key(0), x).ravel()
    Array([2., 3., 0.], dtype=float32)
    """
    max_shift = canonicalize_sizes(pixels, 2, "pixels", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)

    @named_errors(name="random_translation")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = validate_images(images)
        return _random_windows(key, pad_images(images, max_shift, padding_mode), images.shape[1:3])

    return augment


@named_errors
def random_crop(size: IntOrInts, *, padding: IntOrInts = 0, padding_mode: str = "zeros") -> Augment:
    """Crop each image to a window of ``size``, at a position drawn uniformly at random.

        y[n, i, j] = x[n, i + a, j + b],    a ~ U{−padding, …, H + padding − size},    b likewise for W

    The output size differs from the input size, so evaluate on images of the output size.

    Args:
        size: size of the window; an int, or two for height and width.
        padding: pixels added on each side before cropping; an int, or two for height and width.
        padding_mode: values of the added pixels, as in :func:`random_translation`.

    Raises:
        InputError: if ``padding_mode`` is unknown, or (while tracing) the window is larger than the padded image.

    >>> x = jnp.arange(16.).reshape(1, 4, 4, 1)
    >>> random_crop((1, 2))(jax.random.key(0), x).ravel()
    Array([14., 15.], dtype=float32)
    """
    window = canonicalize_sizes(size, 2, "size")
    widths = canonicalize_sizes(padding, 2, "padding", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)

    @named_errors(name="random_crop")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        return _random_windows(key, pad_images(validate_images(images), widths, padding_mode), window)

    return augment


def pad_images(images: jax.Array, widths: tuple[int, ...], padding_mode: str) -> jax.Array:
    """Pad height and width on both sides by ``widths``, which must be smaller than the image."""
    if any(width >= n for width, n in zip(widths, images.shape[1:3], strict=True)):
        raise InputError(
            f"{widths} pixels of padding must be smaller than the image, {images.shape[1:3]}: larger shifts could "
            "leave no pixel of it"
        )
    pad_width = ((0, 0), *((width, width) for width in widths), (0, 0))
    return jnp.pad(images, pad_width, mode=PADDING_MODES[padding_mode])


def _random_windows(key: jax.Array, images: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Crop each image to a window of ``size`` at a random position."""
    margins = [n - s for n, s in zip(images.shape[1:3], size, strict=True)]
    if min(margins) < 0:
        raise InputError(f"size {size} is larger than the image, {images.shape[1:3]} with its padding")
    starts = [
        jax.random.randint(axis_key, (len(images),), 0, margin + 1)
        for axis_key, margin in zip(split_key(key, 2), margins, strict=True)
    ]

    def crop(image: jax.Array, top: jax.Array, left: jax.Array) -> jax.Array:
        return lax.dynamic_slice(image, (top, left, 0), (*size, image.shape[-1]))

    return jax.vmap(crop)(images, *starts)


MAX_MAGNITUDE = 1e4  # limit of scales and distances, beyond which every image is blank


@named_errors
def affine_transform(
    images: jax.Array,
    *,
    degrees: float | jax.Array = 0.0,
    scale: float | jax.Array = 1.0,
    shear: float | jax.Array = 0.0,
    translate: tuple[float | jax.Array, float | jax.Array] = (0.0, 0.0),
) -> jax.Array:
    """Shear, scale, rotate and then translate images about their center; bilinear interpolation, zeros outside.

        y[n, c + R·S·(p − c) + t] = x[n, p]        c: center, t = translate
        R = [[cos, −sin], [sin, cos]](degrees),    S = scale · [[1, 0], [tan(shear), 1]],    on (row, column)

    The transformation is deterministic; :func:`random_affine` draws the options at random.

    Args:
        images: floats, ``(N, H, W, C)``.
        degrees: rotation, counter-clockwise.
        scale: magnification; 2 doubles the size of the content.
        shear: angle in degrees between vertical lines and their images, which lean to the left at the top.
        translate: pixels ``(rows, columns)`` down and right; may be fractional and negative.

    Each option, and each entry of ``translate``, is a number for all images, or ``(N,)``.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: if an option has another shape, ``translate`` is not a pair, or a scale is not positive.

    >>> x = jnp.arange(4.).reshape(1, 2, 2, 1)
    >>> affine_transform(x, translate=(0, 0.5))[0, :, :, 0]
    Array([[0. , 0.5],
           [1. , 2.5]], dtype=float32)
    """
    images = validate_images(images)
    if checks.is_number(scale) and not scale > 0:
        raise InputError(f"scale={scale!r} should be above 0; 1 leaves the size as it is")
    if not isinstance(translate, tuple | list) or len(translate) != 2:
        raise InputError(f"translate={translate!r} must be a pair (rows, columns), such as (0, 0.5)")
    dtype, (height, width) = numerics.accumulator_dtype(images), images.shape[1:3]

    def per_image(option: str, value: float | jax.Array) -> jax.Array:
        array = checks.as_array(**{option: value})
        if array.shape not in ((), images.shape[:1]):
            raise InputError(f"{option} {array.shape} should be a number, or one for each of {len(images)} images")
        return jnp.broadcast_to(array.astype(dtype), len(images))

    def transform(
        image: jax.Array, angle: jax.Array, scale: jax.Array, shear: jax.Array, down: jax.Array, right: jax.Array
    ) -> jax.Array:
        # The inverse map from output to input coordinates. It is written out because a matrix product on a GPU or TPU
        # may round coordinates to 8 bits, which distorts the image.
        center = (height - 1) / 2, (width - 1) / 2
        i = jnp.arange(height, dtype=dtype)[:, None] - center[0] - down
        j = jnp.arange(width, dtype=dtype)[None, :] - center[1] - right
        cos, sin = jnp.cos(angle) / scale, jnp.sin(angle) / scale
        i, j = cos * i + sin * j, cos * j - sin * i
        coordinates = [i + center[0], j - jnp.tan(shear) * i + center[1]]
        sample = jax.vmap(lambda channel: map_coordinates(channel, coordinates, order=1), in_axes=-1, out_axes=-1)
        return sample(image)

    options = [
        jnp.deg2rad(per_image("degrees", degrees)),
        per_image("scale", scale),
        jnp.deg2rad(per_image("shear", shear)),
        per_image("translate", translate[0]),
        per_image("translate", translate[1]),
    ]
    return jax.vmap(transform)(images.astype(dtype), *options).astype(images.dtype)


@named_errors
def random_affine(
    degrees: float = 0.0,
    *,
    scale: Sequence[float] = (1.0, 1.0),
    shear: float = 0.0,
    translate: float = 0.0,
) -> Augment:
    """Apply :func:`affine_transform` with options drawn for each image, uniformly at random.

    Args:
        degrees: largest rotation in either direction, from 0 to 180.
        scale: smallest and largest scale.
        shear: largest shear in either direction, in degrees from 0 to 89.
        translate: largest translation along both axes, in pixels.

    Raises:
        InputError: if an option is out of range.

    Source: Simard et al., 2003, https://doi.org/10.1109/ICDAR.2003.1227801; lecture row 004-14.

    >>> x = jnp.zeros((2, 5, 5, 1)).at[:, 2].set(1)                # two images of a horizontal bar
    >>> y = jax.jit(random_affine(90, scale=(0.8, 1.2), translate=1))(jax.random.key(0), x)
    >>> y.shape, bool((y[0] == y[1]).all())
    ((2, 5, 5, 1), False)
    """
    return named_errors(_random_warp(degrees, scale, shear, translate), name="random_affine")


@named_errors
def random_rotation(degrees: float = 15.0) -> Augment:
    """Rotate each image about its center by up to ``degrees``, uniformly at random; bilinear, zeros outside.

    Args:
        degrees: largest rotation in either direction; 180 for images without a preferred orientation.

    Raises:
        InputError: if ``degrees`` is not in [0, 180].

    >>> x = jnp.ones((1, 3, 3, 1))
    >>> y = jax.jit(random_rotation(45))(jax.random.key(1), x)[0, :, :, 0]
    >>> float(y[1, 1]), bool(y[0, 0] < 1)                          # the center is fixed; a corner leaves the image
    (1.0, True)
    """
    return named_errors(_random_warp(degrees, (1.0, 1.0), 0.0, 0.0), name="random_rotation")


def _random_warp(degrees: float, scale: Sequence[float], shear: float, translate: float) -> Augment:
    check_range(0, 180, degrees=degrees)
    check_range(0, 89, shear=shear)
    check_range(0, MAX_MAGNITUDE, translate=translate)
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        raise InputError(f"scale={scale!r} should be two factors, the smallest and the largest: (0.9, 1.1)")
    low, high = scale
    check_range(1 / MAX_MAGNITUDE, MAX_MAGNITUDE, scale=low)
    check_range(low, MAX_MAGNITUDE, scale=high)
    ranges = {
        "degrees": (-degrees, degrees),
        "scale": (low, high),
        "shear": (-shear, shear),
        "rows": (-translate, translate),
        "columns": (-translate, translate),
    }

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = validate_images(images)
        options = {
            option: jax.random.uniform(option_key, (len(images),), jnp.float32, *limits)
            for option_key, (option, limits) in zip(split_key(key, len(ranges)), ranges.items(), strict=True)
        }
        rows, columns = options.pop("rows"), options.pop("columns")
        return affine_transform(images, **options, translate=(rows, columns))

    return augment
