"""The table of data sets."""

from collections.abc import Callable

from jaxconv.data.dataset import Dataset
from jaxconv.data.digits import load_digits
from jaxconv.data.download import Source
from jaxconv.data.mnist import FASHION_MNIST, MNIST, load_fashion_mnist, load_mnist
from jaxconv.errors import known

DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
}
SOURCES: dict[str, Source] = {source.name: source for source in (MNIST, FASHION_MNIST)}  # of those in files


def load(name: str) -> Dataset:
    """A data set by its name: from this machine, or downloaded.

    Raises:
        InputError: an unknown name, damaged files, or files that cannot be had; it says what to do.

    >>> load("digits").in_shape
    (8, 8, 1)
    >>> load("digit")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown data set 'digit': did you mean 'digits'? Known: digits, mnist, fashion_mnist
    """
    known("data set", name, DATASETS)
    return DATASETS[name]()
