"""Guided back-propagation, deconvnet, Grad-CAM and CAM, against a backward pass in loops of numpy."""

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


def conv(x, kernel, bias):
    """Of one image; and what its gradient is by x."""
    (kh, kw, _, o), (h, w, _) = kernel.shape, x.shape
    y = np.zeros((h - kh + 1, w - kw + 1, o))
    for i, j in np.ndindex(y.shape[:2]):
        y[i, j] = np.einsum("uvc,uvco->o", x[i : i + kh, j : j + kw], kernel) + bias

    def back(dy):
        dx = np.zeros_like(x)
        for i, j in np.ndindex(y.shape[:2]):
            dx[i : i + kh, j : j + kw] += np.einsum("o,uvco->uvc", dy[i, j], kernel)
        return dx

    return y, back


def pool(x):
    y = np.zeros((x.shape[0] // 2, x.shape[1] // 2, x.shape[2]))
    at = {}
    for i, j, c in np.ndindex(y.shape):
        u, v = np.unravel_index(x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c].argmax(), (2, 2))
        y[i, j, c], at[i, j, c] = x[2 * i + u, 2 * j + v, c], (2 * i + u, 2 * j + v, c)

    def back(dy):
        dx = np.zeros_like(x)
        for place, pixel in at.items():
            dx[pixel] = dy[place]
        return dx

    return y, back


RULES = {
    "saliency": lambda dy, x: dy * (x > 0),
    "guided_backprop": lambda dy, x: dy * (dy > 0) * (x > 0),
    "deconvnet": lambda dy, x: dy * (dy > 0),
}


def by_hand(params, x, label, rule):
    """The backward pass of MODEL for one image, with a rule for relu; the last features and their gradient as well."""
    p = jax.tree.map(np.asarray, params)
    a, back1 = conv(x, **p["conv1"])
    b, back2 = pool(np.maximum(a, 0))
    c, back3 = conv(b, **p["conv2"])
    features = np.maximum(c, 0)
    d_features = p["dense1"]["kernel"][:, label].reshape(c.shape)
    first = rule(back2(back3(rule(d_features, c))), a)
    return back1(first), features, d_features


@pytest.mark.parametrize("name", RULES)
def test_the_way_back_is_as_the_rule_says(net, name):
    model, params, state, x = net
    label = np.array([2, 0])
    got = getattr(explain, name)(model, params, state, x, label)
    for n in range(2):
        np.testing.assert_allclose(got[n], by_hand(params, x[n], label[n], RULES[name])[0], rtol=1e-9, atol=1e-9)


def test_the_three_rules_differ(net):
    model, params, state, x = net
    found = [np.asarray(getattr(explain, name)(model, params, state, x, 1)) for name in RULES]
    for k in range(3):
        assert np.abs(found[k] - found[k - 1]).max() > 0.1


def test_deconvnet_projects_a_filters_strongest_answer_to_the_pixels_it_saw(net):  # row 002-05
    model, params, state, x = net
    got = np.asarray(explain.deconvnet(model, params, state, x, layer="conv2", target_fn=explain.max_activation(3)))
    answers = np.asarray(explain.feature_maps(model, params, state, x)["conv2"])
    field = explain.receptive_field_of(model, (8, 8, 2), "conv2")
    p = jax.tree.map(np.asarray, params)
    for n in range(2):
        place = np.unravel_index(answers[n, ..., 3].argmax(), answers.shape[1:3])
        a, back1 = conv(x[n], **p["conv1"])
        b, back2 = pool(np.maximum(a, 0))
        one = np.zeros_like(answers[n])
        one[(*place, 3)] = 1
        np.testing.assert_allclose(
            got[n], back1(RULES["deconvnet"](back2(conv(b, **p["conv2"])[1](one)), a)), atol=1e-9
        )
        (top, bottom), (left, right) = field.bounds(place)
        outside = got[n].copy()
        outside[top:bottom, left:right] = 0
        assert not outside.any() and got[n].any()


def test_relu6_and_relus_in_branches_are_rectified_too(x64, rng):
    model = serial(Conv(3, 2), residual(ops.relu6, Conv(3, 1)), flatten, Dense(2))
    params, state = model.init(jax.random.key(0), (3, 3, 1))
    params = jax.tree.map(lambda p: 4 * rng.normal(size=p.shape), params)
    x = rng.normal(size=(1, 3, 3, 1))
    p = jax.tree.map(np.asarray, params)
    a, back = conv(x[0], **p["conv1"])
    assert (a > 6).any() and (a < 0).any()
    dy = p["dense1"]["kernel"][:, 0].reshape(2, 2, 3)
    through = np.einsum("ijo,co->ijc", dy, p["res1"]["body"]["conv1"]["kernel"][0, 0])
    for name, rule in [("guided_backprop", (through > 0) * (a > 0) * (a < 6)), ("deconvnet", through > 0)]:
        got = getattr(explain, name)(model, params, state, x, 0)
        np.testing.assert_allclose(got[0], back(dy + through * rule), rtol=1e-9, atol=1e-9)


def test_grad_cam_is_its_formula(net):
    model, params, state, x = net
    label = np.array([1, 2])
    got = np.asarray(explain.grad_cam(model, params, state, x, label))  # of relu2, the last with places
    assert got.shape == (2, 2, 2)
    np.testing.assert_allclose(got, explain.grad_cam(model, params, state, x, label, layer="relu2"), rtol=1e-12)
    deeper = explain.grad_cam(model, params, state, x, label, layer="conv1")
    assert deeper.shape == (2, 6, 6)
    for n in range(2):
        _, features, d_features = by_hand(params, x[n], label[n], RULES["saliency"])
        alpha = d_features.mean((0, 1))
        np.testing.assert_allclose(got[n], np.maximum((features * alpha).sum(-1), 0), rtol=1e-9, atol=1e-12)
    assert got.max() > 0


def test_cam_and_grad_cam_agree_where_the_network_ends_with_a_mean(x64, rng):
    model = serial(Conv(4, 3), relu, serial(Conv(5, 3), relu), ops.global_avg_pool, serial(Dense(3), name="head"))
    params, state = model.init(jax.random.key(0), (8, 9, 2))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    x, label = rng.normal(size=(3, 8, 9, 2)), np.array([0, 2, 1])
    places = np.asarray(explain.class_activation_map(model, params, state, x, label))
    assert places.shape == (3, 4, 5) and places.min() < 0 < places.max()
    features = np.asarray(explain.feature_maps(model, params, state, x)["serial1/relu1"])
    kernel, bias = (np.asarray(params["head"]["dense1"][name]) for name in ("kernel", "bias"))
    wanted = np.stack([(features[n] * kernel[:, label[n]]).sum(-1) for n in range(3)])
    np.testing.assert_allclose(places, wanted, rtol=1e-9, atol=1e-12)
    logits = np.asarray(model.apply(params, state, x)[0])
    np.testing.assert_allclose(places.mean((1, 2)) + bias[label], logits[range(3), label], rtol=1e-9)
    heat = np.asarray(explain.grad_cam(model, params, state, x, label))
    np.testing.assert_allclose(heat * 4 * 5, np.maximum(wanted, 0), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("said", "ask"),
    [
        (r"guided_backprop: the model has no relu, .*use saliency. Its layers: conv, tanh", ("guided_backprop", {})),
        (r"deconvnet: the model has no relu", ("deconvnet", {})),
        (
            r"grad_cam: layer dense1 makes \(2, 3\), which has no places; .*: conv1, tanh1",
            ("grad_cam", {"layer": "dense1"}),
        ),
        (r"grad_cam: unknown layer 'conv2'", ("grad_cam", {"layer": "conv2"})),
        (
            r"class_activation_map: the model ends with flatten, dense; it needs global_avg",
            ("class_activation_map", {}),
        ),
        (r"grad_cam: label 5 is none of the 3", ("grad_cam", {"target": 5})),
    ],
)
def test_what_cannot_be_is_told(rng, said, ask):
    model = serial(Conv(2, 3), jnp.tanh, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (5, 5, 1))
    name, options = ask
    with pytest.raises(InputError, match=said):
        getattr(explain, name)(model, params, state, np.ones((2, 5, 5, 1), np.float32), **options)


def test_a_network_without_places_has_no_map():
    model = models.mlp()
    params, state = model.init(jax.random.key(0), (2, 2, 1))
    with pytest.raises(
        InputError, match=r"grad_cam: no layer makes more than one place, of flatten1, .*: use saliency"
    ):
        explain.grad_cam(model, params, state, np.ones((1, 2, 2, 1), np.float32))
    dense = Dense(2)
    params, state = dense.init(jax.random.key(0), (3,))
    with pytest.raises(InputError, match=r"class_activation_map: the model ends with nothing, dense"):
        explain.class_activation_map(dense, params, state, np.ones((1, 3), np.float32))
