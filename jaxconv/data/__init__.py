"""Data sets by name. All give the same thing: a :class:`Dataset` of uint8 images in three parts."""

from jaxconv.data.check import check
from jaxconv.data.dataset import Dataset, Split, enlarge, hold_out
from jaxconv.data.datasets import DATASETS, load
from jaxconv.data.digits import load_digits
from jaxconv.data.image import read_image
from jaxconv.data.mnist import load_fashion_mnist, load_mnist

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "check",
    "enlarge",
    "hold_out",
    "load",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "read_image",
]
