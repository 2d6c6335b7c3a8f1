"""Data augmentation: random transformations of images that preserve the label, or mix it in a known proportion.

    augment = compose(random_horizontal_flip(), random_translation(4))    # factories take the options
    images = augment(key, images)                                         # floats from 0 to 1, (N, H, W, C)
    images, targets = mixup(0.2)(key, images, targets)

A factory returns a pure function of a key and a batch, which draws independent random numbers for each image. Output
shapes depend only on the batch shape and the options, so the function compiles once and runs inside ``jit``, ``vmap``
and ``lax.scan``, on the device of the training step.
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
