"""Comparisons and gradient checks: errors are reported; rounding and kinks are not."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import ops
from jaxconv.ops import backward
from jaxconv.testing import check_grads, compare, compare_all, rounding_error_bound, with_custom_gradient


@pytest.fixture
def arrays(x64, rng):
    """Return x and kernel of a convolution."""
    return jnp.asarray(rng.normal(size=(2, 7, 6, 3))), jnp.asarray(rng.normal(size=(3, 3, 3, 4)))


def conv(x, kernel):
    return ops.conv(x, kernel, stride=2, padding=1)


def failing(comparison):
    """Return the quantities that exceed the tolerance."""
    return {row.quantity for row in comparison.rows if not row.ok}


@pytest.mark.parametrize(
    ("bug", "quantities"),
    [
        (lambda x, k: conv(x, jnp.flip(k, (0, 1))), {"value", "d x", "d kernel"}),
        (lambda x, k: ops.conv(x, k, stride=2, padding=((1, 1), (2, 0))), {"value", "d x", "d kernel"}),
        (lambda x, k: conv(x, k) * (1 + 1e-12), {"value", "d x", "d kernel"}),
        (with_custom_gradient(conv, lambda x, k, dy: (0.99 * dx_dk(x, k, dy)[0], dx_dk(x, k, dy)[1])), {"d x"}),
        (
            with_custom_gradient(conv, lambda x, k, dy: (dx_dk(x, k, dy)[0], jnp.flip(dx_dk(x, k, dy)[1], 0))),
            {"d kernel"},
        ),
        (lambda x, k: conv(x, k).at[0, 0, 0, 0].set(jnp.nan), {"value", "d x", "d kernel"}),
        (lambda x, k: conv(x, jax.lax.stop_gradient(k)), {"d kernel"}),
    ],
    ids=["flipped", "pad side", "a few ulps", "1 % of dx", "flipped d kernel", "nan", "no gradient"],
)
def test_compare_planted_bug_fails_its_quantities(arrays, bug, quantities):
    assert failing(compare(conv, bug, *arrays)) == quantities
    assert failing(compare(conv, lambda x, k: ops.conv(x, k, stride=2, padding=1, impl="im2col"), *arrays)) == set()


def dx_dk(x, kernel, dy):
    return backward.conv(x, kernel, dy, stride=2, padding=1)[:2]


def test_compare_reduced_precision_fails(rng):
    """A convolution with products of 11-bit numbers, as in TF32, exceeds the tolerance of float32."""
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(2, 7, 6, 3), (3, 3, 3, 4)])

    def truncate(a):
        return jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=10)

    comparison = compare(conv, lambda x, k: conv(truncate(x), truncate(k)), x, kernel)
    assert failing(comparison) == {"value", "d x", "d kernel"}
    # The float32 reference is compared with float64 and is within the tolerance.
    assert [row.ok for row in comparison.rows if row.implementation == "conv"] == [True] * 3
    assert comparison.dtype == "float32"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_tolerance_is_close_to_the_actual_error(rng, dtype):
    x, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in [(4, 9, 8, 16), (3, 3, 16, 8)])
    comparison = compare_all(
        {"lax": conv, "explicit": lambda x, k: ops.conv(x, k, stride=2, padding=1, impl="explicit")}, x, kernel
    )
    assert comparison.ok
    for row in comparison.rows:
        assert 0 < row.max_abs_error < row.tolerance < 200 * row.max_abs_error, row


def test_rounding_bound_includes_cancellation(x64):
    """(1 + x) − 1 loses the digits of a small x."""
    x = jnp.array([1e-10])
    bound = rounding_error_bound(lambda x: (1 + x) - 1, x, dtype=jnp.float64)
    assert 1e-16 < bound < 2e-15
    assert rounding_error_bound(lambda x: x * 3, x, dtype=jnp.float64) < 3e-25
    assert rounding_error_bound(lambda x: jnp.flip(x[:, None]), x, dtype=jnp.float32) == 0


def test_rounding_bound_of_jitted_function_with_constants(x64):
    """A jitted function with a constant array has the bound of the function with an array argument."""
    x, weights = jnp.array([1.0, 2.0]), np.array([0.5, 3.0])
    bound = rounding_error_bound(jax.jit(lambda x: x * weights), x, dtype=jnp.float32)
    assert bound == rounding_error_bound(lambda x, w: x * w, x, jnp.asarray(weights), dtype=jnp.float32) > 0


def test_compare_counts_kinks_separately(x64):
    x = jnp.asarray([[-1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    comparison = compare(jax.nn.relu, lambda x: jnp.maximum(x, 0), x)
    assert comparison.ok and [row.kinks for row in comparison.rows] == [0, 3]
    tied = jnp.asarray([[1.0, 2.0, 5.0, 5.0], [2.0, 0.0, 1.0, 4.0]])[None, :, :, None]
    comparison = compare(lambda x: ops.max_pool(x, 2), lambda x: ops.max_pool(x, 2, ties="split"), tied)
    assert comparison.ok and [row.kinks for row in comparison.rows] == [0, 4]
    # A wrong gradient elsewhere still fails: the slope at 3 is 1 on both sides.
    wrong_at_3 = with_custom_gradient(
        jax.nn.relu, lambda x, dy: (jnp.where(x == 3, 1.01, jnp.where(x > 0, 1.0, 0.5)) * dy,)
    )
    assert not compare(jax.nn.relu, wrong_at_3, jnp.abs(x)).ok


def test_check_grads_names_the_worst_entry(x64, rng):
    x = rng.normal(size=(3, 4))

    def wrong_at_one_entry(x, dy):
        slope = jnp.cos(x)
        return (slope.at[2, 1].multiply(1.001) * dy,)

    function = with_custom_gradient(jnp.sin, wrong_at_one_entry)
    check = check_grads(function, x, names=["x"])
    [row] = check.rows
    assert not check.ok and row.where in ("[2, 1]", "direction 1", "direction 2")
    assert row.failed == 3 and row.checked == 14  # the entry, and both directions, which involve it
    check = check_grads(function, x, num_directions=0)
    [row] = check.rows
    assert row.where == "[2, 1]" and row.failed == 1
    np.testing.assert_allclose(row.gradient / row.slope, 1.001, rtol=1e-6)
    assert f"{row.gradient:.9g}" in str(check)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.tanh(x) @ x.T,
        lambda x: jnp.exp(3 * x),
        lambda x: (x**4).sum(axis=1),
        lambda x: ops.softmax_cross_entropy(x, jnp.array([0, 2, 1])),
        lambda x: 1e-6 * jnp.sin(x),
        lambda x: 1e6 + jnp.sin(x),
    ],
)
def test_check_grads_rejects_wrong_gradients(x64, rng, f):
    x = rng.normal(size=(3, 4))
    assert check_grads(f, x).ok
    wrong = with_custom_gradient(f, lambda x, dy: ((1 + 1e-4) * jax.vjp(f, x)[1](dy)[0],))
    assert not check_grads(wrong, x).ok


def test_check_grads_runs_in_float64():
    """float32 arguments are checked in float64, and the x64 setting is restored."""
    check = check_grads(jnp.sin, np.float32([0.3, 0.7]))
    assert check.ok and abs(check.rows[0].gradient - check.rows[0].slope) < 1e-8
    assert jnp.ones(1).dtype == jnp.float32


def test_check_grads_accepts_kinks(x64):
    row = check_grads(jax.nn.relu, jnp.array([0.0, 1.0, -1.0]), num_directions=0).rows[0]
    assert (row.failed, row.kinks, row.checked) == (0, 1, 3)
    # At the kink, half of the slope is a valid subgradient.
    assert check_grads(lambda x: jnp.maximum(x, 0.5), jnp.array([0.5, 1.0]), num_directions=0).ok


@pytest.mark.parametrize(
    "f",
    [lambda x: jnp.sin(30 * x), lambda x: x**5, lambda x: 1 / x, lambda x: ops.layer_norm(x + 1e3)],
    ids=["steep", "power", "inverse", "cancellation"],
)
def test_curvature_is_not_a_kink(x64, rng, f):
    """With curvature and cancellation, a wrong gradient fails in all entries and a right one in none."""
    x = rng.uniform(0.3, 1.2, size=(3, 4))
    wrong = with_custom_gradient(f, lambda x, dy: (1.5 * jax.vjp(f, x)[1](dy)[0],))
    [row] = check_grads(wrong, x).rows
    assert (row.failed, row.kinks) == (row.checked, 0)
    [row] = check_grads(f, x).rows
    assert (row.failed, row.kinks) == (0, 0)
    assert all(row.kinks == 0 and not row.ok for row in compare(f, wrong, x).rows if row.quantity == "d x")


@pytest.mark.parametrize("slope", [57.0, -0.5, np.nan])
def test_invalid_subgradient_at_a_kink_fails(x64, slope):
    x = jnp.array([0.0, 1.0, -1.0])
    wrong = with_custom_gradient(
        jax.nn.relu, lambda x, dy: (jnp.where(x == 0, slope, jnp.where(x > 0, 1.0, 0.0)) * dy,)
    )
    assert [row.failed for row in check_grads(wrong, x, num_directions=0).rows] == [1]
    assert failing(compare(jax.nn.relu, wrong, x)) == {"d x"}


def test_nan_gradient_of_a_norm_at_zero_fails(x64):
    x = jnp.array([3.0, -4.0, 0.0, 0.0])[None, :, None]
    assert not check_grads(lambda x: jnp.sqrt((x**2).sum()), jnp.zeros(3)).ok
    assert failing(compare(lambda x: ops.lp_pool(x, 2), lambda x: jnp.sqrt(x[:, ::2] ** 2 + x[:, 1::2] ** 2), x)) == {
        "d x"
    }


def test_check_grads_adapts_steps_to_small_entries(x64):
    """Steps are small enough for the smallest entry of an array."""
    assert check_grads(jnp.log, jnp.array([1e3, 1e-3])).ok
    assert check_grads(jnp.sqrt, jnp.array([1.0, 1e-7])).ok


def test_compare_equal_nans_and_infinities_pass(x64):
    for x in ([-1.0, 1.0], [0.0, 1.0]):
        comparison = compare(jnp.log, jnp.log, jnp.array(x))
        assert comparison.ok and json.dumps(comparison.as_dict(), allow_nan=False)


def test_tolerance_covers_sums_of_one_sign(rng):
    x = jnp.asarray(rng.uniform(size=20_000), jnp.float32)
    sequential_sum = lambda x: jax.lax.scan(lambda c, v: (c + v, None), jnp.zeros((), x.dtype), x)[0]  # noqa: E731
    assert compare(jnp.sum, sequential_sum, x).ok


def test_ties_do_not_increase_the_tolerance(x64, rng):
    """In a constant image all windows tie, also after a convolution; errors do not change the argmax."""
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 2)))
    pooled = lambda x, k: ops.max_pool(ops.conv(x, k), 2)  # noqa: E731
    comparison = compare(pooled, pooled, jnp.ones((1, 6, 6, 1)), kernel)
    assert all(row.tolerance < 1e-12 for row in comparison.rows)


def test_comparison_has_times_and_json(arrays):
    comparison = compare(conv, lambda x, k: conv(x, k), *arrays, repeats=1)
    assert set(comparison.seconds) == {"conv", "<lambda>"} and all(
        t.forward > 0 and t.forward_backward > 0 for t in comparison.seconds.values()
    )
    content = json.loads(json.dumps(comparison.as_dict()))
    assert content["ok"] and content["rows"][0]["quantity"] == "value" and content["seconds"]["conv"]["forward"] > 0
    assert "medians of compiled calls" in str(comparison) and "│ d kernel │" in str(comparison)


def test_infinite_errors_are_valid_json(x64):
    """The relative error is infinite for a reference of zeros, and None in JSON."""
    x = jnp.zeros(3)
    comparison = compare(lambda x: 0 * x, lambda x: (x + 1e-3).at[0].set(jnp.nan), x)
    assert failing(comparison) == {"value", "d x"} and comparison.rows[0].max_rel_error == np.inf
    assert json.loads(json.dumps(comparison.as_dict(), allow_nan=False))["rows"][0]["max_rel_error"] is None
    assert "DIFFERS" in str(comparison)
