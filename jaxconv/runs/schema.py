"""Types of the JSON files of a run folder, and functions that read them."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from jaxconv import train
from jaxconv.errors import InputError
from jaxconv.runs.config import MAX_SEEDS, TrainConfig
from jaxconv.utils.files import MAX_JSON_BYTES, as_type, from_dict, read_bytes, read_json

# Options that may change when a run is resumed.
RESUME_OVERRIDES = (
    "num_devices",
    "max_checkpoints",
    "checkpoint_minutes",
    "runs_dir",
    "tensorboard",
)
# Entries of config.json that loading a run uses.
USED = ("model", "image_shape", "input_shape", "class_names", "num_seeds", "data_sha256")

Side = Annotated[int, Meta(ge=1, le=2**14)]
Shape = tuple[Side, Side, Side]
Count = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=1)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Config(TypedDict):
    """Entries of ``config.json`` that loading a run needs; the file also has every option of ``TrainConfig``."""

    dataset: str
    model: str
    task: NotRequired[str]
    image_shape: Shape
    input_shape: Shape
    class_names: Annotated[list[str], Meta(min_length=1)]
    seed: NotRequired[Annotated[int, Meta(ge=0, lt=2**32)]]
    num_seeds: NotRequired[Annotated[int, Meta(ge=1, le=MAX_SEEDS)]]
    num_examples: NotRequired[dict[str, Epoch]]
    data_sha256: NotRequired[dict[str, str]]
    versions: NotRequired[dict[str, str]]


class Saved(TypedDict):
    """Extra content of a snapshot, next to the training state."""

    config: dict[str, Any]
    steps: Count


class Baseline(TypedDict):
    """Entries of a result about the baseline model."""

    model: str
    test_accuracy: Fraction
    num_params: Count


class TaskResult(TypedDict):
    """Entries of ``result.json`` that are read for every task."""

    seed: int
    num_test_examples: Epoch
    best_epoch: Epoch | list[Epoch]
    epochs_run: Epoch
    train_seconds: Seconds
    compile_seconds: Seconds
    total_seconds: Seconds
    device: str
    versions: dict[str, str]
    time_to_first_step_seconds: NotRequired[float | None]
    params_sha256: NotRequired[str]
    test_accuracy_per_seed: NotRequired[list[Fraction]]
    test_accuracy_std: NotRequired[Seconds]
    ensemble_accuracy: NotRequired[Fraction]
    baseline: NotRequired[Baseline]
    relative_error_reduction: NotRequired[float]


class Result(TaskResult):
    """Entries of ``result.json`` that are read for a classification."""

    test_accuracy: Fraction


# Each group of entries is complete or absent.
ENTRY_GROUPS = (
    ("test_accuracy_per_seed", "test_accuracy_std", "ensemble_accuracy"),
    ("baseline", "relative_error_reduction"),
)


class Member(TypedDict):
    """Metrics of one epoch and one seed."""

    epoch: Epoch
    loss: float
    accuracy: Fraction
    val_loss: float
    val_accuracy: Fraction


class Record(Member):
    """Line of ``metrics.jsonl``."""

    step: Count
    epoch_seconds: Seconds
    per_seed: NotRequired[list[Member]]
    dead_layers: NotRequired[list[str]]


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a run: every option, and properties of the data.

    Raises:
        InputError: if the folder is missing or not a run folder, or the file is damaged.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}: give one written by jaxconv train, such as runs/digits-…")
    try:
        with _with_fix("restore the file written by jaxconv train, or start a new run"):
            return _validated(read_json(path), Config, str(path))
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run folder: it has no config.json") from None


def read_train_config(folder: Path) -> TrainConfig:
    """Read the options of a run from its ``config.json``.

    Raises:
        InputError: as :func:`read_config`, or if an option is missing or has an invalid type.
    """
    return TrainConfig.from_dict(read_config(folder), name=str(Path(folder) / "config.json"))


def check_config(folder: Path, config: dict[str, Any], names: Collection[str] | None = None) -> None:
    """Raise InputError unless ``config.json`` equals its copy in the newest snapshot.

    Args:
        folder: run folder.
        config: content of its ``config.json``.
        names: entries to compare; by default all but those that may change on resuming.

    Raises:
        InputError: if an entry differs, or the folder of the newest snapshot was renamed.
    """
    newest = train.read_extra(folder / "checkpoints")
    if newest is None or newest[1] is None:  # no snapshot, or one of an older version
        return
    step, extra = newest
    saved = as_type(extra, Saved, name=str(folder / "checkpoints"))
    if saved["steps"] != step:
        path = folder / "checkpoints" / str(step)
        raise InputError(f"the checkpoint {path} is that of step {saved['steps']}: rename it back")
    for name, expected in saved["config"].items():
        compared = name in names if names is not None else name not in (*RESUME_OVERRIDES, "run_dir")
        if compared and config.get(name) != expected:
            actual = f"{name}={config[name]!r:.200}" if name in config else f"no {name}"
            raise InputError(
                f"{folder / 'config.json'} has {actual}, but the run was trained with {name}={expected!r:.200}: "
                "restore the file"
            )


def read_result(folder: Path) -> dict[str, Any]:
    """Read the ``result.json`` of a finished run.

    Raises:
        InputError: if the training did not finish, or the file is damaged.
    """
    path = Path(folder) / "result.json"
    fix = "delete it, and --resume writes it again"
    try:
        with _with_fix(fix):
            classifies = read_config(folder).get("task", "classification") == "classification"
            result = _validated(read_json(path), Result if classifies else TaskResult, str(path))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no result.json: its training did not finish: run jaxconv train --resume {folder}"
        ) from None
    for names in ENTRY_GROUPS:
        missing = [name for name in names if name not in result]
        if 0 < len(missing) < len(names):
            raise InputError(f"{path} is damaged: it has no {missing[0]}: {fix}")
    return result


def read_history(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """Read the lines of a run's ``metrics.jsonl``, one per epoch.

    Args:
        folder: run folder.
        epochs: number of epochs.

    Raises:
        InputError: if the file is missing or damaged.
    """
    path = Path(folder) / "metrics.jsonl"
    fix = f"delete it and {path.with_name('result.json')}, and --resume writes both again"
    try:
        lines = read_bytes(path, MAX_JSON_BYTES).splitlines()
    except FileNotFoundError:
        raise InputError(f"{folder} has no metrics.jsonl: {fix.replace('it and ', '')}") from None
    if len(lines) != epochs:
        raise InputError(f"{path} is damaged: it has {len(lines)} lines for {epochs} epochs: {fix}")
    records = []
    for epoch, line in enumerate(lines, start=1):
        name = f"line {epoch} of {path}"
        with _with_fix(fix):
            record = _validated(from_dict(line, name=name), Record, name)
        if record["epoch"] != epoch:
            raise InputError(f"{name} is damaged: it is of epoch {record['epoch']}: {fix}")
        records.append(record)
    return records


def _validated(content: Any, kind: Any, name: str) -> dict[str, Any]:
    """Return the content, including entries that the type does not declare; raise InputError if it is invalid."""
    as_type(content, kind, name=name)
    return content


@contextmanager
def _with_fix(fix: str) -> Iterator[None]:
    """Append a fix to the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}: {fix}") from None
