"""Training: train state, step, loop, evaluation and checkpoints, independent of models and datasets."""

from jaxconv.train.argument_checks import check_fit_arguments
from jaxconv.train.checkpointing import all_steps, read_extra, restore_best, restore_snapshot, save_checkpoint
from jaxconv.train.compiled_function import CompiledFunction
from jaxconv.train.early_stopping import EarlyStopping, EarlyStoppingState
from jaxconv.train.evaluation import EvalResult, Evaluator, evaluate, predict
from jaxconv.train.loaders import EpochPlan, epoch_permutation, iterate_batches, plan_epoch
from jaxconv.train.loggers import TensorBoardWriter
from jaxconv.train.loop import FitResult, SeedsResult, fit, fit_seeds
from jaxconv.train.metrics import (
    classification_report,
    confusion_matrix,
    expected_calibration_error,
    per_class_scores,
    top_k_accuracy,
)
from jaxconv.train.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule
from jaxconv.train.pixels import to_float
from jaxconv.train.snapshots import Snapshot, TrainProgress, tree_sha256
from jaxconv.train.state import Batch, TrainState, create_train_state, split_seed
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
from jaxconv.train.train_step import make_train_step

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "TASKS",
    "Batch",
    "Classification",
    "CompiledFunction",
    "EarlyStopping",
    "EarlyStoppingState",
    "EpochPlan",
    "EvalResult",
    "Evaluator",
    "FitResult",
    "MetricSums",
    "MultiLabel",
    "Reconstruction",
    "Regression",
    "SeedsResult",
    "Segmentation",
    "Snapshot",
    "Task",
    "TensorBoardWriter",
    "TrainProgress",
    "TrainState",
    "all_steps",
    "check_fit_arguments",
    "classification_report",
    "confusion_matrix",
    "create_train_state",
    "epoch_permutation",
    "evaluate",
    "expected_calibration_error",
    "fit",
    "fit_seeds",
    "iterate_batches",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "per_class_scores",
    "plan_epoch",
    "predict",
    "read_extra",
    "restore_best",
    "restore_snapshot",
    "save_checkpoint",
    "split_seed",
    "to_float",
    "top_k_accuracy",
    "tree_sha256",
]
