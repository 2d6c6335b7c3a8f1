"""Fingerprints of data sets, by which a run knows the data that it was trained on."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np

from jaxconv.data import Dataset

TEST = "test images"
SAMPLE = 256  # training images that are always read
TIMES = "training file times"  # a copy has others, and is the same: they are told of, and not refused


def fingerprint(dataset: Dataset) -> dict[str, str]:
    """The SHA-256 of each part of a data set, by the part's name.

    All images in memory are in it. Of training images that are read from files as they are needed there are the names
    and sizes of all files, their times of change, and the pixels of a sample.

    >>> from jaxconv import data
    >>> sorted(fingerprint(data.load("digits")))
    ['sample of the training images', 'test images', 'training images', 'training labels', 'validation images']
    """
    train, held = dataset.train.to_lazy(), {"validation images": dataset.validation, TEST: dataset.test}
    places = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(int))
    parts = {name: sha256(*split) for name, split in held.items()}
    parts |= {"sample of the training images": sha256(train.take(places)), "training labels": sha256(train.labels)}
    if isinstance(train.items, np.ndarray):
        parts["training images"] = sha256(train.items)
    elif train.folder is not None:
        facts = [(name, (train.folder / name).stat()) for name in train.items]
        parts["training files"] = _digest(f"{name} {fact.st_size}" for name, fact in facts)
        parts[TIMES] = _digest(f"{name} {fact.st_mtime_ns}" for name, fact in facts)
    return parts


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parts whose SHA-256 differ; a part that one of them lacks, read in another way, is not compared.

    >>> changed({"test images": "ab", "training images": "cd"}, {"test images": "ef", "training files": "01"})
    ['test images']
    """
    return [name for name, digest in now.items() if then.get(name, digest) != digest]


def sha256(*arrays: np.ndarray) -> str:
    """The SHA-256 over dtype, shape and bytes of arrays; they are not copied.

    >>> sha256(np.zeros((2, 3), np.uint8)) == sha256(np.zeros((3, 2), np.uint8))
    False
    """
    digest = hashlib.sha256()
    for array in map(np.ascontiguousarray, arrays):
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
