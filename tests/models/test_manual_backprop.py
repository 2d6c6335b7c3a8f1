"""Whole networks back-propagated by hand: the same gradients as jax.grad, and the same training."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, models, ops
from jaxconv.models import manual_backprop

SMALL = {"lenet5": (32, 32, 1), "mnist_cnn": (20, 20, 1)}


def start(model, input_shape):
    params, _ = jax.jit(model.init, static_argnums=1)(jax.random.key(0), input_shape)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)


def by_autodiff(name, params, images, label):
    def loss(params):
        logits, _ = models.create_model(name, impl="lax").apply(params, {}, images)
        return ops.softmax_cross_entropy(logits, label).mean()

    return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("name", manual_backprop.MANUAL_NETWORKS)
def test_gradients_equal_autodiff(x64, rng, name):
    params = start(models.create_model(name), SMALL[name])
    images, label = jnp.asarray(rng.normal(size=(3, *SMALL[name]))), jnp.array([3, 0, 9])
    loss, gradients = jax.jit(partial(manual_backprop.value_and_grad, name))(params, images, label)
    wanted_loss, wanted = jax.jit(partial(by_autodiff, name))(params, images, label)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-13)
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13 * float(jnp.abs(b).max()))


def test_lenet5_trains_as_with_autodiff(x64):
    """Two epochs of gradient descent on digits, in float64: the same parameters to 1e-10, and it has learned."""
    from jaxconv import data

    images, label = data.load("digits").train
    images = jnp.pad(jnp.asarray(images[:256], jnp.float64) / 255, ((0, 0), (12, 12), (12, 12), (0, 0)))
    batches = list(zip(images.reshape(8, 32, 32, 32, 1), jnp.asarray(label[:256]).reshape(8, 32), strict=True))
    begun = start(models.lenet5(), (32, 32, 1))
    trained, losses = {}, {}
    for way in (manual_backprop.value_and_grad, by_autodiff):

        @jax.jit
        def step(params, images, label, way=way):
            loss, gradients = way("lenet5", params, images, label)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients), loss

        params, seen = begun, []
        for _ in range(2):
            for batch in batches:
                params, loss = step(params, *batch)
                seen.append(float(loss))
        trained[way], losses[way] = params, seen
    apart = [abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, trained.values()), strict=True)]
    assert max(apart) < 1e-10
    moved = max(abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (begun, params)), strict=True))
    assert moved > 1e-2 and np.mean(seen[-4:]) < 0.75 * np.mean(seen[:4])


def test_no_automatic_differentiation_is_used():
    """The derivation must stay a derivation: nothing in it asks jax for a gradient."""
    sources = [manual_backprop, *(inspect.getmodule(getattr(ops.backward, name)) for name in ops.backward.__all__)]
    for module in sources:
        source = inspect.getsource(module).replace("def value_and_grad(", "")  # its own name is no call
        code = source.split('"""')[2::2]  # without the docstrings
        for word in ("grad(", "vjp", "jvp", "linearize", "linear_transpose"):
            assert not any(word in part for part in code), f"{module.__name__} uses {word}"


def test_a_network_that_is_not_derived_is_refused():
    with pytest.raises(InputError, match="unknown network derived by hand 'lenet': did you mean 'lenet5'"):
        manual_backprop.value_and_grad("lenet", {}, jnp.ones((1, 8, 8, 1)), jnp.zeros(1, int))
