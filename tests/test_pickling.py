"""Layers can be pickled, also for other processes, hashed, copied and modified."""

import copy
import multiprocessing
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import (
    BatchNorm,
    Conv,
    Dense,
    Layer,
    MaxPool,
    as_layer,
    dirac,
    flatten,
    models,
    ops,
    parallel,
    relu,
    residual,
    serial,
)

KEY = jax.random.key(0)


def double(x):
    return 2 * x


def own_init(key, input_shape):
    return {"scale": jnp.ones(())}, {}


def own_apply(params, state, x, *, train=False, key=None):
    return params["scale"] * x, state


NETWORK = serial(
    Conv(4, [3, 3], padding="SAME", name="first"),
    residual(BatchNorm(), relu, double),
    parallel(Conv(2, 1), partial(ops.leaky_relu, negative_slope=0.3)),
    Layer("own", own_init, own_apply),
    MaxPool(2)._replace(name="smaller"),
    flatten,
    Dense(3),
    name="all",
)


def model_output(model, input_shape=(6, 6, 1)):
    params, state = model.init(KEY, input_shape)
    return np.asarray(model.apply(params, state, jax.random.normal(KEY, (2, *input_shape)))[0])


def test_model_survives_pickle():
    restored = pickle.loads(pickle.dumps(NETWORK))
    assert [name for name, _ in restored.children] == [name for name, _ in NETWORK.children]
    assert (restored.kind, restored.name) == ("serial", "all")
    assert restored.children[0][1].window == NETWORK.children[0][1].window
    np.testing.assert_array_equal(model_output(restored), model_output(NETWORK))


def test_model_runs_in_spawned_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_allclose(pool.apply(model_output, (NETWORK,)), model_output(NETWORK), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", models.list_models())
def test_registered_models_and_layers_pickle(name):
    model = models.create_model(name)
    restored = pickle.loads(pickle.dumps(model))
    assert [name for name, _ in restored.children] == [name for name, _ in model.children]
    for _, child in model.children[:12] + model.children[-6:]:
        assert pickle.loads(pickle.dumps(child)).kind == child.kind


def test_replaced_fields_survive_pickle():
    restored = pickle.loads(pickle.dumps(Conv(2, 3)._replace(init=own_init)._replace(name="b")))
    assert restored.name == "b" and restored.init(KEY, (1,))[0].keys() == {"scale"}


@pytest.mark.parametrize(
    "kernel_init",
    [
        jax.nn.initializers.glorot_uniform(),
        jax.nn.initializers.variance_scaling(3.0, "fan_avg", "truncated_normal"),
        jax.nn.initializers.normal(0.3),
        jax.nn.initializers.constant(0.5),
        jax.nn.initializers.orthogonal(2.0),
        jax.nn.initializers.zeros,
        dirac(jax.nn.initializers.normal(2.0)),
    ],
)
def test_initializers_survive_pickle(kernel_init):
    layer = Conv(3, 3, kernel_init=kernel_init)
    restored = pickle.loads(pickle.dumps(layer))
    jax.tree.map(np.testing.assert_array_equal, restored.init(KEY, (5, 5, 2)), layer.init(KEY, (5, 5, 2)))


def test_lambda_layer_cannot_be_pickled():
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(serial(lambda x: x))


def test_layers_are_hashable_and_copyable():
    layer = Conv(3, [3, 3])
    assert hash(layer) == hash(copy.copy(layer)) and layer == copy.deepcopy(layer) and {layer: 1}[layer] == 1
    static = jax.jit(lambda layer, x: layer.apply(*layer.init(KEY, (5, 5, 1)), x)[0], static_argnums=0)
    assert static(layer, jnp.ones((1, 5, 5, 1))).shape == (1, 3, 3, 3)
    assert copy.deepcopy(serial(lambda x: x)).kind == "serial"
    assert repr(serial(Conv(2, 3), relu)) == "<Layer serial, children=conv1, relu1>"
    assert as_layer(layer) is layer
