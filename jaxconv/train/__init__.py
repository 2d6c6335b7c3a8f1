"""Training: state, step, loop, evaluation, checkpoints. It knows layers and arrays, but no model and no data set."""

from jaxconv.train.argument_checks import check_settings
from jaxconv.train.checkpointing import load_checkpoint, load_snapshot, read_extra, save_checkpoint, saved_steps
from jaxconv.train.compiled_function import Program
from jaxconv.train.early_stopping import EarlyStopping, Stopping
from jaxconv.train.evaluation import Evaluator, Scores, evaluate, predict
from jaxconv.train.loaders import Plan, batches, epoch_order, plan
from jaxconv.train.loggers import TensorBoard
from jaxconv.train.loop import Fitted, SeedsResult, fit, fit_seeds
from jaxconv.train.metrics import calibration_error, confusion_matrix, per_class, report, top_k_accuracy
from jaxconv.train.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from jaxconv.train.pixels import to_float
from jaxconv.train.snapshots import Position, Snapshot, sha256
from jaxconv.train.state import Batch, TrainState, init_state, root_keys
from jaxconv.train.tasks import (
    TASKS,
    Classification,
    MetricSums,
    MultiLabel,
    Reconstruction,
    Regression,
    Segmentation,
    Task,
)
from jaxconv.train.train_step import make_step, make_train_step

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "TASKS",
    "Batch",
    "Classification",
    "EarlyStopping",
    "Evaluator",
    "Fitted",
    "MetricSums",
    "MultiLabel",
    "Plan",
    "Position",
    "Program",
    "Reconstruction",
    "Regression",
    "Scores",
    "SeedsResult",
    "Segmentation",
    "Snapshot",
    "Stopping",
    "Task",
    "TensorBoard",
    "TrainState",
    "batches",
    "calibration_error",
    "check_settings",
    "confusion_matrix",
    "epoch_order",
    "evaluate",
    "fit",
    "fit_seeds",
    "init_state",
    "load_checkpoint",
    "load_snapshot",
    "make_optimizer",
    "make_schedule",
    "make_step",
    "make_train_step",
    "per_class",
    "plan",
    "predict",
    "read_extra",
    "report",
    "root_keys",
    "save_checkpoint",
    "saved_steps",
    "sha256",
    "to_float",
    "top_k_accuracy",
]
