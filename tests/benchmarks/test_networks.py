"""The peers train the same networks as we do: the same sizes, the same function, and they learn."""

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
PEERS = [each for each in targets.TARGETS if each.framework not in ("jaxconv", "torch_channels_last")]


@pytest.fixture(autouse=True)
def lenient(promoting):
    """What other libraries do with ranks is their own affair."""
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def file_of(contestant):
    if why := targets.missing(contestant):
        pytest.skip(why)
    if contestant.package == "torch":
        pytest.importorskip("torch").set_num_threads(1)  # nets this small only wait for one another
    return importlib.import_module(contestant.module)


def our_sizes(name):
    spec = models.get_model(name)
    params, _ = jax.eval_shape(lambda key: spec.create(num_classes=10).init(key, spec.input_shape), jax.random.key(0))
    return [leaf.size for leaf in jax.tree.leaves(params)]


LEARN = [(each, "lenet5") for each in targets.TARGETS] + [(each, "resnet20") for each in PEERS]


@pytest.mark.parametrize(("contestant", "model"), LEARN, ids=lambda each: getattr(each, "name", each))
def test_it_learns_its_batch(contestant, model):
    options = contestant.options | ({"images": 4} if contestant.mode == "epoch" else {})
    runner = file_of(contestant).build(model, 4, **options)
    assert sum(runner.sizes) == PARAMS[model]
    first = runner.steps(runner.chunk)
    assert 1 < first < 8  # about ln 10, when nothing is known; batch norm begins wilder
    assert runner.steps(8 * runner.chunk) < 0.8 * first


# With every kernel constant, neither the order of axes nor that of what is flattened matters. Then all libraries should
# compute one function, if strides, paddings, pools, activations and norms are the same.


def constant(array):
    """The values of a parameter, of whatever library: by its size alone, and by the class where it is of the last."""
    shape = tuple(array.shape)
    longest = max(shape, default=1)
    if np.prod(shape) == longest:  # a bias, or a norm's gain
        return np.full(shape, 0.1, np.float32)
    values = np.full(shape, 0.5 / np.sqrt(np.prod(shape)), np.float32)
    if len(shape) == 2 and 10 in shape:
        by_class = np.arange(1, 11, dtype=np.float32)
        values = values * (by_class if shape[1] == 10 else by_class[:, None])
    return values


def images(model):
    return random_batch(models.get_model(model).input_shape, 3)[0]


@functools.cache
def our_logits(model):
    x = images(model)
    net = models.create_model(model, 10)
    params, state = jax.jit(net.init, static_argnums=1)(jax.random.key(0), x.shape[1:])
    return jax.jit(lambda p, s, x: net.apply(p, s, x, train=True)[0])(jax.tree.map(constant, params), state, x)


def logits_of_lax(file, model, x, fill):
    p, s = file.init(model, jax.random.key(0))
    return jax.jit(lambda p, s, x: file.APPLY[model](p, s, x)[0])(jax.tree.map(fill, p), s, x)


def logits_of_torch(file, model, x, fill):
    import torch

    net = file.MAKE[model]()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(fill(parameter)))
        return net(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


def logits_of_nnx(file, model, x, fill):
    from flax import nnx

    net = file.MAKE[model](nnx.Rngs(0))
    nnx.update(net, jax.tree.map(lambda leaf: jnp.asarray(fill(leaf)), nnx.state(net, nnx.Param)))
    return nnx.jit(lambda net, x: net(x))(net, x)


def logits_of_equinox(file, model, x, fill):
    import equinox as eqx

    net, state = eqx.nn.make_with_state(file.MAKE[model])(lambda: jax.random.key(0))
    net = jax.tree.map(lambda leaf: jnp.asarray(fill(leaf)) if eqx.is_inexact_array(leaf) else leaf, net)

    @eqx.filter_jit
    def logits(net, state, x):
        return jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[0]

    return logits(net, state, x.transpose(0, 3, 1, 2))


def logits_of_keras(file, model, x, fill):
    net = file.MAKE[model]()
    for variable in net.trainable_variables:
        variable.assign(fill(variable))
    return net(x, training=True)


@pytest.mark.parametrize("contestant", PEERS, ids=lambda each: each.name)
@pytest.mark.parametrize("model", MODELS)
def test_a_peer_has_our_sizes_and_computes_our_function(contestant, model):
    file, logits_of = file_of(contestant), globals()[f"logits_of_{contestant.peer}"]
    wanted, x = our_logits(model), images(model)
    assert np.ptp(wanted, axis=0).max() > 1e-3 and np.ptp(wanted, axis=1).min() > 0.1  # images and classes differ
    sizes = []

    def fill(array):
        sizes.append(int(np.prod(array.shape)))
        return constant(array)

    np.testing.assert_allclose(logits_of(file, model, x, fill), wanted, rtol=2e-4)
    assert sum(sizes) == PARAMS[model] and sorted(sizes) == sorted(our_sizes(model))
