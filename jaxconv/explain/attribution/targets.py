"""What all attributions have in common: the number that is asked about, as a function of the images."""

from collections.abc import Callable
from typing import Any

import jax

from jaxconv.errors import InputError
from jaxconv.explain.intermediates import check_images, check_layer
from jaxconv.explain.scores import Score, chosen, classes
from jaxconv.layers import Layer
from jaxconv.layers.traversal import Visit, walk

Asked = Callable[[jax.Array], jax.Array]  # of images (N, H, W, C), one number an image, (N,)


def asked(
    function: str,
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    layer: str | None = None,
    score: Score | None = None,
    visit: Visit = lambda path, layer, x, apply: apply(x),
    of_logits: Callable[[jax.Array], jax.Array] = lambda logits: logits,
) -> tuple[jax.Array, Asked]:
    """The images as floats, and what is asked about them as a function of them.

    The class is settled once, by the images as they are: it is the same for all that is made of them, with noise or
    with a patch on them.

    Args:
        function: who asks, for errors.
        model, params, state, images: the network and its images.
        label: the class, one for all or ``(N,)``; by default the likeliest.
        layer: whose output the score is of; by default the last one's.
        score: instead of a class, a number an image of the layer's output.
        visit: how each layer is computed, as in :func:`jaxconv.layers.traversal.walk`.
        of_logits: what to ask about of a class, its logit by default; a score is taken as it is.
    """
    x = check_images(function, images)
    if layer is not None:
        check_layer(function, model, layer)

    def output(x: jax.Array) -> jax.Array:
        found: dict[str, jax.Array] = {}

        def keep(path: str, part: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            found[path] = y = visit(path, part, x, apply)
            return y

        y = walk(model, params, state, x, keep)
        return y if layer is None else found[layer]

    if score is not None:
        return x, lambda x: chosen(function, output(x), label, score)
    y = output(x)
    chosen(function, y, label)
    settled = classes(function, y, label)
    return x, lambda x: chosen(function, of_logits(output(x)), settled)


def check_pictures(function: str, images: Any) -> jax.Array:
    """A batch of images with two dimensions, as floats."""
    x = check_images(function, images)
    if x.ndim != 4:
        raise InputError(f"{function}: images {x.shape} should be (N, H, W, C)")
    return x
