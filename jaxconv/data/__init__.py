"""Data sets by name or by place. All give the same thing: a :class:`Dataset` of uint8 images in three parts."""

from jaxconv.data import augment
from jaxconv.data.base import Dataset, LazySplit, Split, enlarge, hold_out
from jaxconv.data.images import read_image
from jaxconv.data.registry import DATASETS, SCHEMES, load
from jaxconv.data.verification import check
from jaxconv.data.vision_datasets import load_cifar10, load_digits, load_fashion_mnist, load_mnist

__all__ = [
    "DATASETS",
    "SCHEMES",
    "Dataset",
    "LazySplit",
    "Split",
    "augment",
    "check",
    "enlarge",
    "hold_out",
    "load",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "read_image",
]
