"""The style of a picture: which features of a network occur together in it, wherever they do."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.intermediates import check_layer, feature_maps
from jaxconv.layers import Layer, as_layer
from jaxconv.runtime import compiler_options
from jaxconv.train import to_float


class Styled(NamedTuple):
    """A picture with the content of one and the style of another, and how far it is from both: 0 is not at all."""

    image: jax.Array  # (H, W, C), from 0 to 1
    content: float  # of its features from the content's, which is itself 0 away
    style: float  # of its Gram matrices from the style's
    style_before: float  # of the content's


@named_errors
def gram(maps: Float[Array, "n *spatial c"]) -> Float[Array, "n c c"]:
    """How often each pair of features is there together: ``G[n, i, j] = 1/P Σ_p maps[n, p, i] · maps[n, p, j]``.

    The sum is over all P places, so it tells what is in a picture and not where: its texture.

    Args:
        maps: what a layer makes of a batch, channels last, with one spatial dimension or more.

    Raises:
        InputError: there is no spatial dimension, or no place in it.

    Source: Gatys et al., 2015, https://arxiv.org/abs/1508.06576, there without the 1/P, which makes pictures of
    different sizes comparable; lecture row 002-01.

    >>> gram(jnp.array([[[1., 0.], [1., 2.]]]))                          # two places, two features
    Array([[[1., 1.],
            [1., 2.]]], dtype=float32)
    """
    if maps.ndim < 3 or 0 in maps.shape:
        raise InputError(f"maps {maps.shape} should be a layer's (N, *spatial, C), with at least one place")
    flat = maps.reshape(maps.shape[0], -1, maps.shape[-1])
    return jnp.einsum("npi,npj->nij", flat, flat, precision="highest") / flat.shape[1]


@named_errors
def style_transfer(
    model: Layer,
    params: Any,
    state: Any,
    content: Any,
    style: Any,
    *,
    content_layer: str,
    style_layers: Sequence[str],
    style_weight: float = 1.0,
    smoothing: float = 0.0,
    scales: int = 1,
    steps: int = 200,
    learning_rate: float = 0.02,
) -> Styled:
    """Paint the content of one picture in the style of another.

    Adam moves the pixels of x, from the content on, to make small

        ‖F(x) − F(content)‖² / ‖F(content)‖²  +  style_weight · 1/L Σ_l ‖G_l(x) − G_l(style)‖² / ‖G_l(style)‖²

    where F is what the content's layer makes of a picture, and G_l the Gram matrix (:func:`gram`) of the l-th of the
    style's L layers. Each part is divided by its own length, so that it has no unit, whatever the network.

    Args:
        model, params, state: the network whose features are used. It should take pictures of any size: leave off what
            follows its convolutions, if that does not.
        content, style: pictures, bytes or floats from 0 to 1; their sizes may differ.
        content_layer: a layer's name; a later one keeps less of the pixels and more of what is in the picture.
        style_layers: names; later ones hold larger pieces of the texture.
        style_weight: of the style against the content.
        smoothing: the weight of the mean squared difference of neighbouring pixels, against speckles.
        scales: begin with both pictures halved ``scales − 1`` times, and go on from the enlarged result: a piece of
            texture that a layer can see covers more of a small picture.
        steps: of Adam at each scale.
        learning_rate: how far a step moves a pixel, about.

    Returns:
        The picture, and both parts of the sum without their weights.

    Raises:
        InputError: an unknown layer, pictures that do not fit, or an option out of range.

    Source: Gatys et al., 2015, https://arxiv.org/abs/1508.06576; lecture row 002-01.

    >>> from jaxconv import models
    >>> model, (content, style) = models.small_cnn(), jax.random.uniform(jax.random.key(0), (2, 12, 9, 3))
    >>> params, state = model.init(jax.random.key(1), (12, 9, 3))
    >>> made = style_transfer(model, params, state, content, style, content_layer="relu3",
    ...     style_layers=("relu1", "relu2"), steps=50)
    >>> made.image.shape, made.style < 0.5 * made.style_before
    ((12, 9, 3), True)
    """
    names = (content_layer, *style_layers)
    for name in names:
        check_layer(model, name)
    if not style_layers:
        raise InputError("style_layers=() names none: give at least one layer")
    checks.at_least(1, scales=scales, steps=steps)
    checks.real("learning_rate", learning_rate, above=0)
    checks.real("style_weight", style_weight, minimum=0)
    checks.real("smoothing", smoothing, minimum=0)
    content, style = to_float(content), to_float(style)
    for name, picture in {"content": content, "style": style}.items():
        if picture.ndim != 3 or picture.shape[-1] != content.shape[-1] or picture.dtype != jnp.float32:
            raise InputError(
                f"{name} {picture.dtype}{picture.shape} should be one picture (H, W, C), bytes or float32, "
                "with as many channels as the other"
            )
        if min(picture.shape[:2]) < 2**scales:
            raise InputError(f"{name} {picture.shape} is too small for scales={scales}: take fewer")
    model, optimizer = as_layer(model), optax.adam(learning_rate)

    def look(image: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """F and all G of a picture."""
        maps = feature_maps(model, params, state, image[None], layers=tuple(dict.fromkeys(names)))
        return maps[content_layer], [gram(maps[name]) for name in style_layers]

    def far(x: jax.Array, features: jax.Array, grams: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Both parts of the sum."""
        own, others = look(x)
        return _apart(own, features), jnp.mean(jnp.stack(jax.tree.map(_apart, others, grams)))

    def loss(x: jax.Array, features: jax.Array, grams: list[jax.Array]) -> jax.Array:
        content_part, style_part = far(x, features, grams)
        rough = jnp.mean(jnp.diff(x, axis=0) ** 2) + jnp.mean(jnp.diff(x, axis=1) ** 2)
        return content_part + style_weight * style_part + smoothing * rough

    @partial(jax.jit, compiler_options=compiler_options())
    def paint(x: jax.Array, content: jax.Array, style: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        wanted = look(content)[0], look(style)[1]

        def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
            x, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(x, *wanted), moments)
            return (jnp.clip(x + updates, 0, 1), moments), None

        (x, _), _ = jax.lax.scan(step, (x, optimizer.init(x)), length=steps)
        return x, *far(x, *wanted), far(content, *wanted)[1]

    x = content
    for halvings in reversed(range(scales)):
        small = [_resized(picture, [n // 2**halvings for n in picture.shape[:2]]) for picture in (content, style)]
        x, *parts = paint(_resized(x, small[0].shape[:2]), *small)
    return Styled(x, *map(float, parts))


def _apart(x: jax.Array, wanted: jax.Array) -> jax.Array:
    """How far x is from what is wanted, as a share of how much of that there is."""
    return jnp.sum((x - wanted) ** 2) / (jnp.sum(wanted**2) + 1e-12)


def _resized(image: jax.Array, size: Sequence[int]) -> jax.Array:
    return jnp.clip(jax.image.resize(image, (*size, image.shape[-1]), "cubic"), 0, 1)
