"""Two examples in one, and who is mixed with whom."""

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.data.augment.base import Mix, batch, keys, within
from jaxconv.errors import InputError

LEAST_ALPHA, MOST_ALPHA = 0.001, 1000  # beyond, every share is as good as whole, or as good as half


def mixup(alpha: float = 0.2) -> Mix:
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
    within("mixup", LEAST_ALPHA, MOST_ALPHA, alpha=alpha)

    def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        images, targets = pair("mixup", images, targets)
        share_key, partner_key = keys("mixup", key, 2)
        partner = jax.random.permutation(partner_key, len(images))
        share = jax.random.beta(share_key, float(alpha), float(alpha), (len(images),), jnp.float32)
        return blend(images, partner, share), blend(targets, partner, share)

    return mix


def pair(name: str, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Refuse targets that are no shares of classes, one row an image."""
    images, targets = batch(name, images), checks.array(name, "targets", targets)
    if targets.ndim != 2 or len(targets) != len(images):
        raise InputError(
            f"{name}: targets {targets.shape} should be (N, classes) for {len(images)} images: "
            "jax.nn.one_hot(label, classes)"
        )
    checks.floating(name, targets=targets)
    return images, targets


def blend(values: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
    """``share`` of each value and the rest of its partner's, in at least float32."""
    wide = checks.widened(values)
    own = share.astype(wide.dtype).reshape(-1, *(1,) * (wide.ndim - 1))
    return (own * wide + (1 - own) * wide[partner]).astype(values.dtype)
