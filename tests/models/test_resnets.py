"""Residual networks: the counts in the paper, shortcuts and outputs (lecture rows 003-20 to 003-22)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, models, ops, relu
from jaxconv.explain import summarize
from jaxconv.models import resnet

KEY = jax.random.key(0)


def paper_parameter_count(n):
    """Count the parameters from the table in section 4.2: kernels, and a scale and bias per batch norm channel."""
    total, channels = 3 * 3 * 3 * 16 + 2 * 16, 16
    for features in (16, 32, 64):
        for _ in range(2 * n):
            total += 3 * 3 * channels * features + 2 * features
            channels = features
    return total + 64 * 10 + 10


def random_variables(model, input_shape, rng):
    """Return random parameters and state, with scales other than 1, nonzero biases and positive variances."""
    shapes = jax.eval_shape(functools.partial(model.init, input_shape=input_shape), KEY)
    draw = {True: functools.partial(rng.normal, 0, 0.2), False: functools.partial(rng.uniform, 0.5, 1.5)}
    return jax.tree.map(lambda leaf: draw[leaf.ndim > 1](size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_resnet_parameter_counts_match_paper(depth, millions):  # table 6 of the paper
    spec = models.get_model(f"resnet{depth}")
    table = summarize(spec.create(), spec.input_shape)
    assert table.params == paper_parameter_count((depth - 2) // 6)
    assert round(table.params / 1e6, 2 if millions < 1 else 1) == millions
    assert sum(row.kind in ("conv", "dense") for row in table.rows) == depth
    assert table.rows[-1].shape == (10,)


def test_resnet20_layers():
    table = summarize(resnet(20), (32, 32, 3))
    assert (table.params, table.state, table.macs) == (269_722, 2 * 688, 40_551_040)
    shapes = [row.shape for row in table.rows if row.kind == "conv"]
    assert shapes == [(32, 32, 16)] * 7 + [(16, 16, 32)] * 6 + [(8, 8, 64)] * 6
    names = [row.name for row in table.rows]
    assert names[:9] == [
        *("conv1", "bn1", "relu1", "res1/body/conv1", "res1/body/bn1", "res1/body/relu1"),
        *("res1/body/conv2", "res1/body/bn2", "res1/shortcut"),
    ]
    assert names[-3:] == ["relu10", "global_avg_pool1", "dense1"]
    params, _ = jax.eval_shape(functools.partial(resnet(20).init, input_shape=(32, 32, 3)), KEY)
    assert params["conv1"].keys() == {"kernel"}  # the subsequent batch norm has a bias
    assert params["res9"].keys() == {"body"}


def test_shortcut_b_is_conv_with_batch_norm():
    projection_params = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    table = summarize(resnet(20, shortcut="B"), (32, 32, 3))
    assert table.params == 269_722 + projection_params
    shortcuts = [(row.name, row.shape) for row in table.rows if "shortcut/conv" in row.name]
    assert shortcuts == [("res4/shortcut/conv1", (16, 16, 32)), ("res7/shortcut/conv1", (8, 8, 64))]


def test_plain_resnet_has_no_shortcuts():
    table = summarize(resnet(20, plain=True), (32, 32, 3))
    assert table.params == 269_722 and not any("res" in row.name for row in table.rows)
    kinds = "conv bn relu " * 19 + "global_avg_pool dense"
    assert [row.kind for row in table.rows] == kinds.split()


@pytest.mark.frameworks
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("size", [(9, 7), (8, 10)])
def test_resnet_matches_torch(size, plain, rng):
    torch = pytest.importorskip("torch")
    model = resnet(8, plain=plain)
    params, state = random_variables(model, (*size, 3), rng)
    x = rng.normal(size=(3, *size, 3)).astype(np.float32)

    def conv_bn_params():
        """Yield the kernel and batch norm arrays of each convolution, in the order of the network."""
        blocks = [("", i) for i in range(2, 8)] if plain else [(f"res{b}", i) for b in (1, 2, 3) for i in (1, 2)]
        for block, i in [("", 1), *blocks]:
            body, running = (tree[block]["body"] if block else tree for tree in (params, state))
            yield body[f"conv{i}"]["kernel"], (*running[f"bn{i}"].values(), *reversed(body[f"bn{i}"].values()))

    params_in_order = conv_bn_params()

    def conv_bn(x, stride=1):
        kernel, (mean, var, scale, bias) = jax.tree.map(torch.tensor, next(params_in_order))
        x = torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), stride=stride, padding=1)
        return torch.nn.functional.batch_norm(x, mean, var, scale, bias)

    y = conv_bn(torch.tensor(x).permute(0, 3, 1, 2)).relu()
    for stride in (1, 2, 2):
        body = conv_bn(conv_bn(y, stride).relu())
        shortcut = torch.zeros_like(body)
        if not plain:
            shortcut[:, : y.shape[1]] = y[:, :, ::stride, ::stride]
        y = (body + shortcut).relu()
    expected = y.mean((2, 3)) @ torch.tensor(params["dense1"]["kernel"]) + torch.tensor(params["dense1"]["bias"])
    logits, _ = jax.jit(model.apply)(params, state, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-3)  # values up to 170


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9), (1, 2)])
def test_shortcut_a_matches_numpy(size):
    shortcut = dict(dict(resnet(8).children)["res2"].children)["shortcut"]
    x = np.random.default_rng(0).normal(size=(2, *size, 16)).astype(np.float32)
    expected = np.zeros((2, -(-size[0] // 2), -(-size[1] // 2), 32), np.float32)
    for i in range(0, size[0], 2):
        for j in range(0, size[1], 2):
            expected[:, i // 2, j // 2, :16] = x[:, i, j]
    y, state = shortcut.apply({}, {}, x)
    np.testing.assert_array_equal(y, expected)
    assert state == {} and shortcut.init(KEY, (*size, 16)) == ({}, {})


@pytest.mark.parametrize("input_shape", [(28, 28, 1), (33, 17, 3), (5, 4, 2)])
def test_resnet_accepts_other_image_sizes(input_shape):
    model = resnet(14, 7)
    params, state = jax.eval_shape(functools.partial(model.init, input_shape=input_shape), KEY)
    images = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    logits, new_state = jax.eval_shape(functools.partial(model.apply, train=True), params, state, images)
    assert logits.shape == (2, 7) and jax.tree.map(jnp.shape, new_state) == jax.tree.map(jnp.shape, state)


@pytest.mark.parametrize("train", [False, True])
def test_zero_init_residual_block_is_relu_with_gradient(train):  # row 003-21
    model = resnet(8, zero_init_residual=True)
    params, state = jax.jit(model.init, static_argnums=1)(KEY, (6, 5, 3))
    block = dict(model.children)["res1"]
    x, dy = jax.random.normal(KEY, (2, 3, 6, 5, 16))
    y, vjp = jax.vjp(lambda x: block.apply(params["res1"], state["res1"], x, train=train)[0], x)
    np.testing.assert_array_equal(relu(y), relu(x))
    np.testing.assert_array_equal(vjp(dy)[0], dy)
    scales = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(leaf.max())
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "scale" in jax.tree_util.keystr(path)
    }
    assert {name for name, maximum in scales.items() if maximum == 0} == {f"res{i}/body/bn2/scale" for i in range(1, 4)}
    assert {maximum for maximum in scales.values()} == {0, 1}


def test_impl_reaches_every_convolution(monkeypatch):
    params, state = jax.eval_shape(functools.partial(resnet(8, shortcut="B").init, input_shape=(8, 8, 3)), KEY)
    lowering, calls = ops.LOWERINGS["explicit"], []
    monkeypatch.setitem(
        ops.LOWERINGS, "explicit", lambda *args, **options: calls.append(1) or lowering(*args, **options)
    )
    model = resnet(8, shortcut="B", impl="explicit")
    jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32))
    assert len(calls) == 7 + 2


def test_resnet_invalid_options_raise():
    with pytest.raises(InputError, match="resnet: depth=21 should be 6n \\+ 2, such as 20 or 26"):
        resnet(21)
    with pytest.raises(InputError, match="resnet: depth=2 should be an int of at least 8"):
        resnet(2)
    with pytest.raises(InputError, match="resnet: unknown shortcut 'C': Known: A, B"):
        resnet(20, shortcut="C")
    with pytest.raises(InputError, match="plain=True cannot be combined with zero_init_residual=True"):
        resnet(20, plain=True, zero_init_residual=True)
    with pytest.raises(InputError, match="resnet: plain='no' should be True or False"):
        resnet(20, plain="no")
