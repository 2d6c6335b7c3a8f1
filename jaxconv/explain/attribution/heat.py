"""From what an attribution gives to what is shown: one number a pixel, not negative."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError
from jaxconv.shapes import Sizes, per_dimension


def to_heat(attribution: Any) -> jax.Array:
    """One number a pixel of one a value: ``heat[n, p] = max_c |a[n, p, c]|``, as Simonyan et al. show theirs.

    Args:
        attribution: ``(N, H, W, C)``.

    Returns:
        ``(N, H, W)``, not negative.

    >>> to_heat(jnp.array([[[[1., -3.], [0., 2.]]]]))
    Array([[[3., 2.]]], dtype=float32)
    """
    attribution = jnp.asarray(attribution)
    if attribution.ndim != 4:
        raise InputError(f"to_heat: an attribution {attribution.shape} should be (N, H, W, C), one number a value")
    return jnp.abs(attribution).max(axis=-1)


def enlarge_map(coarse: Any, size: Sizes) -> jax.Array:
    """A map of few places, such as Grad-CAM's, at the image's size: bilinear.

    Args:
        coarse: ``(N, h, w)``.
        size: ``(H, W)``, or one number for both.

    Returns:
        ``(N, H, W)``.

    >>> enlarge_map(jnp.array([[[0., 4.]]]), (1, 4))
    Array([[[0., 1., 3., 4.]]], dtype=float32)
    """
    coarse = jnp.asarray(coarse)
    if coarse.ndim != 3:
        raise InputError(f"enlarge_map: a map {coarse.shape} should be (N, h, w)")
    return jax.image.resize(coarse, (len(coarse), *per_dimension(size, 2, "size")), "bilinear")
