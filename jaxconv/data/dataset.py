"""What every data set is, wherever it came from: images in uint8, class numbers, and three parts that never mix."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np

from jaxconv.errors import InputError


class Split(NamedTuple):
    """Images ``(N, H, W, C)`` in uint8 and their class numbers ``(N,)`` in int32."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to learn from, to choose with, and to be judged by.

    Attributes:
        name: as ``load`` knows it.
        classes: the name of each class; a label is a place in this tuple.
        train: what the parameters are fitted to.
        validation: taken from the official training set, always the same images; every choice is made on it.
        test: the official test set, looked at once, at the end.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            images, labels = getattr(self, part)
            if images.ndim != 4 or images.dtype != np.uint8 or len(images) != len(labels) or not len(images):
                raise InputError(
                    f"{self.name}: {part} has images {images.dtype}{images.shape} and labels {labels.shape}; "
                    "wanted uint8 (N, H, W, C), and as many labels"
                )
            if labels.min() < 0 or labels.max() >= len(self.classes):
                raise InputError(
                    f"{self.name}: {part} has labels from {labels.min()} to {labels.max()}, "
                    f"but there are {len(self.classes)} classes: 0 to {len(self.classes) - 1}"
                )

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """One image's shape, ``(H, W, C)``."""
        return self.train.images.shape[1:]

    def at_least(self, in_shape: tuple[int, int, int]) -> "Dataset":
        """The same data set, its images enlarged where a model needs more pixels than they have.

        See :func:`enlarge`.
        """
        return dataclasses.replace(
            self,
            train=self.train._replace(images=enlarge(self.train.images, in_shape[:2])),
            validation=self.validation._replace(images=enlarge(self.validation.images, in_shape[:2])),
            test=self.test._replace(images=enlarge(self.test.images, in_shape[:2])),
        )


def hold_out(split: Split, count: int) -> tuple[Split, Split]:
    """Set the last ``count`` examples aside, in the order of the file, as Keras's ``validation_split`` does.

    Lecture row 004-23.
    """
    images, labels = split
    if not 0 < count < len(images):
        raise InputError(f"hold_out: count={count} should be at least 1 and below the {len(images)} examples")
    return Split(images[:-count], labels[:-count]), Split(images[-count:], labels[-count:])


def enlarge(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Make images at least so large: by the largest whole factor that fits (linear), then a border of zeros.

    So 28×28 digits get two pixels of border for LeNet's 32×32, as LeCun did it, and 8×8 digits are magnified three
    times and framed for a network that wants 28×28. Images that are large enough stay as they are.

    Args:
        images: ``(N, H, W, C)`` uint8.
        size: the least height and width.

    >>> enlarge(np.full((1, 8, 8, 1), 255, np.uint8), (28, 28))[0, 13, :, 0]
    array([  0,   0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
           255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
             0,   0], dtype=uint8)
    """
    n, height, width, channels = images.shape
    factor = max(1, min(size[0] // height, size[1] // width))
    if factor > 1:
        larger = (n, height * factor, width * factor, channels)
        images = np.asarray(jax.image.resize(images.astype(np.float32), larger, "linear").round()).astype(np.uint8)
    missing = [max(0, wanted - have) for wanted, have in zip(size, images.shape[1:3], strict=True)]
    border = [(m // 2, m - m // 2) for m in missing]
    return np.pad(images, ((0, 0), *border, (0, 0))) if any(missing) else images
