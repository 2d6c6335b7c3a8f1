"""What is asked of images that come with labels."""

from typing import Any

import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError
from jaxconv.explain.intermediates import check_images
from jaxconv.layers import Layer, as_layer
from jaxconv.train.argument_checks import check_examples, check_labels


def check_labelled(
    function: str, model: Layer, params: Any, state: Any, images: Any, labels: Any, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels in numpy's memory; refuse those that do not go together, or with the network."""
    checks.whole(function, 1, batch_size=batch_size)
    images, labels = np.asarray(images), np.asarray(labels)
    if not len(images):
        check_images(function, images)
    if images.ndim != 4:
        raise InputError(f"{function}: images {images.shape} should be (N, H, W, C)")
    check_examples(function, images, labels, batch_size)
    check_images(function, images[:1])
    check_labels(function, as_layer(model), params, state, images.shape[1:], labels)
    return images, labels
