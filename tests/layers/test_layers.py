"""Layers: names, shapes, state, random keys and error messages; outputs compared with Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    GroupNorm,
    InputError,
    InstanceNorm,
    Layer,
    LayerNorm,
    LpPool,
    MaxPool,
    RMSNorm,
    SpatialDropout,
    as_layer,
    ops,
    parallel,
    residual,
    serial,
)
from jaxconv.layers import output_shape

KEY = jax.random.key(0)


def paths(tree):
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return sorted(jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat)


def block(features):
    return residual(
        Conv(features, 3, padding="SAME", use_bias=False),
        BatchNorm(),
        ops.relu,
        Conv(features, 3, padding="SAME", use_bias=False),
        BatchNorm(),
    )


def inception():
    return parallel(
        Conv(2, 1),
        serial(Conv(2, 1, use_bias=False), BatchNorm(), ops.relu, Conv(4, 3, padding="SAME")),
        serial(MaxPool(3, stride=1, padding="SAME"), Dropout(0.5)),
        residual(parallel(ops.tanh, name="nested")),
    )


RESNET = serial(
    Conv(4, 3, name="stem"), BatchNorm(), ops.relu, block(4), MaxPool(2), Dropout(0.5), ops.flatten, Dense(3)
)
MODELS = {
    "resnet": (RESNET, (9, 8, 2)),
    "inception": (serial(Conv(3, 3), inception(), MaxPool(2), ops.flatten, Dense(3)), (9, 8, 2)),
    "1-D": (serial(Conv(4, 3), ops.tanh, MaxPool(2), ops.flatten, Dense(3)), (9, 2)),
    "3-D": (serial(Conv(4, (2, 3, 2)), ops.relu, AvgPool(2), ops.global_avg_pool), (5, 6, 5, 2)),
    "norms": (
        serial(Conv(6, 3), LayerNorm(), GroupNorm(3), LpPool(2, p=3), InstanceNorm(), RMSNorm()),
        (9, 8, 2),
    ),
    "decoder": (
        serial(ConvTranspose(4, (3, 2), stride=2, padding=1, output_padding=1), ops.relu, Conv(2, 3, flip_kernel=True)),
        (4, 5, 2),
    ),
    "strided": (serial(Conv(4, 3, stride=2, padding="SAME", groups=2), ops.relu, AvgPool((2, 1))), (8, 9, 2)),
}
EVERY_MODEL = pytest.mark.parametrize(("model", "input_shape"), MODELS.values(), ids=MODELS)


@EVERY_MODEL
def test_models_satisfy_layer_invariants(model, input_shape):
    params, state = jax.jit(model.init, static_argnums=1)(KEY, input_shape)
    x = jax.random.normal(KEY, (3, *input_shape))
    apply = jax.jit(model.apply, static_argnames="train")
    y, unchanged_state = apply(params, state, x)
    assert y.shape[1:] == output_shape(model, params, state, input_shape)
    jax.tree.map(np.testing.assert_array_equal, unchanged_state, state)  # inference does not change the state
    one_by_one = jnp.concatenate([apply(params, state, example[None])[0] for example in x])
    np.testing.assert_allclose(one_by_one, y, rtol=2e-5, atol=2e-5)  # examples are independent
    train_output, new_state = apply(params, state, x, train=True, key=KEY)
    assert train_output.shape == y.shape and paths(new_state) == paths(state)
    gradient = jax.jit(jax.grad(lambda p: model.apply(p, state, x, train=True, key=KEY)[0].std()))(params)
    assert all(jnp.isfinite(g).all() and (g != 0).any() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ["inception", "decoder"])
def test_jit_matches_eager(name):
    model, input_shape = MODELS[name]
    params, state = model.init(KEY, input_shape)
    compiled, _ = jax.jit(model.init, static_argnums=1)(KEY, input_shape)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, compiled)
    x = jax.random.normal(KEY, (2, *input_shape))
    y, _ = jax.jit(model.apply)(params, state, x)
    np.testing.assert_allclose(model.apply(params, state, x)[0], y, rtol=2e-5, atol=2e-5)


def test_parameter_paths_are_numbered_by_kind():
    params, state = RESNET.init(KEY, (9, 8, 2))
    assert paths(params) == [
        "bn1/bias",
        "bn1/scale",
        "dense1/bias",
        "dense1/kernel",
        "res1/body/bn1/bias",
        "res1/body/bn1/scale",
        "res1/body/bn2/bias",
        "res1/body/bn2/scale",
        "res1/body/conv1/kernel",
        "res1/body/conv2/kernel",
        "stem/bias",
        "stem/kernel",
    ]
    assert paths(state) == [
        f"{bn}/{statistic}" for bn in ("bn1", "res1/body/bn1", "res1/body/bn2") for statistic in ("mean", "var")
    ]


def test_serial_order_ignores_dict_order():
    """The key dense10 sorts before dense2, so a loop over sorted keys would apply the layers in the wrong order."""
    model = serial(*[Dense(features) for features in range(1, 12)])
    params, state = jax.tree.map(lambda p: p, model.init(KEY, (1,)))
    assert list(params)[1] == "dense10"
    assert model.apply(params, state, jnp.ones((1, 1)))[0].shape == (1, 11)


def test_children_use_different_keys():
    model = serial(Dropout(0.5), lambda x: jnp.where(x == 0, jnp.ones_like(x), jnp.zeros_like(x)), Dropout(0.5))
    x = jnp.ones((1, 1000))
    y, _ = model.apply({}, {}, x, train=True, key=KEY)
    # The second dropout gets ones where the first dropped; with the same mask it would drop all of them.
    assert 150 < int((y != 0).sum()) < 350
    params, _ = serial(Dense(5), Dense(5)).init(KEY, (5,))
    assert not np.allclose(params["dense1"]["kernel"], params["dense2"]["kernel"])


def test_batch_norm_running_statistics_respect_mask(rng):
    layer = BatchNorm(momentum=0.75)
    params, state = layer.init(KEY, (2,))
    x = jnp.asarray(rng.normal(5, 2, size=(6, 2)), jnp.float32)
    mask = jnp.arange(6) < 4
    y, new_state = layer.apply(params, state, x, train=True, mask=mask)
    np.testing.assert_allclose(new_state["mean"], 0.25 * x[:4].mean(0), rtol=1e-5)
    np.testing.assert_allclose(new_state["var"], 0.75 + 0.25 * x[:4].var(0), rtol=1e-5)
    np.testing.assert_allclose(y[:4], layer.apply(params, state, x[:4], train=True)[0], rtol=1e-5, atol=1e-6)


def test_init_arrays_do_not_share_memory():
    """A step that donates params and state would otherwise donate a buffer twice."""
    params, state = BatchNorm().init(KEY, (2,))
    step = jax.jit(lambda p, s: jax.tree.map(lambda a: a + 1, (p, s)), donate_argnums=(0, 1))
    assert len(jax.tree.leaves(step(params, state))) == 4


class FlaxModel(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(5, (3, 2), padding="VALID", name="conv1")(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x)
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = nn.Conv(4, (3, 3), strides=2, padding="SAME", use_bias=False, name="conv2")(x)
        x = nn.avg_pool(nn.tanh(x), (2, 2), (1, 1))
        return nn.Dense(3, name="dense1")(x.reshape(len(x), -1))


def test_flax_linen_output_matches():
    model = serial(
        Conv(5, (3, 2)),
        BatchNorm(),
        ops.relu,
        MaxPool(2),
        Conv(4, 3, stride=2, padding="SAME", use_bias=False),
        ops.tanh,
        AvgPool(2, stride=1),
        ops.flatten,
        Dense(3),
    )
    params, state = model.init(KEY, (14, 13, 2))
    x = jax.random.normal(KEY, (4, 14, 13, 2))
    for train in (False, True):
        y, new_state = model.apply(params, state, x, train=train)
        with jax.numpy_dtype_promotion("standard"):  # Flax's avg_pool divides by an int
            variables = {"params": params, "batch_stats": state}
            flax_output, flax_state = FlaxModel().apply(variables, x, train, mutable=["batch_stats"])
        np.testing.assert_allclose(y, flax_output, rtol=1e-5, atol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), new_state, flax_state["batch_stats"]
        )


def test_custom_layer_without_mask_is_accepted():
    scale = Layer(
        "scale",
        lambda key, input_shape: ({"scale": jnp.ones(())}, {}),
        lambda params, state, x, *, train=False, key=None: (2 * params["scale"] * x, state),
    )
    assert as_layer(scale).apply is as_layer(scale).apply  # otherwise jit would compile it again every time
    model = serial(scale, BatchNorm())
    params, state = model.init(KEY, (3,))
    y, _ = model.apply(params, state, jnp.ones((2, 3)), train=True, mask=jnp.array([True, False]))
    assert y.shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: serial(Conv(4, 3), MaxPool), r"MaxPool makes a layer and is not one itself: write MaxPool\(…\)"),
        (lambda: serial(Conv(4, 3), 5), r"5 is neither a Layer nor a function of an array"),
        (lambda: serial(Conv(4, 3, name="a"), Dense(3, name="a")), r"more than one layer is named a"),
        (
            lambda: serial(Conv(4, 3), MaxPool(2), Conv(4, 3)).init(KEY, (5, 5, 1)),
            r"^conv2: conv: window \(3, 3\) on an input of \(1, 1\)",
        ),
        (
            lambda: serial(Conv(4, 3), Dense(3)).init(KEY, (5, 5, 1)),
            r"^dense1: Dense: input_shape \(3, 3, 4\) .* flatten",
        ),
        (lambda: Conv(4, (3, 3)).init(KEY, (28, 28)), r"input_shape \(28, 28\) should be one example's, \(H, W, C\)"),
        (lambda: Conv(4, 3, groups=2).init(KEY, (5, 5, 3)), r"groups=2 does not divide the 3 channels"),
        (lambda: Conv(0, 3).init(KEY, (5, 5, 3)), r"features=0 should be an int of at least 1"),
        (lambda: Conv(2.5, 3).init(KEY, (5, 5, 3)), r"features=2.5 should be an int of at least 1"),
        (lambda: Dropout(1.5), r"^Dropout: rate=1.5 is the fraction dropped"),
        (lambda: SpatialDropout(-0.5), r"^SpatialDropout: rate=-0.5 is the fraction dropped"),
        (
            lambda: ConvTranspose(4, 3, groups=2).init(KEY, (5, 5, 3)),
            r"^ConvTranspose: groups=2 does not divide the 3 channels",
        ),
        (lambda: ConvTranspose(4, (3,)).init(KEY, (5, 5, 3)), r"^ConvTranspose: kernel_size \(3,\): give an int"),
        (
            lambda: serial(GroupNorm(4)).init(KEY, (5, 5, 6)),
            r"^gn1: group_norm: num_groups=4 does not divide the 6 channels",
        ),
        (
            lambda: serial(MaxPool(2, ties="last")).init(KEY, (4, 4, 1)),
            r"^max_pool1: max_pool: unknown ties 'last'",
        ),
        (
            lambda: serial(RMSNorm()).apply({"rms1": {"scale": jnp.ones(3), "bias": 0}}, {}, jnp.ones((1, 3))),
            r"^rms1: params: expected keys scale, got bias, scale",
        ),
        (
            lambda: serial(ops.relu).apply({"bn1": {}}, {}, jnp.ones((1, 3))),
            r"params or state has unexpected keys bn1; the layers of this model are relu1",
        ),
        (
            lambda: residual(Conv(4, 3)).init(KEY, (5, 5, 1)),
            r"for an input \(5, 5, 1\) the body returns \(3, 3, 4\) but the shortcut",
        ),
        (
            lambda: residual(ops.flatten).apply({}, {}, jnp.ones((1, 3, 4))),
            r"^residual: for an input \(3, 4\) the body returns \(12,\) but the shortcut \(3, 4\); give shortcut=",
        ),
        (parallel, r"^parallel: there is no branch; give at least one layer$"),
        (lambda: parallel(MaxPool), r"^MaxPool makes a layer and is not one itself"),
        (lambda: parallel(Conv(4, 3, name="a"), ops.relu, Dense(3, name="a")), r"^parallel: more than one layer .* a;"),
        (
            lambda: serial(parallel(Conv(4, 3), Conv(2, 3, padding="SAME"), ops.relu)).init(KEY, (8, 7, 3)),
            r"^parallel1: parallel: for an input \(8, 7, 3\) conv1 returns \(6, 5, 4\), conv2 returns \(8, 7, 2\), "
            r"relu1 returns \(8, 7, 3\), .* padding=\"SAME\" and the same stride$",
        ),
        (
            lambda: parallel(ops.relu, ops.flatten).apply({}, {}, jnp.ones((1, 3, 4))),
            r"^parallel: for an input \(3, 4\) relu1 returns \(3, 4\), flatten1 returns \(12,\)",
        ),
        (lambda: parallel(ops.relu, Conv(4, 3)).init(KEY, (2, 2, 1)), r"^conv1: conv: window \(3, 3\) on an input"),
        (lambda: parallel(Dense(2)).apply({"bn1": {}}, {}, jnp.ones((1, 3))), r"has unexpected keys bn1; the layers"),
        (
            lambda: serial(Dropout(0.5)).apply({}, {}, jnp.ones((1, 3)), train=True),
            r"^dropout1: dropout: needs a key, .*train=True, key=",
        ),
        (
            lambda: serial(residual(BatchNorm())).apply({}, {}, jnp.ones((1, 3))),
            r"^res1: body: bn1: params: expected keys bias, scale, got none",
        ),
    ],
)
def test_invalid_input_error_names_layer(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_as_layer_kind_is_function_name():
    assert as_layer(ops.relu).kind == "relu"
    assert as_layer(lambda x: x).kind == "lambda"
