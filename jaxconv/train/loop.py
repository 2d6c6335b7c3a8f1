"""Training: :func:`fit` trains one network, :func:`fit_seeds` several in one compiled function."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxconv.errors import InputError
from jaxconv.layers import Layer
from jaxconv.train.argument_checks import (
    Examples,
    SplitDataset,
    check_options,
    check_seed,
    check_seeds,
    resolve_splits,
)
from jaxconv.train.compiled_function import CompiledFunction
from jaxconv.train.early_stopping import EarlyStopping
from jaxconv.train.engine import Trained, run
from jaxconv.train.evaluation import Evaluator, evaluator_of
from jaxconv.train.freezing import Trainable
from jaxconv.train.loaders import RandomAccessSource
from jaxconv.train.multi_seed import Copies, Single, Stacked
from jaxconv.train.snapshots import Snapshot
from jaxconv.train.state import TrainState
from jaxconv.train.tasks import CLASSIFICATION, Task
from jaxconv.utils.signatures import checked_call


class FitResult(NamedTuple):
    """Result of :func:`fit`: the network of the best epoch, and the history of training."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record per epoch
    best_epoch: int
    num_steps: int
    train_seconds: float  # time of the steps, without compilation and validation
    compile_seconds: float
    compiled: dict[str, CompiledFunction]  # "train" and "eval", with number and time of their compilations
    final_state: TrainState  # after the last step
    evaluator: Evaluator  # already compiled, such as for the test set


@dataclasses.dataclass(frozen=True, eq=False)
class SeedsResult:
    """Result of :func:`fit_seeds`. The first axis of every array is the network axis."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record per epoch: means, and the record of each network under "per_seed"
    best_epoch: list[int]  # per network
    num_steps: int  # maximum over the networks
    train_seconds: float  # of all networks together
    compile_seconds: float
    compiled: dict[str, CompiledFunction]
    final_state: TrainState
    evaluator: Evaluator  # evaluates all networks at once
    _member: Callable[[int], FitResult] = dataclasses.field(repr=False)

    @functools.cached_property
    def members(self) -> list[FitResult]:
        """Results per network, as :func:`fit` returns them; the times are those of all networks together."""
        return [self._member(index) for index in range(len(self.best_epoch))]


@checked_call
def fit(
    model: Layer,
    train_data: Examples | RandomAccessSource | SplitDataset,
    validation_data: Examples | None = None,
    *,
    optimizer: optax.GradientTransformation,
    epochs: int,
    batch_size: int = 128,
    seed: int = 0,
    early_stopping: EarlyStopping | None = None,
    mesh: Mesh | None = None,
    scale: float | None = None,
    jit: bool = True,
    progress_bar: bool = False,
    on_epoch_end: Callable[[dict[str, Any], Snapshot, bool], None] | None = None,
    on_checkpoint: Callable[[Snapshot], None] | None = None,
    checkpoint_seconds: float = 600.0,
    resume_from: Snapshot | None = None,
    variables: tuple[Any, Any] | None = None,
    trainable: Trainable | None = None,
    task: Task = CLASSIFICATION,
    **options: Any,
) -> FitResult:
    """Train a model, and return the parameters of the epoch that is best on the validation set.

    The examples are kept on the device, where batches are gathered and augmented. An epoch runs as a few executions,
    each one call of a compiled function over many steps. All randomness depends on seed, epoch and step, so the same
    call gives the same parameters, bit for bit on CPU, even if interrupted and resumed. The function is compiled once,
    which does not count as training time; an input of another shape is an error, not a silent recompilation.

    A relu or relu6 whose output is 0 for every validation image is dead: it is reported once with a
    ``DeadLayerWarning`` (:mod:`jaxconv.errors`), and listed under ``dead_layers`` in the record of every epoch in which
    it is dead. Lecture row 003-24.

    Args:
        model: layer from :func:`jaxconv.serial` or :mod:`jaxconv.models`; its parameters are initialized here.
        train_data: ``(images, labels)``, ``(N, H, W, C)`` uint8 or float and ``(N,)`` class numbers; or a
            random-access source to stream from, whose ``source[i]`` is an image and its label; or a dataset of
            :mod:`jaxconv.data` or another object with the splits ``train`` and ``validation``. Series ``(N, T, C)`` and
            volumes ``(N, D, H, W, C)`` are accepted too, here and by evaluate and predict.
        validation_data: ``(images, labels)``; by default the dataset's.
        optimizer: optax optimizer, such as from :func:`jaxconv.train.make_optimizer`.
        epochs: number of passes over the training examples.
        batch_size: examples per step; the last batch is padded, and its padding masked.
        seed: seed of initialization, data order, dropout and augmentation. :func:`fit_seeds` takes several.
        early_stopping: criterion of the best epoch, and patience. By default the best epoch has the best value of the
            task's monitor: the highest validation accuracy and, if equal, the lowest loss; all epochs are run.
        mesh: devices over which batches are sharded, from :func:`jaxconv.distributed.create_mesh`.
        scale: divisor of the pixels; by default 255 for uint8, and floats stay unchanged, with a ``RangeWarning`` if
            they are not in [0, 1].
        jit: False calls one step at a time, for debugging; results are equal up to rounding.
        progress_bar: show a progress bar.
        on_epoch_end: called after every epoch with its record, a snapshot that may be kept, and a bool that is True for
            the best epoch so far.
        on_checkpoint: called with a snapshot between two executions, every ``checkpoint_seconds``.
        checkpoint_seconds: minimum time between two calls of ``on_checkpoint``.
        resume_from: snapshot of the same run from which training resumes.
        variables: initial ``(params, state)``, such as those of a trained network; by default new ones.
        trainable: parameters that are trained, by default all: a function of a path, such as
            ``lambda path: path.startswith("dense2")``, or a tree of bools; see :func:`jaxconv.train.make_train_step`.
        task: targets, loss and metrics, by default those of classification: :class:`jaxconv.train.Task`.
        options: options of :func:`jaxconv.train.make_train_step`: augment, mixup_fn, label_smoothing, dtype,
            grad_accumulation, ema_decay.

    Raises:
        InputError: if examples, sizes or labels are invalid, pixels are not finite, ``resume_from`` is of another run,
            ``variables`` are of another model, ``trainable`` selects no parameter, or a step produces inf or NaN.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> labels = (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> data = images, labels
    >>> fitted = fit(models.mlp(num_classes=2), data, data, optimizer=optax.adam(1e-2), epochs=9, batch_size=16)
    >>> fitted.history[-1]["val_accuracy"] > 0.9, fitted.compiled["train"].num_compilations
    (True, 1)
    """
    check_options("fit", options, PARAMETERS)
    copies = Single(check_seed(seed))
    trained = run(
        model,
        *resolve_splits(train_data, validation_data),
        copies,
        optimizer=optimizer,
        epochs=epochs,
        batch_size=batch_size,
        early_stopping=early_stopping,
        mesh=mesh,
        scale=scale,
        jit=jit,
        progress_bar=progress_bar,
        on_epoch_end=on_epoch_end,
        on_checkpoint=on_checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        resume_from=resume_from,
        variables=variables,
        trainable=trainable,
        task=task,
        **options,
    )
    return _fit_result(trained, copies, 0, list(trained.progress.history), trained.evaluator)


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if name not in ("model", "train_data", "validation_data", "seed", "options")
}
PARAMETERS = ["model", "train_data", "validation_data", "seed", *DEFAULTS]


@checked_call
def fit_seeds(
    model: Layer,
    train_data: Examples | RandomAccessSource | SplitDataset,
    validation_data: Examples | None = None,
    *,
    seeds: Sequence[int],
    optimizer: optax.GradientTransformation,
    epochs: int,
    **options: Any,
) -> SeedsResult:
    """Train one network per seed in one compiled function, each as :func:`fit` with that seed.

    A network that stops early is frozen while the others continue.

    Args:
        model, train_data, validation_data, optimizer, epochs: arguments of :func:`fit`; ``train_data`` must be arrays.
        seeds: distinct ints, such as ``range(5)``.
        options: other options of :func:`fit`, except ``seed``. ``resume_from`` must be a snapshot of the same seeds;
            ``variables`` are those of one network, and initialize all networks.

    Raises:
        InputError: as for :func:`fit`; or if the seeds are not distinct ints, the examples are streamed, or
            ``jit=False``.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> data = images, (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> options = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": 16}
    >>> result = fit_seeds(models.mlp(num_classes=2), data, data, seeds=[0, 1], **options)
    >>> result.params["dense1"]["bias"].shape, len(result.members), result.members[1].params["dense1"]["bias"].shape
    ((2, 128), 2, (128,))
    """
    parameters = ["seeds" if name == "seed" else name for name in PARAMETERS]
    check_options("fit_seeds", [name for name in options if name not in DEFAULTS], parameters)
    copies = Stacked(check_seeds(seeds))
    train_data, validation_data = resolve_splits(train_data, validation_data)
    if not isinstance(train_data, tuple) and hasattr(train_data, "image_shape"):
        raise InputError("train_data must be arrays, since each seed has its own data order").from_source("fit_seeds")
    options = DEFAULTS | options
    if not options["jit"]:
        raise InputError("jit=False trains one network at a time: use fit").from_source("fit_seeds")
    trained = run(model, train_data, validation_data, copies, **options | {"optimizer": optimizer, "epochs": epochs})
    progress, final_state = trained.progress, trained.final_state

    def member(index: int) -> FitResult:
        stopper, variables = progress.early_stopping[index], copies.member(trained.best, index)
        history = [record["per_seed"][index] for record in progress.history[: stopper.best_epoch + stopper.wait]]
        images, mesh, scale = validation_data[0], options["mesh"], options["scale"]
        shape, dtype = images.shape[1:], str(images.dtype)
        evaluator = evaluator_of(
            model, options["batch_size"], shape, dtype, None, mesh, variables, scale, options["task"]
        )
        return _fit_result(trained, copies, index, history, evaluator)

    return SeedsResult(
        *trained.best,
        history=list(progress.history),
        best_epoch=[stopper.best_epoch for stopper in progress.early_stopping],
        num_steps=int(jnp.max(final_state.step)),
        train_seconds=progress.seconds,
        compile_seconds=trained.compile_seconds,
        compiled=trained.compiled,
        final_state=final_state,
        evaluator=trained.evaluator,
        _member=member,
    )


def _fit_result(
    trained: Trained, copies: Copies, index: int, history: list[dict[str, Any]], evaluator: Evaluator
) -> FitResult:
    """Return the result of one network."""
    (params, state), final_state = copies.member((trained.best, trained.final_state), index)
    return FitResult(
        params,
        state,
        history=history,
        best_epoch=trained.progress.early_stopping[index].best_epoch,
        num_steps=int(final_state.step),
        train_seconds=trained.progress.seconds,
        compile_seconds=trained.compile_seconds,
        compiled=trained.compiled,
        final_state=final_state,
        evaluator=evaluator,
    )
