"""Normalisation, dense layers, dropout, activations and the loss, each against numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import InputError, ops


def test_batch_norm_is_its_formula(x64, rng):
    x, scale, bias = rng.normal(3, 2, size=(4, 3, 5, 2)), rng.normal(size=2), rng.normal(size=2)
    wanted = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias)), eps=1e-3), wanted, rtol=1e-12)
    mean, var = rng.normal(size=2), rng.uniform(1, 2, size=2)
    wanted = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var))), wanted, rtol=1e-12)
    check_grads(ops.batch_norm, tuple(map(jnp.asarray, (x, scale, bias))), order=1, modes=("rev",), rtol=1e-6)


def test_variance_survives_a_large_mean(rng):
    x = (1e4 + rng.normal(size=(1000, 1))).astype(np.float32)
    np.testing.assert_allclose(ops.batch_statistics(x)[1], x.astype(np.float64).var(0), rtol=1e-3)
    y = ops.batch_norm(x, jnp.ones(1), jnp.zeros(1))
    wanted = (x.astype(np.float64) - x.astype(np.float64).mean()) / x.astype(np.float64).std()
    np.testing.assert_allclose(y, wanted, atol=2e-3)


def test_masked_statistics_are_those_of_the_rest(x64, rng):
    x = rng.normal(size=(5, 3, 3, 2))
    got = ops.batch_statistics(jnp.asarray(x), jnp.asarray([True, False, True, True, False]))
    kept = x[[0, 2, 3]]
    np.testing.assert_allclose(got, (kept.mean((0, 1, 2)), kept.var((0, 1, 2))), rtol=1e-12)


def test_bfloat16_is_normalised_in_float32(rng):
    x = jnp.asarray(100 + rng.normal(size=(64, 2)), jnp.bfloat16)
    y = ops.batch_norm(x, jnp.ones(2), jnp.zeros(2))
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), (exact - exact.mean(0)) / exact.std(0), atol=2e-2)


def test_dense_and_flatten(x64, rng):
    x, kernel, bias = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    np.testing.assert_allclose(ops.dense(*map(jnp.asarray, (x, kernel, bias))), x @ kernel + bias, rtol=1e-12)
    image = np.arange(24).reshape(1, 2, 4, 3)
    assert ops.flatten(image)[0, (1 * 4 + 2) * 3 + 1] == image[0, 1, 2, 1]


def test_dropout_keeps_the_mean_and_its_key():
    x, key = jnp.ones(100_000), jax.random.key(3)
    y = ops.dropout(x, key, 0.3)
    assert set(np.unique(y).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}
    assert abs(float(jnp.mean(y == 0)) - 0.3) < 0.01  # 7 standard deviations
    np.testing.assert_array_equal(y, ops.dropout(x, key, 0.3))
    np.testing.assert_array_equal(ops.dropout(x, key, 0), x)


def test_derivatives_at_the_kinks():
    def at(f, x):
        return float(jax.grad(f)(x))

    assert at(ops.relu, 0.0) == 0 and at(ops.relu, 1.0) == 1
    assert at(ops.relu6, 0.0) == 0 and at(ops.relu6, 6.0) == 0
    assert at(ops.hard_tanh, -1.0) == 1 and at(ops.hard_tanh, 1.0) == 1
    assert at(ops.leaky_relu, 0.0) == 1 and at(ops.elu, 0.0) == 1
    assert at(ops.sigmoid, 0.0) == 0.25 and at(ops.tanh, 0.0) == 1


def test_cross_entropy_is_its_formula_and_stays_finite(x64, rng):
    logits, label = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    wanted = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), label]
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, label), wanted, rtol=1e-12)
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, np.eye(4)[label]), wanted, rtol=1e-12)
    loss, slope = jax.value_and_grad(lambda z: ops.softmax_cross_entropy(z, jnp.array([0])).sum())(
        jnp.array([[-200.0, 200.0]])
    )
    assert loss == 400 and slope.tolist() == [[-1, 1]]


def test_a_network_that_says_nan_is_never_right():
    logits = jnp.array([[np.nan, np.nan], [1.0, 0.0], [0.0, np.nan]])
    assert ops.correct(logits, jnp.array([0, 0, 1])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.batch_norm(jnp.ones((2, 1), jnp.uint8), *jnp.ones((4, 1))),
            r"batch_norm: x is uint8; convert it first",
        ),
        (
            lambda: ops.batch_statistics(jnp.ones((3, 2)), jnp.array([True])),
            r"batch_statistics: mask \(1,\) should be \(3,\)",
        ),
        (
            lambda: ops.softmax_cross_entropy(jnp.ones((2, 3), jnp.int32), jnp.ones(2, jnp.int32)),
            r"softmax_cross_entropy: logits is int32; convert it first",
        ),
        (lambda: ops.dense(jnp.ones((1, 2, 2, 1)), jnp.ones((4, 3))), r"dense: x .* should be \(N, 4\): put flatten"),
        (
            lambda: ops.dense(jnp.ones((1, 5)), jnp.ones((4, 3))),
            r"dense: x has 5 values an example but kernel \(4, 3\)",
        ),
        (lambda: ops.dense(jnp.ones((1, 4)), jnp.ones(4)), r"dense: kernel \(4,\) should be \(inputs, outputs\)"),
        (lambda: ops.flatten(jnp.ones(3)), r"flatten: x \(3,\) should be \(N, \.\.\.\)"),
        (lambda: ops.dropout(jnp.ones(3), None, 0.5), r"dropout: needs a key in training"),
        (lambda: ops.dropout(jnp.ones(3), jax.random.key(0), 1.0), r"dropout: rate=1\.0 is the fraction dropped"),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(2), jnp.ones(3)),
            r"batch_norm: scale \(2,\) should be \(3,\)",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3)),
            r"batch_norm: give both mean and var, or neither",
        ),
        (
            lambda: ops.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones(3, jnp.int32)),
            r"softmax_cross_entropy: label int32\(3,\) should be class numbers, int\(2,\)",
        ),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
