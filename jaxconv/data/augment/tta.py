"""Test-time augmentation (TTA): views of an image whose predictions are averaged."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.data.augment.base import validate_images
from jaxconv.data.augment.geometric import pad_images
from jaxconv.errors import named_errors
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def test_time_views(
    flip: bool = True, translate: IntOrInts = 0, *, padding_mode: str = "zeros"
) -> Callable[[jax.Array], jax.Array]:
    """Return a function from images to views ``(V, N, H, W, C)`` for test-time augmentation.

        p(class | x) = mean_v softmax(logits(view_v(x)))

    The first view is the image itself. ``translate`` adds the four diagonal translations, and ``flip`` adds the
    mirror image of each view: 10 views together, as in Krizhevsky et al. The views are deterministic, unlike those of
    ConvNetJS, which draws six at random.

    Args:
        flip: include mirrored views.
        translate: distance in pixels; an int, or two for height and width.
        padding_mode: values outside of the image, as in :func:`jaxconv.data.augment.random_translation`.

    Raises:
        InputError: if ``flip`` is not True or False, ``padding_mode`` is unknown, or (while tracing) ``translate`` is
            not smaller than the image.

    Source: Krizhevsky et al., 2012, https://papers.nips.cc/paper/4824, section 4.1; lecture row 004-13.

    >>> x = jnp.arange(3.).reshape(1, 1, 3, 1)
    >>> test_time_views(translate=(0, 1))(x)[:, 0, 0, :, 0].astype(int).tolist()
    [[0, 1, 2], [1, 2, 0], [0, 0, 1], [2, 1, 0], [0, 2, 1], [1, 0, 0]]
    """
    checks.boolean("flip", flip)
    rows, columns = shift = canonicalize_sizes(translate, 2, "translate", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)
    corners = [(a, b) for a in (2 * rows, 0) for b in (2 * columns, 0)]
    offsets = list(dict.fromkeys([(rows, columns), *corners]))  # without duplicates

    @named_errors(name="test_time_views")
    def make_views(images: jax.Array) -> jax.Array:
        images = validate_images(images)
        padded = pad_images(images, shift, padding_mode)
        height, width = images.shape[1:3]
        views = jnp.stack([padded[:, a : a + height, b : b + width] for a, b in offsets])
        return jnp.concatenate([views, views[:, :, :, ::-1]]) if flip else views

    return make_views
