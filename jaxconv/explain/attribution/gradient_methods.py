"""What a small change of each pixel would do: the gradient, the gradient times the image, and the mean of many."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxconv import checks
from jaxconv.explain.attribution.targets import Asked, asked
from jaxconv.explain.scores import Score
from jaxconv.layers import Layer


def saliency(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    layer: str | None = None,
    score: Score | None = None,
) -> jax.Array:
    """The gradient of a class's logit by the image: ``a = ∂ f(x) / ∂ x``.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes (then the gradient is by pixels from 0 to 1) or floats.
        label: the class, one for all or ``(N,)``; by default the likeliest.
        layer, score: ask about something else than a class, such as a filter of a layer: ``score=strongest(3)``.

    Returns:
        ``(N, H, W, C)``; of each image the gradient of its own score.

    Raises:
        InputError: an output without classes and no score; a label outside the classes; an unknown layer; no image.

    Source: Simonyan et al., 2013, https://arxiv.org/abs/1312.6034.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> saliency(serial(flatten, Dense(2)), params, {}, jnp.ones((1, 1, 2, 1)), 0).ravel()
    Array([1., 3.], dtype=float32)
    """
    x, f = asked("saliency", model, params, state, images, label, layer=layer, score=score)
    return gradient(f, x)


def gradient_x_input(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    layer: str | None = None,
    score: Score | None = None,
) -> jax.Array:
    """What each pixel adds to a class's logit, were the network linear: ``a = x · ∂ f(x) / ∂ x``.

    Args, returns and errors are those of :func:`saliency`. Of a network of convolutions, relus and max pools without
    biases the sum is f(x).

    Source: Shrikumar et al., 2016, https://arxiv.org/abs/1605.01713.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> gradient_x_input(serial(flatten, Dense(2)), params, {}, jnp.full((1, 1, 2, 1), 0.5), 0).ravel()
    Array([0.5, 1.5], dtype=float32)
    """
    x, f = asked("gradient_x_input", model, params, state, images, label, layer=layer, score=score)
    return x * gradient(f, x)


def smooth_grad(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    label: Any = None,
    *,
    key: jax.Array,
    noise: float = 0.15,
    samples: int = 32,
    layer: str | None = None,
    score: Score | None = None,
) -> jax.Array:
    """The mean gradient of images with noise: ``a = mean_i ∂ f / ∂ x (x + σ·ε_i)``, ε normal.

    Args:
        model, params, state, images, label, layer, score: as in :func:`saliency`. The likeliest class is that of the
            image without noise.
        key: of the noise.
        noise: the standard deviation σ, as a share of each image's range, ``max x − min x``.
        samples: how many.

    Returns:
        ``(N, H, W, C)``.

    Raises:
        InputError: noise below 0, samples below 1, or what saliency refuses.

    Source: Smilkov et al., 2017, https://arxiv.org/abs/1706.03825.

    >>> from jaxconv import Dense, flatten, serial
    >>> params = {"dense1": {"kernel": jnp.array([[1., 2.], [3., 4.]]), "bias": jnp.zeros(2)}}
    >>> x = jnp.ones((1, 1, 2, 1))
    >>> smooth_grad(serial(flatten, Dense(2)), params, {}, x, 1, key=jax.random.key(0), samples=2).ravel()
    Array([2., 4.], dtype=float32)
    """
    checks.number("smooth_grad", "noise", noise, least=0)
    checks.whole("smooth_grad", 1, samples=samples)
    x, f = asked("smooth_grad", model, params, state, images, label, layer=layer, score=score)
    axes = tuple(range(1, x.ndim))
    deviation = noise * (x.max(axis=axes, keepdims=True) - x.min(axis=axes, keepdims=True))

    def add(total: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
        return total + gradient(f, x + deviation * jax.random.normal(key, x.shape, x.dtype)), None

    total, _ = jax.lax.scan(add, jnp.zeros_like(x), jax.random.split(key, samples))
    return total / samples


def gradient(f: Asked, x: jax.Array) -> jax.Array:
    """Of each image the gradient of its own number: no image has a part in another's."""
    return jax.grad(lambda x: f(x).sum())(x)
