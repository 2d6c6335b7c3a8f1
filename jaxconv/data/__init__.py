"""Load datasets by name or path. Each is a :class:`Dataset` of uint8 images in three splits."""

from jaxconv.data import augment
from jaxconv.data.base import Dataset, LazySplit, Split, hold_out, upscale_and_pad
from jaxconv.data.images import read_image
from jaxconv.data.registry import DATASETS, SCHEMES, load
from jaxconv.data.verification import verify_files
from jaxconv.data.vision_datasets import load_cifar10, load_digits, load_fashion_mnist, load_mnist

__all__ = [
    "DATASETS",
    "SCHEMES",
    "Dataset",
    "LazySplit",
    "Split",
    "augment",
    "hold_out",
    "load",
    "load_cifar10",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "read_image",
    "upscale_and_pad",
    "verify_files",
]
