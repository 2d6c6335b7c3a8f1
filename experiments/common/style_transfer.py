"""Neural style transfer: match the features of one image and the Gram matrices of another."""

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


class StyleTransferResult(NamedTuple):
    """The resulting image, and its relative squared distances from the content and the style; 0 means equal."""

    image: jax.Array  # (H, W, C), from 0 to 1
    content: float  # distance of the features from those of the content image
    style: float  # distance of the Gram matrices from those of the style image
    style_before: float  # the same distance for the content image


@named_errors
def gram(maps: Float[Array, "n *spatial c"]) -> Float[Array, "n c c"]:
    """Compute the Gram matrix of feature maps: ``G[n, i, j] = 1/P Σ_p maps[n, p, i] · maps[n, p, j]``.

    The mean over all P positions measures which features occur together, independently of position: the texture.

    Args:
        maps: activations of a layer, channels last, with at least one spatial axis.

    Raises:
        InputError: if there is no spatial axis, or an axis is empty.

    Source: Gatys et al., 2015, https://arxiv.org/abs/1508.06576, without the factor 1/P, which makes images
    of different sizes comparable; lecture row 002-01.

    >>> gram(jnp.array([[[1., 0.], [1., 2.]]]))                          # two positions, two features
    Array([[[1., 1.],
            [1., 2.]]], dtype=float32)
    """
    if maps.ndim < 3 or 0 in maps.shape:
        raise InputError(
            f"maps {maps.shape} should be (N, *spatial, C), with at least one spatial axis and no empty axis"
        )
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
) -> StyleTransferResult:
    """Render the content of one image in the style of another.

    Adam minimizes over the pixels of x, starting from the content image,

        ‖F(x) − F(content)‖² / ‖F(content)‖²  +  style_weight · 1/L Σ_l ‖G_l(x) − G_l(style)‖² / ‖G_l(style)‖²

    where F is the activation of the content layer, and G_l the Gram matrix (:func:`gram`) of the l-th of L style
    layers. Each term is divided by its squared norm, so it is dimensionless and comparable between networks.

    Args:
        model, params, state: network whose features are used. It should accept images of any size: remove the layers
            after its convolutions otherwise.
        content, style: images, uint8 or floats from 0 to 1; their sizes may differ.
        content_layer: layer name; later layers keep fewer pixel details and more of the depicted objects.
        style_layers: layer names; later layers represent larger pieces of texture.
        style_weight: weight of the style term relative to the content term.
        smoothing: weight of the mean squared difference of neighboring pixels, which suppresses speckles.
        scales: number of resolutions. Start with both images halved ``scales − 1`` times, and continue from the
            upsampled result: a receptive field covers more of a small image.
        steps: steps of Adam at each scale.
        learning_rate: approximate change of a pixel per step.

    Returns:
        The image, and both terms without their weights.

    Raises:
        InputError: if a layer is unknown, the images do not match, or an option is out of range.

    Source: Gatys et al., 2015, https://arxiv.org/abs/1508.06576; lecture row 002-01.

    >>> from jaxconv import models
    >>> model, (content, style) = models.small_cnn(), jax.random.uniform(jax.random.key(0), (2, 12, 9, 3))
    >>> params, state = model.init(jax.random.key(1), (12, 9, 3))
    >>> result = style_transfer(model, params, state, content, style, content_layer="relu3",
    ...     style_layers=("relu1", "relu2"), steps=50)
    >>> result.image.shape, result.style < 0.5 * result.style_before
    ((12, 9, 3), True)
    """
    names = (content_layer, *style_layers)
    for name in names:
        check_layer(model, name)
    if not style_layers:
        raise InputError("style_layers is empty: give at least one layer")
    checks.at_least(1, scales=scales, steps=steps)
    checks.real("learning_rate", learning_rate, above=0)
    checks.real("style_weight", style_weight, minimum=0)
    checks.real("smoothing", smoothing, minimum=0)
    content, style = to_float(content), to_float(style)
    for name, image in {"content": content, "style": style}.items():
        if image.ndim != 3 or image.shape[-1] != content.shape[-1] or image.dtype != jnp.float32:
            raise InputError(
                f"{name} {image.dtype}{image.shape} should be one image (H, W, C), uint8 or float32, "
                "with as many channels as the other image"
            )
        if min(image.shape[:2]) < 2**scales:
            raise InputError(f"{name} {image.shape} is too small for scales={scales}: use fewer scales")
    model, optimizer = as_layer(model), optax.adam(learning_rate)

    def extract(image: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """Return F and all G_l of an image."""
        maps = feature_maps(model, params, state, image[None], layers=tuple(dict.fromkeys(names)))
        return maps[content_layer], [gram(maps[name]) for name in style_layers]

    def distances(x: jax.Array, features: jax.Array, grams: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Return the content term and the style term."""
        own_features, own_grams = extract(x)
        gram_distances = jax.tree.map(_relative_distance, own_grams, grams)
        return _relative_distance(own_features, features), jnp.mean(jnp.stack(gram_distances))

    def loss(x: jax.Array, features: jax.Array, grams: list[jax.Array]) -> jax.Array:
        content_term, style_term = distances(x, features, grams)
        roughness = jnp.mean(jnp.diff(x, axis=0) ** 2) + jnp.mean(jnp.diff(x, axis=1) ** 2)
        return content_term + style_weight * style_term + smoothing * roughness

    @partial(jax.jit, compiler_options=compiler_options())
    def optimize(
        x: jax.Array, content: jax.Array, style: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        targets = extract(content)[0], extract(style)[1]

        def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], None]:
            x, moments = carry
            updates, moments = optimizer.update(jax.grad(loss)(x, *targets), moments)
            return (jnp.clip(x + updates, 0, 1), moments), None

        (x, _), _ = jax.lax.scan(step, (x, optimizer.init(x)), length=steps)
        return x, *distances(x, *targets), distances(content, *targets)[1]

    x = content
    for halvings in reversed(range(scales)):
        small = [_resize(image, [n // 2**halvings for n in image.shape[:2]]) for image in (content, style)]
        x, *terms = optimize(_resize(x, small[0].shape[:2]), *small)
    return StyleTransferResult(x, *map(float, terms))


def _relative_distance(x: jax.Array, target: jax.Array) -> jax.Array:
    """Return ``‖x − target‖² / ‖target‖²``."""
    return jnp.sum((x - target) ** 2) / (jnp.sum(target**2) + 1e-12)


def _resize(image: jax.Array, size: Sequence[int]) -> jax.Array:
    return jnp.clip(jax.image.resize(image, (*size, image.shape[-1]), "cubic"), 0, 1)
