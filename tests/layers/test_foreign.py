"""Modules of other libraries are refused wherever a layer is taken, and train if they are wrapped as the error says."""

import sys
import types

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxconv import InputError, Layer, as_layer, parallel, relu, residual, serial, train
from jaxconv.layers.foreign import LIBRARIES, sketch

KEY = jax.random.key(0)


def of_nnx():
    linear = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    return [linear, nnx.Linear, linear.__call__, jax.jit(linear.__call__)]


def of_linen():
    return [flax.linen.Dense(3), flax.linen.Sequential([flax.linen.Dense(3)])]


def of_equinox():
    eqx = pytest.importorskip("equinox", reason="the benchmarks extra is not installed")

    class OfAUser(eqx.Module):
        inner: eqx.nn.Linear

        def __call__(self, x):
            return self.inner(x)

    linear = eqx.nn.Linear(4, 3, key=KEY)
    return [linear, OfAUser(linear), jax.vmap(linear), eqx.filter_jit(linear)]


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("Flax NNX", of_nnx),
        ("Flax Linen", of_linen),
        pytest.param("Equinox", of_equinox, marks=pytest.mark.frameworks),
    ],
)
def test_a_module_of_another_library_is_refused_by_name(name, modules):
    for module in modules():
        for take in (serial, residual, parallel, as_layer, lambda layer: serial(relu, residual(relu, shortcut=layer))):
            with pytest.raises(InputError, match=rf"^\w+ is a module of {name} and no Layer, .* or wrap it: Layer\("):
                take(module)
        with pytest.raises(InputError, match=rf"a module of {name}"):
            train.predict(module, {}, {}, np.zeros((1, 2, 2, 1), np.uint8))


@pytest.mark.parametrize(
    ("module", "name"),
    [("torch.nn.modules.conv", "PyTorch"), ("keras.src.layers.core.dense", "Keras"), ("haiku._src.transform", "Haiku")],
)
def test_libraries_that_may_not_be_installed_are_known_by_the_name_of_their_modules(monkeypatch, module, name):
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    base = type("Base", (), {"__module__": module})
    mine = type("Mine", (base,), {"__call__": lambda self, x: x})
    with pytest.raises(InputError, match=rf"^Mine is a module of {name} and no Layer"):
        serial(mine())


def test_functions_of_other_libraries_are_functions():
    model = serial(nnx.relu, flax.linen.gelu, jax.jit(jnp.sin), jax.vmap(jnp.cos))
    assert model.apply({}, {}, jnp.ones((2, 3)))[0].shape == (2, 3)


@pytest.mark.frameworks
def test_a_function_that_equinox_has_jitted_is_a_function():
    eqx = pytest.importorskip("equinox", reason="the benchmarks extra is not installed")
    assert serial(eqx.filter_jit(jnp.tanh)).apply({}, {}, jnp.ones((2, 3)))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("start", "modules", "kernel"),
    [
        ("flax.nnx", of_nnx, "kernel"),
        ("flax.linen", of_linen, "kernel"),
        pytest.param("equinox", of_equinox, "weight", marks=pytest.mark.frameworks),
    ],
)
def test_a_module_that_is_wrapped_as_the_error_says_is_trained(start, modules, kernel):
    """The gradient of the sum over outputs is, for each weight, the sum of the inputs that it multiplies."""
    # A reader of the error has the library's own imports.
    names = {"module": modules()[0], "eqx": sys.modules.get("equinox")}
    layer = eval(sketch(LIBRARIES[start], "Linear"), globals() | names)
    assert isinstance(layer, Layer) and layer.kind == "linear"
    model, x = serial(relu, layer), jnp.arange(8.0).reshape(2, 4)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # they broadcast
        params, state = model.init(KEY, (4,))
        gradient = jax.grad(lambda params: model.apply(params, state, x, train=True, key=KEY)[0].sum())(params)
    leaves = {np.shape(leaf): np.asarray(leaf) for leaf in jax.tree.leaves(gradient)}
    wanted = np.broadcast_to(np.asarray(x.sum(axis=0)), (3, 4))
    np.testing.assert_allclose(leaves[(3, 4)] if kernel == "weight" else leaves[(4, 3)].T, wanted)
    np.testing.assert_allclose(leaves[(3,)], 2.0)
