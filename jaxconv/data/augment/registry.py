"""Augmentations by name, and one after another."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxconv import checks
from jaxconv.data.augment.base import Augment, BatchMixer
from jaxconv.data.augment.geometric import random_crop, random_horizontal_flip, random_rotation, random_translation
from jaxconv.data.augment.mixing import cutmix, cutout, mixup
from jaxconv.errors import InputError

BATCH_MIXERS: dict[str, Callable[..., BatchMixer]] = {"mixup": mixup, "cutmix": cutmix}
AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "hflip": random_horizontal_flip,
    "translate": random_translation,
    "crop": random_crop,
    "rotate": random_rotation,
    "cutout": cutout,
    **BATCH_MIXERS,
}


def compose(*augmentations: Augment) -> Augment:
    """One augmentation after another, each with its own share of the randomness.

    >>> twice = compose(random_horizontal_flip(p=1), random_horizontal_flip(p=1))
    >>> twice(jax.random.key(0), jax.numpy.arange(3.).reshape(1, 1, 3, 1)).ravel()
    Array([0., 1., 2.], dtype=float32)
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for i, each in enumerate(augmentations):
            images = each(jax.random.fold_in(key, i), images)
        return images

    return augment


def parse_augmentations(names: Sequence[str]) -> tuple[Augment | None, BatchMixer | None]:
    """The augmentation of images, and the mixing of examples, that a list of names asks for.

    Args:
        names: keys of ``AUGMENTATIONS``, each with its first option after a colon or without:
            ``["hflip", "translate:4", "mixup:0.2"]``. Those of images are done in this order.

    Returns:
        What they come to together: ``(key, images) -> images`` and ``(key, images, targets) -> (images, targets)``;
        None where the list asks for none.

    Raises:
        InputError: an unknown name, one that is there twice or changes nothing, an option that does not fit or is
            missing, or two ways of mixing.

    >>> augment, mix = parse_augmentations(["hflip", "translate:2"])
    >>> augment(jax.random.key(0), jax.numpy.ones((5, 8, 8, 1))).shape, mix
    ((5, 8, 8, 1), None)
    >>> parse_augmentations(["hflop"])
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown augmentation 'hflop': did you mean 'hflip'? Known: hflip, translate, crop, \
rotate, cutout, mixup, cutmix
    """
    augmentations: list[Augment] = []
    mixes: list[BatchMixer] = []
    entries = [names] if isinstance(names, str) else [str(entry) for entry in names]
    kinds = [entry.partition(":")[0] for entry in entries]
    for entry, name in zip(entries, kinds, strict=True):
        checks.one_of("augmentation", name, AUGMENTATIONS)
        if kinds.count(name) > 1 and name not in BATCH_MIXERS:
            raise InputError(f"augmentation {name!r} is there {kinds.count(name)} times: once is enough")
        options = _options(name, entry.partition(":")[2] if ":" in entry else None)
        made = AUGMENTATIONS[name](*options)
        if options == [0]:
            raise InputError(f"augmentation {entry!r} changes nothing: leave it out, or give more than 0")
        (mixes if name in BATCH_MIXERS else augmentations).append(made)
    if len(mixes) > 1:
        raise InputError(f"{' and '.join(BATCH_MIXERS)} both mix examples: take one of them")
    return compose(*augmentations) if augmentations else None, mixes[0] if mixes else None


def _options(name: str, written: str | None) -> list[float]:
    """What stands after the colon, as a number."""
    option, parameter = next(iter(inspect.signature(AUGMENTATIONS[name]).parameters.items()))
    if written is None and parameter.default is not parameter.empty:
        return []
    if written is None:
        raise InputError(f"augmentation {name!r} needs its {option}: write {name}:28 for {option}=28")
    for number in (int, float):
        try:
            return [number(written)]
        except ValueError:
            continue
    raise InputError(f"augmentation '{name}:{written}': {option} should be a number, not {written!r}")
