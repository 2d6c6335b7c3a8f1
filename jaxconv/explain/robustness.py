"""How well a network knows images that are unlike those it was trained on."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError
from jaxconv.explain.corruptions import DISTORTIONS, check_strengths, each_by_its_own
from jaxconv.explain.given import check_labelled
from jaxconv.layers import Layer, as_layer
from jaxconv.runtime import compiler_options
from jaxconv.train import batches, to_float


def robustness(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    distortions: Sequence[str] | Mapping[str, Sequence[float]] | None = None,
    batch_size: int = 256,
    key: jax.Array | None = None,
) -> dict[str, list[tuple[float, float]]]:
    """Accuracy on distorted images, distortion by distortion, strength by strength.

        accuracy(d, s) = share of images n with argmax f(d_s(x[n])) = label[n]

    The strength is an argument of what is compiled, so each distortion compiles once, and the network once. Image n
    has the same noise at every strength, whatever the batch size.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, bytes or floats from 0 to 1.
        labels: ``(N,)`` class numbers.
        distortions: names of :data:`DISTORTIONS`, or a dict of the strengths to ask about; by default all.
        batch_size: images at a time.
        key: of noise and places; by default always the same.

    Returns:
        For each distortion, pairs ``(strength, accuracy)`` in the order of the strengths.

    Raises:
        InputError: no image, floats outside 0 to 1, labels that do not go with the images or the network, an unknown
            distortion, or a strength that it has not.

    Source: the "unusual" digits of LeCun's demo, http://yann.lecun.com/exdb/lenet/. Lecture row 004-14.

    >>> from jaxconv import models
    >>> model = models.mlp(classes=2)
    >>> params, state = model.init(jax.random.key(0), (4, 4, 1))
    >>> images, labels = np.zeros((3, 4, 4, 1), np.uint8), np.zeros(3, int)
    >>> robustness(model, params, state, images, labels, distortions={"contrast": [1, 0.5]})
    {'contrast': [(1.0, 1.0), (0.5, 1.0)]}
    """
    images, labels = check_labelled("robustness", model, params, state, images, labels, batch_size)
    asked = _asked(distortions)
    low, high = images.min(), images.max()
    if images.dtype != np.uint8 and not (low >= 0 and high <= 1):
        raise InputError(f"robustness: images from {low:g} to {high:g}: distortions are of floats from 0 to 1")
    model, key = as_layer(model), jax.random.key(0) if key is None else key
    options = compiler_options()
    network = jax.jit(lambda *given: jnp.argmax(model.apply(*given)[0], axis=1), compiler_options=options)
    numbers, size = np.arange(len(images), dtype=np.int32), min(batch_size, len(images))

    def accuracy(name: str, strength: float) -> float:
        right = 0
        for x, number, mask in batches(images, numbers, size):  # of an image's number its key is made
            said = np.asarray(network(params, state, _program(name)(key, number, x, strength)))
            right += int((said == labels[number])[np.asarray(mask)].sum())
        return right / len(labels)

    return {
        name: [(float(strength), accuracy(name, float(strength))) for strength in strengths]
        for name, strengths in asked.items()
    }


def _asked(distortions: Sequence[str] | Mapping[str, Sequence[float]] | None) -> dict[str, Sequence[float]]:
    """Each distortion that is asked about with its strengths."""
    names = DISTORTIONS if distortions is None else [distortions] if isinstance(distortions, str) else distortions
    asked: dict[str, Sequence[float]] = {}
    for name in names:
        check_strengths("robustness", name, [])
        asked[name] = distortions[name] if isinstance(distortions, Mapping) else DISTORTIONS[name].strengths
        if np.ndim(asked[name]) != 1 or not len(asked[name]):
            raise InputError(f"robustness: {name} of {asked[name]!r}: give a list of strengths, [0.1, 0.2]")
        check_strengths("robustness", name, asked[name])
    return asked


@functools.lru_cache(maxsize=64)
def _program(name: str) -> Callable[..., jax.Array]:
    """A distortion, compiled once for images of one size, whatever network sees them."""

    @jax.jit
    def program(key: jax.Array, number: jax.Array, images: jax.Array, strength: float) -> jax.Array:
        keys, x = jax.vmap(functools.partial(jax.random.fold_in, key))(number), to_float(images)
        return each_by_its_own(name, keys, x, jnp.asarray(strength, x.dtype))

    return program
