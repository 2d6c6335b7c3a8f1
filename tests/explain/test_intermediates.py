"""Feature maps of every layer, target functions, and functions mapped over batches of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, models, ops, parallel, relu, residual
from jaxconv import serial as in_series
from jaxconv.errors import named_errors
from jaxconv.explain.attribution.targets import target_function
from jaxconv.explain.intermediates import map_batches, per_image
from jaxconv.layers.traversal import intercept


def create_branched_model():
    return in_series(
        Conv(3, 3, padding="SAME"),
        residual(BatchNorm(), relu, Conv(3, 3, padding="SAME")),
        parallel(Conv(2, 1), in_series(MaxPool(3, stride=1, padding="SAME"), relu), name="both"),
        flatten,
        Dense(4),
    )


@pytest.fixture
def network(rng):
    model = create_branched_model()
    params, state = model.init(jax.random.key(0), (6, 5, 2))
    return model, params, state, rng.normal(size=(3, 6, 5, 2)).astype(np.float32)


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "mnist_cnn", "mlp", "resnet20"])
def test_intercept_equals_apply(name, rng):
    spec = models.get_model(name)
    model = spec.create(num_classes=5)
    params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(1), spec.input_shape)
    x = rng.normal(size=(2, *spec.input_shape)).astype(np.float32)
    expected = jax.jit(lambda x: model.apply(params, state, x)[0])(x)
    actual = jax.jit(lambda x: intercept(model, params, state, x, lambda path, layer, x, apply: apply(x)))(x)
    np.testing.assert_array_equal(actual, expected)


def test_feature_maps_match_layers_applied_in_order(network):
    model, params, state, x = network
    maps = explain.feature_maps(model, params, state, x)
    assert list(maps) == list(explain.layer_names(model))
    assert list(maps) == [
        *("conv1", "res1/body/bn1", "res1/body/relu1", "res1/body/conv1", "res1/shortcut", "res1"),
        *("both/conv1", "both/serial1/max_pool1", "both/serial1/relu1", "both", "flatten1", "dense1"),
    ]
    np.testing.assert_allclose(maps["conv1"], ops.conv(x, **params["conv1"], padding="SAME"), rtol=1e-6)
    body = params["res1"]["body"]["conv1"]
    np.testing.assert_allclose(
        maps["res1/body/conv1"], ops.conv(maps["res1/body/relu1"], **body, padding="SAME"), rtol=1e-6
    )
    np.testing.assert_array_equal(maps["res1"], maps["conv1"] + maps["res1/body/conv1"])
    np.testing.assert_array_equal(maps["both"], np.concatenate([maps["both/conv1"], maps["both/serial1/relu1"]], -1))
    np.testing.assert_array_equal(maps["dense1"], model.apply(params, state, x)[0])


def test_uint8_images_are_scaled(network):
    model, params, state, x = network
    image = (np.abs(x) * 60).astype(np.uint8)
    actual = explain.feature_maps(model, params, state, image)["dense1"]
    np.testing.assert_allclose(actual, model.apply(params, state, image.astype(np.float32) / 255)[0], rtol=1e-5)


def test_feature_maps_under_jit_and_grad(network):
    model, params, state, x = network

    def loss(params):
        return explain.feature_maps(model, params, state, x, layers=("res1",))["res1"].sum()

    gradient = jax.jit(jax.grad(loss))(params)
    # The bias is added to every output, so its gradient is the number of outputs per channel.
    np.testing.assert_allclose(gradient["res1"]["body"]["conv1"]["bias"], np.full(3, 3 * 6 * 5), rtol=1e-6)
    assert not np.any(gradient["dense1"]["kernel"])
    compiled = jax.jit(lambda x: explain.feature_maps(model, params, state, x, layers=("conv1",))).lower(x).compile()
    assert "maximum" not in compiled.as_text() and " dot(" not in compiled.as_text()  # later layers are not computed


@pytest.mark.parametrize(
    ("message", "options"),
    [
        (r"feature_maps: unknown layer 'conv3': did you mean 'conv1'\? Known: conv1, res1", {"layers": ("conv3",)}),
        (
            r"feature_maps: images must be \(N, H, W, C\) with N >= 1, got shape \(0, 6, 5, 2\)",
            {"images": np.zeros((0, 6, 5, 2))},
        ),
        (r"feature_maps: images must be uint8 or floats, got int32", {"images": np.zeros((1, 6, 5, 2), np.int32)}),
        (r"conv1: conv: x has 3 channels", {"images": np.zeros((1, 6, 5, 3), np.float32)}),
    ],
)
def test_feature_maps_invalid_arguments_raise(network, message, options):
    model, params, state, x = network
    with pytest.raises(InputError, match=message):
        explain.feature_maps(model, params, state, **{"images": x} | options)


def test_feature_maps_with_missing_params_raises(network):
    model, params, state, x = network
    incomplete = {"conv1": params["conv1"], "res1": {"body": {"bn1": params["res1"]["body"]["bn1"]}}}
    with pytest.raises(InputError, match="res1: body: conv1: params: expected keys bias, kernel, got none"):
        explain.feature_maps(model, incomplete, state, x)


def test_target_function_selects_logit_or_target_fn(network):
    model, params, state, x = network
    logits = np.asarray(model.apply(params, state, x)[0])

    @named_errors(name="f")
    def call(*args, **options):
        images, f = target_function(model, params, state, x, *args, **options)
        return f(images)

    np.testing.assert_array_equal(call(), logits.max(1))
    np.testing.assert_array_equal(call([2, 0, 3]), logits[[0, 1, 2], [2, 0, 3]])
    np.testing.assert_array_equal(call(1), logits[:, 1])
    conv = np.asarray(explain.feature_maps(model, params, state, x)["conv1"])
    np.testing.assert_array_equal(call(layer="conv1", target_fn=explain.max_activation(2)), conv[..., 2].max((1, 2)))
    for message, args, options in [
        (r"f: label 4 is none of the 4 classes", ([0, 4, 1],), {}),
        (r"f: target must be a class index or \(3,\) class indices, got int32\(2,\)", ([0, 1],), {}),
        (r"f: the output \(3, 6, 5, 3\) has no class scores", (), {"layer": "conv1"}),
        (r"f: target_fn must return one number per image, \(3,\), got \(\) from \(3, 4\)", (), {"target_fn": jnp.sum}),
        (r"f: give either target or target_fn", (1,), {"target_fn": lambda y: y[:, 0]}),
        (
            r"max_activation: channel must be a channel index of .* got 3",
            (),
            {"layer": "conv1", "target_fn": explain.max_activation(3)},
        ),
    ]:
        with pytest.raises(InputError, match=message):
            call(*args, **options)


def test_target_function_without_classes_raises():
    model = in_series(flatten, Dense(1))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    message = r"saliency: the output \(3, 1\) has no class scores .* pass a target_fn .* lambda y"
    with pytest.raises(InputError, match=message):
        named_errors(target_function, name="saliency")(model, params, state, jnp.ones((3, 2, 2, 1)))


def test_per_image_ignores_padding_of_last_batch(rng):
    images = rng.integers(0, 256, (7, 2, 3, 1), np.uint8)
    traced_shapes = []

    def f(x):
        traced_shapes.append(x.shape)
        return {"sum": x.sum(axis=(1, 2, 3)), "first": x[:, 0, 0]}

    results = per_image(f, images, batch_size=3)
    np.testing.assert_allclose(results["sum"], images.sum((1, 2, 3)) / 255, rtol=1e-6)
    np.testing.assert_allclose(results["first"], images[:, 0, 0] / np.float32(255), rtol=1e-6)
    assert traced_shapes == [(3, 2, 3, 1)]
    assert [count for _, count in map_batches(lambda x, mask: x, images, 3)] == [3, 3, 1]
    with pytest.raises(InputError, match=r"per_image: images must be .* with N >= 1, got shape \(0, 2, 3, 1\)"):
        named_errors(per_image)(f, images[:0])
    with pytest.raises(InputError, match="per_image: batch_size=0"):
        named_errors(per_image)(f, images, batch_size=0)
