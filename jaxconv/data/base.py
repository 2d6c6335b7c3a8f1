"""Dataset containers: uint8 images with class labels in three disjoint splits, in memory or read lazily."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, overload

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.utils.progress import map_chunks


class Split(NamedTuple):
    """Images ``(N, H, W, C)`` in uint8 and their labels ``(N,)`` in int32, which are class indices."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(H, W, C)``."""
        return self.images.shape[1:]

    def subset(self, where: slice) -> "Split":
        """Return the examples of a slice."""
        return Split(self.images[where], self.labels[where])

    def with_min_size(self, size: tuple[int, int]) -> "Split":
        """Return the split with images of at least ``size``: see :func:`upscale_and_pad`."""
        return self._replace(images=upscale_and_pad(self.images, size))

    def to_lazy(self) -> "LazySplit":
        """Return the same examples as a :class:`LazySplit`, which is indexed one by one."""
        return LazySplit(self.images, self.labels, self.image_shape, np.asarray)


@dataclasses.dataclass(frozen=True, eq=False)
class LazySplit:
    """Labels in memory and images that are read on access, for datasets larger than memory.

    It is a random access data source of Grain, and can be pickled for worker processes.

    Attributes:
        items: one reference to an image per example, such as a file name or a record index.
        labels: class indices, ``(N,)`` int32.
        image_shape: shape of one image, ``(H, W, C)``.
        read: function from n of the ``items`` to their images, ``(n, H, W, C)``.
        folder: folder that contains the files if ``items`` are file names; otherwise None.

    >>> lazy = Split(np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1), np.array([7, 8, 9], np.int32)).to_lazy()
    >>> image, label = lazy[1]
    >>> len(lazy), image[:, :, 0].tolist(), label
    (3, [[4, 5], [6, 7]], 8)
    """

    items: Sequence[Any] | np.ndarray
    labels: np.ndarray
    image_shape: tuple[int, int, int]
    read: Callable[[Any], np.ndarray]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: SupportsIndex) -> tuple[np.ndarray, int]:
        try:
            position = operator.index(index)
        except TypeError:
            raise InputError(
                f"LazySplit[{index!r}]: the index must be one integer; for several examples use .subset(slice)"
            ) from None
        return self.take([position])[0], int(self.labels[position])

    def take(self, indices: Sequence[SupportsIndex] | np.ndarray) -> np.ndarray:
        """Read the images at n indices together, ``(n, H, W, C)``."""
        if isinstance(self.items, np.ndarray):
            return self.read(self.items[np.asarray(indices, int)])
        return self.read([self.items[operator.index(i)] for i in indices])

    def to_lazy(self) -> "LazySplit":
        """Return this split."""
        return self

    def subset(self, where: slice) -> "LazySplit":
        """Return the examples of a slice without reading their images."""
        return dataclasses.replace(self, items=self.items[where], labels=self.labels[where])

    def with_min_size(self, size: tuple[int, int]) -> "LazySplit":
        """Return the split with images of at least ``size`` when read: see :func:`upscale_and_pad`."""
        no_images = np.zeros((0, *self.image_shape), np.uint8)
        image_shape = upscale_and_pad(no_images, size).shape[1:]
        return dataclasses.replace(
            self, image_shape=image_shape, read=functools.partial(_read_and_upscale, self.read, size)
        )

    def to_memory(self, title: str) -> Split:
        """Read all images into memory; ``title`` labels the progress bar."""
        shape, num_read = (len(self), *self.image_shape), 0
        try:
            images = np.empty(shape, np.uint8)
        except (MemoryError, ValueError):  # ValueError: the size exceeds the address space
            raise InputError(
                f"{title}: images {shape} do not fit in memory: make them smaller, or stream the training split "
                "(streaming=True, --streaming)"
            ) from None
        for chunk in map_chunks(self.read, self.items, title):
            images[num_read : num_read + len(chunk)] = chunk
            num_read += len(chunk)
        return Split(images, self.labels)


def _read_and_upscale(read: Callable[[Any], np.ndarray], size: tuple[int, int], items: Any) -> np.ndarray:
    return upscale_and_pad(read(items), size)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training, validation and test split of a classification dataset.

    Attributes:
        name: name as passed to ``load``.
        class_names: name of each class; a label is an index into this tuple.
        train: split that the parameters are fitted to; in memory, or read lazily.
        validation: fixed part of the official training set; all choices are made on it.
        test: official test set, evaluated once, at the end.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split | LazySplit
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        for split_name in ("train", "validation", "test"):
            split = getattr(self, split_name)
            images, labels = (split.items if isinstance(split, LazySplit) else split.images), split.labels
            dtype = f"{images.dtype} " if isinstance(images, np.ndarray) else ""
            if (
                dtype not in ("", "uint8 ")
                or len(split.image_shape) != 3
                or 0 in split.image_shape
                or not 0 < len(images) == len(labels)
            ):
                raise InputError(
                    f"{self.name}: {split_name} has {len(images)} images {dtype}{split.image_shape} and "
                    f"{len(labels)} labels; expected uint8 (H, W, C), at least one image, and one label per image"
                )
            if split.image_shape != self.image_shape:
                raise InputError(
                    f"{self.name}: training images are {self.image_shape} but those of {split_name} "
                    f"{split.image_shape}; all images must have one size"
                )
            invalid = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
            if invalid.size:
                raise InputError(
                    f"{self.name}: {split_name} has label {labels[invalid[0]]} (example {invalid[0]}), "
                    f"but there are {len(self.class_names)} classes: 0 to {len(self.class_names) - 1}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(H, W, C)``."""
        return self.train.image_shape

    def with_min_size(self, image_shape: tuple[int, int, int]) -> "Dataset":
        """Return the dataset with images of at least ``image_shape``: see :func:`upscale_and_pad`."""
        size = image_shape[:2]
        validation, test = self.validation.with_min_size(size), self.test.with_min_size(size)
        return dataclasses.replace(self, train=self.train.with_min_size(size), validation=validation, test=test)


@overload
def hold_out(split: Split, count: int) -> tuple[Split, Split]: ...
@overload
def hold_out(split: LazySplit, count: int) -> tuple[LazySplit, LazySplit]: ...
@named_errors
def hold_out(split: Any, count: int) -> tuple[Any, Any]:
    """Split off the last ``count`` examples in file order, as ``validation_split`` of Keras does.

    Lecture row 004-23.
    """
    total = len(split.labels)
    if not 0 < count < total:
        raise InputError(f"count={count} must be at least 1 and less than the {total} examples")
    return split.subset(slice(None, -count)), split.subset(slice(-count, None))


def upscale_and_pad(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge images to at least ``size``: upscale by the largest integer factor that fits, then zero-pad.

    The upscaling is linear. For the 32×32 input of LeNet, 28×28 digits are padded by two pixels, as LeCun did; for a
    28×28 input, 8×8 digits are upscaled three times and padded by two pixels. Images that are large enough are
    returned unchanged.

    Args:
        images: ``(N, H, W, C)`` uint8.
        size: minimum height and width.

    >>> upscale_and_pad(np.full((1, 8, 8, 1), 255, np.uint8), (28, 28))[0, 13, :, 0]
    array([  0,   0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
           255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
             0,   0], dtype=uint8)
    """
    height, width = images.shape[1:3]
    factor = max(1, min(size[0] // height, size[1] // width))
    if factor > 1:
        larger = _upscale(_upscale(images.astype(np.float32), factor, axis=1), factor, axis=2)
        images = larger.round().astype(np.uint8)
    missing = [max(0, minimum - n) for minimum, n in zip(size, images.shape[1:3], strict=True)]
    border = [(m // 2, m - m // 2) for m in missing]
    return np.pad(images, ((0, 0), *border, (0, 0))) if any(missing) else images


def _upscale(images: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """Interpolate linearly between pixel centers, constant beyond the outermost; in numpy for the data workers."""
    size = images.shape[axis]
    positions = ((np.arange(size * factor) + 0.5) / factor - 0.5).clip(0, size - 1)
    lower = np.floor(positions).astype(int)
    shape = [1] * images.ndim
    shape[axis] = -1
    fraction = (positions - lower).astype(np.float32).reshape(shape)
    left, right = images.take(lower, axis), images.take((lower + 1).clip(max=size - 1), axis)
    return left * (1 - fraction) + right * fraction
