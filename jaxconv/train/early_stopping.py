"""Early stopping: Keras's rule as a pure function of the records of the epochs."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

MONITORS = ("val_loss", "val_accuracy", "loss", "accuracy", "val_mae", "mae")  # a task of a user's may have others
MODES = ("auto", "min", "max")


class EarlyStoppingState(NamedTuple):
    """State of :class:`EarlyStopping`, in numbers that go into JSON and back."""

    best_value: float | None = None  # the monitored value of the best epoch; None: there is none yet
    tie_break: float = 0.0  # its loss, where the accuracy is monitored
    best_epoch: int = 0  # the best epoch
    wait: int = 0  # epochs without an improvement since
    stopped: bool = False


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop when ``patience`` epochs in a row have brought no improvement, and know which epoch was the best.

    An epoch improves on the best one if its loss is lower by more than ``min_delta``, or its accuracy higher by more;
    with ``min_delta=0``, the same accuracy with a lower loss is an improvement too (Keras has only the first rule, and
    agrees wherever no two accuracies are equal). What is not finite is no improvement.

    Args:
        patience: how many; None: never stop, but keep track of the best. 0 and 1 are the same, as in Keras.
        monitor: val_loss, val_accuracy, loss, accuracy, or another number of the record.
        min_delta: what is at most this much better is not better.
        mode: ``"max"`` or ``"min"``: higher or lower is better. ``"auto"``: lower if the monitor's name ends with
            loss, mae or error, else higher.

    Raises:
        InputError: a patience or a min_delta below 0, an unknown mode, or a monitor with a typing error.

    Lecture row 004-22.

    >>> rule = EarlyStopping(patience=2)
    >>> stopping = rule.init()
    >>> for epoch, loss in enumerate([0.9, 0.5, 0.7, 0.6], start=1):
    ...     stopping, is_best = rule.update(stopping, {"epoch": epoch, "val_loss": loss})
    >>> stopping
    EarlyStoppingState(best_value=0.5, tie_break=0.0, best_epoch=2, wait=2, stopped=True)
    """

    patience: int | None
    monitor: str = "val_loss"
    min_delta: float = 0.0
    mode: str = "auto"

    @named_errors(name="early stopping")
    def __post_init__(self) -> None:
        if self.patience is not None:
            checks.at_least(0, patience=self.patience)
        if not isinstance(self.monitor, str) or difflib.get_close_matches(self.monitor, MONITORS, cutoff=0.9):
            checks.one_of("monitor", self.monitor, MONITORS)
        checks.one_of("mode", self.mode, MODES)
        checks.real("min_delta", self.min_delta, minimum=0)

    def init(self) -> EarlyStoppingState:
        """Before the first epoch."""
        return EarlyStoppingState()

    @named_errors(name="early stopping")
    def update(self, stopping: EarlyStoppingState, record: Mapping[str, Any]) -> tuple[EarlyStoppingState, bool]:
        """What is known after one more epoch, and whether that epoch is the best so far.

        Args:
            stopping: from :meth:`start`, or from the epoch before.
            record: of the epoch: its number, ``epoch``, and the monitored value; with an accuracy, also its loss.

        Raises:
            InputError: a record that lacks one of them.
        """
        higher = self.mode == "max"
        if self.mode == "auto":
            higher = not self.monitor.endswith(("loss", "mae", "error"))
        names = ["epoch", self.monitor] + ["val_loss" if self.monitor.startswith("val_") else "loss"] * higher
        if missing := [name for name in names if name not in record]:
            raise InputError(f"the record has no {' and no '.join(missing)}; it has {', '.join(record)}")
        sign = 1 if higher else -1
        value, tie = record[self.monitor], record[names[2]] if higher else 0.0
        is_best = math.isfinite(value) and math.isfinite(tie)
        if is_best and stopping.best_value is not None:
            is_best = (sign * value - self.min_delta, -tie) > (sign * stopping.best_value, -stopping.tie_break)
        if is_best:
            return EarlyStoppingState(float(value), float(tie), int(record["epoch"])), True
        wait = stopping.wait + 1
        stopped = self.patience is not None and wait >= self.patience
        return stopping._replace(wait=wait, stopped=stopped), False
