"""An experiment: a config goes in; a run folder comes out, with everything needed to believe it, use it or go on.

runs/<dataset>-<model>-<time>/
    config.json                 options and properties of the data
    metrics.jsonl               one line per epoch, written as it ends
    checkpoints/                the last two snapshots: all to resume from, and the parameters of the best epoch
    training_curves.png         loss and accuracy, training and validation
    misclassified.png           misclassified test images
    confusion_matrix.png        confusion matrix of the test set
    classification_report.json  precision and recall of each class, calibration error, and more
    result.json                 results; written only when everything else is
    .lock                       keeps a second process from writing it; .lock.json tells which one does

Each snapshot holds config.json too, and a run whose config.json differs from it is refused. A run folder may come from
a stranger: every file in it is replaced, never written through a symbolic link, and a folder in it that is a link is
not written into.
"""

from jaxconv.runs.config import RECIPES, TrainConfig
from jaxconv.runs.run_folder import CHANGED, TrainedRun, evaluate_run, load_run, predict_files
from jaxconv.runs.runner import resume_training, run_training, train_or_resume
from jaxconv.runs.schema import RESUME_OVERRIDES, read_config, read_history, read_result, read_train_config

__all__ = [
    "CHANGED",
    "RECIPES",
    "RESUME_OVERRIDES",
    "TrainConfig",
    "TrainedRun",
    "evaluate_run",
    "load_run",
    "predict_files",
    "read_config",
    "read_history",
    "read_result",
    "read_train_config",
    "resume_training",
    "run_training",
    "train_or_resume",
]
