"""Load MNIST, Fashion-MNIST and CIFAR-10 from their official files, and the digits of scikit-learn."""

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

# LeCun's own server is last: it often responds with 403 or 503.
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
    """Load MNIST: 60,000 + 10,000 handwritten digits, 28×28; the last 10,000 training images are for validation.

    Source: LeCun, Cortes & Burges, 1998.
    """
    return _load_mnist_format(MNIST, DIGITS)


def load_fashion_mnist() -> Dataset:
    """Load Fashion-MNIST: 60,000 + 10,000 images of clothes in ten classes, in the format and splits of MNIST.

    Source: Xiao, Rasul & Vollgraf, 2017, https://arxiv.org/abs/1708.07747.
    """
    return _load_mnist_format(FASHION_MNIST, CLOTHES)


def _load_mnist_format(source: Source, class_names: tuple[str, ...]) -> Dataset:
    train, validation = hold_out(_read_split(source, "train"), 10_000)
    return Dataset(source.name, class_names, train, validation, _read_split(source, "t10k"))


def _read_split(source: Source, prefix: str) -> Split:
    images = read_idx(ensure_file(source, f"{prefix}-images-idx3-ubyte.gz"))
    labels = read_idx(ensure_file(source, f"{prefix}-labels-idx1-ubyte.gz"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(f"{source.name}: images {images.shape} and labels {labels.shape} do not match")
    return Split(images[..., None], labels.astype(np.int32))


def load_digits() -> Dataset:
    """Load 1,797 digits of 8×8 pixels by 13 writers: 1,257 for training, 180 for validation, 360 for test.

    There are no official splits, and the digits are sorted by writer, so they are shuffled with a fixed seed. The
    digits of one writer occur in all three splits: the accuracy is no estimate for new writers.

    Source: E. Alpaydin & C. Kaynak, 1998, https://archive.ics.uci.edu/dataset/80 (its test set).

    >>> digits = load_digits()
    >>> digits.train.images.shape, digits.validation.images.shape, digits.test.images.shape
    ((1257, 8, 8, 1), (180, 8, 8, 1), (360, 8, 8, 1))
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]  # scikit-learn stores 0 to 16
    labels = bunch.target.astype(np.int32)
    order = np.random.default_rng(0).permutation(len(images))
    test, validation, train = (Split(images[indices], labels[indices]) for indices in np.split(order, [360, 540]))
    return Dataset("digits", DIGITS, train, validation, test)


BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"  # folder names in the official archives
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
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NUM_RECORDS = 10_000  # per file; there are six
MAX_FILE_BYTES = 2**26  # the official files have 31 MB
IMAGE_BYTES = 3 * 32 * 32  # all red pixels row by row, then all green, then all blue


def load_cifar10() -> Dataset:
    """Load CIFAR-10: 50,000 + 10,000 color photographs of ten classes, 32×32.

    The last 5,000 training images are for validation, which leaves 45,000 for training, as in He et al. (2015,
    https://arxiv.org/abs/1512.03385).

    Unpacked files (``cifar-10-batches-bin/`` or ``cifar-10-batches-py/``, in ``$JAXCONV_DATA/cifar10``, in
    ``$JAXCONV_DATA`` or in the cache folder) are used if their sizes and labels are valid; there are no official
    checksums for them. Without unpacked files the official archive is read, without unpacking it. It is downloaded if
    it is missing, and its checksum must match.

    Source: A. Krizhevsky, Learning multiple layers of features from tiny images, 2009.
    """
    folder = find_extracted(CIFAR10)
    if folder is None:
        (archive,) = CIFAR10.files
        train, test = _read_cifar10_archive(ensure_file(CIFAR10, archive))
    else:
        train, test = _read_cifar10(
            folder.name == BINARY, folder, lambda name: read_bytes(folder / name, MAX_FILE_BYTES)
        )
    return Dataset("cifar10", CIFAR10_CLASSES, *hold_out(train, NUM_RECORDS // 2), test)


def _read_cifar10_archive(path: Path) -> tuple[Split, Split]:
    with tarfile.open(path) as tar:  # reading members writes nothing to the disk

        def read(name: str) -> bytes:
            member = tar.extractfile(f"{BINARY}/{name}")
            if member is None:
                raise KeyError(name)
            return member.read()

        return _read_cifar10(True, path / BINARY, read)


def _read_cifar10(binary: bool, folder: Path, read: Callable[[str], bytes]) -> tuple[Split, Split]:
    """Read five training batches and one test batch; ``read`` maps a file name to the file's content."""
    suffix, parse = (".bin", _parse_binary_batch) if binary else ("", _parse_python_batch)
    batches = []
    for name in (*(f"data_batch_{n}{suffix}" for n in range(1, 6)), f"test_batch{suffix}"):
        try:
            batches.append(parse(read(name), folder / name))
        except (FileNotFoundError, KeyError):
            raise InputError(f"cifar10: {folder} has no {name}: download it again, or delete the folder") from None
    images, labels = zip(*batches[:5], strict=True)
    return Split(np.concatenate(images), np.concatenate(labels)), batches[5]


def _parse_binary_batch(raw: bytes, path: Path) -> Split:
    """Parse consecutive records of one label byte and the image bytes."""
    record_bytes = 1 + IMAGE_BYTES
    if len(raw) != NUM_RECORDS * record_bytes:
        raise InputError(
            f"{path} has {len(raw):,} bytes, expected {NUM_RECORDS * record_bytes:,}: {NUM_RECORDS:,} records of "
            f"{record_bytes:,}"
        )
    records = np.frombuffer(raw, np.uint8).reshape(NUM_RECORDS, record_bytes)
    return _as_split(records[:, 1:], records[:, 0].astype(np.int32), path)


def _parse_python_batch(raw: bytes, path: Path) -> Split:
    """Parse a pickled dict with the arrays ``data`` and ``labels`` of the same records."""
    content = load_arrays(raw, path)
    if not isinstance(content, dict):
        raise InputError(f"{path} must contain a dict, got a {type(content).__name__}")
    data, labels = (content.get(key, content.get(key.decode())) for key in (b"data", b"labels"))
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (NUM_RECORDS, IMAGE_BYTES):
        raise InputError(f"{path} must have data, an array uint8{(NUM_RECORDS, IMAGE_BYTES)}")
    if (
        not isinstance(labels, list)
        or len(labels) != NUM_RECORDS
        or not all(isinstance(label, int) for label in labels)
    ):
        raise InputError(f"{path} must have labels, a list of {NUM_RECORDS:,} integers")
    return _as_split(data, np.array(labels), path)


def _as_split(pixels: np.ndarray, labels: np.ndarray, path: Path) -> Split:
    """Return a split of channels-last images; raise InputError for a label outside of 0 to 9."""
    invalid = np.flatnonzero((labels < 0) | (labels > 9))
    if invalid.size:
        raise InputError(f"{path} has label {labels[invalid[0]]} (record {invalid[0]}), expected 0 to 9: it is damaged")
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Split(images, labels.astype(np.int32))
