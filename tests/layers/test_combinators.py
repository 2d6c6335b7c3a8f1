"""Composite layers: ``residual`` and ``parallel`` against explicit computations."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv import AvgPool, BatchNorm, Conv, Dense, Dropout, ops, parallel, residual, serial
from jaxconv.layers import output_shape

KEY = jax.random.key(0)


def test_residual_zero_body_is_identity_with_gradient():
    layer = residual(Conv(3, 3, padding="SAME", kernel_init=jax.nn.initializers.zeros))
    params, state = layer.init(KEY, (5, 4, 3))
    x, dy = jax.random.normal(KEY, (2, 2, 5, 4, 3))
    y, vjp = jax.vjp(lambda x: layer.apply(params, state, x)[0], x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(vjp(dy)[0], dy)


def test_residual_shortcut_adds_projection():
    layer = residual(Conv(6, 3, stride=2, padding="SAME"), shortcut=Conv(6, 1, stride=2))
    params, state = layer.init(KEY, (8, 8, 3))
    x = jax.random.normal(KEY, (2, 8, 8, 3))
    body = ops.conv(x, **params["body"]["conv1"], stride=2, padding="SAME")
    shortcut_output = ops.conv(x, **params["shortcut"], stride=2)
    np.testing.assert_allclose(layer.apply(params, state, x)[0], body + shortcut_output, rtol=1e-6)


def test_parallel_concatenates_channels():
    layer = parallel(Conv(2, 1), ops.relu, Conv(4, (3, 1), padding="SAME", name="tall"), Conv(1, 1), AvgPool(1))
    params, state = layer.init(KEY, (5, 4, 3))
    assert [name for name, _ in layer.children] == ["conv1", "relu1", "tall", "conv3", "avg_pool1"]
    assert layer.kind == "parallel" and params.keys() == {"conv1", "tall", "conv3"} and state == {}

    def by_hand(params, x):
        tall = ops.conv(x, **params["tall"], padding="SAME")
        y = ops.conv(x, **params["conv1"]), ops.relu(x), tall, ops.conv(x, **params["conv3"]), x
        return jnp.concatenate(y, axis=-1)

    x, dy = (jax.random.normal(KEY, (2, 5, 4, channels)) for channels in (3, 13))
    y, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x)[0], params, x)
    expected, vjp_by_hand = jax.vjp(by_hand, params, x)
    assert output_shape(layer, params, state, (5, 4, 3)) == (5, 4, 13)
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), vjp(dy), vjp_by_hand(dy))


def test_branches_have_own_params_state_and_keys():
    branches = [serial(BatchNorm(momentum=decay), Dropout(0.5), Dense(3)) for decay in (0.75, 0.5)]
    layer = parallel(*branches, Dropout(0.5), Dropout(0.5), ops.relu)
    params, state = layer.init(KEY, (50,))
    assert not np.allclose(params["serial1"]["dense1"]["kernel"], params["serial2"]["dense1"]["kernel"])
    x = 2 + jax.random.normal(KEY, (8, 50))
    y, new_state = layer.apply(params, state, x, train=True, key=KEY)
    for i, (branch, weight) in enumerate(zip(branches, (0.25, 0.5)), start=1):
        name, bn = f"serial{i}", new_state[f"serial{i}"]["bn1"]
        np.testing.assert_allclose(bn["mean"], weight * x.mean(0), rtol=1e-5)
        branch_output, _ = branch.apply(params[name], state[name], x, train=True, key=jax.random.fold_in(KEY, i - 1))
        np.testing.assert_allclose(y[:, 3 * i - 3 : 3 * i], branch_output, rtol=1e-5, atol=1e-6)
    assert new_state.keys() == state.keys() == {"serial1", "serial2"}
    one, other = (y[:, 6 + i : 56 + i] != 0 for i in (0, 50))
    assert 50 < int((one & other).sum()) < 150  # of 400; with the same mask about 200
    _, new_state = layer.apply(params, state, x, train=True, key=KEY, mask=jnp.arange(8) < 4)
    np.testing.assert_allclose(new_state["serial2"]["bn1"]["mean"], 0.5 * x[:4].mean(0), rtol=1e-5)
