"""Manual backpropagation: gradients and training compared with jax.grad."""

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
    expected_loss, expected = jax.jit(partial(by_autodiff, name))(params, images, label)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-13)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13 * float(jnp.abs(b).max()))


def test_lenet5_training_matches_autodiff(x64):
    """Two epochs of gradient descent on digits in float64 give the same parameters to 1e-10 and a lower loss."""
    from jaxconv import data

    images, label = data.load("digits").train
    images = jnp.pad(jnp.asarray(images[:256], jnp.float64) / 255, ((0, 0), (12, 12), (12, 12), (0, 0)))
    batches = list(zip(images.reshape(8, 32, 32, 32, 1), jnp.asarray(label[:256]).reshape(8, 32), strict=True))
    initial = start(models.lenet5(), (32, 32, 1))
    trained, losses = {}, {}
    for gradient_fn in (manual_backprop.value_and_grad, by_autodiff):

        @jax.jit
        def step(params, images, label, gradient_fn=gradient_fn):
            loss, gradients = gradient_fn("lenet5", params, images, label)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradients), loss

        params, loss_history = initial, []
        for _ in range(2):
            for batch in batches:
                params, loss = step(params, *batch)
                loss_history.append(float(loss))
        trained[gradient_fn], losses[gradient_fn] = params, loss_history
    differences = [abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, trained.values()), strict=True)]
    assert max(differences) < 1e-10
    largest_update = max(abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (initial, params)), strict=True))
    assert largest_update > 1e-2 and np.mean(loss_history[-4:]) < 0.75 * np.mean(loss_history[:4])


def test_manual_backprop_uses_no_autodiff():
    """The source of the manual gradients must not call any transformation of jax."""
    sources = [manual_backprop, *(inspect.getmodule(getattr(ops.backward, name)) for name in ops.backward.__all__)]
    for module in sources:
        source = inspect.getsource(module).replace("def value_and_grad(", "")  # the definition itself is not a call
        code = source.split('"""')[2::2]  # exclude docstrings
        for word in ("grad(", "vjp", "jvp", "linearize", "linear_transpose"):
            assert not any(word in code_part for code_part in code), f"{module.__name__} uses {word}"


def test_value_and_grad_rejects_unknown_network():
    with pytest.raises(InputError, match="unknown network with manual backpropagation 'lenet': did you mean 'lenet5'"):
        manual_backprop.value_and_grad("lenet", {}, jnp.ones((1, 8, 8, 1)), jnp.zeros(1, int))
