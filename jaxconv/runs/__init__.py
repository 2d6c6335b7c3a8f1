"""Training runs: a config in, a run folder out, with all that is needed to verify, use or resume the run.

runs/<dataset>-<model>-<time>/
    config.json                 options and properties of the data
    metrics.jsonl               one line per epoch, appended at its end
    checkpoints/                the last two snapshots: the training state, and the parameters of the best epoch
    training_curves.png         loss and accuracy, training and validation
    misclassified.png           misclassified test images
    confusion_matrix.png        confusion matrix of the test set
    classification_report.json  precision and recall of each class, calibration error, and more
    result.json                 results; written last
    .lock                       lock of the process that writes the folder, which .lock.json names

Each snapshot includes config.json; a run whose config.json differs from it is rejected. A run folder may come from an
untrusted source: files are replaced, never written through a symbolic link, and a subfolder that is a symbolic link is
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
