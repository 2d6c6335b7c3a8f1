"""Data sets: images in uint8, class numbers, three splits that never mix, and larger images where wanted."""

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
    """Images ``(N, H, W, C)`` in uint8 and their class numbers ``(N,)`` in int32."""

    images: np.ndarray
    labels: np.ndarray

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """One image's shape, ``(H, W, C)``."""
        return self.images.shape[1:]

    def subset(self, where: slice) -> "Split":
        """Some of the examples."""
        return Split(self.images[where], self.labels[where])

    def with_min_size(self, size: tuple[int, int]) -> "Split":
        """The images at least so large: see :func:`upscale_and_pad`."""
        return self._replace(images=upscale_and_pad(self.images, size))

    def to_lazy(self) -> "LazySplit":
        """The same examples, to be had one by one."""
        return LazySplit(self.images, self.labels, self.image_shape, np.asarray)


@dataclasses.dataclass(frozen=True, eq=False)
class LazySplit:
    """Images that are read when they are asked for, for what does not fit in memory; the labels are known.

    It is what Grain calls a random access data source, and it can be pickled, so that workers can have it.

    Attributes:
        items: what ``read`` is given, a slice of it at a time: names of files, numbers of records.
        labels: the class numbers ``(N,)`` in int32.
        image_shape: one image's shape, ``(H, W, C)``.
        read: gives the images ``(n, H, W, C)`` of n items.
        folder: where the items are files, by their names; None for items of other kinds.

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
            place = operator.index(index)
        except TypeError:
            raise InputError(
                f"LazySplit[{index!r}]: give one whole number; several examples are .subset(slice)"
            ) from None
        return self.take([place])[0], int(self.labels[place])

    def take(self, indices: Sequence[SupportsIndex] | np.ndarray) -> np.ndarray:
        """The images ``(n, H, W, C)`` at n places, read together."""
        if isinstance(self.items, np.ndarray):
            return self.read(self.items[np.asarray(indices, int)])
        return self.read([self.items[operator.index(i)] for i in indices])

    def to_lazy(self) -> "LazySplit":
        """It is lazy already."""
        return self

    def subset(self, where: slice) -> "LazySplit":
        """Some of the examples; none is read."""
        return dataclasses.replace(self, items=self.items[where], labels=self.labels[where])

    def with_min_size(self, size: tuple[int, int]) -> "LazySplit":
        """The images at least so large, once they are read: see :func:`upscale_and_pad`."""
        nothing = np.zeros((0, *self.image_shape), np.uint8)
        image_shape = upscale_and_pad(nothing, size).shape[1:]
        return dataclasses.replace(self, image_shape=image_shape, read=functools.partial(_enlarged, self.read, size))

    def to_memory(self, title: str) -> Split:
        """All of it in memory; ``title`` stands at the progress bar."""
        shape, done = (len(self), *self.image_shape), 0
        try:
            images = np.empty(shape, np.uint8)
        except (MemoryError, ValueError):  # ValueError: of more bytes than there are addresses
            raise InputError(
                f"{title}: images {shape} do not fit in memory: make them smaller, or stream the training part "
                "(stream=True, --streaming)"
            ) from None
        for chunk in map_chunks(self.read, self.items, title):
            images[done : done + len(chunk)] = chunk
            done += len(chunk)
        return Split(images, self.labels)


def _enlarged(read: Callable[[Any], np.ndarray], size: tuple[int, int], items: Any) -> np.ndarray:
    return upscale_and_pad(read(items), size)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to learn from, to choose with, and to be judged by.

    Attributes:
        name: as ``load`` knows it.
        class_names: the name of each class; a label is a place in this tuple.
        train: what the parameters are fitted to; in memory, or read as it is needed.
        validation: taken from the official training set, always the same images; every choice is made on it.
        test: the official test set, looked at once, at the end.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split | LazySplit
    validation: Split
    test: Split

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            split = getattr(self, part)
            images, labels = (split.items if isinstance(split, LazySplit) else split.images), split.labels
            dtype = f"{images.dtype} " if isinstance(images, np.ndarray) else ""
            if (
                dtype not in ("", "uint8 ")
                or len(split.image_shape) != 3
                or 0 in split.image_shape
                or not 0 < len(images) == len(labels)
            ):
                raise InputError(
                    f"{self.name}: {part} has {len(images)} images {dtype}{split.image_shape} and "
                    f"{len(labels)} labels; "
                    "wanted uint8 (H, W, C), at least one, and as many labels"
                )
            if split.image_shape != self.image_shape:
                raise InputError(
                    f"{self.name}: training images are {self.image_shape} but those of {part} {split.image_shape}; "
                    "one network takes one size"
                )
            wrong = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
            if wrong.size:
                raise InputError(
                    f"{self.name}: {part} has label {labels[wrong[0]]} (example {wrong[0]}), "
                    f"but there are {len(self.class_names)} classes: 0 to {len(self.class_names) - 1}"
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """One image's shape, ``(H, W, C)``."""
        return self.train.image_shape

    def with_min_size(self, image_shape: tuple[int, int, int]) -> "Dataset":
        """The same data set, its images enlarged where a model needs more pixels than they have.

        See :func:`upscale_and_pad`.
        """
        size = image_shape[:2]
        validation, test = self.validation.with_min_size(size), self.test.with_min_size(size)
        return dataclasses.replace(self, train=self.train.with_min_size(size), validation=validation, test=test)


@overload
def hold_out(split: Split, count: int) -> tuple[Split, Split]: ...
@overload
def hold_out(split: LazySplit, count: int) -> tuple[LazySplit, LazySplit]: ...
@named_errors
def hold_out(split: Any, count: int) -> tuple[Any, Any]:
    """Set the last ``count`` examples aside, in the order of the file, as Keras's ``validation_split`` does.

    Lecture row 004-23.
    """
    total = len(split.labels)
    if not 0 < count < total:
        raise InputError(f"count={count} should be at least 1 and below the {total} examples")
    return split.subset(slice(None, -count)), split.subset(slice(-count, None))


def upscale_and_pad(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Make images at least so large: by the largest whole factor that fits (linear), then a border of zeros.

    So 28×28 digits get two pixels of border for LeNet's 32×32, as LeCun did it, and 8×8 digits are magnified three
    times and framed for a network that wants 28×28. Images that are large enough stay as they are.

    Args:
        images: ``(N, H, W, C)`` uint8.
        size: the least height and width.

    >>> upscale_and_pad(np.full((1, 8, 8, 1), 255, np.uint8), (28, 28))[0, 13, :, 0]
    array([  0,   0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
           255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
             0,   0], dtype=uint8)
    """
    height, width = images.shape[1:3]
    factor = max(1, min(size[0] // height, size[1] // width))
    if factor > 1:
        larger = _magnify(_magnify(images.astype(np.float32), factor, axis=1), factor, axis=2)
        images = larger.round().astype(np.uint8)
    missing = [max(0, wanted - have) for wanted, have in zip(size, images.shape[1:3], strict=True)]
    border = [(m // 2, m - m // 2) for m in missing]
    return np.pad(images, ((0, 0), *border, (0, 0))) if any(missing) else images


def _magnify(images: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """Linear between the centres of the pixels, flat beyond the outermost. No jax: data workers call it."""
    count = images.shape[axis]
    centres = ((np.arange(count * factor) + 0.5) / factor - 0.5).clip(0, count - 1)
    low = np.floor(centres).astype(int)
    shape = [1] * images.ndim
    shape[axis] = -1
    share = (centres - low).astype(np.float32).reshape(shape)
    first, second = images.take(low, axis), images.take((low + 1).clip(max=count - 1), axis)
    return first * (1 - share) + second * share
