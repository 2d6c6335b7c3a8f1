"""CIFAR-10: small photographs, in the official binary layout or in the official Python layout."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxconv.data.base import Dataset, Split, hold_out
from jaxconv.data.download import File, Source, locate, unpacked
from jaxconv.data.safe_pickle import read_pickle
from jaxconv.errors import InputError
from jaxconv.utils.files import read_bytes

BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"  # folders, as the official archives name them
CIFAR10 = Source(
    name="cifar10",
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    ),
    files={
        "cifar-10-binary.tar.gz": File(170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"),
    },
    unpacked=(BINARY, PYTHON),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORDS = 10_000  # in each of the six files
MOST_BYTES = 2**26  # of such a file; the official ones have 31 MB
PIXELS = 3 * 32 * 32  # bytes: all red ones, row by row, then all green, then all blue


def load_cifar10() -> Dataset:
    """50,000 + 10,000 photographs of ten kinds of thing, 32×32 in colour; the last 5,000 to train are for validation.

    That leaves 45,000 to train, as He et al. (2015, https://arxiv.org/abs/1512.03385) split it.

    Unpacked files (``cifar-10-batches-bin/`` or ``cifar-10-batches-py/``, in ``$JAXCONV_DATA/cifar10``, in
    ``$JAXCONV_DATA`` or in the cache folder) are used if their sizes and labels are right; they are not compared with
    official checksums. If there are none, the official archive is read as it is, without unpacking it. It is
    downloaded if it is not there, and its checksum must be right.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    folder = unpacked(CIFAR10)
    if folder is None:
        (archive,) = CIFAR10.files
        parts = _from_archive(locate(CIFAR10, archive))
    else:
        parts = _read_cifar(folder.name == BINARY, folder, lambda name: read_bytes(folder / name, MOST_BYTES))
    train, test = parts
    return Dataset("cifar10", CLASSES, *hold_out(train, RECORDS // 2), test)


def _from_archive(path: Path) -> tuple[Split, Split]:
    with tarfile.open(path) as tar:  # nothing is unpacked, so nothing can land anywhere

        def read(name: str) -> bytes:
            member = tar.extractfile(f"{BINARY}/{name}")
            if member is None:
                raise KeyError(name)
            return member.read()

        return _read_cifar(True, path / BINARY, read)


def _read_cifar(binary: bool, folder: Path, read: Callable[[str], bytes]) -> tuple[Split, Split]:
    """Five batches to train with and one to test, whatever they are read from."""
    end, parse = (".bin", _binary_batch) if binary else ("", _python_batch)
    batches = []
    for name in (*(f"data_batch_{n}{end}" for n in range(1, 6)), f"test_batch{end}"):
        try:
            batches.append(parse(read(name), folder / name))
        except (FileNotFoundError, KeyError):
            raise InputError(f"cifar10: {folder} has no {name}: get it again, or delete the folder") from None
    images, labels = zip(*batches[:5], strict=True)
    return Split(np.concatenate(images), np.concatenate(labels)), batches[5]


def _binary_batch(raw: bytes, path: Path) -> Split:
    """Records of a label and its pixels, one after the other."""
    if len(raw) != RECORDS * (1 + PIXELS):
        raise InputError(
            f"{path} has {len(raw):,} bytes, wanted {RECORDS * (1 + PIXELS):,}: {RECORDS:,} records of {1 + PIXELS:,}"
        )
    records = np.frombuffer(raw, np.uint8).reshape(RECORDS, 1 + PIXELS)
    return _batch(records[:, 1:], records[:, 0].astype(np.int32), path)


def _python_batch(raw: bytes, path: Path) -> Split:
    """A pickled dict with the same records: their labels, and their pixels."""
    content = read_pickle(raw, path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no dict but a {type(content).__name__}")
    data, labels = (content.get(key, content.get(key.decode())) for key in (b"data", b"labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (RECORDS, PIXELS):
        raise InputError(f"{path} should have data, an array uint8{(RECORDS, PIXELS)}")
    if not isinstance(labels, list) or len(labels) != RECORDS or not all(isinstance(label, int) for label in labels):
        raise InputError(f"{path} should have labels, a list of {RECORDS:,} whole numbers")
    return _batch(data, np.array(labels), path)


def _batch(pixels: np.ndarray, labels: np.ndarray, path: Path) -> Split:
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if wrong.size:
        raise InputError(f"{path} has label {labels[wrong[0]]} (record {wrong[0]}), wanted 0 to 9: it is damaged")
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Split(images, labels.astype(np.int32))
