"""Verify local dataset files against their official sizes and checksums; downloads nothing."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxconv import checks
from jaxconv.data.base import Dataset
from jaxconv.data.download import find_extracted, find_local, integrity_error, search_dirs
from jaxconv.data.registry import DATASETS, SOURCES, load, read_errors
from jaxconv.errors import InputError


class VerificationReport(NamedTuple):
    """One line of text per file of a dataset, and the numbers of damaged and missing files."""

    name: str
    lines: list[str]
    damaged: int
    missing: int


def verify_files(names: Sequence[str] = ()) -> Iterator[VerificationReport]:
    """Compare the files of the named datasets (default: all) with their official sizes and SHA-256.

    Unpacked files of CIFAR-10 have no official checksum; only their sizes and labels are verified.

    Raises:
        InputError: if a name is unknown or a folder cannot be read.

    >>> [report] = verify_files(["digits"])
    >>> report.lines
    ['train (1257, 8, 8) validation (180, 8, 8) test (360, 8, 8) uint8, 10 classes']
    """
    for name in names:
        checks.one_of("dataset", name, DATASETS)
    for name in names or DATASETS:
        with read_errors(name):
            report = _verify(name)
        yield report


def _verify(name: str) -> VerificationReport:
    """Verify the files of one dataset and, if they are complete, load it."""
    lines, damaged, missing = [], 0, 0
    source = SOURCES.get(name)
    if source and (folder := find_extracted(source)):
        lines.append(
            f"{folder} has the layout of the official files; there are no official checksums for unpacked files"
        )
    elif source:
        for filename, expected in source.files.items():
            path = find_local(source, filename)
            if path is None:
                missing += 1
                lines.append(
                    f"{filename} is missing: it will be downloaded into {search_dirs(name)[0]} when it is needed"
                )
            elif error := integrity_error(path, expected):
                damaged += 1
                lines.append(f"{path} {error}: delete it, and it will be downloaded again")
            else:
                lines.append(f"{path} is the official file")
    if not damaged and not missing:
        try:
            lines.append(_format_shapes(load(name)))
        except InputError as load_error:  # unpacked files are verified only by loading them
            damaged += 1
            lines.append(str(load_error))
    return VerificationReport(name, lines, damaged, missing)


def _format_shapes(dataset: Dataset) -> str:
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    shapes = " ".join(f"{name} {(len(split.labels), *split.image_shape[:2])}" for name, split in splits.items())
    return f"{shapes} uint8, {len(dataset.class_names)} classes"
