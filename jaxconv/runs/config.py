"""What can be asked of an experiment, and what is asked of it by default."""

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
    """What to train, on what, and how."""

    dataset: str = "digits"
    """digits (comes with the package), mnist, fashion_mnist or cifar10 (downloaded once), folder:PATH (class folders
    of pictures, or a .tar or .zip of them), npz:FILE, idx:PATH or tfds:NAME."""
    model: str = "small_cnn"
    """Name of a model: ``jaxconv.models.list_models()``."""
    epochs: int = 12
    """How often to go through the training images, at most."""
    batch_size: int = 32
    """Images a step, over all devices."""
    optimizer: str = "adam"
    """sgd, momentum, nesterov, adam, adamw, rmsprop (Keras's), lion or muon."""
    learning_rate: float = 3e-3
    """Its highest value."""
    schedule: str = "one_cycle"
    """How the learning rate changes over the run: constant, cosine, one_cycle or step."""
    warmup_epochs: int = 0
    """Epochs in which the learning rate rises from nothing, before the schedule."""
    weight_decay: float = 0.0
    """Of kernels; biases and norms are left alone."""
    max_grad_norm: float | None = None
    """The longest a gradient may be; a longer one is shortened."""
    label_smoothing: float = 0.0
    """The share of each target that is spread over all classes."""
    augment: tuple[str, ...] | None = None
    """hflip, translate:4, crop:28, rotate:15, cutout:8, mixup:0.2, cutmix:1, in this order. By default none, and for
    cifar10 hflip translate:4, as He et al. did."""
    ema_decay: float | None = None
    """Score an average of the weights over the steps, with this decay: 0.999."""
    grad_accumulation: int = 1
    """Go through a batch in so many parts, to save memory."""
    dtype: str = "float32"
    """What to compute in: float32 or bfloat16; parameters are float32 all the same."""
    task: str = "classification"
    """Task that is trained: classification, multilabel, regression, segmentation or reconstruction."""
    monitor: str = "val_accuracy"
    """What the best epoch is best in: val_accuracy (and among equals val_loss) or val_loss."""
    patience: int | None = None
    """Stop when so many epochs in a row have not been better than the best."""
    baseline_model: str | None = None
    """Train this model the same way too, and tell how much of its error is gone."""
    seed: int = 0
    """Of the parameters, the order of the data, dropout and augmentation."""
    num_seeds: int = 1
    """Train so many networks at once, with this seed and those after it: mean, deviation and what they say together."""
    num_devices: int | None = None
    """How many devices share every batch; by default all."""
    streaming: bool = False
    """Read the training images as they are needed, instead of keeping them on the device."""
    tensorboard: bool = False
    """Write for TensorBoard too, into the run folder."""
    checkpoint_minutes: float = 10.0
    """Save a checkpoint so often within an epoch; at the end of each there is one anyway."""
    max_checkpoints: int = 2
    """How many checkpoints to keep; each holds the best network, too."""
    runs_dir: Path = Path("runs")
    """The folder that the run folder is made in."""
    run_dir: Path | None = None
    """The run folder itself; by default it is named after data set, model and time."""

    def validate(self) -> None:
        """Refuse what can be refused before any data is read."""
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
        if self.num_seeds > MOST_SEEDS or self.seed + self.num_seeds > 2**32:
            raise InputError(
                f"num_seeds={self.num_seeds} from seed={self.seed} should be at most {MOST_SEEDS:,}, and below 2³²"
            )
        for name in ("num_devices", "patience"):
            if getattr(self, name) is not None:
                checks.at_least(1, **{name: getattr(self, name)})
        if not checks.is_number(self.checkpoint_minutes) or not 0 <= self.checkpoint_minutes < math.inf:
            raise InputError(f"checkpoint_minutes={self.checkpoint_minutes!r} should be a finite number of at least 0")
        if self.grad_accumulation > self.batch_size:
            raise InputError(
                f"grad_accumulation={self.grad_accumulation} is more parts than batch_size={self.batch_size}"
            )
        for name in ("streaming", "tensorboard"):
            checks.boolean(name, getattr(self, name))
        for name in ("runs_dir", "run_dir"):
            if not isinstance(value := getattr(self, name), Path) and (name, value) != ("run_dir", None):
                raise InputError(f"{name}={value!r} should be a Path: pathlib.Path({str(value)!r})")
        if self.augment is not None and not isinstance(self.augment, tuple | list):
            raise InputError(f"augment={self.augment!r} should be a tuple of names, such as ('hflip', 'translate:4')")
        if not isinstance(self.dataset, str):
            raise InputError(f"dataset={self.dataset!r} should be a name, such as 'digits'")
        if self.warmup_epochs >= self.epochs:
            raise InputError(f"warmup_epochs={self.warmup_epochs} epochs leave none of {self.epochs} for the schedule")
        checks.one_of("task", self.task, train.TASKS)
        if self.baseline_model is not None and self.task != "classification":
            raise InputError(f"baseline_model compares accuracies, so task={self.task!r} has none")

    def seed_list(self) -> list[int]:
        """Return the seed of each network."""
        return [self.seed + i for i in range(self.num_seeds)]

    def augmentations(self) -> tuple[str, ...]:
        """Those asked for, or the data set's."""
        return AUGMENTATIONS.get(self.dataset, ()) if self.augment is None else tuple(self.augment)

    def make_task(self) -> Any:
        """Return the task, a :class:`jaxconv.train.Task`."""
        return train.TASKS[self.task]()

    def early_stopping(self) -> train.EarlyStopping:
        """The rule for the best epoch, and for the last."""
        return train.EarlyStopping(self.patience, self.monitor)

    def make_optimizer(self, steps_per_epoch: int) -> Any:
        """The optimiser, whose schedule takes all epochs."""
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
        """What :func:`jaxconv.train.make_train_step` is told."""
        image, mixup_fn = augment.parse_augmentations(self.augmentations())
        names = ("label_smoothing", "grad_accumulation", "dtype", "ema_decay")
        return {"augment": image, "mixup_fn": mixup_fn} | {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Every option and its value."""
        return {
            field.name: str(value) if isinstance(value := getattr(self, field.name), Path) else value
            for field in dataclasses.fields(TrainConfig)
        }

    @classmethod
    def from_dict(cls, given: dict[str, Any], *, name: str = "the config") -> "TrainConfig":
        """The config that :meth:`to_dict` wrote down; other entries are left alone.

        Args:
            given: the entries.
            name: what an error calls them.

        Raises:
            InputError: an option that is missing, or has a value that it cannot have.
        """
        for field in dataclasses.fields(TrainConfig):
            if field.name not in given:
                raise InputError(f"{name} has no {field.name}: was it written by another version of jaxconv?")
        return as_type(given, TrainConfig, name=name)


MOST_SEEDS = 1000
AUGMENTATIONS = {"cifar10": ("hflip", "translate:4")}
RECIPES: dict[str, dict[str, Any]] = {
    # MNIST in one epoch: chosen on the validation images, among one to three epochs, batches of 64 to 256, adam,
    # nesterov and muon, and smoothing from 0 to 0.2.
    "fast": {
        "model": "mnist_cnn",
        "epochs": 1,
        "batch_size": 64,
        "optimizer": "muon",
        "learning_rate": 5e-3,
        "label_smoothing": 0.1,
    },
    # Rows 004-21 to 004-25; its network without convolutions is beaten by about two thirds of the error.
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
    # He et al., 2015, section 4.2: 64,000 steps on the 45,000 images that are left to train on.
    "resnet": {
        "epochs": 182,
        "batch_size": 128,
        "optimizer": "momentum",
        "learning_rate": 0.1,
        "schedule": "step",
        "weight_decay": 1e-4,
    },
}
