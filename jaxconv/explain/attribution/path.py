"""Gradients gathered along the way from an image of nothing to the image."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.explain.attribution.gradient_methods import gradient
from jaxconv.explain.attribution.targets import asked
from jaxconv.explain.scores import Score
from jaxconv.layers import Layer


class Integrated(NamedTuple):
    """What :func:`integrated_gradients` found.

    Attributes:
        attribution: what each value of the image adds, ``(N, H, W, C)``.
        difference: what they should add up to, ``f(x) − f(baseline)``, ``(N,)``.
        gap: how far they do not, as a share of the difference, ``(N,)``; of a difference of 0, as it is.
    """

    attribution: jax.Array
    difference: jax.Array
    gap: jax.Array


def integrated_gradients(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    baseline: Any = 0.0,
    steps: int = 128,
    layer: str | None = None,
    score: Score | None = None,
) -> Integrated:
    """What each pixel adds to a class's logit on the way from a baseline b: the parts add up to ``f(x) − f(b)``.

    ``a = (x − b) · ∫₀¹ ∂ f / ∂ x (b + t·(x − b)) dt``, the integral as a mean at ``t = (k + ½) / steps``.

    Args:
        model, params, state, images, label, layer, score: as in :func:`jaxconv.explain.saliency`. The likeliest class
            is that of the image.
        baseline: the image of nothing: a number, an image ``(H, W, C)``, or one for each.
        steps: how many points on the way. (With 128 the gap of 200 images of MNIST was below 0.8 %, with 64 below 2 %.)

    Returns:
        An :class:`Integrated`, whose ``gap`` tells whether there were steps enough.

    Raises:
        InputError: a baseline of another shape, steps below 1, or what saliency refuses.

    Source: Sundararajan et al., 2017, https://arxiv.org/abs/1703.01365.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> found = integrated_gradients(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0)
    >>> found.attribution.ravel(), found.difference
    (Array([0.5, 1.5], dtype=float32), Array([2.], dtype=float32))
    """
    checks.whole("integrated_gradients", 1, steps=steps)
    x, f = asked("integrated_gradients", model, params, state, images, label, layer=layer, score=score)
    baseline = checks.array("integrated_gradients", "baseline", baseline).astype(x.dtype)
    if baseline.shape not in ((), x.shape[1:], x.shape):
        raise InputError(
            f"integrated_gradients: baseline {baseline.shape} should be a number, one image {x.shape[1:]}, "
            f"or one for each, {x.shape}"
        )
    # Behind a barrier, or XLA would compute the network of a constant baseline while it compiles, slowly.
    baseline = jax.lax.optimization_barrier(jnp.broadcast_to(baseline, x.shape))
    way = x - baseline

    def add(total: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(f, baseline + t * way), None

    middles = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps
    total, _ = jax.lax.scan(add, jnp.zeros_like(x), middles)
    attribution = way * total / steps
    difference = f(x) - f(baseline)
    missed = jnp.abs(attribution.reshape(len(x), -1).sum(axis=1) - difference)
    return Integrated(attribution, difference, missed / jnp.where(difference == 0, 1, jnp.abs(difference)))
