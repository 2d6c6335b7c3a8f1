"""Augmentations that erase a rectangle or mix two examples: cutout, mixup and CutMix."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.data.augment.base import Augment, BatchMixer, batch, keys, within
from jaxconv.errors import InputError, named_errors
from jaxconv.ops import numerics
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def cutout(size: IntOrInts = 8) -> Augment:
    """Set a square of each image to zero: ``y[n, i, j] = 0`` where ``−size/2 ≤ i − a, j − b < size/2``.

    Its centre is any pixel, as likely as every other, so that near the border a part of the square is outside and
    less than its area is lost: the paper found that this matters. Zero is black here; in the paper, whose images
    have a mean of zero, it is the mean.

    Args:
        size: of the square; an int, or two for height and width. The paper takes 16 for CIFAR-10, 8 for CIFAR-100.

    Raises:
        InputError: (while tracing) a square larger than the image.

    Source: DeVries & Taylor, 2017, https://arxiv.org/abs/1708.04552.

    >>> cutout((1, 2))(jax.random.key(0), jnp.ones((1, 1, 4, 1))).ravel()
    Array([1., 1., 0., 0.], dtype=float32)
    """
    sizes = canonicalize_sizes(size, 2, "size")

    @named_errors(name="cutout")
    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        images = batch(images)
        count, height, width, _ = images.shape
        if sizes[0] > height or sizes[1] > width:
            raise InputError(f"size {sizes} is larger than the image, {images.shape[1:3]}")
        box = _boxes(keys(key, 2), images, *(jnp.full(count, n) for n in sizes))
        return jnp.where(box, jnp.zeros((), images.dtype), images)

    return augment


@named_errors
def cutmix(alpha: float = 1.0) -> BatchMixer:
    """Put a rectangle of another image into each, and mix their targets by what is seen of the two.

        y = x[partner] in the box, x around it;    targets ← λ·targets + (1 − λ)·targets[partner]

    The box has the image's proportions and the area ``1 − Λ``, with Λ ~ Beta(α, α), before it is rounded to pixels
    and cut off at the border; λ is what is left of the image, to the pixel. Partners are a random permutation of
    the batch, and every image has its own box (the paper's code has one a batch).

    Args:
        alpha: 1 in the paper, every area as likely; smaller for boxes that are tiny or nearly everything.

    Raises:
        InputError: as :func:`mixup`.

    Source: Yun et al., 2019, https://arxiv.org/abs/1905.04899.

    >>> images, targets = jnp.zeros((2, 4, 4, 1)).at[1].set(1), jnp.eye(2)
    >>> y, shares = jax.jit(cutmix())(jax.random.key(3), images, targets)
    >>> y.mean((1, 2, 3)).tolist() == shares[:, 1].tolist()
    True
    """
    within(LEAST_ALPHA, MOST_ALPHA, alpha=alpha)

    @named_errors(name="cutmix")
    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = pair(images, targets)
        share_key, partner_key, *places = keys(key, 4)
        partner = jax.random.permutation(partner_key, len(images))
        side = jnp.sqrt(1 - jax.random.beta(share_key, float(alpha), float(alpha), (len(images),), jnp.float32))
        box = _boxes(places, images, *((n * side).astype(int) for n in images.shape[1:3]))
        share = 1 - box.mean((1, 2, 3), dtype=jnp.float32)
        return jnp.where(box, images[partner], images), blend(targets, partner, share)

    return mix


def _boxes(keys: Sequence[jax.Array] | jax.Array, images: jax.Array, *sizes: jax.Array) -> jax.Array:
    """Where a box of each image's own size is, about a random pixel: ``(N, H, W, 1)``."""
    inside = []
    for key, size, n in zip(keys, sizes, images.shape[1:3], strict=True):
        first = jax.random.randint(key, (len(images),), 0, n) - size // 2
        place = jnp.arange(n)[None, :]
        inside.append((place >= first[:, None]) & (place < (first + size)[:, None]))
    rows, columns = inside
    return rows[:, :, None, None] & columns[:, None, :, None]


LEAST_ALPHA, MOST_ALPHA = 0.001, 1000  # beyond, every share is as good as whole, or as good as half


@named_errors
def mixup(alpha: float = 0.2) -> BatchMixer:
    """Lay each image over another one, and their targets likewise: straight lines between examples.

        y = λ·x + (1 − λ)·x[partner],    targets ← λ·targets + (1 − λ)·targets[partner],    λ ~ Beta(α, α)

    Partners are a random permutation of the batch, and every image has its own λ (the paper's code has one a batch).

    Args:
        alpha: near 0 an image is nearly alone, at 1 every share is as likely, and the larger the nearer to halves.
            The paper takes 0.1 to 0.4 for ImageNet, and 1 for CIFAR-10.

    Raises:
        InputError: an alpha that is not from 0.001 to 1000, or (from the function) targets of another shape.

    Source: Zhang et al., 2017, https://arxiv.org/abs/1710.09412.

    >>> images, targets = jnp.arange(2.).reshape(2, 1, 1, 1), jnp.eye(2)
    >>> y, shares = jax.jit(mixup(1.0))(jax.random.key(1), images, targets)
    >>> bool((y.ravel() == shares[:, 1]).all()), shares.sum(1)
    (True, Array([1., 1.], dtype=float32))
    """
    within(LEAST_ALPHA, MOST_ALPHA, alpha=alpha)

    @named_errors(name="mixup")
    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = pair(images, targets)
        share_key, partner_key = keys(key, 2)
        partner = jax.random.permutation(partner_key, len(images))
        share = jax.random.beta(share_key, float(alpha), float(alpha), (len(images),), jnp.float32)
        return blend(images, partner, share), blend(targets, partner, share)

    return mix


def pair(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Refuse targets that are no shares of classes, one row an image."""
    images, targets = batch(images), checks.as_array(targets=targets)
    if targets.ndim != 2 or len(targets) != len(images):
        raise InputError(
            f"targets {targets.shape} should be (N, classes) for {len(images)} images: jax.nn.one_hot(label, classes)"
        )
    checks.floating_dtype(targets=targets)
    return images, targets


def blend(values: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
    """``share`` of each value and the rest of its partner's, in at least float32."""
    wide = numerics.upcast(values)
    own = share.astype(wide.dtype).reshape(-1, *(1,) * (wide.ndim - 1))
    return (own * wide + (1 - own) * wide[partner]).astype(values.dtype)
