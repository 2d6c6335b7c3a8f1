"""Networks of lectures and papers: parameter counts, shapes and outputs compared with PyTorch; the model registry."""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxconv import Dense, InputError, models, ops
from jaxconv.errors import ArgumentError
from jaxconv.explain import summarize
from jaxconv.layers.base import output_shape
from jaxconv.models import all_cnn_c, convnetjs, registry, vgg6

KEY = jax.random.key(0)


def filled(model, input_shape, rng):
    """Return random parameters and state, with scales other than 1, nonzero biases and positive variances."""
    shapes = jax.eval_shape(functools.partial(model.init, input_shape=input_shape), KEY)

    def draw(leaf):
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return rng.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, shapes)


class TorchNetwork:
    """A PyTorch network, built step by step from the parameters of a jaxconv model, taken in order."""

    def __init__(self, params, state, x):
        self.torch = pytest.importorskip("torch")
        self.params, self.state = jax.tree.map(self.torch.tensor, (params, state))
        self.x, self.count = self.torch.tensor(x).permute(0, 3, 1, 2), {"conv": 0, "bn": 0}

    def next(self, kind):
        self.count[kind] += 1
        return f"{kind}{self.count[kind]}"

    def conv(self, **options):
        conv = self.params[self.next("conv")]
        kernel, bias = conv["kernel"].permute(3, 2, 0, 1), conv.get("bias")
        self.x = self.torch.nn.functional.conv2d(self.x, kernel, bias, **options)
        return self

    def norm(self):
        name = self.next("bn")
        bn, running = self.params[name], self.state[name]
        self.x = self.torch.nn.functional.batch_norm(self.x, running["mean"], running["var"], bn["scale"], bn["bias"])
        return self

    def relu(self):
        self.x = self.x.relu()
        return self

    def pool(self):
        self.x = self.torch.nn.functional.max_pool2d(self.x, 2)
        return self

    def dense(self):
        dense = self.params["dense1"]
        self.x = self.x.permute(0, 2, 3, 1).flatten(1) @ dense["kernel"] + dense["bias"]  # flatten with channels last
        return self


def by_torch_convnetjs(net):
    for _ in range(3):
        net.conv(padding=2).relu().pool()
    return net.dense().x


def by_torch_vgg6(net, norm):
    for _ in range(3):
        for _ in range(2):
            net.conv(padding=1)
            (net.norm() if norm else net).relu()
        net.pool()
    return net.dense().x


def by_torch_all_cnn_c(net):
    for _ in range(2):
        net.conv(padding=1).relu().conv(padding=1).relu().conv(padding=1, stride=2).relu()
    return net.conv().relu().conv().relu().conv().x.mean((2, 3))


@pytest.mark.parametrize(
    ("model", "network"),
    [
        (convnetjs(7), by_torch_convnetjs),
        (vgg6(7), functools.partial(by_torch_vgg6, norm=False)),
        (vgg6(7, batch_norm=True, dropout=0.5), functools.partial(by_torch_vgg6, norm=True)),
        (all_cnn_c(7, width=5), by_torch_all_cnn_c),
    ],
    ids=["convnetjs", "vgg6", "vgg6_bn", "all_cnn_c"],
)
@pytest.mark.parametrize("size", [(17, 12), (11, 21)])
@pytest.mark.frameworks
def test_networks_match_torch(model, network, size, rng):
    params, state = filled(model, (*size, 3), rng)
    x = rng.normal(size=(3, *size, 3)).astype(np.float32)
    expected = network(TorchNetwork(params, state, x))
    scale = float(abs(expected).max())
    logits, new_state = jax.jit(model.apply)(params, state, x)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5 * scale)
    jax.tree.map(np.testing.assert_array_equal, new_state, state)


@pytest.fixture
def own_registry(monkeypatch):
    """Replace the registry by a copy, so that models registered by a test are removed after it."""
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))


def linear(num_classes=10, *, bias=True):
    """One dense layer.

    The registry must use the first line only.
    """
    return Dense(num_classes, use_bias=bias)


@pytest.mark.parametrize("name", models.list_models())
def test_registered_models_have_num_classes_outputs(name):
    spec = models.get_model(name)
    assert spec.name == name and spec.description.endswith(".") and "\n" not in spec.description
    for model, outputs in ((models.create_model(name), 10), (models.create_model(name, 3), 3)):
        params, state = jax.eval_shape(functools.partial(model.init, input_shape=spec.input_shape), KEY)
        assert output_shape(model, params, state, spec.input_shape) == (outputs,)


def test_register_model_returns_function_unchanged(own_registry):
    previous = models.list_models()
    assert models.register_model(input_shape=(5, 4, 1))(linear) is linear
    assert models.get_model("linear") == ("linear", linear, (5, 4, 1), "One dense layer.")
    assert models.list_models() == [*previous, "linear"]


def test_register_model_stacks_for_variants(own_registry):
    models.register_model("linear_unbiased", input_shape=(5, 4, 1), bias=False)(
        models.register_model(input_shape=(5, 4, 1))(linear)
    )
    assert models.list_models()[-2:] == ["linear", "linear_unbiased"]
    biased, unbiased = (models.create_model(name, 3).init(KEY, (4,))[0] for name in ("linear", "linear_unbiased"))
    assert biased.keys() - unbiased.keys() == {"bias"} and unbiased["kernel"].shape == (4, 3)
    # An argument of the call takes precedence over the registered option.
    assert "bias" in models.create_model("linear_unbiased", bias=True).init(KEY, (4,))[0]


def test_register_model_duplicate_name_raises(own_registry):
    models.register_model(input_shape=(5, 4, 1))(linear)
    with pytest.raises(ValueError, match="model 'linear' is registered twice"):
        models.register_model(input_shape=(5, 4, 1))(linear)
    with pytest.raises(ValueError, match="model 'lenet5' is registered twice"):
        models.register_model("lenet5", input_shape=(5, 4, 1))(linear)
    assert models.get_model("lenet5").create is models.lenet5


@pytest.mark.parametrize("lookup_fn", [models.get_model, models.create_model])
def test_unknown_model_error_suggests_closest_name(lookup_fn):
    known_names = ", ".join(models.list_models())
    with pytest.raises(InputError, match=rf"^unknown model 'lenet6': did you mean 'lenet5'\? Known: {known_names}$"):
        lookup_fn("lenet6")
    with pytest.raises(InputError, match=r"^unknown model 20: Known: small_cnn, mnist_cnn"):
        lookup_fn(20)


def test_create_model_passes_options():
    assert [child.kind for _, child in models.create_model("mlp", 3, hidden=()).children] == ["flatten", "dense"]
    kinds = [child.kind for _, child in models.create_model("vgg6_bn", batch_norm=False).children]
    assert "bn" not in kinds and "dropout" in kinds  # one fixed option is overridden, the other one stays
    shortcuts = [models.create_model("resnet20", shortcut=shortcut).init(KEY, (8, 8, 3))[0] for shortcut in "AB"]
    assert jax.tree.structure(shortcuts[0]) != jax.tree.structure(shortcuts[1])
    with pytest.raises(ArgumentError, match=r"mlp: no argument is called impl"):
        models.create_model("mlp", impl="lax")


def test_convnetjs_counts_match_demo():  # row 004-13
    table = summarize(models.create_model("convnetjs"), (32, 32, 3))
    kernels = [5 * 5 * 3 * 16, 5 * 5 * 16 * 20, 5 * 5 * 20 * 20, 4 * 4 * 20 * 10]
    counts = [kernel + bias for kernel, bias in zip(kernels, [16, 20, 20, 10], strict=True)]
    assert [row.params for row in table.rows if row.params] == counts and table.params == sum(counts) == 22_466
    assert [row.kind for row in table.rows] == ["conv", "relu", "max_pool"] * 3 + ["flatten", "dense"]
    shapes = [row.shape for row in table.rows if row.kind in ("conv", "max_pool")]
    assert shapes == [(32, 32, 16), (16, 16, 16), (16, 16, 20), (8, 8, 20), (8, 8, 20), (4, 4, 20)]


@pytest.mark.parametrize(("name", "width", "total"), [("all_cnn_c", 96, 1_369_738), ("all_cnn_c_48", 48, 343_882)])
def test_all_cnn_c_counts_match_paper(name, width, total):  # row 001-13
    """Model C of table 1, with the strided convolutions of table 2 for poolings; the last 3×3 has no padding."""
    rows = [row for row in summarize(models.create_model(name), (32, 32, 3)).rows if row.kind == "conv"]
    channels = [3, width, width, width, 2 * width, 2 * width, 2 * width, 2 * width, 2 * width, 10]
    counts = [size**2 * a * b + b for size, a, b in zip([3] * 7 + [1] * 2, channels, channels[1:], strict=False)]
    assert [row.params for row in rows] == counts and sum(counts) == total
    sides = [32, 32, 16, 16, 16, 8, 6, 6, 6]
    assert [row.shape for row in rows] == [(side, side, b) for side, b in zip(sides, channels[1:], strict=True)]


def test_all_cnn_c_has_dropout_and_no_pooling():
    kinds = [row.kind for row in summarize(all_cnn_c(), (32, 32, 3)).rows]
    stage = ["conv", "relu"] * 3
    tail = ["conv", "relu", "conv", "relu", "conv", "global_avg_pool"]
    assert kinds == ["dropout", *stage, "dropout", *stage, "dropout", *tail]
    without = [row.kind for row in summarize(all_cnn_c(dropout=False), (32, 32, 3)).rows]
    assert without == [*stage, *stage, *tail]
    assert [row.kind for row in summarize(models.create_model("all_cnn_c_48"), (32, 32, 3)).rows] == without


def test_all_cnn_c_dropout_rates():
    rates = []
    for name, child in all_cnn_c().children:
        if child.kind == "dropout":
            y, _ = child.apply({}, {}, np.ones((8, 20, 30, 5), np.float32), train=True, key=KEY)
            rates.append((name, round(float(np.mean(np.asarray(y) == 0)), 1)))
    assert rates == [("dropout1", 0.2), ("dropout2", 0.5), ("dropout3", 0.5)]


@pytest.mark.parametrize(("size", "flat"), [((28, 28, 1), 3 * 3 * 128), ((33, 26, 2), 4 * 3 * 128)])
def test_vgg6_bn_counts(size, flat):
    channels = [size[-1], 32, 32, 64, 64, 128, 128]
    kernels = sum(9 * a * b for a, b in itertools.pairwise(channels))
    table = summarize(models.create_model("vgg6_bn"), size)
    assert table.params == kernels + 2 * sum(channels[1:]) + flat * 10 + 10  # a scale and a bias per channel
    assert table.state == 2 * sum(channels[1:])
    kinds = (["conv", "bn", "relu"] * 2 + ["max_pool"]) * 3 + ["flatten", "dropout", "dense"]
    assert [row.kind for row in table.rows] == kinds
    assert [row.kind for row in summarize(vgg6(), size).rows] == [k for k in kinds if k not in ("bn", "dropout")]


@pytest.mark.parametrize("make", [convnetjs, all_cnn_c, functools.partial(vgg6, batch_norm=True)])
def test_impl_reaches_every_convolution(make, monkeypatch):
    lowering, calls = ops.LOWERINGS["explicit"], []

    def counted(*args, **options):
        calls.append(args)
        return lowering(*args, **options)

    monkeypatch.setitem(ops.LOWERINGS, "explicit", counted)
    model = make(impl="explicit")
    params, state = jax.eval_shape(functools.partial(model.init, input_shape=(12, 13, 3)), KEY)
    calls.clear()
    jax.eval_shape(model.apply, params, state, jax.ShapeDtypeStruct((2, 12, 13, 3), np.float32))
    assert len(calls) == sum(row.kind == "conv" for row in summarize(make(), (12, 13, 3)).rows)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (all_cnn_c, {"width": 0}, "all_cnn_c: width=0"),
        (all_cnn_c, {"width": 4.5}, "all_cnn_c: width=4.5"),
        (all_cnn_c, {"dropout": 0.5}, "all_cnn_c: dropout=0.5"),
        (vgg6, {"batch_norm": 1}, "vgg6: batch_norm=1"),
        (vgg6, {"dropout": 1.5}, "rate=1.5"),
    ],
)
def test_network_invalid_options_raise(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
