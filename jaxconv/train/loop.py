"""Training of a model on examples: :func:`fit` one network, :func:`fit_seeds` several in one program."""

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
from jaxconv.train.argument_checks import Examples, Parts, check_options, check_seed, check_seeds, parts_of
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
    """Result of :func:`fit`: the network of the best epoch, and how training went."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record an epoch
    best_epoch: int
    num_steps: int
    train_seconds: float  # in steps, without compiling and validating
    compile_seconds: float
    compiled: dict[str, CompiledFunction]  # train and eval, with how often and for how long they were compiled
    final_state: TrainState  # after the last step
    evaluator: Evaluator  # compiled, for the test set


@dataclasses.dataclass(frozen=True, eq=False)
class SeedsResult:
    """Result of :func:`fit_seeds`. Every array has a first axis that counts the networks."""

    params: Any
    state: Any
    history: list[dict[str, Any]]  # one record an epoch: means, and under "per_seed" the record of each network
    best_epoch: list[int]  # of each network
    num_steps: int  # of the network that made most
    train_seconds: float  # of all networks together
    compile_seconds: float
    compiled: dict[str, CompiledFunction]
    final_state: TrainState
    evaluator: Evaluator  # scores all networks at once
    _member: Callable[[int], FitResult] = dataclasses.field(repr=False)

    @functools.cached_property
    def members(self) -> list[FitResult]:
        """Result of each network, as :func:`fit` returns it; the times are those of all together."""
        return [self._member(index) for index in range(len(self.best_epoch))]


@checked_call
def fit(
    model: Layer,
    train_data: Examples | RandomAccessSource | Parts,
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
    """Fit a model to examples, and keep the parameters of the epoch that was best on the validation set.

    An epoch is one compiled program, run in chunks of many steps: the examples lie on the device, where they are
    gathered, augmented and learned from. Seed, epoch and step decide every random choice, so the same call gives the
    same parameters, bit for bit on CPU, in one go or in several. Each program is compiled once, which is not counted
    as training; an input of another shape is then an error, not a silent second compilation.

    A layer that dies is told with a ``DeadLayerWarning`` (:mod:`jaxconv.errors`), once, and stands under
    ``dead_layers`` in
    the record of every epoch in which it is: a relu or relu6 whose output is 0 for every validation image. Lecture
    row 003-24.

    Args:
        model: made by :func:`jaxconv.serial` or :mod:`jaxconv.models`; its parameters are made here.
        train_data: ``(images, labels)``, ``(N, H, W, C)`` uint8 or float and ``(N,)`` class numbers; or examples that
            are read when they are needed, ``source[i]`` being an image and its label: they are streamed. Series
            ``(N, T, C)`` and volumes ``(N, D, H, W, C)`` are taken too, here and by evaluate and predict. Or a data
            set of :mod:`jaxconv.data`, or another object that has the parts ``train`` and ``validation``.
        validation_data: ``(images, labels)``; by default the data set's.
        optimizer: from optax, or :func:`jaxconv.train.make_optimizer`.
        epochs: how often to go through the training examples.
        batch_size: examples a step; the last batch is padded, and its padding masked.
        seed: of the parameters, the order of the data, dropout and augmentation. :func:`fit_seeds` takes several.
        early_stopping: which epoch is the best, and when to stop before the last one. By default the best in the task's
            monitor: it has the highest validation accuracy, and among equals the lowest loss.
        mesh: of devices that share every batch, from :func:`jaxconv.distributed.create_mesh`.
        scale: what the pixels are divided by; by default bytes by 255, and floats are taken as they are, and a
            ``RangeWarning`` tells if they do not go from 0 to 1.
        jit: False runs one step at a time, to look into; the numbers are the same but for rounding.
        progress_bar: show a progress bar.
        on_epoch_end: called after every epoch with its record, a snapshot that may be kept, and whether it is the best
            so far.
        on_checkpoint: called with a snapshot between two chunks, every ``checkpoint_seconds``.
        resume_from: a snapshot of the same run to go on from, instead of the beginning.
        variables: ``(params, state)`` to start from, such as those of a trained network; by default fresh ones.
        trainable: parameters that are trained, by default all: a function of a path, such as
            ``lambda path: path.startswith("dense2")``, or a tree of bools; see :func:`jaxconv.train.make_train_step`.
        task: targets, loss and metrics, by default those of classification: :class:`jaxconv.train.Task`.
        options: of the step, as for :func:`jaxconv.train.make_train_step`: augment, mixup_fn, label_smoothing, dtype,
            grad_accumulation, ema_decay.

    Raises:
        InputError: examples, sizes or labels that cannot work, pixels that are not finite, a start that is of another
            run, variables of another model, a trainable that selects nothing, or a step that made something infinite
            or no number.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> labels = (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> data = images, labels
    >>> fitted = fit(models.mlp(num_classes=2), data, data, optimizer=optax.adam(1e-2), epochs=9, batch_size=16)
    >>> fitted.history[-1]["val_accuracy"] > 0.9, fitted.compiled["train"].num_compilations
    (True, 1)
    """
    check_options("fit", options, OPTIONS)
    copies = Single(check_seed(seed))
    trained = run(
        model,
        *parts_of(train_data, validation_data),
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
    return _fitted(trained, copies, 0, list(trained.at.history), trained.evaluator)


DEFAULTS = {
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if name not in ("model", "train_data", "validation_data", "seed", "options")
}
OPTIONS = ["model", "train_data", "validation_data", "seed", *DEFAULTS]


@checked_call
def fit_seeds(
    model: Layer,
    train_data: Examples | RandomAccessSource | Parts,
    validation_data: Examples | None = None,
    *,
    seeds: Sequence[int],
    optimizer: optax.GradientTransformation,
    epochs: int,
    **options: Any,
) -> SeedsResult:
    """Train one network a seed in one compiled program, each as :func:`fit` would train it.

    A network that has stopped early stays as it is while the others go on.

    Args:
        model, train_data, validation_data, optimizer, epochs: as :func:`fit` takes them; ``train_data`` must be arrays.
        seeds: different numbers, such as ``range(5)``.
        options: the others of :func:`fit`, but ``seed``. ``resume_from`` must be a snapshot of the same seeds;
            ``variables`` are those of one network, from which all start.

    Raises:
        InputError: as :func:`fit`; or if the seeds are not different numbers, the examples are streamed, or
            ``jit=False``.

    >>> import numpy as np
    >>> from jaxconv import models
    >>> images = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 1), np.uint8)
    >>> data = images, (images[:, 0, 0, 0] > 127).astype(np.int32)
    >>> options = {"optimizer": optax.adam(1e-2), "epochs": 2, "batch_size": 16}
    >>> both = fit_seeds(models.mlp(num_classes=2), data, data, seeds=[0, 1], **options)
    >>> both.params["dense1"]["bias"].shape, len(both.members), both.members[1].params["dense1"]["bias"].shape
    ((2, 128), 2, (128,))
    """
    names = ["seeds" if name == "seed" else name for name in OPTIONS]
    check_options("fit_seeds", [name for name in options if name not in DEFAULTS], names)
    copies = Stacked(check_seeds(seeds))
    train_data, validation_data = parts_of(train_data, validation_data)
    if not isinstance(train_data, tuple) and hasattr(train_data, "image_shape"):
        raise InputError("each seed reads the data in its own order, which a stream cannot: pass arrays").from_source(
            "fit_seeds"
        )
    options = DEFAULTS | options
    if not options["jit"]:
        raise InputError("jit=False trains one network at a time: use fit").from_source("fit_seeds")
    trained = run(model, train_data, validation_data, copies, **options | {"optimizer": optimizer, "epochs": epochs})
    at, last = trained.at, trained.last

    def member(index: int) -> FitResult:
        stopper, network = at.early_stopping[index], copies.member(trained.best, index)
        history = [record["per_seed"][index] for record in at.history[: stopper.best_epoch + stopper.wait]]
        images, mesh, scale = validation_data[0], options["mesh"], options["scale"]
        shape, dtype = images.shape[1:], str(images.dtype)
        evaluator = evaluator_of(
            model, options["batch_size"], shape, dtype, None, mesh, network, scale, options["task"]
        )
        return _fitted(trained, copies, index, history, evaluator)

    return SeedsResult(
        *trained.best,
        history=list(at.history),
        best_epoch=[each.best_epoch for each in at.early_stopping],
        num_steps=int(jnp.max(last.step)),
        train_seconds=at.seconds,
        compile_seconds=trained.compile_seconds,
        compiled=trained.compiled,
        final_state=last,
        evaluator=trained.evaluator,
        _member=member,
    )


def _fitted(
    trained: Trained, copies: Copies, index: int, history: list[dict[str, Any]], evaluator: Evaluator
) -> FitResult:
    """Return the result of one network."""
    (params, state), last = copies.member((trained.best, trained.last), index)
    return FitResult(
        params,
        state,
        history=history,
        best_epoch=trained.at.early_stopping[index].best_epoch,
        num_steps=int(last.step),
        train_seconds=trained.at.seconds,
        compile_seconds=trained.compile_seconds,
        compiled=trained.compiled,
        final_state=last,
        evaluator=evaluator,
    )
