"""Targets of attributions: the scalar per image that is differentiated or compared."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_images, check_layer
from jaxconv.layers import Layer
from jaxconv.layers.traversal import Interceptor, intercept

ImageFn = Callable[[jax.Array], jax.Array]  # images (N, H, W, C) -> one number per image, (N,)
TargetFn = Callable[[jax.Array], jax.Array]  # output of a layer (N, …) -> one number per image, (N,)


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
) -> tuple[jax.Array, ImageFn]:
    """Return the images as floats, and the target as a function of images.

    The class is determined once, for the unmodified images. It stays the same for noisy or occluded images.

    Args:
        model, params, state, images: the network and its images.
        target: target class, one for all images or ``(N,)``; by default the predicted class.
        layer: layer whose output is passed to ``target_fn``; by default the last one.
        target_fn: function that replaces the class: output of the layer to one number per image.
        visit: interceptor that computes each layer, as in :func:`jaxconv.layers.traversal.intercept`.
        of_logits: function applied to the logits before the class is selected; not used with ``target_fn``.
    """
    x = check_images(images)
    if layer is not None:
        check_layer(model, layer)

    def output(x: jax.Array) -> jax.Array:
        outputs: dict[str, jax.Array] = {}

        def record(path: str, child: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
            outputs[path] = y = visit(path, child, x, apply)
            return y

        y = intercept(model, params, state, x, record)
        return y if layer is None else outputs[layer]

    if target_fn is not None:
        return x, lambda x: select_scores(output(x), target, target_fn)
    y = output(x)
    select_scores(y, target)
    fixed_target = resolve_target(y, target)
    return x, lambda x: select_scores(of_logits(output(x)), fixed_target)


def check_nhwc_images(images: Any) -> jax.Array:
    """Return a batch of images ``(N, H, W, C)`` as floats, or raise InputError."""
    x = check_images(images)
    if x.ndim != 4:
        raise InputError(f"images {x.shape} should be (N, H, W, C)")
    return x


def max_activation(channel: int) -> TargetFn:
    """Return a target function: the maximum activation of one channel over all positions.

    Args:
        channel: channel index.

    >>> max_activation(1)(jnp.array([[[[1., 5.]], [[9., 7.]]]]))
    Array([7.], dtype=float32)
    """

    @named_errors(name="max_activation")
    def score(y: jax.Array) -> jax.Array:
        if y.ndim < 2 or not 0 <= channel < y.shape[-1]:
            raise InputError(f"channel must be a channel index of the output {y.shape}, got {channel}")
        return y[..., channel].reshape(len(y), -1).max(axis=1)

    return score


def select_scores(y: jax.Array, target: Any = None, target_fn: TargetFn | None = None) -> jax.Array:
    """Select one number per image from an output ``(N, …)``: the logit of the target class, or ``target_fn(y)``.

    Raises:
        InputError: if the output is not ``(N, num_classes)`` and there is no ``target_fn``, a target is not a class
            index, or both ``target`` and ``target_fn`` are given.

    >>> select_scores(jnp.array([[1., 3.], [5., 4.]])), select_scores(jnp.array([[1., 3.], [5., 4.]]), 0)
    (Array([3., 5.], dtype=float32), Array([1., 5.], dtype=float32))
    """
    if target_fn is not None:
        if target is not None:
            raise InputError("give either target or target_fn, not both")
        scores = target_fn(y)
        if scores.shape != y.shape[:1]:
            raise InputError(
                f"target_fn must return one number per image, {y.shape[:1]}, got {scores.shape} from {y.shape}"
            )
        return scores
    if y.ndim != 2 or y.shape[1] < 2:
        raise InputError(
            f"the output {y.shape} has no class scores (N, num_classes); pass a target_fn that returns one number per "
            "image, such as lambda y: y[:, 0] or explain.max_activation(channel)"
        )
    return jnp.take_along_axis(y, resolve_target(y, target)[:, None], axis=1)[:, 0]


def resolve_target(logits: jax.Array, target: Any = None, name: str = "target") -> jax.Array:
    """Return the target class of each image, ``(N,)``: the given class, checked, or the predicted one."""
    if target is None:
        return jnp.argmax(logits, axis=1)
    original, target = target, jnp.asarray(target)
    if not jnp.issubdtype(target.dtype, jnp.integer) or target.shape not in ((), (len(logits),)):
        raise InputError(
            f"{name} must be a class index or ({len(logits)},) class indices, got {target.dtype}{target.shape}"
        )
    checks.known_classes(original, logits.shape[1])
    return jnp.broadcast_to(checks.class_numbers(target, logits.shape[1]), len(logits))
