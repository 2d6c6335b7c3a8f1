"""Several views of an image, whose predictions are averaged."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.data.augment.base import batch
from jaxconv.data.augment.geometric import padded
from jaxconv.errors import named_errors
from jaxconv.ops.convolution.api import PADDING_MODES
from jaxconv.shapes import IntOrInts, canonicalize_sizes


@named_errors
def test_time_views(
    flip: bool = True, translate: IntOrInts = 0, *, padding_mode: str = "zeros"
) -> Callable[[jax.Array], jax.Array]:
    """Views ``(V, N, H, W, C)`` of each image to average predictions over: what training varies, testing averages.

        p(class | x) = mean_v softmax(logits(view_v(x)))

    The first is the image itself. With ``translate`` come the four that are moved by so much along both diagonals, and
    with ``flip`` all of them mirrored too: 10 views, as Krizhevsky takes them. ConvNetJS draws six at random;
    these are always the same.

    Args:
        flip: whether mirrored views are among them.
        translate: pixels; an int, or two for height and width.
        padding_mode: what moves in from outside, as in :func:`jaxconv.data.augment.random_translation`.

    Raises:
        InputError: a flip that is not True or False, an unknown padding_mode, or (while tracing) a shift as large as
            the image.

    Source: Krizhevsky et al., 2012, https://papers.nips.cc/paper/4824, section 4.1; lecture row 004-13.

    >>> x = jnp.arange(3.).reshape(1, 1, 3, 1)
    >>> test_time_views(translate=(0, 1))(x)[:, 0, 0, :, 0].astype(int).tolist()
    [[0, 1, 2], [1, 2, 0], [0, 0, 1], [2, 1, 0], [0, 2, 1], [1, 0, 0]]
    """
    checks.boolean("flip", flip)
    rows, columns = most = canonicalize_sizes(translate, 2, "translate", minimum=0)
    checks.one_of("padding_mode", padding_mode, PADDING_MODES)
    corners = [(a, b) for a in (2 * rows, 0) for b in (2 * columns, 0)]
    places = list(dict.fromkeys([(rows, columns), *corners]))  # those that are the same once

    @named_errors(name="test_time_views")
    def views(images: jax.Array) -> jax.Array:
        images = batch(images)
        around = padded(images, most, padding_mode)
        height, width = images.shape[1:3]
        seen = jnp.stack([around[:, a : a + height, b : b + width] for a, b in places])
        return jnp.concatenate([seen, seen[:, :, :, ::-1]]) if flip else seen

    return views
