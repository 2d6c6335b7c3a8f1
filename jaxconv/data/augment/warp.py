"""Turned, scaled, slanted and moved by fractions of a pixel: each value is interpolated between four."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from jaxconv import checks
from jaxconv.data.augment.base import Augment, batch, keys, within
from jaxconv.errors import InputError

LARGEST = 1e4  # of a scale or a distance: beyond it every image is blank


def warp(
    images: jax.Array,
    *,
    degrees: float | jax.Array = 0.0,
    scale: float | jax.Array = 1.0,
    shear: float | jax.Array = 0.0,
    down: float | jax.Array = 0.0,
    right: float | jax.Array = 0.0,
) -> jax.Array:
    """Slant, enlarge, turn and then move images, about their centre; bilinear, with zeros outside.

        y[n, c + R·S·(p − c) + t] = x[n, p]        c: centre, t = (down, right)
        R = [[cos, −sin], [sin, cos]](degrees),    S = scale · [[1, 0], [tan(shear), 1]],    on (row, column)

    Nothing here is random: :func:`affine` draws the numbers, and an experiment may fix them.

    Args:
        images: floats, ``(N, H, W, C)``.
        degrees: counter-clockwise as seen.
        scale: 2 makes what is seen twice as large.
        shear: degrees by which upright lines lean, to the left at the top.
        down, right: pixels, also fractions and negative ones.

    Each option is a number for all images, or ``(N,)``.

    Returns:
        Images of the same shape and dtype.

    Raises:
        InputError: an option of another shape, or a scale of 0 or less.

    >>> x = jnp.arange(4.).reshape(1, 2, 2, 1)
    >>> warp(x, right=0.5)[0, :, :, 0]
    Array([[0. , 0.5],
           [1. , 2.5]], dtype=float32)
    """
    images = batch("warp", images)
    if checks.is_number(scale) and not scale > 0:
        raise InputError(f"warp: scale={scale!r} should be above 0; 1 leaves the size as it is")
    dtype, (height, width) = checks.accumulator(images), images.shape[1:3]

    def each(option: str, value: float | jax.Array) -> jax.Array:
        array = checks.array("warp", option, value)
        if array.shape not in ((), images.shape[:1]):
            raise InputError(
                f"warp: {option} {array.shape} should be a number, or one for each of {len(images)} images"
            )
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
        each("down", down),
        each("right", right),
    ]
    return jax.vmap(one)(images.astype(dtype), *options).astype(images.dtype)


def affine(
    degrees: float = 0.0,
    *,
    scale: Sequence[float] = (1.0, 1.0),
    shear: float = 0.0,
    translate: float = 0.0,
) -> Augment:
    """:func:`warp` by numbers drawn for each image, every value of a range as likely as every other.

    Args:
        degrees: turned by up to so much either way.
        scale: the smallest and the largest factor.
        shear: slanted by up to so many degrees either way, at most 89.
        translate: moved by up to so many pixels up or down and left or right.

    Raises:
        InputError: an option out of range.

    Source: Simard et al., 2003, https://doi.org/10.1109/ICDAR.2003.1227801; lecture row 004-14.

    >>> x = jnp.zeros((2, 5, 5, 1)).at[:, 2].set(1)                # a bar, twice
    >>> y = jax.jit(affine(90, scale=(0.8, 1.2), translate=1))(jax.random.key(0), x)
    >>> y.shape, bool((y[0] == y[1]).all())
    ((2, 5, 5, 1), False)
    """
    return _random_warp("affine", degrees, scale, shear, translate)


def rotate(degrees: float = 15.0) -> Augment:
    """Turn each image about its centre, by up to ``degrees`` either way; bilinear, with zeros outside.

    Args:
        degrees: up to 180, for a world without up and down.

    Raises:
        InputError: degrees that are not from 0 to 180.

    >>> x = jnp.ones((1, 3, 3, 1))
    >>> y = jax.jit(rotate(45))(jax.random.key(1), x)[0, :, :, 0]
    >>> float(y[1, 1]), bool(y[0, 0] < 1)                          # the centre stays; a corner leaves
    (1.0, True)
    """
    return _random_warp("rotate", degrees, (1.0, 1.0), 0.0, 0.0)


def _random_warp(name: str, degrees: float, scale: Sequence[float], shear: float, translate: float) -> Augment:
    within(name, 0, 180, degrees=degrees)
    within(name, 0, 89, shear=shear)
    within(name, 0, LARGEST, translate=translate)
    if not isinstance(scale, list | tuple) or len(scale) != 2:
        raise InputError(f"{name}: scale={scale!r} should be two factors, the smallest and the largest: (0.9, 1.1)")
    low, high = scale
    within(name, 1 / LARGEST, LARGEST, scale=low)
    within(name, low, LARGEST, scale=high)
    ranges = {
        "degrees": (-degrees, degrees),
        "scale": (low, high),
        "shear": (-shear, shear),
        "down": (-translate, translate),
        "right": (-translate, translate),
    }

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = batch(name, images)
        drawn = {
            option: jax.random.uniform(key, (len(images),), jnp.float32, *limits)
            for key, (option, limits) in zip(keys(name, key, len(ranges)), ranges.items(), strict=True)
        }
        return warp(images, **drawn)

    return augment
