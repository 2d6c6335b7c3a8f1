"""A data set in one ``.npz`` file of numpy's, as Keras and MedMNIST have them."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxconv.data.dataset import Split
from jaxconv.data.parts import Parts, class_numbers, numbered
from jaxconv.errors import InputError

# Keras's names and MedMNIST's; the validation arrays may be missing.
NAMES = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)


def load_npz(place: str) -> Parts:
    """Arrays ``x_train, y_train, x_test, y_test`` (``x_val, y_val``), or ``train_images, train_labels, …``, of a file.

    Images are uint8, ``(N, H, W)`` or ``(N, H, W, C)``; labels whole numbers, ``(N,)`` or ``(N, 1)``. The classes are
    named by their numbers. Without a validation part, the last sixth of the training examples is held out for it.

    Raises:
        InputError: no such file, no ``.npz``, a damaged one, Python objects in it, other names, images that are not
            uint8, or labels that are no class numbers.
    """
    name, path = f"npz:{place}", Path(os.path.expanduser(place))
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{name} is one array; wanted an .npz of several, as np.savez writes it")
            return _read(name, file)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no {path}") from None
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        why = str(error)
        if "Object arrays" in why:
            why = "it holds Python objects, which are not loaded"
        elif "allow_pickle" in why:
            why = "it is no file of numpy's"
        raise InputError(f"{name} cannot be read as an .npz of arrays: {why}") from None


def _read(name: str, file: np.lib.npyio.NpzFile) -> Parts:
    names = next((names for names in NAMES if {*names["train"], *names["test"]} <= set(file.files)), None)
    if names is None:
        wanted = ", or ".join(", ".join((*names["train"], *names["test"])) for names in NAMES)
        raise InputError(f"{name} has {', '.join(file.files) or 'nothing'}; wanted {wanted}")
    splits = {}
    for part, (images, labels) in names.items():
        if images in file.files and labels in file.files:
            where = f"{name}: {images}"
            splits[part] = Split(_pictures(where, file[images]), class_numbers(f"{name}: {labels}", file[labels]))
    return Parts(name, numbered(name, splits["train"].labels), **splits)


def _pictures(where: str, images: np.ndarray) -> np.ndarray:
    """Images as ``(N, H, W, C)`` uint8; refuse what would have to be guessed."""
    if images.dtype != np.uint8:
        array = where.split()[-1]
        floats = np.issubdtype(images.dtype, np.floating)
        if floats and np.isnan(images).any():
            raise InputError(f"{where} has NaNs, which are no pixels: replace them, with np.nan_to_num for instance")
        scaled = floats and images.size and images.max() <= 1
        fix = f"({array} * 255).round()" if scaled else f"{array}.clip(0, 255){'.round()' if floats else ''}"
        raise InputError(f"{where} is {images.dtype}, wanted uint8 from 0 to 255: save {fix}.astype(np.uint8)")
    if images.ndim not in (3, 4) or not images.size:
        raise InputError(f"{where} has the shape {images.shape}; wanted (N, H, W) or (N, H, W, C), and at least one")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3):
        raise InputError(f"{where} {images.shape} looks channels-first: save np.moveaxis(images, 1, -1)")
    return images if images.ndim == 4 else images[..., None]
