"""Augmentations that erase a rectangle or mix two examples: cutout, mixup and CutMix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.data.augment.base import Augment, BatchMixer, check_range, split_key, validate_images
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def cutout(size: IntOrInts = 8) -> Augment:
    """Set a square of each image to zero: ``y[n, i, j] = 0`` where ``−size/2 ≤ i − a, j − b < size/2``.

    The center ``(a, b)`` is a pixel drawn uniformly at random, so that near the border a part of the square is outside
    of the image; the paper found that this matters. Zero is black here; in the paper, whose images have zero mean, it
    is the mean.

    Args:
        size: size of the square; an int, or two for height and width. The paper uses 16 for CIFAR-10, 8 for CIFAR-100.

    Raises:
        InputError: if (while tracing) the square is larger than the image.

    Source: DeVries & Taylor, 2017, https://arxiv.org/abs/1708.04552.

    >>> cutout((1, 2))(jax.random.key(0), jnp.ones((1, 1, 4, 1))).ravel()
    Array([1., 1., 0., 0.], dtype=float32)
    """
    sizes = canonicalize_sizes(size, 2, "size")

    @named_errors(name="cutout")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = validate_images(images)
        num_images, height, width, _ = images.shape
        if sizes[0] > height or sizes[1] > width:
            raise InputError(f"size {sizes} is larger than the image, {images.shape[1:3]}")
        mask = _box_masks(split_key(key, 2), images, *(jnp.full(num_images, n) for n in sizes))
        return jnp.where(mask, jnp.zeros((), images.dtype), images)

    return augment


@named_errors
def cutmix(alpha: float = 1.0) -> BatchMixer:
    """Replace a box of each image by that of a partner image, and mix the targets in proportion to the areas.

        y = x[partner] inside the box, x outside;    targets ← λ·targets + (1 − λ)·targets[partner]

    The box has the image's aspect ratio and relative area ``1 − Λ``, with Λ ~ Beta(α, α), before it is rounded to
    pixels and clipped at the border; λ is the exact fraction of pixels outside of the box. Partners are a random
    permutation of the batch, and each image has its own box (in the paper's code, one per batch).

    Args:
        alpha: parameter of the Beta distribution; at 1, as in the paper, all areas are equally likely, and smaller
            values favor very small and very large boxes.

    Raises:
        InputError: as :func:`mixup`.

    Source: Yun et al., 2019, https://arxiv.org/abs/1905.04899.

    >>> images, targets = jnp.zeros((2, 4, 4, 1)).at[1].set(1), jnp.eye(2)
    >>> y, mixed = jax.jit(cutmix())(jax.random.key(3), images, targets)
    >>> y.mean((1, 2, 3)).tolist() == mixed[:, 1].tolist()
    True
    """
    check_range(MIN_ALPHA, MAX_ALPHA, alpha=alpha)

    @named_errors(name="cutmix")
    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = validate_pair(images, targets)
        beta_key, partner_key, *center_keys = split_key(key, 4)
        partner = jax.random.permutation(partner_key, len(images))
        side = jnp.sqrt(1 - jax.random.beta(beta_key, float(alpha), float(alpha), (len(images),), jnp.float32))
        mask = _box_masks(center_keys, images, *((n * side).astype(int) for n in images.shape[1:3]))
        weight = 1 - mask.mean((1, 2, 3), dtype=jnp.float32)
        return jnp.where(mask, images[partner], images), blend(targets, partner, weight)

    return mix


def _box_masks(keys: Sequence[jax.Array] | jax.Array, images: jax.Array, *sizes: jax.Array) -> jax.Array:
    """Return masks ``(N, H, W, 1)`` of boxes with the given heights and widths ``(N,)`` around random pixels."""
    axis_masks = []
    for key, size, n in zip(keys, sizes, images.shape[1:3], strict=True):
        start = jax.random.randint(key, (len(images),), 0, n) - size // 2
        position = jnp.arange(n)[None, :]
        axis_masks.append((position >= start[:, None]) & (position < (start + size)[:, None]))
    rows, columns = axis_masks
    return rows[:, :, None, None] & columns[:, None, :, None]


MIN_ALPHA, MAX_ALPHA = 0.001, 1000  # beyond these, λ is practically 0 or 1, or practically 1/2


@named_errors
def mixup(alpha: float = 0.2) -> BatchMixer:
    """Interpolate each image and its target linearly with those of a partner.

        y = λ·x + (1 − λ)·x[partner],    targets ← λ·targets + (1 − λ)·targets[partner],    λ ~ Beta(α, α)

    Partners are a random permutation of the batch, and each image has its own λ (in the paper's code, one per batch).

    Args:
        alpha: parameter of the Beta distribution; near 0 images are nearly unmixed, at 1 all λ are equally likely, and
            for large values λ is near 1/2. The paper uses 0.1 to 0.4 for ImageNet, and 1 for CIFAR-10.

    Raises:
        InputError: if ``alpha`` is not in [0.001, 1000], or (from the returned function) the targets have another
            shape.

    Source: Zhang et al., 2017, https://arxiv.org/abs/1710.09412.

    >>> images, targets = jnp.arange(2.).reshape(2, 1, 1, 1), jnp.eye(2)
    >>> y, mixed = jax.jit(mixup(1.0))(jax.random.key(1), images, targets)
    >>> bool((y.ravel() == mixed[:, 1]).all()), mixed.sum(1)
    (True, Array([1., 1.], dtype=float32))
    """
    check_range(MIN_ALPHA, MAX_ALPHA, alpha=alpha)

    @named_errors(name="mixup")
    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = validate_pair(images, targets)
        beta_key, partner_key = split_key(key, 2)
        partner = jax.random.permutation(partner_key, len(images))
        weight = jax.random.beta(beta_key, float(alpha), float(alpha), (len(images),), jnp.float32)
        return blend(images, partner, weight), blend(targets, partner, weight)

    return mix


def validate_pair(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both as jax arrays; raise InputError unless targets are floats ``(N, classes)``, one row per image."""
    images, targets = validate_images(images), checks.as_array(targets=targets)
    if targets.ndim != 2 or len(targets) != len(images):
        raise InputError(
            f"targets {targets.shape} should be (N, classes) for {len(images)} images: jax.nn.one_hot(label, classes)"
        )
    checks.floating_dtype(targets=targets)
    return images, targets


def blend(values: jax.Array, partner: jax.Array, weight: jax.Array) -> jax.Array:
    """Return ``weight·values + (1 − weight)·values[partner]``, computed in at least float32."""
    upcast = numerics.upcast(values)
    weight = weight.astype(upcast.dtype).reshape(-1, *(1,) * (upcast.ndim - 1))
    return (weight * upcast + (1 - weight) * upcast[partner]).astype(values.dtype)
