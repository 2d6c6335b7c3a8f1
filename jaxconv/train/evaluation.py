"""Scoring a model on every example, each exactly once."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxconv import distributed, xla_options
from jaxconv.errors import InputError, error_context, named_errors
from jaxconv.layers import Layer, as_layer
from jaxconv.runtime import compiler_options
from jaxconv.train.argument_checks import as_array, check_batchable, check_labels
from jaxconv.train.compiled_function import CompiledFunction
from jaxconv.train.diagnostics import anywhere, apply_with_activity, rectifier_names
from jaxconv.train.loaders import iterate_batches
from jaxconv.train.pixels import check_pixels, check_scale, to_float
from jaxconv.train.state import Batch
from jaxconv.train.tasks import CLASSIFICATION, MetricSums, Task, measure, reported
from jaxconv.utils.signatures import checked_call

FEW = (1, 8, 64)  # the sizes of batch that predict pads a few images to


class EvalResult(NamedTuple):
    """How a network did; of several networks, an array with an entry for each."""

    loss: Any
    metrics: dict[str, Any]  # of the task, such as "accuracy"
    examples: int
    logits: np.ndarray | None  # outputs: (N, classes), or (networks, N, classes)
    alive: dict[str, Any] = {}  # noqa: RUF012  of each rectifier, whether it answers to any image

    @property
    def accuracy(self) -> Any:
        """The metric of this name."""
        return self.metrics["accuracy"]

    def dead(self, network: int | None = None) -> list[str]:
        """The rectifiers that are 0 for every image; without a number, in any of the networks."""
        each = {name: answers if network is None else answers[network] for name, answers in self.alive.items()}
        return [name for name, answers in each.items() if not np.all(answers)]


class Evaluator:
    """The evaluation of a model: compiled once, for batches of one shape, whatever is scored with it.

    Args:
        model: the network.
        batch_size: examples at a time; the last batch is padded, and the padding not counted.
        num_members: score so many networks at once, whose params and state have a first axis of this length.
        mesh: of devices, each of which takes its share of every batch.
        scale: what the pixels are divided by: see :func:`jaxconv.train.to_float`.
        task: loss and metrics.

    Attributes:
        program: the evaluation.
        closer: which of the rectifiers answer anywhere; compiled once one does not answer in the middle of an image.
    """

    def __init__(
        self,
        model: Layer,
        batch_size: int = 256,
        *,
        num_members: int | None = None,
        mesh: Mesh | None = None,
        scale: float | None = None,
        task: Task = CLASSIFICATION,
    ) -> None:
        self.batch_size, self.num_members, self.mesh = batch_size, num_members, distributed.with_auto_axes(mesh)
        self.task = task
        distributed.check_batch_divisible(mesh, batch_size, "evaluate")
        with error_context("evaluate"):
            check_scale(scale)
        self.rectifiers = rectifier_names(model)
        at_a_glance, closely = apply_with_activity(model), apply_with_activity(model, anywhere)

        def one(params: Any, state: Any, batch: Batch) -> tuple[MetricSums, jax.Array, dict[str, jax.Array]]:
            image, label = to_float(batch.image, scale), jnp.asarray(batch.label)
            logits, alive = at_a_glance(params, state, image)
            target = task.targets(image, label, jax.ShapeDtypeStruct(logits.shape, logits.dtype), False)
            mask = jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask)
            return measure(task, logits, target, mask), logits, alive

        def again(params: Any, state: Any, batch: Batch) -> dict[str, jax.Array]:
            return closely(params, state, to_float(batch.image, scale))[1]

        self.program, self.closer = (
            CompiledFunction(name, jax.vmap(f, in_axes=(0, 0, None)) if num_members else f)
            for name, f in (("evaluation", one), ("the search for dead layers", again))
        )

    def batches(self, images: np.ndarray, labels: np.ndarray) -> Iterable[Batch]:
        """The examples as batches on the device: keep them to score them again without moving them again."""
        part = distributed.local_batch_slice(self.batch_size)
        for batch in iterate_batches(images, labels, self.batch_size):
            yield distributed.shard(self.mesh, jax.tree.map(lambda array: array[part], batch))

    def __call__(
        self, params: Any, state: Any, batches: Iterable[Batch], *, logits: bool = False, alive: bool = False
    ) -> EvalResult:
        """Loss and metrics over all examples; the logits, and which rectifiers are alive, where they are asked for.

        Who asks for the latter gives a list of batches: a rectifier that is 0 in the middle is looked at once more.
        """
        network = distributed.replicate(self.mesh, (params, state)) if self.mesh else (params, state)
        measured, answered, made = [], [], []
        for batch in batches:
            metrics, out, middle = self.program(*network, batch)
            measured.append(metrics)
            answered.append(middle)
            made += [out] if logits else []
        total = jax.tree.map(lambda *each: np.asarray(each, np.float64).sum(axis=0), *jax.device_get(measured))
        count = int(np.max(total.count))
        metrics = reported(self.task, total)
        all_logits = None
        if logits:
            outputs = [distributed.process_allgather(out) for out in made]
            all_logits = (
                np.concatenate(outputs, axis=1)[:, :count] if self.num_members else np.concatenate(outputs)[:count]
            )
        answers = self._any(answered) if alive else {}
        if not all(np.all(each) for each in answers.values()):  # which is so rare that only then it is compiled
            answers = self._any([self.closer(*network, batch) for batch in batches])
        return EvalResult(metrics.pop("loss"), metrics, count, all_logits, answers)

    def _any(self, answered: list[dict[str, jax.Array]]) -> dict[str, Any]:
        """Of each rectifier, whether it answered in any batch, in the order of the layers."""
        seen = jax.device_get(answered)
        return {name: np.any([each[name] for each in seen], axis=0) for name in self.rectifiers if name in seen[0]}


@checked_call
@named_errors
def evaluate(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    labels: Any,
    *,
    batch_size: int = 256,
    scale: float | None = None,
    task: Task = CLASSIFICATION,
) -> dict[str, float]:
    """Mean loss and the task's metrics, such as accuracy, over all examples.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or float from 0 to 1. A ``RangeWarning`` tells of floats in another range.
        labels: ``(N,)`` class numbers, or what the task takes.
        batch_size: examples at a time; the last batch is padded, and the padding not counted.
        scale: what the pixels are divided by; by default bytes by 255, and floats are taken as they are.
        task: loss and metrics: :class:`jaxconv.train.Task`.

    Returns:
        ``{"loss": …, "accuracy": …, "count": N}``.

    Raises:
        InputError: images and labels that do not go together, or with this model, or a pixel that is not finite.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=3)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> evaluate(model, params, state, np.ones((5, 2, 2, 1), np.uint8), np.zeros(5, np.int32), batch_size=2)["count"]
    5
    """
    images, labels = as_array("images", images), as_array("labels", labels)
    check_batchable(images, labels, batch_size)
    check_scale(scale)
    check_pixels("evaluate", "images", images, scale)
    model = as_layer(model)
    check_labels(model, params, state, images.shape[1:], labels, task)
    kind = str(images.dtype)
    score = evaluator_of(model, batch_size, images.shape[1:], kind, None, None, (params, state), scale, task)
    scores = score(params, state, score.batches(images, labels))
    numbers = {name: float(value) for name, value in ({"loss": scores.loss} | scores.metrics).items()}
    return numbers | {"count": scores.examples}


@checked_call
@named_errors
def predict(
    model: Layer,
    params: Any,
    state: Any,
    images: Any,
    *,
    batch_size: int = 256,
    views: Callable[[jax.Array], jax.Array] | None = None,
    scale: float | None = None,
    task: Task = CLASSIFICATION,
) -> np.ndarray:
    """The probability of each class for each image: an array ``(N, classes)`` whose rows sum to 1.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or float from 0 to 1. A ``RangeWarning`` tells of floats in another range.
        batch_size: images at a time; fewer are padded to 1, 8, 64 or this many, so that few programs are compiled.
        views: ``images -> (V, N, H, W, C)``, ways to see each image, whose probabilities are averaged: test-time
            augmentation, :func:`jaxconv.data.augment.test_time_views`; lecture row 004-13.
        scale: what the pixels are divided by; by default bytes by 255, and floats are taken as they are.
        task: another task than classification returns its own predictions, :meth:`jaxconv.train.Task.predict`.

    Raises:
        InputError: what is no array of images, or a pixel that is not finite.

    >>> from jaxconv import models
    >>> model = models.mlp(num_classes=3)
    >>> params, state = model.init(jax.random.key(0), (2, 2, 1))
    >>> predict(model, params, state, np.ones((5, 2, 2, 1), np.uint8)).shape
    (5, 3)
    """
    images = as_array("images", images)
    labels = np.zeros(images.shape[:1], np.int32)
    check_batchable(images, labels, batch_size)
    check_scale(scale)
    check_pixels("predict", "images", images, scale)
    probabilities = _probabilities(as_layer(model).apply, views, task)
    size = min((n for n in FEW if len(images) <= n < batch_size), default=batch_size)
    parts = []
    try:
        for batch in iterate_batches(images, labels, size):
            image = batch.image if scale is None else to_float(batch.image, scale)
            parts.append(np.asarray(probabilities(params, state, image)))
    except InputError:  # it tells of the padded images: of those that were given it is the same but for the number
        jax.eval_shape(probabilities, params, state, images)
        raise
    return np.concatenate(parts)[: len(images)]


@functools.lru_cache(maxsize=8)
def _probabilities(
    apply: Callable[..., tuple[jax.Array, Any]],
    views: Callable[[jax.Array], jax.Array] | None,
    task: Task,
) -> Callable[[Any, Any, Any], jax.Array]:
    """Compiled once for a model, however often it is asked."""

    def probabilities(params: Any, state: Any, image: jax.Array) -> jax.Array:
        pixels = to_float(image)
        seen = pixels[None] if views is None else views(pixels)
        return jnp.mean(jax.lax.map(lambda view: task.predict(apply(params, state, view)[0]), seen), axis=0)

    return xla_options.jit(probabilities, compiler_options)


def evaluator_of(
    model: Layer,
    batch_size: int,
    input_shape: tuple[int, ...],
    dtype: str,
    num_members: int | None,
    mesh: Mesh | None,
    network: Any = (),
    scale: float | None = None,
    task: Task = CLASSIFICATION,
) -> Evaluator:
    """The same evaluator for the same question, so that whoever asks again compiles nothing.

    Args:
        model, batch_size, num_members, mesh, scale, task: as :class:`Evaluator` takes them.
        input_shape, dtype: of the images.
        network: the params and the state, of which the types, shapes and devices count.
    """
    config = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision  # those of the program that is kept
    asked = batch_size, input_shape, dtype, num_members, mesh, scale, _kind_of(network), config, task
    return _evaluator_of(_Applied(as_layer(model)), asked)


def _kind_of(network: Any) -> Any:
    leaves, structure = jax.tree.flatten(network)
    there = frozenset(device for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.devices())
    return str(structure), tuple(map(jax.typeof, leaves)), there or frozenset(jnp.zeros(()).devices())


class _Applied:
    """A model as the key of a table: the same if it applies the same function (what a window holds has no hash)."""

    def __init__(self, model: Layer) -> None:
        self.model = model

    def __hash__(self) -> int:
        return hash(self.model.apply)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Applied) and self.model.apply == other.model.apply


@functools.lru_cache(maxsize=8)
def _evaluator_of(applied: _Applied, asked: tuple[Any, ...]) -> Evaluator:
    batch_size, _, _, num_members, mesh, scale, _, _, task = asked
    return Evaluator(applied.model, batch_size, num_members=num_members, mesh=mesh, scale=scale, task=task)
