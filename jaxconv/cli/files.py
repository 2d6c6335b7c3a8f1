"""Files that a command is to write, looked at before it works for minutes."""

from pathlib import Path

from jaxconv.errors import InputError


def check_writable(command: str, option: str, path: Path | None) -> None:
    """Refuse a file that could not be written in the end.

    Raises:
        InputError: it is a folder, or in none that is there.
    """
    if path and path.is_dir():
        raise InputError(f"{command}: {option} {path} is a folder: name a file in it")
    if path and not path.absolute().parent.is_dir():
        raise InputError(f"{command}: {option} {path}: there is no folder {path.parent}")
