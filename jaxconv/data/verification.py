"""Is what lies on this machine the official data? Nothing is downloaded to find out."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from jaxconv import checks
from jaxconv.data.base import Dataset
from jaxconv.data.download import find_extracted, find_local, integrity_error, search_dirs
from jaxconv.data.registry import DATASETS, SOURCES, load, readable
from jaxconv.errors import InputError


class VerificationReport(NamedTuple):
    """What is known of a data set's files, in words; ``damaged`` and ``missing`` count them."""

    name: str
    lines: list[str]
    damaged: int
    missing: int


def verify_files(names: Sequence[str] = ()) -> Iterator[VerificationReport]:
    """Compare every file of the named data sets (of all, if none is named) with its official size and SHA-256.

    Files of CIFAR-10 that were found unpacked have no official checksum: their sizes and labels are looked at.

    Raises:
        InputError: an unknown name, or a folder that cannot be looked into.

    >>> [report] = verify_files(["digits"])
    >>> report.lines
    ['train (1257, 8, 8) validation (180, 8, 8) test (360, 8, 8) uint8, 10 classes']
    """
    for name in names:
        checks.one_of("data set", name, DATASETS)
    for name in names or DATASETS:
        with readable(name):
            report = _report(name)
        yield report


def _report(name: str) -> VerificationReport:
    lines, damaged, missing = [], 0, 0
    source = SOURCES.get(name)
    if source and (folder := find_extracted(source)):
        lines.append(
            f"{folder} has the layout of the official files, whose checksums are not known once they are unpacked"
        )
    elif source:
        for filename, wanted in source.files.items():
            path = find_local(source, filename)
            if path is None:
                missing += 1
                lines.append(
                    f"{filename} is missing: it will be downloaded into {search_dirs(name)[0]} when it is needed"
                )
            elif fault := integrity_error(path, wanted):
                damaged += 1
                lines.append(f"{path} {fault}: delete it, and it will be downloaded again")
            else:
                lines.append(f"{path} is the official file")
    if not damaged and not missing:
        try:
            lines.append(_shapes(load(name)))
        except InputError as error:  # of unpacked files, which nothing has looked into yet
            damaged += 1
            lines.append(str(error))
    return VerificationReport(name, lines, damaged, missing)


def _shapes(dataset: Dataset) -> str:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    shapes = " ".join(f"{part} {(len(split.labels), *split.image_shape[:2])}" for part, split in parts.items())
    return f"{shapes} uint8, {len(dataset.class_names)} classes"
