"""The tables of data sets: those that have a name, and the kinds that a place is given for."""

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
SOURCES: dict[str, Source] = {source.name: source for source in (MNIST, FASHION_MNIST, CIFAR10)}  # of those in files
SCHEMES: dict[str, Callable[[str], PartialDataset]] = {
    "folder": load_image_folder,  # folder:PATH
    "tfds": load_tfds,  # tfds:NAME
    "npz": load_npz,  # npz:FILE
    "idx": load_idx,  # idx:PATH
}


def load(name: str, *, streaming: bool = False) -> Dataset:
    """A data set by its name, from this machine or downloaded, or one of your own, by its kind and place.

    Args:
        name: one of ``DATASETS``, or ``folder:PATH`` (pictures, a folder a class, or an archive of such folders),
            ``npz:FILE``, ``idx:PATH`` (IDX files, as MNIST's), ``tfds:NAME`` (of TensorFlow Datasets).
        streaming: leave the training images of a folder or of TensorFlow Datasets where they are, and read each as it
            is needed (:class:`LazySplit`): for what does not fit in memory. The other parts are read.

    Raises:
        InputError: an unknown name, damaged files, or files that cannot be had or read; it says what to do.

    >>> load("digits").image_shape
    (8, 8, 1)
    >>> load("digit")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown data set 'digit': did you mean 'digits'? Known: digits, mnist, fashion_mnist,
        cifar10
    >>> load("foldr:pictures")
    Traceback (most recent call last):
    jaxconv.errors.InputError: unknown kind of data set 'foldr': did you mean 'folder'? Known: folder, tfds, npz, idx
    """
    kind, colon, place = str(name).partition(":")
    if colon:
        checks.one_of("kind of data set", kind, SCHEMES)
        if not place:
            raise InputError(f"{name} lacks its place: give {kind}:{'NAME' if kind == 'tfds' else 'PATH'}")
        with readable(name):
            return complete_splits(SCHEMES[kind](place), stream=streaming)
    if name not in DATASETS and Path(str(name)).exists():
        kind = "npz" if Path(str(name)).suffix == ".npz" else "folder"
        raise InputError(f"unknown data set {name!r}: to read the files of that name write {kind}:{name}")
    checks.one_of("data set", name, DATASETS)
    with readable(name):
        dataset = DATASETS[name]()
    return dataclasses.replace(dataset, train=dataset.train.to_lazy()) if streaming else dataset


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What the file system refuses, in our words: a folder without permission, a file where a folder should be.

    Errors within become one line of text that a terminal can show.

    >>> with readable("toy"):
    ...     open("nowhere/toy.npz")
    Traceback (most recent call last):
    jaxconv.errors.InputError: toy cannot be read: [Errno 2] No such file or directory: 'nowhere/toy.npz'
    """
    try:
        yield
    except OSError as error:
        raise InputError(printable(f"{name} cannot be read: {error}")) from None
    except InputError as error:
        line = printable(error)  # names of files and of classes are whatever their maker liked
        if line == str(error):
            raise
        raise type(error)(line) from None
