"""Guided backpropagation, deconvnet, Grad-CAM and CAM, against a backward pass in NumPy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import Conv, Dense, InputError, MaxPool, explain, flatten, models, ops, relu, residual, serial

MODEL = serial(Conv(3, 3), relu, MaxPool(2), Conv(4, 2), relu, flatten, Dense(3))


@pytest.fixture
def net(x64, rng):
    params, state = MODEL.init(jax.random.key(0), (8, 8, 2))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    return MODEL, params, state, rng.normal(size=(2, 8, 8, 2))


def conv_and_vjp(x, kernel, bias):
    """Return the convolution of one image, and its VJP with respect to x."""
    (kh, kw, _, o), (h, w, _) = kernel.shape, x.shape
    y = np.zeros((h - kh + 1, w - kw + 1, o))
    for i, j in np.ndindex(y.shape[:2]):
        y[i, j] = np.einsum("uvc,uvco->o", x[i : i + kh, j : j + kw], kernel) + bias

    def vjp(dy):
        dx = np.zeros_like(x)
        for i, j in np.ndindex(y.shape[:2]):
            dx[i : i + kh, j : j + kw] += np.einsum("o,uvco->uvc", dy[i, j], kernel)
        return dx

    return y, vjp


def pool_and_vjp(x):
    y = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    argmax = {}
    for i, j, c in np.ndindex(y.shape):
        u, v = np.unravel_index(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].argmax(), (2, 2))
        y[i, j, c], argmax[i, j, c] = x[2 * i + u, 2 * j + v, c], (2 * i + u, 2 * j + v, c)

    def vjp(dy):
        dx = np.zeros_like(x)
        for position, pixel in argmax.items():
            dx[pixel] = dy[position]
        return dx

    return y, vjp


RULES = {
    "saliency": lambda dy, x: dy * (x > 0),
    "guided_backprop": lambda dy, x: dy * (dy > 0) * (x > 0),
    "deconvnet": lambda dy, x: dy * (dy > 0),
}


def manual_backward(params, x, target, rule):
    """Return the gradient of MODEL for one image under a relu rule, the last features and their gradient."""
    p = jax.tree.map(np.asarray, params)
    a, conv1_vjp = conv_and_vjp(x, **p["conv1"])
    b, pool_vjp = pool_and_vjp(np.maximum(a, 0))
    c, conv2_vjp = conv_and_vjp(b, **p["conv2"])
    features = np.maximum(c, 0)
    d_features = p["dense1"]["kernel"][:, target].reshape(c.shape)
    d_conv1 = rule(pool_vjp(conv2_vjp(rule(d_features, c))), a)
    return conv1_vjp(d_conv1), features, d_features


@pytest.mark.parametrize("name", RULES)
def test_relu_rules_match_manual_backward(net, name):
    model, params, state, x = net
    targets = np.array([2, 0])
    actual = getattr(explain, name)(model, params, state, x, targets)
    for n in range(2):
        np.testing.assert_allclose(
            actual[n], manual_backward(params, x[n], targets[n], RULES[name])[0], rtol=1e-9, atol=1e-9
        )


def test_relu_rules_differ(net):
    model, params, state, x = net
    results = [np.asarray(getattr(explain, name)(model, params, state, x, 1)) for name in RULES]
    for k in range(3):
        assert np.abs(results[k] - results[k - 1]).max() > 0.1


def test_deconvnet_stays_in_receptive_field_of_maximum(net):  # row 002-05
    model, params, state, x = net
    actual = np.asarray(explain.deconvnet(model, params, state, x, layer="conv2", target_fn=explain.max_activation(3)))
    activations = np.asarray(explain.feature_maps(model, params, state, x)["conv2"])
    field = explain.receptive_field_of(model, (8, 8, 2), "conv2")
    p = jax.tree.map(np.asarray, params)
    for n in range(2):
        position = np.unravel_index(activations[n, ..., 3].argmax(), activations.shape[1:3])
        a, conv1_vjp = conv_and_vjp(x[n], **p["conv1"])
        b, pool_vjp = pool_and_vjp(np.maximum(a, 0))
        one_hot = np.zeros_like(activations[n])
        one_hot[(*position, 3)] = 1
        np.testing.assert_allclose(
            actual[n], conv1_vjp(RULES["deconvnet"](pool_vjp(conv_and_vjp(b, **p["conv2"])[1](one_hot)), a)), atol=1e-9
        )
        (top, bottom), (left, right) = field.bounds(position)
        outside = actual[n].copy()
        outside[top:bottom, left:right] = 0
        assert not outside.any() and actual[n].any()


def test_relu_rules_apply_to_relu6_and_branches(x64, rng):
    model = serial(Conv(3, 2), residual(ops.relu6, Conv(3, 1)), flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (3, 3, 1))
    params = jax.tree.map(lambda p: 4 * rng.normal(size=p.shape), params)
    x = rng.normal(size=(1, 3, 3, 1))
    p = jax.tree.map(np.asarray, params)
    a, conv_vjp = conv_and_vjp(x[0], **p["conv1"])
    assert (a > 6).any() and (a < 0).any()
    dy = p["dense1"]["kernel"][:, 0].reshape(2, 2, 3)
    d_relu = np.einsum("ijo,co->ijc", dy, p["res1"]["body"]["conv1"]["kernel"][0, 0])
    for name, relu_mask in [("guided_backprop", (d_relu > 0) * (a > 0) * (a < 6)), ("deconvnet", d_relu > 0)]:
        actual = getattr(explain, name)(model, params, state, x, 0)
        np.testing.assert_allclose(actual[0], conv_vjp(dy + d_relu * relu_mask), rtol=1e-9, atol=1e-9)


def test_grad_cam_matches_formula(net):
    model, params, state, x = net
    targets = np.array([1, 2])
    actual = np.asarray(explain.grad_cam(model, params, state, x, targets))  # of relu2, the last spatial layer
    assert actual.shape == (2, 2, 2)
    np.testing.assert_allclose(actual, explain.grad_cam(model, params, state, x, targets, layer="relu2"), rtol=1e-12)
    deeper = explain.grad_cam(model, params, state, x, targets, layer="conv1")
    assert deeper.shape == (2, 6, 6)
    for n in range(2):
        _, features, d_features = manual_backward(params, x[n], targets[n], RULES["saliency"])
        alpha = d_features.mean((0, 1))
        np.testing.assert_allclose(actual[n], np.maximum((features * alpha).sum(-1), 0), rtol=1e-9, atol=1e-12)
    assert actual.max() > 0


def test_cam_equals_grad_cam_after_global_mean(x64, rng):
    model = serial(Conv(4, 3), relu, serial(Conv(5, 3), relu), ops.global_avg_pool, serial(Dense(3), name="head"))
    params, state = model.init(jax.random.key(0), (8, 9, 2))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    x, targets = rng.normal(size=(3, 8, 9, 2)), np.array([0, 2, 1])
    cam = np.asarray(explain.class_activation_map(model, params, state, x, targets))
    assert cam.shape == (3, 4, 5) and cam.min() < 0 < cam.max()
    features = np.asarray(explain.feature_maps(model, params, state, x)["serial1/relu1"])
    kernel, bias = (np.asarray(params["head"]["dense1"][name]) for name in ("kernel", "bias"))
    expected = np.stack([(features[n] * kernel[:, targets[n]]).sum(-1) for n in range(3)])
    np.testing.assert_allclose(cam, expected, rtol=1e-9, atol=1e-12)
    logits = np.asarray(model.apply(params, state, x)[0])
    np.testing.assert_allclose(cam.mean((1, 2)) + bias[targets], logits[range(3), targets], rtol=1e-9)
    grad_cam = np.asarray(explain.grad_cam(model, params, state, x, targets))
    np.testing.assert_allclose(grad_cam * 4 * 5, np.maximum(expected, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (r"guided_backprop: the model has no relu, .*use saliency. Its layers: conv, tanh", ("guided_backprop", {})),
        (r"deconvnet: the model has no relu", ("deconvnet", {})),
        (
            r"grad_cam: the output \(2, 3\) of layer dense1 has no spatial axes; .*: conv1, tanh1",
            ("grad_cam", {"layer": "dense1"}),
        ),
        (r"grad_cam: unknown layer 'conv2'", ("grad_cam", {"layer": "conv2"})),
        (
            r"class_activation_map: the model must end with global_avg_pool and one Dense, got flatten, dense",
            ("class_activation_map", {}),
        ),
        (r"grad_cam: label 5 is none of the 3", ("grad_cam", {"target": 5})),
    ],
)
def test_cam_invalid_arguments_raise(rng, message, call):
    model = serial(Conv(2, 3), jnp.tanh, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (5, 5, 1))
    name, options = call
    with pytest.raises(InputError, match=message):
        getattr(explain, name)(model, params, state, np.ones((2, 5, 5, 1), np.float32), **options)


def test_cam_without_spatial_axes_raises():
    model = models.mlp()
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    with pytest.raises(
        InputError,
        match=r"grad_cam: no layer has a feature map of more than one position, of flatten1, .*: use saliency",
    ):
        explain.grad_cam(model, params, state, np.ones((1, 2, 2, 1), np.float32))
    dense = Dense(2)
    params, state = dense.init(jax.random.key(0), (3,))
    with pytest.raises(InputError, match=r"class_activation_map: the model must end with .*, got nothing, dense"):
        explain.class_activation_map(dense, params, state, np.ones((1, 3), np.float32))
