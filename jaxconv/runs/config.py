"""Options of a training run, and the recipes that change their defaults."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from jaxconv import checks, models, runtime, train
from jaxconv.data import augment
from jaxconv.errors import InputError, error_context, named_errors
from jaxconv.utils.files import as_type


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Options of a training run."""

    dataset: str = "digits"
    """Dataset: digits (bundled), mnist, fashion_mnist or cifar10 (downloaded once), folder:PATH (class folders of
    images, or a .tar or .zip of them), npz:FILE, idx:PATH or tfds:NAME."""
    model: str = "small_cnn"
    """Name of a model: one of ``jaxconv.models.list_models()``."""
    epochs: int = 12
    """Maximum number of passes over the training images."""
    batch_size: int = 32
    """Images per step, summed over all devices."""
    optimizer: str = "adam"
    """Optimizer: sgd, momentum, nesterov, adam, adamw, rmsprop (as in Keras), lion or muon."""
    learning_rate: float = 3e-3
    """Peak learning rate of the schedule."""
    schedule: str = "one_cycle"
    """Learning rate schedule: constant, cosine, one_cycle or step."""
    warmup_epochs: int = 0
    """Epochs of linear warm-up from zero before the schedule."""
    weight_decay: float = 0.0
    """Weight decay of kernels; biases and normalization scales do not decay."""
    max_grad_norm: float | None = None
    """Gradient clipping: maximum global norm of the gradient."""
    label_smoothing: float = 0.0
    """Label smoothing: fraction of each target spread over all classes."""
    augment: tuple[str, ...] | None = None
    """Data augmentations, applied in this order, such as hflip, translate:4, crop:28, rotate:15, cutout:8, mixup:0.2 or
    cutmix:1. By default none; for cifar10 hflip and translate:4 (He et al., 2015)."""
    ema_decay: float | None = None
    """Decay of the evaluated exponential moving average (EMA), such as 0.999."""
    grad_accumulation: int = 1
    """Gradient accumulation: number of micro-batches per batch, to save memory."""
    dtype: str = "float32"
    """Computation dtype, float32 or bfloat16; parameters stay float32."""
    task: str = "classification"
    """Task: classification, multilabel, regression, segmentation or reconstruction."""
    monitor: str = "val_accuracy"
    """Metric of the best epoch: val_accuracy (ties: val_loss) or val_loss."""
    patience: int | None = None
    """Early stopping: epochs without improvement before training stops."""
    baseline_model: str | None = None
    """Baseline model, trained alike; reports the relative error reduction."""
    seed: int = 0
    """Seed of initialization, data order, dropout and augmentation."""
    num_seeds: int = 1
    """Number of networks trained in parallel, with consecutive seeds."""
    num_devices: int | None = None
    """Number of devices that share each batch; by default all."""
    streaming: bool = False
    """Read training images on demand instead of keeping them on the device."""
    tensorboard: bool = False
    """Write TensorBoard event files into the run folder."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints within an epoch; each epoch ends with one."""
    max_checkpoints: int = 2
    """Number of checkpoints to keep; each includes the best parameters."""
    runs_dir: Path = Path("runs")
    """Parent folder of new run folders."""
    run_dir: Path | None = None
    """Run folder; by default named after dataset, model and time."""

    def validate(self) -> None:
        """Raise InputError for invalid options; reads no data."""
        train.check_fit_arguments(self.epochs, self.batch_size)
        self._check_fields()
        task = self.make_task()
        with error_context("early stopping"):
            checks.one_of("monitor", self.monitor, ("val_loss", f"val_{task.metric}", "loss", task.metric))
        self.early_stopping()
        model = models.create_model(self.model, num_classes=2)
        train.make_train_step(model, self.make_optimizer(steps_per_epoch=4), task=task, **self.step_kwargs())
        runtime.device_name()
        if self.baseline_model is not None:
            models.get_model(self.baseline_model)

    @named_errors(name="train")
    def _check_fields(self) -> None:
        checks.at_least(0, seed=self.seed, warmup_epochs=self.warmup_epochs)
        checks.at_least(
            1, num_seeds=self.num_seeds, max_checkpoints=self.max_checkpoints, grad_accumulation=self.grad_accumulation
        )
        if self.num_seeds > MAX_SEEDS or self.seed + self.num_seeds > 2**32:
            raise InputError(
                f"num_seeds must be at most {MAX_SEEDS:,} and seed + num_seeds at most 2³², "
                f"got num_seeds={self.num_seeds}, seed={self.seed}"
            )
        for name in ("num_devices", "patience"):
            if getattr(self, name) is not None:
                checks.at_least(1, **{name: getattr(self, name)})
        if not checks.is_number(self.checkpoint_minutes) or not 0 <= self.checkpoint_minutes < math.inf:
            raise InputError(f"checkpoint_minutes must be a finite number >= 0, got {self.checkpoint_minutes!r}")
        if self.grad_accumulation > self.batch_size:
            raise InputError(
                f"grad_accumulation must be at most batch_size={self.batch_size}, got {self.grad_accumulation}"
            )
        for name in ("streaming", "tensorboard"):
            checks.boolean(name, getattr(self, name))
        for name in ("runs_dir", "run_dir"):
            if not isinstance(value := getattr(self, name), Path) and (name, value) != ("run_dir", None):
                raise InputError(f"{name} must be a pathlib.Path, got {value!r}")
        if self.augment is not None and not isinstance(self.augment, tuple | list):
            raise InputError(
                f"augment must be a tuple of names, such as ('hflip', 'translate:4'), got {self.augment!r}"
            )
        if not isinstance(self.dataset, str):
            raise InputError(f"dataset must be a name, such as 'digits', got {self.dataset!r}")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"warmup_epochs must be less than epochs={self.epochs}, got {self.warmup_epochs}")
        checks.one_of("task", self.task, train.TASKS)
        if self.baseline_model is not None and self.task != "classification":
            raise InputError(f"baseline_model requires task='classification', got task={self.task!r}")

    def seed_list(self) -> list[int]:
        """Return the seed of each network."""
        return [self.seed + i for i in range(self.num_seeds)]

    def augmentations(self) -> tuple[str, ...]:
        """Return the augmentations: ``augment``, or the defaults of the dataset."""
        return AUGMENTATIONS.get(self.dataset, ()) if self.augment is None else tuple(self.augment)

    def make_task(self) -> Any:
        """Return the task, a :class:`jaxconv.train.Task`."""
        return train.TASKS[self.task]()

    def early_stopping(self) -> train.EarlyStopping:
        """Return the early stopping rule, which also selects the best epoch."""
        return train.EarlyStopping(self.patience, self.monitor)

    def make_optimizer(self, steps_per_epoch: int) -> Any:
        """Return the optimizer, with a schedule over all epochs."""
        return train.make_optimizer(
            self.optimizer,
            self.learning_rate,
            self.schedule,
            self.epochs * steps_per_epoch,
            warmup_steps=self.warmup_epochs * steps_per_epoch,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
        )

    def step_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`jaxconv.train.make_train_step`."""
        augment_fn, mixup_fn = augment.parse_augmentations(self.augmentations())
        names = ("label_smoothing", "grad_accumulation", "dtype", "ema_decay")
        return {"augment": augment_fn, "mixup_fn": mixup_fn} | {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return every option and its value."""
        return {
            field.name: str(value) if isinstance(value := getattr(self, field.name), Path) else value
            for field in dataclasses.fields(TrainConfig)
        }

    @classmethod
    def from_dict(cls, given: dict[str, Any], *, name: str = "the config") -> "TrainConfig":
        """Return the config of a dict written by :meth:`to_dict`; other entries are ignored.

        Args:
            given: the dict.
            name: name of the dict in errors.

        Raises:
            InputError: if an option is missing or has an invalid type.
        """
        for field in dataclasses.fields(TrainConfig):
            if field.name not in given:
                raise InputError(f"{name} has no {field.name}: was it written by another version of jaxconv?")
        return as_type(given, TrainConfig, name=name)


MAX_SEEDS = 1000
AUGMENTATIONS = {"cifar10": ("hflip", "translate:4")}
RECIPES: dict[str, dict[str, Any]] = {
    # MNIST in one epoch: selected on the validation images among one to three epochs, batch sizes from 64 to 256,
    # adam, nesterov and muon, and label smoothing from 0 to 0.2.
    "fast": {
        "model": "mnist_cnn",
        "epochs": 1,
        "batch_size": 64,
        "optimizer": "muon",
        "learning_rate": 5e-3,
        "label_smoothing": 0.1,
    },
    # Rows 004-21 to 004-25; the CNN's error is about two thirds below that of the MLP baseline.
    "lecture": {
        "epochs": 100,
        "batch_size": 256,
        "optimizer": "rmsprop",
        "learning_rate": 1e-3,
        "schedule": "constant",
        "monitor": "val_loss",
        "patience": 5,
        "baseline_model": "mlp",
    },
    # He et al., 2015, section 4.2: 64,000 steps on the 45,000 training images.
    "resnet": {
        "epochs": 182,
        "batch_size": 128,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "schedule": "step",
        "weight_decay": 1e-4,
    },
}
