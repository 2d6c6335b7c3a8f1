"""The networks of all frameworks have the sizes and logits of jaxconv's, and train."""

import functools
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import targets
from jaxconv import models
from jaxconv.bench.step_timing import random_batch

pytestmark = pytest.mark.frameworks
MODELS = ("lenet5", "mnist_cnn", "vgg6", "resnet20")
PARAMS = {"lenet5": 61_706, "mnist_cnn": 93_322, "vgg6": 307_498, "resnet20": 269_722}
FRAMEWORKS = [target for target in targets.TARGETS if target.framework not in ("jaxconv", "torch_channels_last")]


@pytest.fixture(autouse=True)
def lenient(promoting):
    """Allow rank promotion and warnings in other libraries."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_module(target):
    if reason := targets.missing_package(target):
        pytest.skip(reason)
    if target.package == "torch":
        pytest.importorskip("torch").set_num_threads(1)  # more threads slow down networks this small
    return importlib.import_module(target.module)


def jaxconv_sizes(name):
    spec = models.get_model(name)
    params, _ = jax.eval_shape(lambda key: spec.create(num_classes=10).init(key, spec.input_shape), jax.random.key(0))
    return [leaf.size for leaf in jax.tree.leaves(params)]


TRAINED = [(target, "lenet5") for target in targets.TARGETS] + [(target, "resnet20") for target in FRAMEWORKS]


@pytest.mark.parametrize(("target", "model"), TRAINED, ids=lambda value: getattr(value, "name", value))
def test_network_overfits_its_batch(target, model):
    options = target.options | ({"images": 4} if target.mode == "epoch" else {})
    runner = load_module(target).build(model, 4, **options)
    assert sum(runner.sizes) == PARAMS[model]
    first = runner.steps(runner.chunk)
    assert 1 < first < 8  # about ln 10 before training; larger with batch norm
    assert runner.steps(8 * runner.chunk) < 0.8 * first


# With constant kernels, the order of axes and of flattened features does not matter. So all libraries must compute the
# same function if strides, paddings, poolings, activations and norms agree.


def constant(array):
    """Return values of a parameter that depend on its size alone, and in the last layer on the class."""
    shape = tuple(array.shape)
    longest = max(shape, default=1)
    if np.prod(shape) == longest:  # a bias or the scale of a norm
        return np.full(shape, 0.1, np.float32)
    values = np.full(shape, 0.5 / np.sqrt(np.prod(shape)), np.float32)
    if len(shape) == 2 and 10 in shape:
        by_class = np.arange(1, 11, dtype=np.float32)
        values = values * (by_class if shape[1] == 10 else by_class[:, None])
    return values


def images(model):
    return random_batch(models.get_model(model).input_shape, 3)[0]


@functools.cache
def jaxconv_logits(model):
    x = images(model)
    net = models.create_model(model, 10)
    params, state = jax.jit(net.init, static_argnums=1)(jax.random.key(0), x.shape[1:])
    return jax.jit(lambda p, s, x: net.apply(p, s, x, train=True)[0])(jax.tree.map(constant, params), state, x)


def logits_of_lax(module, model, x, fill):
    p, s = module.init(model, jax.random.key(0))
    return jax.jit(lambda p, s, x: module.APPLY[model](p, s, x)[0])(jax.tree.map(fill, p), s, x)


def logits_of_torch(module, model, x, fill):
    import torch

    net = module.MAKE[model]()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(fill(parameter)))
        return net(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


def logits_of_nnx(module, model, x, fill):
    from flax import nnx

    net = module.MAKE[model](nnx.Rngs(0))
    nnx.update(net, jax.tree.map(lambda leaf: jnp.asarray(fill(leaf)), nnx.state(net, nnx.Param)))
    return nnx.jit(lambda net, x: net(x))(net, x)


def logits_of_equinox(module, model, x, fill):
    import equinox as eqx

    net, state = eqx.nn.make_with_state(module.MAKE[model])(lambda: jax.random.key(0))
    net = jax.tree.map(lambda leaf: jnp.asarray(fill(leaf)) if eqx.is_inexact_array(leaf) else leaf, net)

    @eqx.filter_jit
    def logits(net, state, x):
        return jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[0]

    return logits(net, state, x.transpose(0, 3, 1, 2))


def logits_of_keras(module, model, x, fill):
    net = module.MAKE[model]()
    for variable in net.trainable_variables:
        variable.assign(fill(variable))
    return net(x, training=True)


@pytest.mark.parametrize("target", FRAMEWORKS, ids=lambda target: target.name)
@pytest.mark.parametrize("model", MODELS)
def test_network_has_jaxconv_sizes_and_logits(target, model):
    module, logits_of = load_module(target), globals()[f"logits_of_{target.framework}"]
    expected, x = jaxconv_logits(model), images(model)
    assert np.ptp(expected, axis=0).max() > 1e-3 and np.ptp(expected, axis=1).min() > 0.1  # images and classes differ
    sizes = []

    def fill(array):
        sizes.append(int(np.prod(array.shape)))
        return constant(array)

    np.testing.assert_allclose(logits_of(module, model, x, fill), expected, rtol=2e-4)
    assert sum(sizes) == PARAMS[model] and sorted(sizes) == sorted(jaxconv_sizes(model))
