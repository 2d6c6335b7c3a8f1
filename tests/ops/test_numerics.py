"""Sums over positions and their transpose, in the variants of all platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.test_util import check_grads

from jaxconv.ops.numerics import broadcast_per_channel, sum_per_channel

SHAPES = pytest.mark.parametrize("shape", [(4, 3), (3, 5, 2), (2, 3, 4, 5), (2, 1, 3, 2, 1)], ids=str)


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """Run the branch of the parametrized platform on this machine."""

    def choose_branch(*args, cpu, default):
        return {"cpu": cpu, "default": default}[request.param](*args)

    monkeypatch.setattr(lax, "platform_dependent", choose_branch)


@SHAPES
def test_sum_per_channel_matches_weighted_sum(platform, rng, shape):
    x, weight = rng.normal(size=shape), rng.random(shape[0])
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(sum_per_channel(jnp.asarray(x, jnp.float32)), x.sum(axes), rtol=1e-5, atol=1e-5)
    actual = sum_per_channel(jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32))
    np.testing.assert_allclose(
        actual, (x * weight.reshape(-1, *[1] * (len(shape) - 1))).sum(axes), rtol=1e-5, atol=1e-5
    )


@SHAPES
def test_broadcast_per_channel_is_transpose_of_sum(platform, rng, shape):
    x, per_channel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in (shape, shape[-1:]))
    assert (broadcast_per_channel(per_channel, x) == jnp.broadcast_to(per_channel, shape)).all()
    np.testing.assert_allclose(
        jax.vjp(lambda per_channel: broadcast_per_channel(per_channel, x), per_channel)[1](x)[0],
        sum_per_channel(x),
        rtol=1e-6,
        atol=1e-6,
    )
    assert (jax.vjp(sum_per_channel, x)[1](per_channel)[0] == jnp.broadcast_to(per_channel, shape)).all()


def test_sum_and_broadcast_derivatives_in_both_modes(platform, x64, rng):
    x, weight = jnp.asarray(rng.normal(size=(3, 2, 2, 4))), jnp.asarray(rng.random(3))
    check_grads(
        lambda x: broadcast_per_channel(sum_per_channel(x, weight) ** 2, x) * x, (x,), order=2, modes=("fwd", "rev")
    )


def test_sum_per_channel_of_many_values_is_accurate(rng):
    """200,000 values near 1: a sequential float32 sum has a relative error of about 1e-4."""
    x = (1 + 0.1 * rng.random((200, 1000, 2))).astype(np.float32)
    np.testing.assert_allclose(sum_per_channel(jnp.asarray(x)), x.astype(np.float64).sum((0, 1)), rtol=2e-6)


@pytest.mark.parametrize(("platforms", "product"), [(("cpu",), True), (("cuda",), False), (("tpu",), False)])
def test_matrix_product_with_ones_only_on_cpu(platforms, product):
    exported = export.export(jax.jit(sum_per_channel), platforms=platforms)(
        jax.ShapeDtypeStruct((4, 5, 5, 3), jnp.float32)
    )
    assert ("dot_general" in exported.mlir_module()) == product
