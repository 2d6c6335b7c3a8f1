"""The order of the data, and its cutting into batches that all have one shape."""

from collections.abc import Iterator

import numpy as np

from jaxconv.train.state import Batch


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch sees its examples: a function of seed and epoch, of nothing that went before.

    >>> epoch_order(0, 1, 4).tolist() == epoch_order(0, 1, 4).tolist() != epoch_order(0, 2, 4).tolist()
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(count)


def batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, order: np.ndarray | None = None
) -> Iterator[Batch]:
    """Every example once, in batches of one size; the last is filled up with zeros, and its mask tells.

    >>> last = list(batches(np.ones((5, 2, 2, 1), np.uint8), np.arange(5), 3))[-1]
    >>> last.image.shape, last.label.tolist(), last.mask.tolist()
    ((3, 2, 2, 1), [3, 4, 0], [True, True, False])
    """
    order = np.arange(len(images)) if order is None else order
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        short = batch_size - len(chosen)
        image, label = images[chosen], labels[chosen]
        if short:
            image = np.pad(image, ((0, short), *[(0, 0)] * (image.ndim - 1)))
            label = np.pad(label, (0, short))
        yield Batch(image, label, np.arange(batch_size) < len(chosen))
