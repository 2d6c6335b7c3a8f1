"""A whole network, or one layer of it, in every lowering and derived by hand: what ``jaxconv compare --model`` runs."""

import inspect
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import checks, ops
from jaxconv.errors import InputError, error_context, unknown_name_error
from jaxconv.layers import Layer, output_shape
from jaxconv.models import manual_backprop
from jaxconv.models.registry import ModelSpec, get_model, list_models
from jaxconv.testing import OpCase, with_custom_gradient
from jaxconv.testing.arguments import floating_dtype


def list_comparable_models() -> list[str]:
    """Names of the models whose convolutions have lowerings: those with an ``impl`` option.

    >>> "mlp" in list_comparable_models()
    False
    """
    return [name for name in list_models() if _has_lowerings(get_model(name))]


def _has_lowerings(spec: ModelSpec) -> bool:
    return "impl" in inspect.signature(spec.create).parameters


def model_case(
    name: str, *, layer: str | None = None, batch_size: int = 8, dtype: Any = jnp.float64, seed: int = 0
) -> OpCase:
    """The mean cross-entropy of a network by its parameters, or one of its layers by its parameters and its input.

    Args:
        name: a model that has convolutions.
        layer: the name of one of its parts, ``conv2``; its input is random, of the shape that it has in the model.
        batch_size: how many random images.
        dtype: of everything.
        seed: of parameters, images and labels.

    Returns:
        Implementations and arguments for :func:`jaxconv.testing.compare_all`: one for each lowering of convolution,
        ``"auto"``, which chooses among its own, and ``"manual"`` where the network is derived so.

    Raises:
        InputError: a model without convolutions, a layer that it has not, no image, or a whole model in half precision.

    >>> sorted(model_case("lenet5", dtype=jnp.float32).functions)
    ['auto', 'explicit', 'fft', 'im2col', 'lax', 'manual', 'toeplitz']
    """
    spec = get_model(name)
    if not _has_lowerings(spec):
        raise InputError(f"model {name!r} has no convolution, so it has no lowerings to compare")
    with error_context(name):
        checks.at_least(1, batch_size=batch_size)
        checks.at_least(0, seed=seed)
        floating_dtype(dtype)
    if layer is None and jnp.dtype(dtype).itemsize < 4:
        raise InputError(
            f"in {jnp.dtype(dtype)} other pixels win its pools than in float64, which no bound on rounding "
            "allows for: compare one layer of it, or float32"
        ).from_source(name)
    models = {impl: spec.create(impl=impl) for impl in [*ops.LOWERINGS, "auto"]}
    model = next(iter(models.values()))
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):  # else float64 would be float32, with no more than a warning
        params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(seed), spec.input_shape)
        if layer is not None:
            input_shape = _input_of(name, model, layer, params, state, spec.input_shape)
            x = jnp.asarray(rng.normal(size=(batch_size, *input_shape)), dtype)
            return _layer_contest(name, models, layer, _cast(params.get(layer, {}), dtype), state.get(layer, {}), x)
        params = _cast(params, dtype)
        images = jnp.asarray(rng.normal(size=(batch_size, *spec.input_shape)), dtype)
        label = jnp.asarray(rng.integers(0, 10, batch_size), jnp.int32)

    def loss(params: Any, model: Layer) -> jax.Array:
        # The reference runs in float64 too, and then the images, which are no argument, have to go along.
        x = images.astype(jax.tree.leaves(params)[0].dtype)
        return ops.softmax_cross_entropy(model.apply(params, state, x)[0], label).mean()

    functions: dict[str, Any] = {impl: partial(loss, model=model) for impl, model in models.items()}
    if name in manual_backprop.MANUAL_NETWORKS:

        def gradient(params: Any, dy: jax.Array) -> Any:
            _, gradients = manual_backprop.value_and_grad(name, params, images, label)
            return (jax.tree.map(lambda g: dy * g, gradients),)

        functions["manual"] = with_custom_gradient(partial(loss, model=models["explicit"]), gradient)
    return OpCase(functions, (params,), ("params",))


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _input_of(
    name: str, model: Layer, layer: str, params: Any, state: Any, input_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of what a part of a model is given."""
    for part_name, part in model.children:
        if part_name == layer:
            return input_shape
        input_shape = output_shape(part, params.get(part_name, {}), state.get(part_name, {}), input_shape)
    raise unknown_name_error(f"layer of {name}", layer, dict(model.children))


def _layer_contest(name: str, models: dict[str, Layer], layer: str, params: Any, state: Any, x: jax.Array) -> OpCase:
    def apply(params: Any, x: jax.Array, part: Layer) -> jax.Array:
        return part.apply(params, state, x)[0]

    functions: dict[str, Any] = {
        impl: partial(apply, part=dict(model.children)[layer]) for impl, model in models.items()
    }
    steps = {step.name: step for step in manual_backprop.MANUAL_NETWORKS.get(name, ())}
    if params and layer in steps:

        def gradient(params: Any, x: jax.Array, dy: jax.Array) -> Any:
            dx, d_kernel, d_bias = steps[layer].backward(x, dy, **params)
            return {"kernel": d_kernel, "bias": d_bias}, dx

        functions["manual"] = with_custom_gradient(functions["explicit"], gradient)
    return OpCase(functions, (params, x), ("params", "x"))
