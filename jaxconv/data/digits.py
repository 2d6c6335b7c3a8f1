"""The handwritten digits that come with scikit-learn: real, small, and on every machine."""

import numpy as np

from jaxconv.data.base import Dataset, Split


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
