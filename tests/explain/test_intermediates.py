"""What a network computes on the way, gone through part by part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import BatchNorm, Conv, Dense, InputError, MaxPool, explain, flatten, models, ops, parallel, relu, residual
from jaxconv import serial as in_series
from jaxconv.errors import named_errors
from jaxconv.explain.attribution.targets import target_function
from jaxconv.explain.intermediates import each_batch, per_image
from jaxconv.layers.traversal import intercept


def branched():
    return in_series(
        Conv(3, 3, padding="SAME"),
        residual(BatchNorm(), relu, Conv(3, 3, padding="SAME")),
        parallel(Conv(2, 1), in_series(MaxPool(3, stride=1, padding="SAME"), relu), name="both"),
        flatten,
        Dense(4),
    )


@pytest.fixture
def built(rng):
    model = branched()
    params, state = model.init(jax.random.key(0), (6, 5, 2))
    return model, params, state, rng.normal(size=(3, 6, 5, 2)).astype(np.float32)


@pytest.mark.parametrize("name", ["small_cnn", "lenet5", "mnist_cnn", "mlp", "resnet20"])
def test_going_through_a_model_part_by_part_is_applying_it(name, rng):
    spec = models.get_model(name)
    model = spec.create(num_classes=5)
    params, state = jax.jit(model.init, static_argnums=1)(jax.random.key(1), spec.input_shape)
    x = rng.normal(size=(2, *spec.input_shape)).astype(np.float32)
    want = jax.jit(lambda x: model.apply(params, state, x)[0])(x)
    got = jax.jit(lambda x: intercept(model, params, state, x, lambda path, layer, x, apply: apply(x)))(x)
    np.testing.assert_array_equal(got, want)


def test_every_layer_has_its_output_and_each_is_what_its_own_params_make_of_the_one_before(built):
    model, params, state, x = built
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


def test_bytes_are_looked_at_as_training_does(built):
    model, params, state, x = built
    image = (np.abs(x) * 60).astype(np.uint8)
    got = explain.feature_maps(model, params, state, image)["dense1"]
    np.testing.assert_allclose(got, model.apply(params, state, image.astype(np.float32) / 255)[0], rtol=1e-5)


def test_it_works_under_jit_and_grad(built):
    model, params, state, x = built

    def asked(params):
        return explain.feature_maps(model, params, state, x, layers=("res1",))["res1"].sum()

    gradient = jax.jit(jax.grad(asked))(params)
    # The sum of a convolution's outputs depends on its bias as many times as there are outputs.
    np.testing.assert_allclose(gradient["res1"]["body"]["conv1"]["bias"], np.full(3, 3 * 6 * 5), rtol=1e-6)
    assert not np.any(gradient["dense1"]["kernel"])
    program = jax.jit(lambda x: explain.feature_maps(model, params, state, x, layers=("conv1",))).lower(x).compile()
    assert "maximum" not in program.as_text() and " dot(" not in program.as_text()  # what comes after is not computed


@pytest.mark.parametrize(
    ("said", "call"),
    [
        (r"feature_maps: unknown layer 'conv3': did you mean 'conv1'\? Known: conv1, res1", {"layers": ("conv3",)}),
        (r"feature_maps: images \(0, 6, 5, 2\) hold none: give at least one", {"images": np.zeros((0, 6, 5, 2))}),
        (r"feature_maps: images of int32: give bytes", {"images": np.zeros((1, 6, 5, 2), np.int32)}),
        (r"conv1: conv: x has 3 channels", {"images": np.zeros((1, 6, 5, 3), np.float32)}),
    ],
)
def test_what_cannot_be_is_told(built, said, call):
    model, params, state, x = built
    with pytest.raises(InputError, match=said):
        explain.feature_maps(model, params, state, **{"images": x} | call)


def test_of_another_models_parameters_it_says_what_is_wanted(built):
    model, params, state, x = built
    lacking = {"conv1": params["conv1"], "res1": {"body": {"bn1": params["res1"]["body"]["bn1"]}}}
    with pytest.raises(InputError, match="res1: body: conv1: params: expected keys bias, kernel, got none"):
        explain.feature_maps(model, lacking, state, x)


def test_a_score_is_a_logit_or_what_is_made_of_a_layer(built):
    model, params, state, x = built
    logits = np.asarray(model.apply(params, state, x)[0])

    @named_errors(name="f")
    def ask(*args, **options):
        images, f = target_function(model, params, state, x, *args, **options)
        return f(images)

    np.testing.assert_array_equal(ask(), logits.max(1))
    np.testing.assert_array_equal(ask([2, 0, 3]), logits[[0, 1, 2], [2, 0, 3]])
    np.testing.assert_array_equal(ask(1), logits[:, 1])
    conv = np.asarray(explain.feature_maps(model, params, state, x)["conv1"])
    np.testing.assert_array_equal(ask(layer="conv1", target_fn=explain.max_activation(2)), conv[..., 2].max((1, 2)))
    for said, args, options in [
        (r"f: label 4 is none of the 4 classes", ([0, 4, 1],), {}),
        (r"f: label int32\(2,\) should be a class number, or one for each of the 3", ([0, 1],), {}),
        (r"f: an output \(3, 6, 5, 3\) has no scores of classes", (), {"layer": "conv1"}),
        (r"f: score makes \(\) of \(3, 4\); one number an image is wanted", (), {"target_fn": jnp.sum}),
        (r"f: label and score both say", (1,), {"target_fn": lambda y: y[:, 0]}),
        (r"max_activation: channel 3 is none of the 3", (), {"layer": "conv1", "target_fn": explain.max_activation(3)}),
    ]:
        with pytest.raises(InputError, match=said):
            ask(*args, **options)


def test_a_regression_head_has_no_classes():
    model = in_series(flatten, Dense(1))
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    message = r"saliency: an output \(3, 1\) has no scores of classes; .* target_fn=lambda y"
    with pytest.raises(InputError, match=message):
        named_errors(target_function, name="saliency")(model, params, state, jnp.ones((3, 2, 2, 1)))


def test_a_data_set_is_gone_through_once_and_what_fills_the_last_batch_does_not_count(rng):
    images = rng.integers(0, 256, (7, 2, 3, 1), np.uint8)
    traced = []

    def f(x):
        traced.append(x.shape)
        return {"sum": x.sum(axis=(1, 2, 3)), "first": x[:, 0, 0]}

    found = per_image(f, images, batch_size=3)
    np.testing.assert_allclose(found["sum"], images.sum((1, 2, 3)) / 255, rtol=1e-6)
    np.testing.assert_allclose(found["first"], images[:, 0, 0] / np.float32(255), rtol=1e-6)
    assert traced == [(3, 2, 3, 1)]
    assert [count for _, count in each_batch(lambda x, mask: x, images, 3)] == [3, 3, 1]
    with pytest.raises(InputError, match=r"per_image: images \(0, 2, 3, 1\) hold none"):
        named_errors(per_image)(f, images[:0])
    with pytest.raises(InputError, match="per_image: batch_size=0"):
        named_errors(per_image)(f, images, batch_size=0)
