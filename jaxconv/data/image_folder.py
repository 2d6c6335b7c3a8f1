"""A folder of pictures, a sub-folder a class, as a data set."""

import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from jaxconv.data.archives import extract_archive
from jaxconv.data.base import LazySplit
from jaxconv.data.download import cache_dir
from jaxconv.data.images import read_image_shape, read_pixels
from jaxconv.data.splits import PartialDataset
from jaxconv.errors import InputError
from jaxconv.utils.progress import map_chunks

PICTURES = (".png", ".jpg", ".jpeg")
PARTS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
LAYOUT = "wanted PATH/class/*.png, or PATH/train/class/*.png and PATH/test/class/*.png"
THREADS = 8

T = TypeVar("T")


def load_image_folder(place: str) -> PartialDataset:
    """Pictures (png or jpg, all of one size) in a folder for each class, or in an archive of such folders.

    ``PATH/cat/1.png`` is of class "cat"; the classes are in the order of the alphabet. ``PATH/train/cat/1.png`` and
    ``PATH/test/cat/2.png`` set the parts (``validation``, ``val`` or ``valid`` is the third). Where they are not set,
    the pictures are shuffled by the SHA-256 of their names, always the same way: of each class the first tenth is in
    the test part, the second in the validation part, and at least one in each. Grey pictures have one channel; if one
    of them is in colour, all have three.

    A .tar, .tar.gz or .zip is unpacked into the cache folder once, and again when it has changed; one that becomes too
    large is refused (:func:`jaxconv.data.archives.extract_archive` tells how to allow it).

    Raises:
        InputError: nothing there, no pictures, an empty class, fewer than two classes, a class that the training
            part does not have, or that has fewer than three pictures for the three parts, a file that is no picture, or
            pictures of more than one size.
    """
    name, root = f"folder:{place}", Path(os.path.expanduser(place))
    if not root.exists():
        raise InputError(f"{name}: there is no {root}")
    if not root.is_file():
        return _load(name, root)
    folder = _cached(root)
    there = folder.is_dir()
    if not there:
        extract_archive(root, folder)
    try:
        return _load(name, _inner(folder))
    except InputError:
        if not there:  # what is of no use does not stay
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _load(name: str, root: Path) -> PartialDataset:
    subfolders = _subfolders(root)
    if not any(part in PARTS for part in subfolders):
        return _cut(name, root, subfolders)
    for part in subfolders:
        if part not in PARTS:
            raise InputError(f"{name}: {part} is neither train, validation nor test; {LAYOUT}")
    if "train" not in subfolders:
        raise InputError(f"{name} has {', '.join(subfolders)} but no train; {LAYOUT}")
    if len({PARTS[part] for part in subfolders}) < len(subfolders):
        raise InputError(f"{name} has {', '.join(subfolders)}: one validation part is enough")
    classes = _subfolders(root / "train")
    files = {}
    for part in subfolders:
        inside = _subfolders(root / part)
        if odd := set(inside).difference(classes):
            raise InputError(f"{name}: {part} has a class {min(odd)}, which train has not; known: {', '.join(classes)}")
        files[PARTS[part]] = _files(name, root, f"{part}/", inside)
    shape = _one_shape(name, root, [file for part in files.values() for file in part])
    return PartialDataset(name, classes, **{part: _split(root, found, classes, shape) for part, found in files.items()})


def _cut(name: str, root: Path, classes: tuple[str, ...]) -> PartialDataset:
    """All pictures in three parts: of each class a tenth to test, a tenth to choose, the rest to train."""
    files = _files(name, root, "", classes)
    shape = _one_shape(name, root, files)
    part_of: dict[str, str] = {}
    for label in classes:
        own = [file for file in files if file.startswith(f"{label}/")]
        tenth = max(1, len(own) // 10)
        if len(own) < 3:
            raise InputError(
                f"{name} has {len(own)} pictures of the class {label}; one to train, one to choose and one to test "
                f"are the least: add some, or set the parts: {LAYOUT}"
            )
        part_of |= dict.fromkeys(own[:tenth], "test") | dict.fromkeys(own[tenth : 2 * tenth], "validation")
    cuts = {part: [f for f in files if part_of.get(f, "train") == part] for part in ("train", "validation", "test")}
    return PartialDataset(name, classes, **{part: _split(root, cut, classes, shape) for part, cut in cuts.items()})


def _cached(archive: Path) -> Path:
    """Where an archive is unpacked; the folder's name tells it from every other, and from itself if it changes."""
    facts = archive.stat()
    mark = hashlib.sha256(os.fsencode(f"{archive.resolve()} {facts.st_size} {facts.st_mtime_ns}")).hexdigest()[:16]
    return cache_dir() / "unpacked" / f"{archive.name.split('.')[0]}-{mark}"


def _inner(folder: Path) -> Path:
    """The folder of an archive, or the one in it, if the archive is of a folder."""
    inside = _subfolders(folder)
    alone = len(inside) == 1 and inside[0] not in PARTS and _subfolders(folder / inside[0])
    return folder / inside[0] if alone else folder


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, without what macOS and Windows leave there."""
    junk = ("__MACOSX", "Thumbs.db", "desktop.ini")
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in junk)


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(path.name for path in _visible(folder) if path.is_dir())


def _files(name: str, root: Path, part: str, classes: tuple[str, ...]) -> list[str]:
    """The pictures of a part, by their paths below ``root``, shuffled by the hash of these.

    So the order is the same on every machine, and a new picture leaves the order of the others as it is: nearly all of
    them stay in their part.
    """
    if len(classes) < 2:
        has = f"only the class {classes[0]}" if classes else "no sub-folders"
        raise InputError(f"{name}: {root / part} has {has}; {LAYOUT}, with at least two classes")
    found = []
    for label in classes:
        files = _visible(root / part / label)
        for file in files:
            if file.suffix.lower() not in PICTURES or not file.is_file():
                raise InputError(f"{name}: {file} is no png and no jpg; {LAYOUT}")
        if not files:
            raise InputError(f"{name}: class {label} is empty: {root / part / label} has no png and no jpg")
        found += [f"{part}{label}/{file.name}" for file in files]
    return sorted(found, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def _one_shape(name: str, root: Path, files: list[str]) -> tuple[int, int, int]:
    """The shape of all pictures, by their heads."""
    shapes: list[tuple[int, int, int]] = []
    for some in map_chunks(functools.partial(_in_threads, read_image_shape, root), files, f"{name}: sizes"):
        shapes += some
    height, width, _ = shapes[0]
    for file, shape in zip(files, shapes, strict=True):
        if shape[:2] != (height, width):
            raise InputError(
                f"{name}: pictures of more than one size: {files[0]} is {height}×{width} (height × width), {file} is "
                f"{shape[0]}×{shape[1]}; make them all one size first, with Pillow's Image.resize for instance"
            )
    return height, width, max(channels for _, _, channels in shapes)


def _split(root: Path, files: list[str], classes: tuple[str, ...], shape: tuple[int, int, int]) -> LazySplit:
    number = {label: n for n, label in enumerate(classes)}
    labels = np.array([number[file.split("/")[-2]] for file in files], np.int32)
    return LazySplit(files, labels, shape, functools.partial(_read, root, shape), root)


def _read(root: Path, shape: tuple[int, int, int], files: Sequence[str]) -> np.ndarray:
    images = _in_threads(functools.partial(read_pixels, channels=shape[2]), root, files)
    for file, image in zip(files, images, strict=True):
        if image.shape != shape:
            raise InputError(f"{root / file} is {image.shape} now, but it was {shape} when the data set was opened")
    return np.stack(images)


def _in_threads(work: Callable[[Path], T], root: Path, files: Sequence[str]) -> list[T]:
    """Most of reading a picture is waiting, or is done where Python does not have to wait."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, (root / file for file in files)))
