"""Norms of inputs of any magnitude, and of constants, compared with float64 in value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from jaxconv import BatchNorm, InputError, ops

SHAPE = (4, 3, 5, 6)
MAGNITUDES = [10.0**power for power in range(-30, 31, 5)]
NORMS = {  # op, axes of the mean after the last axis is split into groups, number of groups, centered
    "layer": (ops.layer_norm, (3, 4), 1, True),
    "group": (functools.partial(ops.group_norm, num_groups=2), (1, 2, 4), 2, True),
    "instance": (ops.instance_norm, (1, 2), 1, True),
    "rms": (ops.rms_norm, (3, 4), 1, False),
    "batch": (lambda x, *, eps: ops.batch_norm(x, jnp.ones(6), jnp.zeros(6), eps=eps), (0, 1, 2), 1, True),
}
EVERY_NORM = pytest.mark.parametrize("name", NORMS)
CENTERED = pytest.mark.parametrize("name", [name for name, (*_, centered) in NORMS.items() if centered])


def reference(name, x, eps, dy):
    """Compute x̂ and its gradient in float64."""
    _, axes, groups, centered = NORMS[name]
    x, dy = (np.asarray(a, np.float64).reshape(*SHAPE[:3], groups, -1) for a in (x, dy))
    mean = functools.partial(np.mean, axis=axes, keepdims=True)
    x = x - mean(x) if centered else x
    factor = 1 / np.sqrt(mean(x * x) + eps)
    y = x * factor
    dx = factor * (dy - (mean(dy) if centered else 0) - y * mean(y * dy))
    return y.reshape(SHAPE), dx.reshape(SHAPE)


@functools.cache
def value_and_gradient(name):
    def op_and_vjp(x, eps, dy):
        y, vjp = jax.vjp(lambda x: NORMS[name][0](x, eps=eps), x)
        return y, *vjp(dy)

    return jax.jit(op_and_vjp)


def assert_agree(actual, expected, rtol):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=rtol, atol=rtol * np.abs(b).max())


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@EVERY_NORM
def test_norms_are_accurate_over_60_orders_of_magnitude(rng, name, dtype):
    """One compiled function with traced eps for all magnitudes; with eps = 0 the result is scale invariant."""
    shape, rtol = rng.normal(0.5, 1, size=SHAPE), {jnp.float32: 1e-5, jnp.bfloat16: 2**-7}[dtype]
    dy = jnp.asarray(rng.normal(size=SHAPE), dtype)
    for magnitude in MAGNITUDES:
        x = jnp.asarray(shape * magnitude, dtype)
        for eps in (0.0, 1e-5):
            assert_agree(value_and_gradient(name)(x, eps, dy), reference(name, x, eps, dy), rtol)


@EVERY_NORM
def test_norms_of_float64_over_500_orders_of_magnitude(x64, rng, name):
    shape, dy = rng.normal(0.5, 1, size=SHAPE), rng.normal(size=SHAPE)
    for magnitude in (1e-280, 1e-150, 1.0, 1e150, 1e280):
        result = NORMS[name][0](jnp.asarray(shape * magnitude), eps=0.0)
        np.testing.assert_allclose(result, reference(name, shape, 0.0, dy)[0], rtol=1e-12, atol=1e-13)


@EVERY_NORM
def test_norms_without_branch_match_reference(rng, name, monkeypatch):
    """The variant for GPUs, run on this machine: all magnitudes, a constant, and a large mean."""

    def default(*args, cpu, default):
        return default(*args)

    dy = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    monkeypatch.setattr(jax.lax, "platform_dependent", default)
    without_branch = jax.jit(value_and_gradient.__wrapped__(name))
    assert "stablehlo.case" not in without_branch.lower(dy, 0.0, dy).as_text()
    for offset, magnitude in [(0, 1e-30), (0, 1), (0, 1e30), (1e4, 1e-2), (3e25, 1e20), (1000.3, 0)]:
        x = jnp.asarray(offset + magnitude * rng.normal(size=SHAPE), jnp.float32)
        if magnitude == 0 and NORMS[name][3]:
            assert not without_branch(x, 1e-5, dy)[0].any()
        else:
            assert_agree(without_branch(x, 0.0, dy), reference(name, x, 0.0, dy), 2e-5)


@EVERY_NORM
def test_norms_of_mixed_magnitudes_are_accurate(rng, name):
    """Means of very different magnitudes in one array are as accurate as alone."""
    axes = NORMS[name][1]
    means_shape = [n for axis, n in enumerate(SHAPE) if axis not in axes]
    magnitude = 10.0 ** rng.uniform(
        -30, 30, size=[1 if axis in axes or axis == 3 else n for axis, n in enumerate(SHAPE)]
    )
    assert means_shape or name == "batch"
    x, dy = (
        jnp.asarray(rng.normal(0.5, 1, size=SHAPE) * magnitude, jnp.float32),
        np.asarray(rng.normal(size=SHAPE), np.float32),
    )
    (y, dx), (expected, expected_dx) = value_and_gradient(name)(x, 0.0, dy), reference(name, x, 0.0, dy)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dx * magnitude, expected_dx * magnitude, rtol=1e-3, atol=1e-4)


@CENTERED
def test_norm_of_constant_is_exactly_zero(name):
    dy = jnp.asarray(np.random.default_rng(0).normal(size=SHAPE), jnp.float32)
    for c in (1000.3, -123456.7, 0.1, 1e-3, 3e30, 7e-30, 0.0):
        for eps in (1e-5, 0.0):
            y, dx = value_and_gradient(name)(jnp.full(SHAPE, c, jnp.float32), eps, dy)
            assert not y.any() and jnp.isfinite(dx).all(), (c, eps)


@CENTERED
@pytest.mark.parametrize(("offset", "magnitude"), [(1e4, 1e-2), (-1e6, 1.0), (3e25, 1e20), (1e-20, 1e-24), (1e4, 1.0)])
def test_norms_are_accurate_for_large_mean(rng, name, offset, magnitude):
    """Compared with float64 of the float32 x, which excludes the rounding of x itself."""
    x = jnp.asarray(offset + magnitude * rng.normal(size=SHAPE), jnp.float32)
    dy = jnp.asarray(rng.normal(size=SHAPE), jnp.float32)
    assert_agree(value_and_gradient(name)(x, 0.0, dy), reference(name, x, 0.0, dy), 2e-5)


def test_norm_of_ordinary_values_matches_two_passes(rng):
    """An outlier elsewhere does not change a bit of the result."""
    x = jnp.asarray(rng.normal(1, 2, size=SHAPE), jnp.float32)
    mean = x.mean((1, 2), keepdims=True)
    expected = (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean((1, 2), keepdims=True) + 1e-5)
    np.testing.assert_allclose(ops.instance_norm(x), expected, rtol=1e-6, atol=1e-6)
    with_outlier = ops.instance_norm(x.at[0, :, :, 0].multiply(1e30))
    np.testing.assert_array_equal(with_outlier[1:], ops.instance_norm(x)[1:])


def test_batch_statistics_of_large_values(rng):
    """For values whose squares overflow, the mean is finite and the variance infinite."""
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


def test_batch_statistics_gradients_match_finite_differences(x64, rng):
    x, mask = jnp.asarray(rng.normal(size=(5, 2, 3))), jnp.array([True, True, False, True, True])
    check_grads(lambda x: ops.batch_statistics(x, mask), (x,), order=2, modes=("fwd", "rev"), rtol=1e-6)


@EVERY_NORM
def test_norm_derivative_in_eps_matches_finite_differences(x64, rng, name):
    x = jnp.asarray(rng.normal(size=SHAPE))
    check_grads(lambda eps: NORMS[name][0](x, eps=eps), (0.3,), order=2, modes=("fwd",), rtol=1e-6)


def test_masked_batch_norm_of_constant_is_zero():
    x, mask = jnp.full((5, 2), 1000.3).at[3:].set(0), jnp.arange(5) < 3
    y = jax.jit(lambda x: ops.batch_norm(x, jnp.ones(2), jnp.zeros(2), mask=mask))(x)
    assert not y[:3].any()


def test_vmapped_batch_norm_keeps_single_branch(rng):
    """Under vmap the correction stays a branch, and each network gets the result that it has alone."""
    x = jnp.asarray(rng.normal(size=(3, 8, 6)) * np.array([1, 1e30, 1e-3])[:, None, None], jnp.float32)
    vmapped = jax.jit(jax.vmap(lambda x: NORMS["batch"][0](x, eps=0.0)))
    text = vmapped.lower(x).as_text()
    assert "stablehlo.case" in text or "stablehlo.if" in text
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(vmapped(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("name", ["layer", "rms"])
def test_norms_of_sharded_batches_match_reference(rng, name, axis_type):
    mesh = jax.make_mesh((min(2, jax.device_count()),), ("b",), axis_types=(axis_type,))
    x = np.asarray(rng.normal(size=SHAPE) * 1e25, np.float32)
    norm, exact = functools.partial(NORMS[name][0], eps=0.0), reference(name, x, 0, x)[0]
    with jax.set_mesh(mesh):
        sharded_x = jax.device_put(x, NamedSharding(mesh, PartitionSpec("b")))
        np.testing.assert_allclose(jax.jit(norm)(sharded_x), exact, rtol=1e-4, atol=1e-5)
    sharded = jax.shard_map(norm, mesh=mesh, in_specs=PartitionSpec("b"), out_specs=PartitionSpec("b"))
    np.testing.assert_allclose(jax.jit(sharded)(sharded_x), exact, rtol=1e-4, atol=1e-5)


def test_negative_eps_array_raises():
    with pytest.raises(InputError, match=r"^layer_norm: eps=-1\.0 should be a number of at least 0"):
        ops.layer_norm(jnp.ones((2, 3)), eps=jnp.float32(-1))
    with pytest.raises(InputError, match=r"^batch_norm: eps='a' should be a number of at least 0"):
        ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), eps="a")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_local_response_norm_over_60_orders_of_magnitude(dtype):
    """Value and gradient match float64 over 60 orders of magnitude, also for zeros next to large values."""
    x = np.random.default_rng(0).normal(size=(4, 12))
    x[1, :6] = 0

    def reference(x):
        square = np.pad(x * x, [(0, 0), (2, 2)])
        base = 2.0 + 1e-4 * sum(square[:, shift : shift + 12] for shift in range(5))
        slope = np.pad(x * base**-1.75, [(0, 0), (2, 2)])
        return x / base**0.75, base**-0.75 - 1.5e-4 * x * sum(slope[:, shift : shift + 12] for shift in range(5))

    value_and_gradient = jax.jit(
        lambda x: (ops.local_response_norm(x), jax.grad(lambda x: ops.local_response_norm(x).sum())(x))
    )
    for power in (-30, -10, 0, 3, 12, 19, 20, 25, 30):
        array = jnp.asarray(x * 10.0**power, dtype)
        values = np.asarray(array, np.float64)
        for result, exact in zip(value_and_gradient(array), reference(values), strict=True):
            error = np.abs(np.asarray(result, np.float64) - exact).max() / np.abs(exact).max()
            assert error < {"float32": 1e-5, "bfloat16": 1e-2}[dtype], power
