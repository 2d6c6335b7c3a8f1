"""Layers pass their options to their ops, and name parameters after the arguments of the ops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import (
    AvgPool,
    BatchNorm,
    Conv,
    ConvTranspose,
    GroupNorm,
    InputError,
    InstanceNorm,
    LayerNorm,
    LpPool,
    MaxPool,
    RMSNorm,
    SpatialDropout,
    ops,
    serial,
)

KEY = jax.random.key(0)


def test_layer_kinds_have_expected_names_and_params():
    model = serial(
        ConvTranspose(4, (3, 2), groups=2),
        LayerNorm(),
        GroupNorm(2),
        InstanceNorm(),
        RMSNorm(),
        LpPool(2),
        SpatialDropout(0.1),
        ConvTranspose(2, 1, use_bias=False),
        ConvTranspose(2, 1, name="last"),
    )
    params, state = model.init(KEY, (5, 6, 6))
    assert state == {} and [name for name, _ in model.children] == [
        "conv_transpose1",
        "ln1",
        "gn1",
        "in1",
        "rms1",
        "lp_pool1",
        "spatial_dropout1",
        "conv_transpose2",
        "last",
    ]
    assert jax.tree.map(jnp.shape, params) == {
        "conv_transpose1": {"kernel": (3, 2, 3, 4), "bias": (4,)},
        "ln1": {"scale": (4,), "bias": (4,)},
        "gn1": {"scale": (4,), "bias": (4,)},
        "in1": {"scale": (4,), "bias": (4,)},
        "rms1": {"scale": (4,)},
        "conv_transpose2": {"kernel": (1, 1, 4, 2)},
        "last": {"kernel": (1, 1, 2, 2), "bias": (2,)},
    }


OPTIONS = {"stride": (2, 1), "padding": 1, "dilation": (1, 2)}


@pytest.mark.parametrize(
    ("layer", "op", "options"),
    [
        (Conv, ops.conv, {**OPTIONS, "groups": 2, "padding_mode": "reflect", "flip_kernel": True, "impl": "explicit"}),
        (
            ConvTranspose,
            ops.conv_transpose,
            {"stride": 2, "padding": 1, "output_padding": 1, "dilation": (3, 2), "groups": 2, "impl": "explicit"},
        ),
        (MaxPool, ops.max_pool, {**OPTIONS, "ceil_mode": True, "ties": "split"}),
        (AvgPool, ops.avg_pool, {**OPTIONS, "ceil_mode": True, "count_include_pad": True}),
        (LpPool, ops.lp_pool, {**OPTIONS, "ceil_mode": True, "p": 3}),
        (LayerNorm, ops.layer_norm, {"eps": 0.5}),
        (GroupNorm, ops.group_norm, {"num_groups": 2, "eps": 0.5}),
        (InstanceNorm, ops.instance_norm, {"eps": 0.5}),
        (RMSNorm, ops.rms_norm, {"eps": 0.5}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_layer_options_reach_op(rng, layer, op, options):
    """Compare value and gradient with the op; every tested option changes at least one of them."""

    def value_and_grads(f):
        return jax.jit(lambda x: (f(x), jax.grad(lambda x: jnp.sin(f(x)).sum())(x)))(x)

    x = jnp.asarray(rng.integers(1, 3, size=(2, 6, 6, 4)), jnp.float32)  # many ties
    sizes = {"conv": (6, (3, 2)), "conv_transpose": (6, (3, 2)), "max_pool": (3,), "avg_pool": (3,), "lp_pool": (3,)}
    args = sizes.get(op.__name__, ())
    instance = layer(*args, **options)
    params, state = instance.init(KEY, (6, 6, 4))
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    window = {} if params else {"window_shape": args[0]}
    actual = value_and_grads(lambda x: instance.apply(params, state, x)[0])
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        actual,
        value_and_grads(functools.partial(op, **params, **window, **options)),
    )
    for name in options.keys() - {"impl", "groups", "num_groups"}:
        other_options = {key: value for key, value in options.items() if key != name}
        without_option = value_and_grads(functools.partial(op, **params, **window, **other_options))
        assert any(a.shape != b.shape or not np.allclose(a, b, atol=1e-4) for a, b in zip(actual, without_option)), name


def test_pool_window_matches_arguments():
    for layer in (MaxPool, AvgPool, LpPool):
        assert layer((3, 2), padding=1, dilation=2).window == ((3, 2), (3, 2), 1, 2)
        assert layer(2, stride=1).window == (2, 1, "VALID", 1)


def test_spatial_dropout_is_identity_at_inference():
    layer, x = SpatialDropout(0.5), jnp.ones((4, 3, 2, 50))
    assert (layer.apply({}, {}, x)[0] == x).all()
    y = np.asarray(layer.apply({}, {}, x, train=True, key=KEY)[0])
    assert (y == y[:, :1, :1]).all() and set(np.unique(y)) == {0, 2}


def test_batch_norm_bfloat16_gradient_matches_float32(rng):
    """The gradient has two terms, by x and by the statistics, that nearly cancel; 8 significant bits are too few."""
    layer = BatchNorm()
    params, state = layer.init(KEY, (3,))
    x, dy = (jnp.asarray(rng.normal(mean, 1, size=(64, 3)), jnp.bfloat16) for mean in (50, 0))

    @jax.jit
    def input_gradient(x, dy):
        return jax.vjp(lambda x: layer.apply(params, state, x, train=True)[0], x)[1](dy)[0]

    actual, exact = input_gradient(x, dy), input_gradient(x.astype(jnp.float32), dy.astype(jnp.float32))
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(actual, float), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_without_scale_matches_scale_of_one(train, rng):
    x = jnp.asarray(rng.normal(size=(3, 4, 5, 2)), jnp.float32)
    without_scale, with_scale = BatchNorm(use_scale=False, momentum=0.6), BatchNorm(momentum=0.6)
    params, state = without_scale.init(KEY, x.shape[1:])
    assert list(params) == ["bias"]
    params = {"bias": jnp.asarray([3.0, -1.0])}
    expected = with_scale.apply({"scale": jnp.ones(2), **params}, state, x, train=train)
    jax.tree.map(np.testing.assert_array_equal, without_scale.apply(params, state, x, train=train), expected)
    with pytest.raises(InputError, match="params: expected keys bias, got bias, scale"):
        without_scale.apply({"scale": jnp.ones(2), **params}, state, x)
