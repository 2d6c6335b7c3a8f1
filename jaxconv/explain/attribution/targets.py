"""Targets of attributions: the one number of the network's output that is differentiated or compared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_images, check_layer
from jaxconv.layers import Layer
from jaxconv.layers.traversal import Interceptor, intercept

Asked = Callable[[jax.Array], jax.Array]  # of images (N, H, W, C), one number an image, (N,)


TargetFn = Callable[[jax.Array], jax.Array]  # of a layer's output (N, …), one number an image, (N,)


def target_function(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    target: Any = None,
    *,
    layer: str | None = None,
    target_fn: TargetFn | None = None,
    visit: Interceptor = lambda path, layer, x, apply: apply(x),
    of_logits: Callable[[jax.Array], jax.Array] = lambda logits: logits,
) -> tuple[jax.Array, Asked]:
    """The images as floats, and what is asked about them as a function of them.

    The class is settled once, by the images as they are: it is the same for all that is made of them, with noise or
    with a patch on them.

    Args:
        model, params, state, images: the network and its images.
        target: the class, one for all or ``(N,)``; by default the likeliest.
        layer: whose output the score is of; by default the last one's.
        target_fn: instead of a class, a number an image of the layer's output.
        visit: how each layer is computed, as in :func:`jaxconv.layers.traversal.intercept`.
        of_logits: what to ask about of a class, its logit by default; a score is taken as it is.
    """
    x = check_images(images)
    if layer is not None:
        check_layer(model, layer)

    def output(x: jax.Array) -> jax.Array:
        found: dict[str, jax.Array] = {}

        def keep(path: str, part: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            found[path] = y = visit(path, part, x, apply)
            return y

        y = intercept(model, params, state, x, keep)
        return y if layer is None else found[layer]

    if target_fn is not None:
        return x, lambda x: select_scores(output(x), target, target_fn)
    y = output(x)
    select_scores(y, target)
    settled = resolve_target(y, target)
    return x, lambda x: select_scores(of_logits(output(x)), settled)


def check_pictures(images: Any) -> jax.Array:
    """A batch of images with two dimensions, as floats."""
    x = check_images(images)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    return x


def max_activation(channel: int) -> TargetFn:
    """The score of one filter of a layer: its strongest answer anywhere in the image.

    Args:
        channel: the filter's number.

    >>> max_activation(1)(jnp.array([[[[1., 5.]], [[9., 7.]]]]))
    Array([7.], dtype=float32)
    """

    @named_errors(name="max_activation")
    def score(y: jax.Array) -> jax.Array:
        if y.ndim < 2 or not 0 <= channel < y.shape[-1]:
            raise InputError(f"channel {channel} is none of the {y.shape[-1]} of {y.shape}")
        return y[..., channel].reshape(len(y), -1).max(axis=1)

    return score


def select_scores(y: jax.Array, target: Any = None, target_fn: TargetFn | None = None) -> jax.Array:
    """What is asked about of an output ``(N, …)``, one number an image: the logit of a class, or what ``target_fn``
    makes.

    Raises:
        InputError: an output that is no row of classes, and no score; a label outside the classes.

    >>> select_scores(jnp.array([[1., 3.], [5., 4.]])), select_scores(jnp.array([[1., 3.], [5., 4.]]), 0)
    (Array([3., 5.], dtype=float32), Array([1., 5.], dtype=float32))
    """
    if target_fn is not None:
        if target is not None:
            raise InputError("label and score both say what to ask about: give one")
        picked = target_fn(y)
        if picked.shape != y.shape[:1]:
            raise InputError(f"score makes {picked.shape} of {y.shape}; one number an image is wanted")
        return picked
    if y.ndim != 2 or y.shape[1] < 2:
        raise InputError(
            f"an output {y.shape} has no scores of classes; say what to ask about, with a score that makes "
            "one number an image of it: target_fn=lambda y: y[:, 0], or explain.max_activation(channel)"
        )
    return jnp.take_along_axis(y, resolve_target(y, target)[:, None], axis=1)[:, 0]


def resolve_target(logits: jax.Array, target: Any = None) -> jax.Array:
    """The class that is asked about of each image, ``(N,)``: the label, checked, or the likeliest."""
    if target is None:
        return jnp.argmax(logits, axis=1)
    given, target = target, jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape not in ((), (len(logits),)):
        raise InputError(
            f"label {target.dtype}{target.shape} should be a class number, or one for each of the {len(logits)} images"
        )
    checks.known_classes(given, logits.shape[1])
    return jnp.broadcast_to(checks.class_numbers(target, logits.shape[1]), len(logits))
