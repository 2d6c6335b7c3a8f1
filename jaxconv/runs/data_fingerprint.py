"""Fingerprints of datasets, which detect that a run is resumed or evaluated with other data."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from jaxconv.data import Dataset

TEST = "test images"
SAMPLE = 256  # training images that are hashed even if the dataset is streamed
TIMES = "training file times"  # copies of files have other times: a difference is a warning, not an error


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """Return the SHA-256 of each part of a dataset, by the name of the part.

    Images in memory are hashed completely. Of streamed training images, the names, sizes and modification times of all
    files and the pixels of a sample are hashed.

    >>> from jaxconv import data
    >>> sorted(fingerprint(data.load("digits")))
    ['sample of the training images', 'test images', 'training images', 'training labels', 'validation images']
    """
    train = dataset.train.to_lazy()
    indices = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int))
    digests = {"validation images": sha256(*dataset.validation), TEST: sha256(*dataset.test)}
    digests |= {"sample of the training images": sha256(train.take(indices)), "training labels": sha256(train.labels)}
    if isinstance(train.items, np.ndarray):
        digests["training images"] = sha256(train.items)
    elif train.folder is not None:
        file_stats = [(name, (train.folder / name).stat()) for name in train.items]
        digests["training files"] = _digest(f"{name} {stat.st_size}" for name, stat in file_stats)
        digests[TIMES] = _digest(f"{name} {stat.st_mtime_ns}" for name, stat in file_stats)
    return digests


def changed_parts(saved: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Return the names of the parts whose SHA-256 differ; parts that only one side has are not compared.

    >>> changed_parts({"test images": "ab", "training images": "cd"}, {"test images": "ef", "training files": "01"})
    ['test images']
    """
    return [name for name, digest in current.items() if saved.get(name, digest) != digest]


def sha256(*arrays: np.ndarray) -> str:
    """Return the SHA-256 over dtype, shape and bytes of arrays, without copying them.

    >>> sha256(np.zeros((2, 3), np.uint8)) == sha256(np.zeros((3, 2), np.uint8))
    False
    """
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest(lines: Iterable[str]) -> str:
    """Return the SHA-256 of lines of text."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
