"""Cases of ``jaxconv compare --model``: a network or one layer in every lowering and with manual backpropagation."""

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
    """Return the names of the models with an ``impl`` option, which selects the lowering of their convolutions.

    >>> "mlp" in list_comparable_models()
    False
    """
    return [name for name in list_models() if _has_lowerings(get_model(name))]


def _has_lowerings(spec: ModelSpec) -> bool:
    return "impl" in inspect.signature(spec.create).parameters


def model_case(
    name: str, *, layer: str | None = None, batch_size: int = 8, dtype: Any = jnp.float64, seed: int = 0
) -> OpCase:
    """Return the mean cross-entropy of a network as a function of its parameters, or one layer of it.

    A layer is a function of its parameters and its input.

    Args:
        name: name of a model with convolutions.
        layer: name of one layer, such as ``conv2``; its input is random and has the shape that it has in the model.
        batch_size: number of random images.
        dtype: dtype of parameters and images.
        seed: seed of parameters, images and labels.

    Returns:
        Implementations and arguments for :func:`jaxconv.testing.compare_all`: one for each lowering of convolution,
        ``"auto"``, which selects one of its lowerings, and ``"manual"`` if the network has manual backprop.

    Raises:
        InputError: if the model has no convolution or no such layer, ``batch_size < 1``, or a whole model is requested
            in half precision.

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
            f"a whole network cannot be compared in {jnp.dtype(dtype)}: its max pools may select other pixels than in "
            "float64, which no rounding bound covers; give a layer, or float32"
        ).from_source(name)
    models = {impl: spec.create(impl=impl) for impl in [*ops.LOWERINGS, "auto"]}
    model = next(iter(models.values()))
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):  # without it jax converts float64 to float32, with only a warning
        params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(seed), spec.input_shape)
        if layer is not None:
            input_shape = _layer_input_shape(name, model, layer, params, state, spec.input_shape)
            x = jnp.asarray(rng.normal(size=(batch_size, *input_shape)), dtype)
            return _layer_case(name, models, layer, _cast(params.get(layer, {}), dtype), state.get(layer, {}), x)
        params = _cast(params, dtype)
        images = jnp.asarray(rng.normal(size=(batch_size, *spec.input_shape)), dtype)
        label = jnp.asarray(rng.integers(0, 10, batch_size), jnp.int32)

    def loss(params: Any, model: Layer) -> jax.Array:
        # Cast the images to the dtype of the parameters, since the float64 reference casts only the arguments.
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


def _layer_input_shape(
    name: str, model: Layer, layer: str, params: Any, state: Any, input_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the shape of the input that a layer gets within the model."""
    for child_name, child in model.children:
        if child_name == layer:
            return input_shape
        input_shape = output_shape(child, params.get(child_name, {}), state.get(child_name, {}), input_shape)
    raise unknown_name_error(f"layer of {name}", layer, dict(model.children))


def _layer_case(name: str, models: dict[str, Layer], layer: str, params: Any, state: Any, x: jax.Array) -> OpCase:
    def apply(params: Any, x: jax.Array, child: Layer) -> jax.Array:
        return child.apply(params, state, x)[0]

    functions: dict[str, Any] = {
        impl: partial(apply, child=dict(model.children)[layer]) for impl, model in models.items()
    }
    steps = {step.name: step for step in manual_backprop.MANUAL_NETWORKS.get(name, ())}
    if params and layer in steps:

        def gradient(params: Any, x: jax.Array, dy: jax.Array) -> Any:
            dx, d_kernel, d_bias = steps[layer].backward(x, dy, **params)
            return {"kernel": d_kernel, "bias": d_bias}, dx

        functions["manual"] = with_custom_gradient(functions["explicit"], gradient)
    return OpCase(functions, (params, x), ("params", "x"))
