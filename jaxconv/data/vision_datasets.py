"""MNIST and Fashion-MNIST: the official files, known by size and checksum, with the places that serve them."""

import numpy as np

from jaxconv.data.base import Dataset, Split, hold_out
from jaxconv.data.download import File, Source, locate
from jaxconv.data.idx import read_idx
from jaxconv.errors import InputError

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
    images = read_idx(locate(source, f"{part}-images-idx3-ubyte.gz"))
    labels = read_idx(locate(source, f"{part}-labels-idx1-ubyte.gz"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(f"{source.name}: images {images.shape} and labels {labels.shape} do not go together")
    return Split(images[..., None], labels.astype(np.int32))
