"""Where a run is written."""

import re
import time
from pathlib import Path

import jax

from jaxconv import distributed
from jaxconv.errors import InputError
from jaxconv.runs.config import TrainConfig
from jaxconv.utils import files


def make_folder(config: TrainConfig) -> Path:
    """The folder of a run: the one asked for, or a new one named after data set, model and time.

    Raises:
        InputError: it holds something already, or cannot be made; or several processes have not agreed on one.
    """
    if config.out is not None:
        if distributed.first_says((config.out / "config.json").exists()):
            raise InputError(f"{config.out} holds a run already: give another --out, or go on with --resume")
        # A run of which nothing comes is removed, and what was there before it must not go with it. What a killed
        # process left, its lock and half a config.json, is none of that.
        left = re.compile(r"\.lock(\.json)?|\..*\.partial")
        if distributed.first_says(
            config.out.is_dir() and not all(left.fullmatch(path.name) for path in config.out.iterdir())
        ):
            raise InputError(f"{config.out} is a folder with other things in it: give --out one that is new or empty")
        if distributed.first():
            files.make_folder(config.out)
        return config.out
    if jax.process_count() > 1:
        raise InputError("several processes write one run folder: give each the same --out")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in config.dataset)
    for n in range(1, 1000):
        folder = config.runs / f"{name}-{config.model}-{stamp}{f'-{n}' if n > 1 else ''}"
        try:
            files.make_folder(folder, new=True)
        except FileExistsError:  # two runs in one second
            continue
        return folder
    raise InputError(f"there are too many runs named {folder} in one second")
