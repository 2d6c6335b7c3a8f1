"""Load a dataset from a folder of images with one subfolder per class."""

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

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
LAYOUT = "expected PATH/class/*.png, or PATH/train/class/*.png and PATH/test/class/*.png"
NUM_THREADS = 8

T = TypeVar("T")


def load_image_folder(location: str) -> PartialDataset:
    """Load images (png or jpg, all of one size) from a folder with one subfolder per class, or from an archive of it.

    ``PATH/cat/1.png`` has the class "cat"; the classes are sorted alphabetically. The layout ``PATH/train/cat/1.png``,
    ``PATH/test/cat/2.png`` defines the splits (the third is ``validation``, ``val`` or ``valid``). Without it the
    images are shuffled deterministically, by the SHA-256 of their paths: of each class the first tenth is the test
    split and the second tenth the validation split, at least one image each. Grayscale images have one channel; if any
    image is in color, all have three.

    A .tar, .tar.gz or .zip is unpacked into the cache folder, and unpacked again when it changes. Its unpacked size is
    limited (see :func:`jaxconv.data.archives.extract_archive`).

    Raises:
        InputError: if the path does not exist, a class is empty, there are fewer than two classes, a class is missing
            in the training split or has fewer than three images to split, a file is not an image, or the images differ
            in size.
    """
    name, root = f"folder:{location}", Path(os.path.expanduser(location))
    if not root.exists():
        raise InputError(f"{name}: there is no {root}")
    if not root.is_file():
        return _load_folder(name, root)
    folder = _unpacked_dir(root)
    was_unpacked = folder.is_dir()
    if not was_unpacked:
        extract_archive(root, folder)
    try:
        return _load_folder(name, _dataset_root(folder))
    except InputError:
        if not was_unpacked:  # keep no unusable folder in the cache
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _load_folder(name: str, root: Path) -> PartialDataset:
    """Load a folder of splits, or a folder of classes that is then split."""
    subfolders = _subfolders(root)
    if not any(folder in SPLITS for folder in subfolders):
        return _split_classes(name, root, subfolders)
    for folder in subfolders:
        if folder not in SPLITS:
            raise InputError(f"{name}: {folder} is neither train, validation nor test; {LAYOUT}")
    if "train" not in subfolders:
        raise InputError(f"{name} has {', '.join(subfolders)} but no train; {LAYOUT}")
    if len({SPLITS[folder] for folder in subfolders}) < len(subfolders):
        raise InputError(f"{name} has {', '.join(subfolders)}: keep one validation folder")
    class_names = _subfolders(root / "train")
    files = {}
    for folder in subfolders:
        split_classes = _subfolders(root / folder)
        if unexpected := set(split_classes).difference(class_names):
            raise InputError(
                f"{name}: {folder} has a class {min(unexpected)} that train does not have; "
                f"known: {', '.join(class_names)}"
            )
        files[SPLITS[folder]] = _list_images(name, root, f"{folder}/", split_classes)
    shape = _common_shape(name, root, [file for split_files in files.values() for file in split_files])
    splits = {split: _lazy_split(root, split_files, class_names, shape) for split, split_files in files.items()}
    return PartialDataset(name, class_names, **splits)


def _split_classes(name: str, root: Path, class_names: tuple[str, ...]) -> PartialDataset:
    """Split the images of each class: the first tenth for test, the second for validation, the rest for training."""
    files = _list_images(name, root, "", class_names)
    shape = _common_shape(name, root, files)
    split_of: dict[str, str] = {}
    for class_name in class_names:
        of_class = [file for file in files if file.startswith(f"{class_name}/")]
        tenth = max(1, len(of_class) // 10)
        if len(of_class) < 3:
            raise InputError(
                f"{name} has {len(of_class)} images of the class {class_name}; at least 3 are required, one for each "
                f"of train, validation and test: add some, or define the splits: {LAYOUT}"
            )
        split_of |= dict.fromkeys(of_class[:tenth], "test") | dict.fromkeys(of_class[tenth : 2 * tenth], "validation")
    by_split = {
        split: [file for file in files if split_of.get(file, "train") == split]
        for split in ("train", "validation", "test")
    }
    splits = {split: _lazy_split(root, split_files, class_names, shape) for split, split_files in by_split.items()}
    return PartialDataset(name, class_names, **splits)


def _unpacked_dir(archive: Path) -> Path:
    """Return the cache folder for an archive; its name depends on the path, size and modification time."""
    stat = archive.stat()
    digest = hashlib.sha256(os.fsencode(f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}")).hexdigest()[:16]
    return cache_dir() / "unpacked" / f"{archive.name.split('.')[0]}-{digest}"


def _dataset_root(folder: Path) -> Path:
    """Return the folder of splits or classes: ``folder``, or its only subfolder if the archive contains one folder."""
    subfolders = _subfolders(folder)
    is_nested = len(subfolders) == 1 and subfolders[0] not in SPLITS and _subfolders(folder / subfolders[0])
    return folder / subfolders[0] if is_nested else folder


def _visible(folder: Path) -> list[Path]:
    """Return the entries of a folder, without hidden files and the metadata files of macOS and Windows."""
    ignored = ("__MACOSX", "Thumbs.db", "desktop.ini")
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in ignored)


def _subfolders(folder: Path) -> tuple[str, ...]:
    """Return the names of the visible subfolders, sorted."""
    return tuple(path.name for path in _visible(folder) if path.is_dir())


def _list_images(name: str, root: Path, prefix: str, class_names: tuple[str, ...]) -> list[str]:
    """Return the image paths of a split relative to ``root``, sorted by their SHA-256.

    The order is the same on every machine, and a new image does not change the order of the others, so that nearly all
    of them stay in their split.
    """
    if len(class_names) < 2:
        contents = f"only the class {class_names[0]}" if class_names else "no subfolders"
        raise InputError(f"{name}: {root / prefix} has {contents}; {LAYOUT}, with at least two classes")
    relative_paths = []
    for class_name in class_names:
        files = _visible(root / prefix / class_name)
        for file in files:
            if file.suffix.lower() not in SUFFIXES or not file.is_file():
                raise InputError(f"{name}: {file} is not a png or jpg; {LAYOUT}")
        if not files:
            raise InputError(f"{name}: class {class_name} is empty: {root / prefix / class_name} has no png or jpg")
        relative_paths += [f"{prefix}{class_name}/{file.name}" for file in files]
    return sorted(relative_paths, key=lambda file: hashlib.sha256(os.fsencode(file)).digest())


def _common_shape(name: str, root: Path, files: list[str]) -> tuple[int, int, int]:
    """Return the shape of all images, read from their headers, with the largest number of channels."""
    shapes: list[tuple[int, int, int]] = []
    for chunk in map_chunks(functools.partial(_map_threads, read_image_shape, root), files, f"{name}: sizes"):
        shapes += chunk
    height, width, _ = shapes[0]
    for file, shape in zip(files, shapes, strict=True):
        if shape[:2] != (height, width):
            raise InputError(
                f"{name}: images of more than one size: {files[0]} is {height}×{width} (height × width), {file} is "
                f"{shape[0]}×{shape[1]}; resize them to one size first, for example with Pillow's Image.resize"
            )
    return height, width, max(channels for _, _, channels in shapes)


def _lazy_split(root: Path, files: list[str], class_names: tuple[str, ...], shape: tuple[int, int, int]) -> LazySplit:
    """Return a split of ``files``, whose labels are the names of their folders."""
    index = {class_name: i for i, class_name in enumerate(class_names)}
    labels = np.array([index[file.split("/")[-2]] for file in files], np.int32)
    return LazySplit(files, labels, shape, functools.partial(_read_images, root, shape), root)


def _read_images(root: Path, shape: tuple[int, int, int], files: Sequence[str]) -> np.ndarray:
    """Read the pixels of ``files``, ``(n, H, W, C)``."""
    images = _map_threads(functools.partial(read_pixels, channels=shape[2]), root, files)
    for file, image in zip(files, images, strict=True):
        if image.shape != shape:
            raise InputError(f"{root / file} is {image.shape} now, but was {shape} when the dataset was opened")
    return np.stack(images)


def _map_threads(function: Callable[[Path], T], root: Path, files: Sequence[str]) -> list[T]:
    """Apply a function to all files in threads: reading waits for the disk, and decoding releases the GIL."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(function, (root / file for file in files)))
