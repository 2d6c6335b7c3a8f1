"""Going through a data set, a batch at a time, in one compiled program."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxconv import checks
from jaxconv.explain.intermediates import check_images
from jaxconv.runtime import compiler_options
from jaxconv.train import batches, to_float


def each_batch(
    function: str, f: Callable[[jax.Array, jax.Array], Any], images: Any, batch_size: int = 256
) -> Iterator[tuple[Any, int]]:
    """``f(x, mask)`` of every batch of the images, and how many of its images count; f is compiled once.

    Args:
        function: who asks, for errors.
        f: of a batch as floats, and its mask: the last batch is filled up with images that do not count.
        images: ``(N, …)``, in memory.
        batch_size: images at a time.

    Raises:
        InputError: no image, or no whole batch size.
    """
    checks.whole(function, 1, batch_size=batch_size)
    check_images(function, images[:1])
    images, size = np.asarray(images), min(batch_size, len(images))
    program = jax.jit(f, compiler_options=compiler_options())
    for batch in batches(images, np.zeros(len(images), np.int32), size):
        yield program(to_float(batch.image), batch.mask), int(np.asarray(batch.mask).sum())


def per_image(function: str, f: Callable[[jax.Array], Any], images: Any, batch_size: int = 256) -> Any:
    """``f(images)`` where f gives arrays with a row for each image: computed by batches, in numpy's memory.

    >>> per_image("sums", lambda x: x.sum(axis=(1, 2, 3)), np.full((5, 2, 2, 1), 255, np.uint8), batch_size=2)
    array([4., 4., 4., 4., 4.], dtype=float32)
    """
    found = [
        jax.tree.map(lambda y, count=count: np.asarray(y)[:count], ys)
        for ys, count in each_batch(function, lambda x, mask: f(x), images, batch_size)
    ]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)
