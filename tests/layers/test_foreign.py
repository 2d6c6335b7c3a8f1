"""Modules of other libraries raise an error where a layer is expected; the suggested wrapper is trainable."""

import sys
import types

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv import InputError, Layer, as_layer, parallel, relu, residual, serial, train
from jaxconv.layers.foreign import LIBRARIES, wrapper_source

KEY = jax.random.key(0)


def nnx_modules():
    linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    return [linear, nnx.Linear, linear.__call__, jax.jit(linear.__call__)]


def linen_modules():
    return [flax.linen.Dense(3), flax.linen.Sequential([flax.linen.Dense(3)])]


def equinox_modules():
    eqx = pytest.importorskip("equinox", reason="the benchmarks extra is not installed")

    class UserModule(eqx.Module):
        inner: eqx.nn.Linear

        def __call__(self, x):
            return self.inner(x)

    linear = eqx.nn.Linear(4, 3, key=KEY)
    return [linear, UserModule(linear), jax.vmap(linear), eqx.filter_jit(linear)]


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("Flax NNX", nnx_modules),
        ("Flax Linen", linen_modules),
        pytest.param("Equinox", equinox_modules, marks=pytest.mark.frameworks),
    ],
)
def test_foreign_module_raises_with_library_name(name, modules):
    for module in modules():
        for make in (serial, residual, parallel, as_layer, lambda layer: serial(relu, residual(relu, shortcut=layer))):
            with pytest.raises(InputError, match=rf"^\w+ is a module of {name}, not a Layer, .* or wrap it: Layer\("):
                make(module)
        with pytest.raises(InputError, match=rf"a module of {name}"):
            train.predict(module, {}, {}, np.zeros((1, 2, 2, 1), np.uint8))


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch.nn.modules.conv", "PyTorch"), ("keras.src.layers.core.dense", "Keras"), ("haiku._src.transform", "Haiku")],
)
def test_uninstalled_library_is_recognized_by_module_name(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    base = type("Base", (), {"__module__": module})
    UserClass = type("Mine", (base,), {"__call__": lambda self, x: x})
    with pytest.raises(InputError, match=rf"^Mine is a module of {name}, not a Layer"):
        serial(UserClass())


def test_functions_of_other_libraries_are_accepted():
    model = serial(nnx.relu, flax.linen.gelu, jax.jit(jnp.sin), jax.vmap(jnp.cos))
    assert model.apply({}, {}, jnp.ones((2, 3)))[0].shape == (2, 3)


@pytest.mark.frameworks
def test_equinox_jitted_function_is_accepted():
    eqx = pytest.importorskip("equinox", reason="the benchmarks extra is not installed")
    assert serial(eqx.filter_jit(jnp.tanh)).apply({}, {}, jnp.ones((2, 3)))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("prefix", "modules", "kernel"),
    [
        ("flax.nnx", nnx_modules, "kernel"),
        ("flax.linen", linen_modules, "kernel"),
        pytest.param("equinox", equinox_modules, "weight", marks=pytest.mark.frameworks),
    ],
)
def test_wrapper_from_error_message_is_trainable(prefix, modules, kernel):
    """The gradient of Σ y with respect to a weight is the sum of its inputs."""
    # The message assumes the imports of the library.
    names = {"module": modules()[0], "eqx": sys.modules.get("equinox")}
    layer = eval(wrapper_source(LIBRARIES[prefix], "Linear"), globals() | names)
    assert isinstance(layer, Layer) and layer.kind == "linear"
    model, x = serial(relu, layer), jnp.arange(8.0).reshape(2, 4)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # the libraries rely on broadcasting
        params, state = model.init(KEY, (4,))
        gradient = jax.grad(lambda params: model.apply(params, state, x, train=True, key=KEY)[0].sum())(params)
    leaves = {np.shape(leaf): np.asarray(leaf) for leaf in jax.tree.leaves(gradient)}
    expected = np.broadcast_to(np.asarray(x.sum(axis=0)), (3, 4))
    np.testing.assert_allclose(leaves[(3, 4)] if kernel == "weight" else leaves[(4, 3)].T, expected)
    np.testing.assert_allclose(leaves[(3,)], 2.0)
