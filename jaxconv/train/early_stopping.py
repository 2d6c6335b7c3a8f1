"""Early stopping: Keras's rule as a pure function of the epochs' records."""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxconv import checks
from jaxconv.errors import InputError, named_errors

MONITORS = ("val_loss", "val_accuracy", "loss", "accuracy", "val_mae", "mae")  # custom tasks may have others
MODES = ("auto", "min", "max")


class EarlyStoppingState(NamedTuple):
    """State of :class:`EarlyStopping`, in JSON-serializable numbers."""

    best_value: float | None = None  # monitored value of the best epoch; None before the first one
    tie_break: float = 0.0  # loss of the best epoch if higher is better, else 0
    best_epoch: int = 0
    wait: int = 0  # number of epochs since the best one
    stopped: bool = False


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in a row without improvement, and track the best epoch.

    An epoch improves on the best one if its loss is lower, or its accuracy higher, by more than ``min_delta``. With
    ``min_delta=0``, an equal accuracy with a lower loss is an improvement too; Keras has only the first rule, so the
    two agree unless accuracies are equal. A value that is not finite is no improvement.

    Args:
        patience: number of epochs without improvement before training stops; None: never stop, only track the best
            epoch. 0 and 1 are equivalent, as in Keras.
        monitor: val_loss, val_accuracy, loss, accuracy, or another number of the record.
        min_delta: minimum change that counts as an improvement (the change must be larger).
        mode: ``"max"`` or ``"min"``: higher or lower is better. ``"auto"``: lower if the monitor's name ends with
            loss, mae or error, else higher.

    Raises:
        InputError: if patience or min_delta is below 0, the mode is unknown, or the monitor is not a string or looks
            misspelled.

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
        """Return the state before the first epoch."""
        return EarlyStoppingState()

    @named_errors(name="early stopping")
    def update(self, stopping: EarlyStoppingState, record: Mapping[str, Any]) -> tuple[EarlyStoppingState, bool]:
        """Return the state after one more epoch, and True if that epoch is the best so far.

        Args:
            stopping: the state from :meth:`init` or the previous epoch.
            record: the number ``epoch`` and the monitored value; if higher is better, also the corresponding loss.

        Raises:
            InputError: if the record lacks one of these.
        """
        higher_is_better = self.mode == "max"
        if self.mode == "auto":
            higher_is_better = not self.monitor.endswith(("loss", "mae", "error"))
        keys = ["epoch", self.monitor] + ["val_loss" if self.monitor.startswith("val_") else "loss"] * higher_is_better
        if missing := [key for key in keys if key not in record]:
            raise InputError(f"the record has no {' and no '.join(missing)}; it has {', '.join(record)}")
        sign = 1 if higher_is_better else -1
        value, tie_break = record[self.monitor], record[keys[2]] if higher_is_better else 0.0
        is_best = math.isfinite(value) and math.isfinite(tie_break)
        if is_best and stopping.best_value is not None:
            is_best = (sign * value - self.min_delta, -tie_break) > (sign * stopping.best_value, -stopping.tie_break)
        if is_best:
            return EarlyStoppingState(float(value), float(tie_break), int(record["epoch"])), True
        wait = stopping.wait + 1
        stopped = self.patience is not None and wait >= self.patience
        return stopping._replace(wait=wait, stopped=stopped), False
