"""Sums over places, and their transpose, on every platform's way of taking them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.test_util import check_grads

from jaxconv.ops.numerics import spread, total

SHAPES = pytest.mark.parametrize("shape", [(4, 3), (3, 5, 2), (2, 3, 4, 5), (2, 1, 3, 2, 1)], ids=str)


@pytest.fixture(params=["cpu", "default"])
def platform(request, monkeypatch):
    """Have a branch run here that is another platform's."""

    def chosen(*args, cpu, default):
        return {"cpu": cpu, "default": default}[request.param](*args)

    monkeypatch.setattr(lax, "platform_dependent", chosen)


@SHAPES
def test_total_is_the_weighted_sum(platform, rng, shape):
    x, weight = rng.normal(size=shape), rng.random(shape[0])
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose(total(jnp.asarray(x, jnp.float32)), x.sum(axes), rtol=1e-5, atol=1e-5)
    got = total(jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32))
    np.testing.assert_allclose(got, (x * weight.reshape(-1, *[1] * (len(shape) - 1))).sum(axes), rtol=1e-5, atol=1e-5)


@SHAPES
def test_spread_is_its_transpose(platform, rng, shape):
    x, row = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in (shape, shape[-1:]))
    assert (spread(row, x) == jnp.broadcast_to(row, shape)).all()
    np.testing.assert_allclose(jax.vjp(lambda row: spread(row, x), row)[1](x)[0], total(x), rtol=1e-6, atol=1e-6)
    assert (jax.vjp(total, x)[1](row)[0] == jnp.broadcast_to(row, shape)).all()


def test_derivatives_in_both_modes(platform, x64, rng):
    x, weight = jnp.asarray(rng.normal(size=(3, 2, 2, 4))), jnp.asarray(rng.random(3))
    check_grads(lambda x: spread(total(x, weight) ** 2, x) * x, (x,), order=2, modes=("fwd", "rev"))


def test_a_sum_of_many_is_as_exact_as_float32_can_be(rng):
    """200,000 numbers near 1: added one after the other in float32 they would be off by 1e-4 or so."""
    x = (1 + 0.1 * rng.random((200, 1000, 2))).astype(np.float32)
    np.testing.assert_allclose(total(jnp.asarray(x)), x.astype(np.float64).sum((0, 1)), rtol=2e-6)


@pytest.mark.parametrize(("platforms", "product"), [(("cpu",), True), (("cuda",), False), (("tpu",), False)])
def test_only_a_cpu_multiplies_with_ones(platforms, product):
    program = export.export(jax.jit(total), platforms=platforms)(jax.ShapeDtypeStruct((4, 5, 5, 3), jnp.float32))
    assert ("dot_general" in program.mlir_module()) == product
