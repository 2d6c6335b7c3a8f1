"""Registries of datasets: those with a name, and the schemes that load files from a path."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxconv import checks
from jaxconv.data.array_files import load_idx, load_npz
from jaxconv.data.base import Dataset
from jaxconv.data.download import Source
from jaxconv.data.image_folder import load_image_folder
from jaxconv.data.splits import PartialDataset, complete_splits
from jaxconv.data.tfds import load_tfds
from jaxconv.data.vision_datasets import (
    CIFAR10,
    FASHION_MNIST,
    MNIST,
    load_cifar10,
    load_digits,
    load_fashion_mnist,
    load_mnist,
)
from jaxconv.errors import InputError
from jaxconv.utils.terminal import printable

DATASETS: dict[str, Callable[[], Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion_mnist": load_fashion_mnist,
    "cifar10": load_cifar10,
}
SOURCES: dict[str, Source] = {source.name: source for source in (MNIST, FASHION_MNIST, CIFAR10)}
SCHEMES: dict[str, Callable[[str], PartialDataset]] = {
    "folder": load_image_folder,  # folder:PATH
    "tfds": load_tfds,  # tfds:NAME
    "npz": load_npz,  # npz:FILE
    "idx": load_idx,  # idx:PATH
}


def load(name: str, *, streaming: bool = False) -> Dataset:
    """Load a dataset by name, downloading it if necessary, or from your own files, by scheme and path.

    Args:
        name: one of ``DATASETS``, or ``folder:PATH`` (images in one folder per class, or an archive of such folders),
            ``npz:FILE``, ``idx:PATH`` (IDX files, like those of MNIST), ``tfds:NAME`` (TensorFlow Datasets).
        streaming: read training images on access (:class:`LazySplit`), for datasets larger than memory. Applies to
            ``folder`` and ``tfds``; the validation and test split are always loaded into memory.

    Raises:
        InputError: if the name is unknown, or files are damaged, unreadable or cannot be downloaded.

    >>> load("digits").image_shape
    (8, 8, 1)
    >>> load("digit")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown dataset 'digit': did you mean 'digits'? Known: digits, mnist, fashion_mnist,
        cifar10
    >>> load("foldr:images")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown dataset scheme 'foldr': did you mean 'folder'? Known: folder, tfds, npz, idx
    """
    scheme, colon, location = str(name).partition(":")
    if colon:
        checks.one_of("dataset scheme", scheme, SCHEMES)
        if not location:
            raise InputError(f"{name} is incomplete: give {scheme}:{'NAME' if scheme == 'tfds' else 'PATH'}")
        with read_errors(name):
            return complete_splits(SCHEMES[scheme](location), streaming=streaming)
    if name not in DATASETS and Path(str(name)).exists():
        scheme = "npz" if Path(str(name)).suffix == ".npz" else "folder"
        raise InputError(f"unknown dataset {name!r}: to load these files, write {scheme}:{name}")
    checks.one_of("dataset", name, DATASETS)
    with read_errors(name):
        dataset = DATASETS[name]()
    return dataclasses.replace(dataset, train=dataset.train.to_lazy()) if streaming else dataset


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Raise an ``InputError`` of one printable line where the block raises an ``OSError`` or ``InputError``.

    >>> with read_errors("toy"):
    ...     open("nowhere/toy.npz")
    Traceback (most recent call last):
    jaxconv.errors.InputError: toy cannot be read: [Errno 2] No such file or directory: 'nowhere/toy.npz'
    """
    try:
        yield
    except OSError as error:
        raise InputError(printable(f"{name} cannot be read: {error}")) from None
    except InputError as error:
        line = printable(error)  # names of files and classes may contain control characters
        if line == str(error):
            raise
        raise type(error)(line) from None
