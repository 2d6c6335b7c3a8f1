"""Registry of augmentations, their composition, and the parsing of augmentation lists."""

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
    """Apply augmentations in order, each with an independent key.

    >>> twice = compose(random_horizontal_flip(p=1), random_horizontal_flip(p=1))
    >>> twice(jax.random.key(0), jax.numpy.arange(3.).reshape(1, 1, 3, 1)).ravel()
    Array([0., 1., 2.], dtype=float32)
    """

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        for i, augmentation in enumerate(augmentations):
            images = augmentation(jax.random.fold_in(key, i), images)
        return images

    return augment


def parse_augmentations(names: Sequence[str]) -> tuple[Augment | None, BatchMixer | None]:
    """Parse a list of names into one composed augmentation and at most one batch mixer.

    Args:
        names: keys of ``AUGMENTATIONS``, each optionally with its first option after a colon:
            ``["hflip", "translate:4", "mixup:0.2"]``. Augmentations are applied in this order.

    Returns:
        Two functions, ``(key, images) -> images`` and ``(key, images, targets) -> (images, targets)``; None for either
        that the list does not contain.

    Raises:
        InputError: if a name is unknown or repeated, its option is invalid, missing or has no effect, or there are two
            batch mixers.

    >>> augment, mix = parse_augmentations(["hflip", "translate:2"])
    >>> augment(jax.random.key(0), jax.numpy.ones((5, 8, 8, 1))).shape, mix
    ((5, 8, 8, 1), None)
    >>> parse_augmentations(["hflop"])
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown augmentation 'hflop': did you mean 'hflip'? Known: hflip, translate, crop, \
rotate, cutout, mixup, cutmix
    """
    augmentations: list[Augment] = []
    mixers: list[BatchMixer] = []
    entries = [names] if isinstance(names, str) else [str(entry) for entry in names]
    bare_names = [entry.partition(":")[0] for entry in entries]
    for entry, name in zip(entries, bare_names, strict=True):
        checks.one_of("augmentation", name, AUGMENTATIONS)
        if bare_names.count(name) > 1 and name not in BATCH_MIXERS:
            raise InputError(f"augmentation {name!r} is given {bare_names.count(name)} times: give it once")
        options = _parse_option(name, entry.partition(":")[2] if ":" in entry else None)
        augmentation = AUGMENTATIONS[name](*options)
        if options == [0]:
            raise InputError(f"augmentation {entry!r} has no effect: leave it out, or give more than 0")
        (mixers if name in BATCH_MIXERS else augmentations).append(augmentation)
    if len(mixers) > 1:
        raise InputError(f"{' and '.join(BATCH_MIXERS)} both mix examples: use one of them")
    return compose(*augmentations) if augmentations else None, mixers[0] if mixers else None


def _parse_option(name: str, text: str | None) -> list[float]:
    """Return the text after the colon as a list of one number, or an empty list for the default."""
    option, parameter = next(iter(inspect.signature(AUGMENTATIONS[name]).parameters.items()))
    if text is None and parameter.default is not parameter.empty:
        return []
    if text is None:
        raise InputError(f"augmentation {name!r} needs its {option}: write {name}:28 for {option}=28")
    for number_type in (int, float):
        try:
            return [number_type(text)]
        except ValueError:
            continue
    raise InputError(f"augmentation '{name}:{text}': {option} should be a number, not {text!r}")
