"""Where a run is written."""

import time
from pathlib import Path

import jax

from jaxconv import devices
from jaxconv.errors import InputError
from jaxconv.experiment.config import TrainConfig


def make_folder(config: TrainConfig) -> Path:
    """The folder of a run: the one asked for, or a new one named after data set, model and time.

    Raises:
        InputError: it holds something already, or cannot be made; or several processes have not agreed on one.
    """
    if config.out is not None:
        if devices.first_says((config.out / "config.json").exists()):
            raise InputError(f"{config.out} holds a run already: give another --out, or go on with --resume")
        # A run of which nothing comes is removed, and what was there before it must not go with it.
        if devices.first_says(
            config.out.is_dir() and any(path.name != "config.partial" for path in config.out.iterdir())
        ):
            raise InputError(f"{config.out} is a folder with other things in it: give --out one that is new or empty")
        if devices.first():
            _mkdir(config.out, exist_ok=True)
        return config.out
    if jax.process_count() > 1:
        raise InputError("several processes write one run folder: give each the same --out")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in config.dataset)
    for n in range(1, 1000):
        folder = config.runs / f"{name}-{config.model}-{stamp}{f'-{n}' if n > 1 else ''}"
        try:
            _mkdir(folder, exist_ok=False)
        except FileExistsError:  # two runs in one second
            continue
        return folder
    raise InputError(f"there are too many runs named {folder} in one second")


def _mkdir(folder: Path, *, exist_ok: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise InputError(f"the run folder {folder} cannot be made: {error}") from None
