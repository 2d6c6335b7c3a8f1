"""MNIST, Fashion-MNIST, CIFAR-10 and the digits of scikit-learn, in their official files."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxconv.data.array_files import read_idx
from jaxconv.data.base import Dataset, Split, hold_out
from jaxconv.data.download import File, Source, ensure_file, find_extracted
from jaxconv.data.safe_pickle import load_arrays
from jaxconv.errors import InputError
from jaxconv.utils.files import read_bytes

# LeCun's own host comes last: it often answers 403 or 503.
MNIST = Source(
    name="mnist",
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
    ),
    files={
        "train-images-idx3-ubyte.gz": File(
            9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
        ),
        "train-labels-idx1-ubyte.gz": File(28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images-idx3-ubyte.gz": File(
            1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
        ),
        "t10k-labels-idx1-ubyte.gz": File(4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    },
)
FASHION_MNIST = Source(
    name="fashion_mnist",
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    files={
        "train-images-idx3-ubyte.gz": File(
            26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
        ),
        "train-labels-idx1-ubyte.gz": File(29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": File(
            4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
        ),
        "t10k-labels-idx1-ubyte.gz": File(5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    },
)

DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def load_mnist() -> Dataset:
    """60,000 + 10,000 handwritten digits, 28×28; the last 10,000 of the training set are held out for validation.

    Source: LeCun, Cortes & Burges, 1998.
    """
    return _load(MNIST, DIGITS)


def load_fashion_mnist() -> Dataset:
    """60,000 + 10,000 pictures of clothes in ten classes, 28×28, in the format and the split of MNIST.

    Source: Xiao, Rasul & Vollgraf, 2017, https://arxiv.org/abs/1708.07747.
    """
    return _load(FASHION_MNIST, CLOTHES)


def _load(source: Source, classes: tuple[str, ...]) -> Dataset:
    train, validation = hold_out(_read_mnist(source, "train"), 10_000)
    return Dataset(source.name, classes, train, validation, _read_mnist(source, "t10k"))


def _read_mnist(source: Source, part: str) -> Split:
    images = read_idx(ensure_file(source, f"{part}-images-idx3-ubyte.gz"))
    labels = read_idx(ensure_file(source, f"{part}-labels-idx1-ubyte.gz"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(f"{source.name}: images {images.shape} and labels {labels.shape} do not go together")
    return Split(images[..., None], labels.astype(np.int32))


def load_digits() -> Dataset:
    """1,797 digits of 8×8 pixels, written by 13 people: 1,257 to train, 180 to choose, 360 to test.

    The set has no official parts and runs writer by writer, so it is shuffled once, always the same way. Digits of
    one writer are in all three parts: the accuracy says nothing about new writers.

    Source: E. Alpaydin & C. Kaynak, 1998, https://archive.ics.uci.edu/dataset/80 (the test part of it).

    >>> digits = load_digits()
    >>> digits.train.images.shape, digits.validation.images.shape, digits.test.images.shape
    ((1257, 8, 8, 1), (180, 8, 8, 1), (360, 8, 8, 1))
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]  # stored as 0 to 16
    labels = bunch.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(images))
    test, validation, train = (Split(images[part], labels[part]) for part in np.split(order, [360, 540]))
    return Dataset("digits", tuple("0123456789"), train, validation, test)


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
    folder = find_extracted(CIFAR10)
    if folder is None:
        (archive,) = CIFAR10.files
        parts = _from_archive(ensure_file(CIFAR10, archive))
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
    content = load_arrays(raw, path)
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
