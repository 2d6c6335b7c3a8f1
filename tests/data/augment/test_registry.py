"""Augmentations by name: what a list of names makes, and what it may not hold."""

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
def test_found_by_name(name):
    images, targets = images_of((24, 32, 32, 1)), jnp.eye(24)
    found, mix = augment.parse_augmentations([f"{name}:28" if name == "crop" else name])
    assert (found is None) == (name in augment.BATCH_MIXERS) and (mix is None) == (name not in augment.BATCH_MIXERS)
    if found:
        made = augment.random_crop(28) if name == "crop" else augment.AUGMENTATIONS[name]()
        np.testing.assert_array_equal(found(KEY, images), made(jax.random.fold_in(KEY, 0), images))
    else:
        y, wanted = (function(KEY, images, targets) for function in (mix, augment.BATCH_MIXERS[name]()))
        jax.tree.map(np.testing.assert_array_equal, y, wanted)


def test_a_list_of_names_is_done_in_its_order_with_its_options():
    images = images_of((24, 8, 8, 1))
    found, mix = augment.parse_augmentations(("translate:2", "mixup:0.4", "hflip:1", "cutout:3"))
    y = images
    for i, each in enumerate((augment.random_translation(2), augment.random_horizontal_flip(1), augment.cutout(3))):
        y = each(jax.random.fold_in(KEY, i), y)
    np.testing.assert_array_equal(found(KEY, images), y)
    pairs = [function(KEY, images, jnp.eye(24)) for function in (mix, augment.mixup(0.4))]
    jax.tree.map(np.testing.assert_array_equal, *pairs)
    assert augment.parse_augmentations([]) == (None, None)
    np.testing.assert_array_equal(augment.parse_augmentations("hflip:1")[0](KEY, images), images[:, :, ::-1])


@pytest.mark.parametrize(
    ("names", "said"),
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
        (["mixup", "cutmix"], "mixup and cutmix both mix examples: take one of them"),
        (["mixup:1", "mixup:2"], "both mix examples"),
        (["hflip", "translate:2", "hflip"], "augmentation 'hflip' is there 2 times: once is enough"),
        (["translate:2", "translate:4"], "augmentation 'translate' is there 2 times"),
        (["translate:0"], "augmentation 'translate:0' changes nothing: leave it out, or give more than 0"),
        (["rotate:0.0"], "augmentation 'rotate:0.0' changes nothing"),
        (["hflip:0"], "augmentation 'hflip:0' changes nothing"),
    ],
)
def test_names_that_will_not_do(names, said):
    with pytest.raises(InputError) as caught:
        augment.parse_augmentations(names)
    assert said in str(caught.value) and "\n" not in str(caught.value)
