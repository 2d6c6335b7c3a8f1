"""The JSON files of a run folder: their types, and how each is read."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

from jaxconv import train
from jaxconv.errors import InputError
from jaxconv.runs.config import MAX_SEEDS, TrainConfig
from jaxconv.utils.files import MAX_JSON_BYTES, as_type, from_dict, read_bytes, read_json

RESUME_OVERRIDES = (
    "num_devices",
    "max_checkpoints",
    "checkpoint_minutes",
    "runs_dir",
    "tensorboard",
)  # where a run is resumed
USED = ("model", "image_shape", "input_shape", "class_names", "num_seeds", "data_sha256")  # by whoever reads a run

Side = Annotated[int, Meta(ge=1, le=2**14)]
Shape = tuple[Side, Side, Side]
Count = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Config(TypedDict):
    """What reading a run needs of its ``config.json``; the file holds every option of ``TrainConfig`` too."""

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
    """What a snapshot holds beside the state of training."""

    config: dict[str, Any]
    steps: Count


class Baseline(TypedDict):
    """What a result tells of the network to compare with."""

    model: str
    test_accuracy: Share
    num_params: Count


class TaskResult(TypedDict):
    """Entries that are read of a ``result.json``, whatever the task."""

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
    test_accuracy_per_seed: NotRequired[list[Share]]
    test_accuracy_std: NotRequired[Seconds]
    ensemble_accuracy: NotRequired[Share]
    baseline: NotRequired[Baseline]
    relative_error_reduction: NotRequired[float]


class Result(TaskResult):
    """Entries that are read of the ``result.json`` of a classification."""

    test_accuracy: Share


TOGETHER = (
    ("test_accuracy_per_seed", "test_accuracy_std", "ensemble_accuracy"),
    ("baseline", "relative_error_reduction"),
)


class Member(TypedDict):
    """What an epoch was for one of several networks."""

    epoch: Epoch
    loss: float
    accuracy: Share
    val_loss: float
    val_accuracy: Share


class Record(Member):
    """A line of ``metrics.jsonl``."""

    step: Count
    epoch_seconds: Seconds
    per_seed: NotRequired[list[Member]]
    dead_layers: NotRequired[list[str]]


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a run: every option, and what its data were.

    Raises:
        InputError: no such folder, no run folder, or a damaged file.
    """
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise InputError(f"there is no run folder {folder}: give one that jaxconv train made, such as runs/digits-…")
    try:
        with _how_to_mend("put back what jaxconv train wrote there, or start a new run"):
            return _checked(read_json(path), Config, str(path))
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run folder: it has no config.json") from None


def read_train_config(folder: Path) -> TrainConfig:
    """The options of a run, from its ``config.json``.

    Raises:
        InputError: as :func:`read_config`; or the file lacks an option, or has one of another type.
    """
    return TrainConfig.from_dict(read_config(folder), name=str(Path(folder) / "config.json"))


def check_config(folder: Path, config: dict[str, Any], names: Collection[str] | None = None) -> None:
    """Refuse a ``config.json`` that is not what the run was trained with, which its newest snapshot holds too.

    Args:
        folder: the run's.
        config: its config.json.
        names: the entries to compare; by default all but those that may change.

    Raises:
        InputError: an entry that differs, or a snapshot that has the name of another.
    """
    newest = train.read_extra(folder / "checkpoints")
    if newest is None or newest[1] is None:  # the latter is of an older version
        return
    snapshot, saved = (
        folder / "checkpoints" / str(newest[0]),
        as_type(newest[1], Saved, name=str(folder / "checkpoints")),
    )
    if saved["steps"] != newest[0]:
        raise InputError(f"the checkpoint {snapshot} is that of step {saved['steps']}: give it that name again")
    for name, then in saved["config"].items():
        compared = name in names if names is not None else name not in (*RESUME_OVERRIDES, "run_dir")
        if compared and config.get(name) != then:
            now = f"{name}={config[name]!r:.200}" if name in config else f"no {name}"
            raise InputError(
                f"{folder / 'config.json'} has {now}, but the run was trained with {name}={then!r:.200}: put that back"
            )


def read_result(folder: Path) -> dict[str, Any]:
    """The ``result.json`` of a run.

    Raises:
        InputError: its training did not end, or the file is damaged.
    """
    path = Path(folder) / "result.json"
    fix = "delete it, and --resume makes it again"
    try:
        with _how_to_mend(fix):
            classifies = read_config(folder).get("task", "classification") == "classification"
            result = _checked(read_json(path), Result if classifies else TaskResult, str(path))
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no result.json: its training did not end; jaxconv train --resume {folder} goes on with it"
        ) from None
    for names in TOGETHER:
        missing = [name for name in names if name not in result]
        if 0 < len(missing) < len(names):
            raise InputError(f"{path} is damaged: it has no {missing[0]}: {fix}")
    return result


def read_history(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """The lines of a run's ``metrics.jsonl``, one for each epoch.

    Args:
        folder: the run's.
        epochs: how many there are.

    Raises:
        InputError: no such file, or a damaged one.
    """
    path = Path(folder) / "metrics.jsonl"
    fix = f"delete it and {path.with_name('result.json')}, and --resume makes both again"
    try:
        lines = read_bytes(path, MAX_JSON_BYTES).splitlines()
    except FileNotFoundError:
        raise InputError(f"{folder} has no metrics.jsonl: {fix.replace('it and ', '')}") from None
    if len(lines) != epochs:
        raise InputError(f"{path} is damaged: it has {len(lines)} lines for {epochs} epochs: {fix}")
    records = []
    for number, line in enumerate(lines, start=1):
        name = f"line {number} of {path}"
        with _how_to_mend(fix):
            record = _checked(from_dict(line, name=name), Record, name)
        if record["epoch"] != number:
            raise InputError(f"{name} is damaged: it is of epoch {record['epoch']}: {fix}")
        records.append(record)
    return records


def _checked(content: Any, kind: Any, name: str) -> dict[str, Any]:
    """The content as it is, with entries that the type does not name, once it has been checked."""
    as_type(content, kind, name=name)
    return content


@contextmanager
def _how_to_mend(fix: str) -> Iterator[None]:
    """Add to an error what to do about it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{error}: {fix}") from None
