"""More images from those there are: random changes that leave the label as it is, or mix it in a known share.

    augment = compose(flip(), shift(4))                  # a factory takes the options
    images = augment(key, images)                        # floats from 0 to 1, (N, H, W, C)
    images, targets = mixup(0.2)(key, images, targets)

What a factory makes is a pure function of a key and a batch, in which every image has its own randomness. Shapes are
those of the batch and the options, so it compiles once and runs inside ``jit``, ``vmap`` and ``lax.scan``, on the
device that computes the rest of the step.
"""

from jaxconv.data.augment.base import Augment, BatchMixer
from jaxconv.data.augment.geometric import (
    affine_transform,
    alternating_flip,
    random_affine,
    random_crop,
    random_horizontal_flip,
    random_rotation,
    random_translation,
)
from jaxconv.data.augment.mixing import cutmix, cutout, mixup
from jaxconv.data.augment.registry import AUGMENTATIONS, BATCH_MIXERS, compose, parse_augmentations
from jaxconv.data.augment.tta import test_time_views

__all__ = [
    "AUGMENTATIONS",
    "BATCH_MIXERS",
    "Augment",
    "BatchMixer",
    "affine_transform",
    "alternating_flip",
    "compose",
    "cutmix",
    "cutout",
    "mixup",
    "parse_augmentations",
    "random_affine",
    "random_crop",
    "random_horizontal_flip",
    "random_rotation",
    "random_translation",
    "test_time_views",
]
