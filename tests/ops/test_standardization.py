"""Norms of numbers of any size, and of constants: value and gradient are those of numpy's float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxconv import BatchNorm, InputError, ops

SHAPE = (4, 3, 5, 6)
SIZES = [10.0**power for power in range(-30, 31, 5)]
NORMS = {  # the op; the axes it averages over, where the last is cut into so many groups; whether it is centred
    "layer": (ops.layer_norm, (3, 4), 1, True),
    "group": (functools.partial(ops.group_norm, num_groups=2), (1, 2, 4), 2, True),
    "instance": (ops.instance_norm, (1, 2), 1, True),
    "rms": (ops.rms_norm, (3, 4), 1, False),
    "batch": (lambda x, *, eps: ops.batch_norm(x, jnp.ones(6), jnp.zeros(6), eps=eps), (0, 1, 2), 1, True),
}
EVERY_NORM = pytest.mark.parametrize("name", NORMS)
CENTRED = pytest.mark.parametrize("name", [name for name, (*_, centred) in NORMS.items() if centred])


def exactly(name, x, eps, dy):
    """x̂ and its gradient."""
    _, axes, groups, centred = NORMS[name]
    x, dy = (np.asarray(a, np.float64).reshape(*SHAPE[:3], groups, -1) for a in (x, dy))
    mean = functools.partial(np.mean, axis=axes, keepdims=True)
    x = x - mean(x) if centred else x
    factor = 1 / np.sqrt(mean(x * x) + eps)
    y = x * factor
    dx = factor * (dy - (mean(dy) if centred else 0) - y * mean(y * dy))
    return y.reshape(SHAPE), dx.reshape(SHAPE)


@functools.cache
def program(name):
    def both(x, eps, dy):
        y, vjp = jax.vjp(lambda x: NORMS[name][0](x, eps=eps), x)
        return y, *vjp(dy)

    return jax.jit(both)


def agree(got, wanted, rtol):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@EVERY_NORM
def test_sixty_orders_of_magnitude(rng, name, dtype):
    """One program for all of them, in which eps is traced; with eps = 0 the size does not matter at all."""
    shape, rtol = rng.normal(0.5, 1, size=SHAPE), {jnp.float32: 1e-5, jnp.bfloat16: 2**-7}[dtype]
    dy = jnp.asarray(rng.normal(size=SHAPE), dtype)
    for size in SIZES:
        x = jnp.asarray(shape * size, dtype)
        for eps in (0.0, 1e-5):
            agree(program(name)(x, eps, dy), exactly(name, x, eps, dy), rtol)


@EVERY_NORM
def test_five_hundred_orders_of_magnitude_in_float64(x64, rng, name):
    shape, dy = rng.normal(0.5, 1, size=SHAPE), rng.normal(size=SHAPE)
    for size in (1e-280, 1e-150, 1.0, 1e150, 1e280):
        result = NORMS[name][0](jnp.asarray(shape * size), eps=0.0)
        np.testing.assert_allclose(result, exactly(name, shape, 0.0, dy)[0], rtol=1e-12, atol=1e-13)


@EVERY_NORM
def test_other_devices_compute_the_same_without_a_branch(rng, name, monkeypatch):
    """The program for a GPU, run here: numbers of any size, a constant, and a large mean."""

    def default(*args, cpu, default):
        return default(*args)

    dy = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    monkeypatch.setattr(jax.lax, "platform_dependent", default)
    both = jax.jit(program.__wrapped__(name))
    assert "stablehlo.case" not in both.lower(dy, 0.0, dy).as_text()
    for offset, size in [(0, 1e-30), (0, 1), (0, 1e30), (1e4, 1e-2), (3e25, 1e20), (1000.3, 0)]:
        x = jnp.asarray(offset + size * rng.normal(size=SHAPE), jnp.float32)
        if size == 0 and NORMS[name][3]:
            assert not both(x, 1e-5, dy)[0].any()
        else:
            agree(both(x, 0.0, dy), exactly(name, x, 0.0, dy), 2e-5)


@EVERY_NORM
def test_sizes_that_differ_from_one_mean_to_the_next(rng, name):
    """What is usual beside what is not: each has the digits that it has alone."""
    axes = NORMS[name][1]
    alone = [n for axis, n in enumerate(SHAPE) if axis not in axes]
    size = 10.0 ** rng.uniform(-30, 30, size=[1 if axis in axes or axis == 3 else n for axis, n in enumerate(SHAPE)])
    assert alone or name == "batch"
    x, dy = (
        jnp.asarray(rng.normal(0.5, 1, size=SHAPE) * size, jnp.float32),
        np.asarray(rng.normal(size=SHAPE), np.float32),
    )
    (y, dx), (wanted, slope) = program(name)(x, 0.0, dy), exactly(name, x, 0.0, dy)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx * size, slope * size, rtol=1e-3, atol=1e-4)


@CENTRED
def test_a_constant_is_exactly_zero(name):
    dy = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    for c in (1000.3, -123456.7, 0.1, 1e-3, 3e30, 7e-30, 0.0):
        for eps in (1e-5, 0.0):
            y, dx = program(name)(jnp.full(SHAPE, c, jnp.float32), eps, dy)
            assert not y.any() and jnp.isfinite(dx).all(), (c, eps)


@CENTRED
@pytest.mark.parametrize(("offset", "size"), [(1e4, 1e-2), (-1e6, 1.0), (3e25, 1e20), (1e-20, 1e-24), (1e4, 1.0)])
def test_a_large_mean_costs_no_digits(rng, name, offset, size):
    """Of what float32 has of x: its own rounding is part of x."""
    x = jnp.asarray(offset + size * rng.normal(size=SHAPE), jnp.float32)
    dy = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    agree(program(name)(x, 0.0, dy), exactly(name, x, 0.0, dy), 2e-5)


def test_usual_numbers_are_what_two_passes_make(rng):
    """The same bits, whatever stands beside them."""
    x = jnp.asarray(rng.normal(1, 2, size=SHAPE), jnp.float32)
    mean = x.mean((1, 2), keepdims=True)
    wanted = (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(ops.instance_norm(x), wanted, rtol=1e-6, atol=1e-6)
    spoilt = ops.instance_norm(x.at[0, :, :, 0].multiply(1e30))
    np.testing.assert_array_equal(spoilt[1:], ops.instance_norm(x)[1:])


def test_statistics_of_large_numbers(rng):
    """Of what cannot be squared the mean is finite, and the variance, which no float32 holds, infinite."""
    x = np.asarray(rng.normal(2, 1, size=(50, 3)) * [1, 1e15, 1e30], np.float32)
    mean, var = ops.batch_statistics(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var[:2], exact.var(0)[:2], rtol=1e-5)
    assert np.isposinf(var[2])
    layer = BatchNorm()
    params, state = layer.init(jax.random.key(0), (3,))
    y, after = layer.apply(params, state, jnp.asarray(x), train=True)
    np.testing.assert_allclose(y, (exact - exact.mean(0)) / exact.std(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(after["mean"], 0.1 * exact.mean(0), rtol=1e-5)


def test_statistics_have_their_gradients(x64, rng):
    x, mask = jnp.asarray(rng.normal(size=(5, 2, 3))), jnp.array([True, True, False, True, True])
    check_grads(lambda x: ops.batch_statistics(x, mask), (x,), order=2, modes=("fwd", "rev"), rtol=1e-6)


@EVERY_NORM
def test_the_derivative_by_eps(x64, rng, name):
    x = jnp.asarray(rng.normal(size=SHAPE))
    check_grads(lambda eps: NORMS[name][0](x, eps=eps), (0.3,), order=2, modes=("fwd",), rtol=1e-6)


def test_a_constant_behind_a_mask_is_zero():
    x, mask = jnp.full((5, 2), 1000.3).at[3:].set(0), jnp.arange(5) < 3
    y = jax.jit(lambda x: ops.batch_norm(x, jnp.ones(2), jnp.zeros(2), mask=mask))(x)
    assert not y[:3].any()


def test_several_networks_take_one_decision(rng):
    """Under vmap too the long way is a branch, not computed every time; and each network is what it is alone."""
    x = jnp.asarray(rng.normal(size=(3, 8, 6)) * np.array([1, 1e30, 1e-3])[:, None, None], jnp.float32)
    together = jax.jit(jax.vmap(lambda x: NORMS["batch"][0](x, eps=0.0)))
    text = together.lower(x).as_text()
    assert "stablehlo.case" in text or "stablehlo.if" in text
    exact = np.asarray(x, np.float64)
    wanted = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(together(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", ["layer", "rms"])
def test_batches_that_lie_on_several_devices(rng, name, axis_type):
    mesh = jax.make_mesh((min(2, jax.device_count()),), ("b",), axis_types=(axis_type,))
    x = np.asarray(rng.normal(size=SHAPE) * 1e25, np.float32)
    norm, exact = functools.partial(NORMS[name][0], eps=0.0), exactly(name, x, 0, x)[0]
    with jax.set_mesh(mesh):
        shared = jax.device_put(x, NamedSharding(mesh, PartitionSpec("b")))
        np.testing.assert_allclose(jax.jit(norm)(shared), exact, rtol=1e-4, atol=1e-5)
    sharded = jax.shard_map(norm, mesh=mesh, in_specs=PartitionSpec("b"), out_specs=PartitionSpec("b"))
    np.testing.assert_allclose(jax.jit(sharded)(shared), exact, rtol=1e-4, atol=1e-5)


def test_an_eps_below_0_is_refused_as_an_array_too():
    with pytest.raises(InputError, match=r"^layer_norm: eps=-1\.0 should be a number of at least 0"):
        ops.layer_norm(jnp.ones((2, 3)), eps=jnp.float32(-1))
    with pytest.raises(InputError, match=r"^batch_norm: eps='a' should be a number of at least 0"):
        ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), eps="a")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_local_response_norm_of_numbers_of_any_size(dtype):
    """Value and gradient against float64, over 60 orders of magnitude; and a window of zeros beside large numbers."""
    x = np.random.default_rng(0).normal(size=(4, 12))
    x[1, :6] = 0

    def reference(x):
        square = np.pad(x * x, [(0, 0), (2, 2)])
        base = 2.0 + 1e-4 * sum(square[:, shift : shift + 12] for shift in range(5))
        slope = np.pad(x * base**-1.75, [(0, 0), (2, 2)])
        return x / base**0.75, base**-0.75 - 1.5e-4 * x * sum(slope[:, shift : shift + 12] for shift in range(5))

    both = jax.jit(lambda x: (ops.local_response_norm(x), jax.grad(lambda x: ops.local_response_norm(x).sum())(x)))
    for power in (-30, -10, 0, 3, 12, 19, 20, 25, 30):
        array = jnp.asarray(x * 10.0**power, dtype)
        values = np.asarray(array, np.float64)
        for result, exact in zip(both(array), reference(values), strict=True):
            error = np.abs(np.asarray(result, np.float64) - exact).max() / np.abs(exact).max()
            assert error < {"float32": 1e-5, "bfloat16": 1e-2}[dtype], power
