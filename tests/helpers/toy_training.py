"""Small data and a small network with convolution, batch norm and dropout."""

import numpy as np

from jaxconv import BatchNorm, Conv, Dense, Dropout, flatten, relu, serial


def toy(count=50, size=4, classes=3, seed=0):
    """Generate images whose brightest column is the class, which a convnet learns in seconds."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count).astype(np.int32)
    images = rng.integers(0, 120, (count, size, size, 1), np.uint8)
    images[np.arange(count), :, labels] += 120
    return images, labels


def net(rate=0.2):
    """Build a network without a bias before batch norm, whose gradient would be rounding noise that Adam amplifies."""
    return serial(Conv(4, 3, padding="SAME", use_bias=False), BatchNorm(), relu, flatten, Dropout(rate), Dense(3))


TIMES = ("epoch_seconds", "images_per_second")
RECORD = {
    "epoch": 1,
    "step": 40,
    "loss": 0.5,
    "accuracy": 0.75,
    "val_loss": 0.25,
    "val_accuracy": 1.0,
    "epoch_seconds": 2.5,
}


def examples(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 5, 4, 1)).astype(np.uint8), rng.integers(0, 3, count).astype(np.int32)


def without_times(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]
