"""Evaluation and prediction: every example is counted exactly once."""

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
from jaxconv.train.diagnostics import any_nonzero, apply_with_activity, rectifier_names
from jaxconv.train.loaders import iterate_batches
from jaxconv.train.pixels import check_pixels, check_scale, to_float
from jaxconv.train.state import Batch
from jaxconv.train.tasks import CLASSIFICATION, MetricSums, Task, measure, reported
from jaxconv.utils.signatures import checked_call

SMALL_BATCHES = (1, 8, 64)  # batch sizes to which predict pads a few images


class EvalResult(NamedTuple):
    """Result of an evaluation; with several networks, values are arrays with the network axis first."""

    loss: Any
    metrics: dict[str, Any]  # of the task, such as "accuracy"
    examples: int  # number of examples
    logits: np.ndarray | None  # outputs: (N, classes), or (networks, N, classes)
    alive: dict[str, Any] = {}  # noqa: RUF012  per rectifier, True if it is active for any image

    @property
    def accuracy(self) -> Any:
        """Value of the metric ``"accuracy"``."""
        return self.metrics["accuracy"]

    def dead(self, network: int | None = None) -> list[str]:
        """Return the rectifiers that are 0 for every image in one network, or by default in any network."""
        return [
            name for name, active in self.alive.items() if not np.all(active if network is None else active[network])
        ]


class Evaluator:
    """Evaluation of a model, compiled once for batches of one shape; params, state and data may differ between calls.

    Args:
        model: the network.
        batch_size: examples per batch; the last batch is padded, and its padding masked.
        num_members: number of networks to evaluate at once, the length of the first axis of params and state.
        mesh: devices over which batches are sharded.
        scale: divisor of the pixels, as for :func:`jaxconv.train.to_float`.
        task: loss and metrics.

    Attributes:
        program: compiled evaluation.
        dead_check: compiled check of all pixels of the rectifiers' outputs; used only if a rectifier is 0 in the middle
            row of every image.
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
        apply_fast, apply_thorough = apply_with_activity(model), apply_with_activity(model, any_nonzero)

        def evaluate_batch(params: Any, state: Any, batch: Batch) -> tuple[MetricSums, jax.Array, dict[str, jax.Array]]:
            image, label = to_float(batch.image, scale), jnp.asarray(batch.label)
            logits, active = apply_fast(params, state, image)
            target = task.targets(image, label, jax.ShapeDtypeStruct(logits.shape, logits.dtype), False)
            mask = jnp.ones(len(label), bool) if batch.mask is None else jnp.asarray(batch.mask)
            return measure(task, logits, target, mask), logits, active

        def find_active(params: Any, state: Any, batch: Batch) -> dict[str, jax.Array]:
            return apply_thorough(params, state, to_float(batch.image, scale))[1]

        self.program, self.dead_check = (
            CompiledFunction(name, jax.vmap(function, in_axes=(0, 0, None)) if num_members else function)
            for name, function in (("evaluation", evaluate_batch), ("the search for dead layers", find_active))
        )

    def batches(self, images: np.ndarray, labels: np.ndarray) -> Iterable[Batch]:
        """Yield the examples as batches on the device; keep them in a list to evaluate repeatedly."""
        local = distributed.local_batch_slice(self.batch_size)
        for batch in iterate_batches(images, labels, self.batch_size):
            yield distributed.shard(self.mesh, jax.tree.map(lambda array: array[local], batch))

    def __call__(
        self, params: Any, state: Any, batches: Iterable[Batch], *, logits: bool = False, alive: bool = False
    ) -> EvalResult:
        """Return loss and metrics over all examples, and optionally the logits and the active rectifiers.

        With ``alive=True`` pass a list: batches are read twice if a rectifier looks dead.
        """
        variables = distributed.replicate(self.mesh, (params, state)) if self.mesh else (params, state)
        metric_sums, activity, outputs = [], [], []
        for batch in batches:
            sums, output, active = self.program(*variables, batch)
            metric_sums.append(sums)
            activity.append(active)
            outputs += [output] if logits else []
        total = jax.tree.map(lambda *sums: np.asarray(sums, np.float64).sum(axis=0), *jax.device_get(metric_sums))
        num_examples = int(np.max(total.count))
        metrics = reported(self.task, total)
        all_logits = None
        if logits:
            axis = 1 if self.num_members else 0
            all_logits = np.concatenate([distributed.process_allgather(output) for output in outputs], axis=axis)
            all_logits = all_logits[:, :num_examples] if self.num_members else all_logits[:num_examples]
        active_in_any = self._in_any_batch(activity) if alive else {}
        if not all(np.all(active) for active in active_in_any.values()):  # rare, so it is compiled on demand
            active_in_any = self._in_any_batch([self.dead_check(*variables, batch) for batch in batches])
        return EvalResult(metrics.pop("loss"), metrics, num_examples, all_logits, active_in_any)

    def _in_any_batch(self, activity: list[dict[str, jax.Array]]) -> dict[str, Any]:
        """Return per rectifier, in layer order, True if it is active in any batch."""
        batches = jax.device_get(activity)
        return {
            name: np.any([active[name] for active in batches], axis=0) for name in self.rectifiers if name in batches[0]
        }


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
    """Return the mean loss and the task's metrics, such as accuracy, over all examples.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or float from 0 to 1; floats in another range cause a ``RangeWarning``.
        labels: ``(N,)`` class numbers, or the labels of another task.
        batch_size: examples per batch; the last batch is padded, and its padding masked.
        scale: divisor of the pixels; by default 255 for uint8, and floats stay unchanged.
        task: loss and metrics: :class:`jaxconv.train.Task`.

    Returns:
        ``{"loss": …, "accuracy": …, "count": N}``.

    Raises:
        InputError: if images and labels do not match each other or the model, or a pixel is not finite.

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
    dtype = str(images.dtype)
    evaluator = evaluator_of(model, batch_size, images.shape[1:], dtype, None, None, (params, state), scale, task)
    result = evaluator(params, state, evaluator.batches(images, labels))
    values = {name: float(value) for name, value in ({"loss": result.loss} | result.metrics).items()}
    return values | {"count": result.examples}


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
    """Return the probability of each class for each image, ``(N, classes)``; rows sum to 1.

    Args:
        model, params, state: the network.
        images: ``(N, H, W, C)``, uint8 or float from 0 to 1; floats in another range cause a ``RangeWarning``.
        batch_size: images per batch; fewer images are padded to 1, 8, 64 or ``batch_size``, to limit compilations.
        views: test-time augmentation: ``images -> (V, N, H, W, C)``, V views of each image, whose predictions are
            averaged; see :func:`jaxconv.data.augment.test_time_views`. Lecture row 004-13.
        scale: divisor of the pixels; by default 255 for uint8, and floats stay unchanged.
        task: another task than classification returns its own predictions, :meth:`jaxconv.train.Task.predict`.

    Raises:
        InputError: if images is not an array of images, or a pixel is not finite.

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
    size = min((n for n in SMALL_BATCHES if len(images) <= n < batch_size), default=batch_size)
    outputs = []
    try:
        for batch in iterate_batches(images, labels, size):
            image = batch.image if scale is None else to_float(batch.image, scale)
            outputs.append(np.asarray(probabilities(params, state, image)))
    except InputError:  # its message has the shape of the padded batch: raise it with the shape of the argument
        jax.eval_shape(probabilities, params, state, images)
        raise
    return np.concatenate(outputs)[: len(images)]


@functools.lru_cache(maxsize=8)
def _probabilities(
    apply: Callable[..., tuple[jax.Array, Any]],
    views: Callable[[jax.Array], jax.Array] | None,
    task: Task,
) -> Callable[[Any, Any, Any], jax.Array]:
    """Return the compiled prediction function of a model; cached."""

    def probabilities(params: Any, state: Any, image: jax.Array) -> jax.Array:
        pixels = to_float(image)
        inputs = pixels[None] if views is None else views(pixels)
        return jnp.mean(jax.lax.map(lambda view: task.predict(apply(params, state, view)[0]), inputs), axis=0)

    return xla_options.jit(probabilities, compiler_options)


def evaluator_of(
    model: Layer,
    batch_size: int,
    input_shape: tuple[int, ...],
    dtype: str,
    num_members: int | None,
    mesh: Mesh | None,
    variables: Any = (),
    scale: float | None = None,
    task: Task = CLASSIFICATION,
) -> Evaluator:
    """Return a cached evaluator: equal arguments return the same one, which is compiled already.

    Args:
        model, batch_size, num_members, mesh, scale, task: arguments of :class:`Evaluator`.
        input_shape, dtype: shape of an image, and dtype of the images.
        variables: params and state, compared by structure, types, shapes and devices.
    """
    config = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision  # they affect the compiled function
    cache_key = batch_size, input_shape, dtype, num_members, mesh, scale, _signature(variables), config, task
    return _cached_evaluator(_HashableModel(as_layer(model)), cache_key)


def _signature(variables: Any) -> Any:
    leaves, structure = jax.tree.flatten(variables)
    devices = frozenset(device for leaf in leaves if isinstance(leaf, jax.Array) for device in leaf.devices())
    return str(structure), tuple(map(jax.typeof, leaves)), devices or frozenset(jnp.zeros(()).devices())


class _HashableModel:
    """Model as a cache key, hashed and compared by its ``apply`` (other fields of a layer may be unhashable)."""

    def __init__(self, model: Layer) -> None:
        self.model = model

    def __hash__(self) -> int:
        return hash(self.model.apply)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HashableModel) and self.model.apply == other.model.apply


@functools.lru_cache(maxsize=8)
def _cached_evaluator(hashable: _HashableModel, cache_key: tuple[Any, ...]) -> Evaluator:
    batch_size, _, _, num_members, mesh, scale, _, _, task = cache_key
    return Evaluator(hashable.model, batch_size, num_members=num_members, mesh=mesh, scale=scale, task=task)
