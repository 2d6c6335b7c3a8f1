"""Training: state, step, loop, evaluation, checkpoints. It knows layers and arrays, but no model and no data set."""

from jaxconv.train.batches import batches, epoch_order
from jaxconv.train.checkpoint import load_checkpoint, save_checkpoint
from jaxconv.train.evaluate import evaluate, predict
from jaxconv.train.fit import Fitted, check_settings, fit
from jaxconv.train.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from jaxconv.train.state import Batch, TrainState, init_state
from jaxconv.train.step import Metrics, make_eval_step, make_train_step, to_float

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Batch",
    "Fitted",
    "Metrics",
    "TrainState",
    "batches",
    "check_settings",
    "epoch_order",
    "evaluate",
    "fit",
    "init_state",
    "load_checkpoint",
    "make_eval_step",
    "make_optimizer",
    "make_train_step",
    "predict",
    "save_checkpoint",
    "to_float",
]
