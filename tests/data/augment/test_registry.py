"""Parsing of augmentation lists: the functions they yield, and the lists that are rejected."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError
from jaxconv.data import augment

KEY = jax.random.key(0)


def images_of(shape):
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", augment.AUGMENTATIONS)
def test_parse_augmentations_equals_direct_call(name):
    images, targets = images_of((24, 32, 32, 1)), jnp.eye(24)
    parsed, mixer = augment.parse_augmentations([f"{name}:28" if name == "crop" else name])
    assert (parsed is None) == (name in augment.BATCH_MIXERS) and (mixer is None) == (name not in augment.BATCH_MIXERS)
    if parsed:
        expected = augment.random_crop(28) if name == "crop" else augment.AUGMENTATIONS[name]()
        np.testing.assert_array_equal(parsed(KEY, images), expected(jax.random.fold_in(KEY, 0), images))
    else:
        y, expected = (function(KEY, images, targets) for function in (mixer, augment.BATCH_MIXERS[name]()))
        jax.tree.map(np.testing.assert_array_equal, y, expected)


def test_parse_augmentations_keeps_order_and_options():
    images = images_of((24, 8, 8, 1))
    parsed, mixer = augment.parse_augmentations(("translate:2", "mixup:0.4", "hflip:1", "cutout:3"))
    y = images
    for i, function in enumerate((augment.random_translation(2), augment.random_horizontal_flip(1), augment.cutout(3))):
        y = function(jax.random.fold_in(KEY, i), y)
    np.testing.assert_array_equal(parsed(KEY, images), y)
    results = [function(KEY, images, jnp.eye(24)) for function in (mixer, augment.mixup(0.4))]
    jax.tree.map(np.testing.assert_array_equal, *results)
    assert augment.parse_augmentations([]) == (None, None)
    np.testing.assert_array_equal(augment.parse_augmentations("hflip:1")[0](KEY, images), images[:, :, ::-1])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["hflop"],
            "unknown augmentation 'hflop': did you mean 'hflip'? Known: hflip, translate, crop, rotate, cutout",
        ),
        (["hflip", 3], "unknown augmentation '3'"),
        (["translate:four"], "augmentation 'translate:four': pixels should be a number, not 'four'"),
        (["translate:"], "augmentation 'translate:': pixels should be a number, not ''"),
        (["translate:2.5"], "random_translation: pixels 2.5: give an int of at least 0"),
        (["cutout:0"], "cutout: size 0: give an int of at least 1"),
        (["hflip:2"], "random_horizontal_flip: p=2 should be a number from 0 to 1"),
        (["hflip:nan"], "random_horizontal_flip: p=nan should be a number from 0 to 1"),
        (["rotate:-5"], "random_rotation: degrees=-5 should be a number from 0 to 180"),
        (["mixup:0"], "mixup: alpha=0 should be a number from 0.001 to 1000"),
        (["cutmix:inf"], "cutmix: alpha=inf should be"),
        (["crop"], "augmentation 'crop' needs its size: write crop:28 for size=28"),
        (["mixup", "cutmix"], "mixup and cutmix both mix examples: use one of them"),
        (["mixup:1", "mixup:2"], "both mix examples"),
        (["hflip", "translate:2", "hflip"], "augmentation 'hflip' is given 2 times: give it once"),
        (["translate:2", "translate:4"], "augmentation 'translate' is given 2 times"),
        (["translate:0"], "augmentation 'translate:0' has no effect: leave it out, or give more than 0"),
        (["rotate:0.0"], "augmentation 'rotate:0.0' has no effect"),
        (["hflip:0"], "augmentation 'hflip:0' has no effect"),
    ],
)
def test_parse_augmentations_invalid_names_raise(names, message):
    with pytest.raises(InputError) as caught:
        augment.parse_augmentations(names)
    assert message in str(caught.value) and "\n" not in str(caught.value)
