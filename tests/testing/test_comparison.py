"""Comparing implementations: what is wrong is found and named; what is rounded, or at a kink, is not called wrong."""

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
    return jnp.asarray(rng.normal(size=(2, 7, 6, 3))), jnp.asarray(rng.normal(size=(3, 3, 3, 4)))


def conv(x, kernel):
    return ops.conv(x, kernel, stride=2, padding=1)


def wrong(found):
    return {row.quantity for row in found.rows if not row.ok}


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
    ids=["flipped", "pad side", "a few ulps too many", "1 % of dx", "d kernel upside down", "nan", "no gradient"],
)
def test_a_planted_bug_is_found_where_it_is(arrays, bug, quantities):
    assert wrong(compare(conv, bug, *arrays)) == quantities
    assert wrong(compare(conv, lambda x, k: ops.conv(x, k, stride=2, padding=1, impl="im2col"), *arrays)) == set()


def dx_dk(x, kernel, dy):
    return backward.conv(x, kernel, dy, stride=2, padding=1)[:2]


def test_rounding_is_told_from_less_precise_arithmetic(rng):
    """Products of 11-bit numbers (as TF32 makes them) are no float32 convolution, though close to one."""
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(2, 7, 6, 3), (3, 3, 3, 4)])

    def short(a):
        return jax.lax.reduce_precision(a, exponent_bits=8, mantissa_bits=10)

    found = compare(conv, lambda x, k: conv(short(x), short(k)), x, kernel)
    assert wrong(found) == {"value", "d x", "d kernel"}
    # The reference itself is measured against float64, and is as right as float32 can be.
    assert [row.ok for row in found.rows if row.implementation == "conv"] == [True] * 3
    assert found.dtype == "float32"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_rounding_allows_what_happens_and_little_more(rng, dtype):
    x, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in [(4, 9, 8, 16), (3, 3, 16, 8)])
    found = compare_all(
        {"lax": conv, "explicit": lambda x, k: ops.conv(x, k, stride=2, padding=1, impl="explicit")}, x, kernel
    )
    assert found.ok
    for row in found.rows:
        assert 0 < row.max_abs_error < row.tolerance < 200 * row.max_abs_error, row


def test_rounding_counts_what_cancels(x64):
    """(1 + x) − 1 loses the digits of a small x, whatever its own size."""
    x = jnp.array([1e-10])
    lost = rounding_error_bound(lambda x: (1 + x) - 1, x, dtype=jnp.float64)
    assert 1e-16 < lost < 2e-15
    assert rounding_error_bound(lambda x: x * 3, x, dtype=jnp.float64) < 3e-25
    assert rounding_error_bound(lambda x: jnp.flip(x[:, None]), x, dtype=jnp.float32) == 0


def test_rounding_knows_the_constants_of_a_program_within(x64):
    """A jitted function brings an array of its own."""
    x, weights = jnp.array([1.0, 2.0]), np.array([0.5, 3.0])
    within = rounding_error_bound(jax.jit(lambda x: x * weights), x, dtype=jnp.float32)
    assert within == rounding_error_bound(lambda x, w: x * w, x, jnp.asarray(weights), dtype=jnp.float32) > 0


def test_kinks_are_counted_apart(x64):
    x = jnp.asarray([[-1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])
    found = compare(jax.nn.relu, lambda x: jnp.maximum(x, 0), x)
    assert found.ok and [row.kinks for row in found.rows] == [0, 3]
    tied = jnp.asarray([[1.0, 2.0, 5.0, 5.0], [2.0, 0.0, 1.0, 4.0]])[None, :, :, None]
    found = compare(lambda x: ops.max_pool(x, 2), lambda x: ops.max_pool(x, 2, ties="split"), tied)
    assert found.ok and [row.kinks for row in found.rows] == [0, 4]
    # What is wrong beside a kink is still wrong: the slope of 3 is 1 on both sides.
    bent = with_custom_gradient(jax.nn.relu, lambda x, dy: (jnp.where(x == 3, 1.01, jnp.where(x > 0, 1.0, 0.5)) * dy,))
    assert not compare(jax.nn.relu, bent, jnp.abs(x)).ok


def test_checking_gradients_names_the_worst_entry(x64, rng):
    x = rng.normal(size=(3, 4))

    def off_at_one(x, dy):
        slope = jnp.cos(x)
        return (slope.at[2, 1].multiply(1.001) * dy,)

    check = check_grads(with_custom_gradient(jnp.sin, off_at_one), x, names=["x"])
    [row] = check.rows
    assert not check.ok and row.where in ("[2, 1]", "direction 1", "direction 2")
    assert row.failed == 3 and row.checked == 14  # the entry, and both directions, which it is part of
    alone = check_grads(with_custom_gradient(jnp.sin, off_at_one), x, num_directions=0).rows[0]
    assert alone.where == "[2, 1]" and alone.failed == 1
    np.testing.assert_allclose(alone.gradient / alone.slope, 1.001, rtol=1e-6)
    assert f"{alone.gradient:.9g}" in str(check_grads(with_custom_gradient(jnp.sin, off_at_one), x, num_directions=0))


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
def test_right_gradients_pass_and_wrong_ones_do_not(x64, rng, f):
    x = rng.normal(size=(3, 4))
    assert check_grads(f, x).ok
    off = with_custom_gradient(f, lambda x, dy: ((1 + 1e-4) * jax.vjp(f, x)[1](dy)[0],))
    assert not check_grads(off, x).ok


def test_checking_in_float64_whatever_is_given():
    """float32 arguments are checked in float64, and the setting is put back afterwards."""
    check = check_grads(jnp.sin, np.float32([0.3, 0.7]))
    assert check.ok and abs(check.rows[0].gradient - check.rows[0].slope) < 1e-8
    assert jnp.ones(1).dtype == jnp.float32


def test_kinks_do_not_fail_the_check(x64):
    row = check_grads(jax.nn.relu, jnp.array([0.0, 1.0, -1.0]), num_directions=0).rows[0]
    assert (row.failed, row.kinks, row.checked) == (0, 1, 3)
    # Half of the slope at a kink is a subgradient, not the derivative of anything that failed.
    assert check_grads(lambda x: jnp.maximum(x, 0.5), jnp.array([0.5, 1.0]), num_directions=0).ok


@pytest.mark.parametrize(
    "f",
    [lambda x: jnp.sin(30 * x), lambda x: x**5, lambda x: 1 / x, lambda x: ops.layer_norm(x + 1e3)],
    ids=["steep", "power", "inverse", "cancelling"],
)
def test_a_bend_is_no_kink(x64, rng, f):
    """However curved, or however much is lost to rounding: wrong is wrong in every entry, and right in none."""
    x = rng.uniform(0.3, 1.2, size=(3, 4))
    off = with_custom_gradient(f, lambda x, dy: (1.5 * jax.vjp(f, x)[1](dy)[0],))
    [row] = check_grads(off, x).rows
    assert (row.failed, row.kinks) == (row.checked, 0)
    [row] = check_grads(f, x).rows
    assert (row.failed, row.kinks) == (0, 0)
    assert all(row.kinks == 0 and not row.ok for row in compare(f, off, x).rows if row.quantity == "d x")


@pytest.mark.parametrize("slope", [57.0, -0.5, np.nan])
def test_at_a_kink_not_anything_goes(x64, slope):
    x = jnp.array([0.0, 1.0, -1.0])
    bent = with_custom_gradient(jax.nn.relu, lambda x, dy: (jnp.where(x == 0, slope, jnp.where(x > 0, 1.0, 0.0)) * dy,))
    assert [row.failed for row in check_grads(bent, x, num_directions=0).rows] == [1]
    assert wrong(compare(jax.nn.relu, bent, x)) == {"d x"}


def test_a_norm_that_is_nan_at_zero_is_not_excused(x64):
    x = jnp.array([3.0, -4.0, 0.0, 0.0])[None, :, None]
    assert not check_grads(lambda x: jnp.sqrt((x**2).sum()), jnp.zeros(3)).ok
    assert wrong(compare(lambda x: ops.lp_pool(x, 2), lambda x: jnp.sqrt(x[:, ::2] ** 2 + x[:, 1::2] ** 2), x)) == {
        "d x"
    }


def test_numbers_of_every_size_are_stepped_by_their_own(x64):
    """A step for the largest would leave the domain of the smallest."""
    assert check_grads(jnp.log, jnp.array([1e3, 1e-3])).ok
    assert check_grads(jnp.sqrt, jnp.array([1.0, 1e-7])).ok


def test_a_function_equals_itself_where_it_has_no_values(x64):
    for x in ([-1.0, 1.0], [0.0, 1.0]):
        found = compare(jnp.log, jnp.log, jnp.array(x))
        assert found.ok and json.dumps(found.as_dict(), allow_nan=False)


def test_a_sum_of_one_sign_may_be_off_by_more(rng):
    x = jnp.asarray(rng.uniform(size=20_000), jnp.float32)
    one_by_one = lambda x: jax.lax.scan(lambda c, v: (c + v, None), jnp.zeros((), x.dtype), x)[0]  # noqa: E731
    assert compare(jnp.sum, one_by_one, x).ok


def test_ties_do_not_loosen_the_tolerance(x64, rng):
    """In a flat image all windows tie, also behind a convolution; errors must not decide who wins."""
    kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 2)))
    pooled = lambda x, k: ops.max_pool(ops.conv(x, k), 2)  # noqa: E731
    found = compare(pooled, pooled, jnp.ones((1, 6, 6, 1)), kernel)
    assert all(row.tolerance < 1e-12 for row in found.rows)


def test_times_and_json(arrays):
    found = compare(conv, lambda x, k: conv(x, k), *arrays, repeats=1)
    assert set(found.seconds) == {"conv", "<lambda>"} and all(
        t.forward > 0 and t.forward_backward > 0 for t in found.seconds.values()
    )
    told = json.loads(json.dumps(found.as_dict()))
    assert told["ok"] and told["rows"][0]["quantity"] == "value" and told["seconds"]["conv"]["forward"] > 0
    assert "medians of compiled calls" in str(found) and "│ d kernel │" in str(found)


def test_what_is_not_finite_can_be_told(x64):
    """Where the reference is nothing but zeros, and where the other has a NaN."""
    x = jnp.zeros(3)
    found = compare(lambda x: 0 * x, lambda x: (x + 1e-3).at[0].set(jnp.nan), x)
    assert wrong(found) == {"value", "d x"} and found.rows[0].max_rel_error == np.inf
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["rows"][0]["max_rel_error"] is None
    assert "DIFFERS" in str(found)
