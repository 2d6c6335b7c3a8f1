"""Dense layers, dropout, activations and the loss, compared with numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, ops


def test_dense_and_flatten_match_numpy(x64, rng):
    x, kernel, bias = rng.normal(size=(3, 4)), rng.normal(size=(4, 2)), rng.normal(size=2)
    np.testing.assert_allclose(ops.dense(*map(jnp.asarray, (x, kernel, bias))), x @ kernel + bias, rtol=1e-12)
    image = np.arange(24).reshape(1, 2, 4, 3)
    assert ops.flatten(image)[0, (1 * 4 + 2) * 3 + 1] == image[0, 1, 2, 1]


def test_dropout_keeps_mean_and_depends_on_key():
    x, key = jnp.ones(100_000), jax.random.key(3)
    y = ops.dropout(x, key, 0.3)
    assert set(np.unique(y).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}
    assert abs(float(jnp.mean(y == 0)) - 0.3) < 0.01  # 7 standard deviations
    np.testing.assert_array_equal(y, ops.dropout(x, key, 0.3))
    np.testing.assert_array_equal(ops.dropout(x, key, 0), x)


def test_spatial_dropout_drops_channels_per_example():
    x, key = np.random.default_rng(4).uniform(1, 2, (400, 3, 2, 50)).astype(np.float32), jax.random.key(3)
    y = np.asarray(ops.spatial_dropout(x, key, 0.3))
    retained = y[:, 0, 0] != 0
    np.testing.assert_allclose(y, x / 0.7 * retained[:, None, None], rtol=1e-6)
    assert abs(float(retained.mean()) - 0.7) < 0.02  # 6 standard deviations
    for axis in (0, 1):  # neither the same channel of all examples, nor all channels of one example
        assert retained.any(axis).all() and not retained.all(axis).any()
    np.testing.assert_array_equal(y, ops.spatial_dropout(x, key, 0.3))
    np.testing.assert_array_equal(ops.spatial_dropout(x, key, 0.0), x)
    assert ops.spatial_dropout(jnp.ones((1, 2, 3), jnp.bfloat16), key, 0.3).dtype == jnp.bfloat16


def test_dropped_entries_get_no_gradient():
    x, key = jnp.ones((2, 3, 2, 8)), jax.random.key(0)
    for op in (ops.dropout, ops.spatial_dropout):
        (_, y), gradient = jax.jit(
            jax.value_and_grad(lambda x, op=op: (op(x, key, 0.5).sum(), op(x, key, 0.5)), has_aux=True)
        )(x)
        np.testing.assert_array_equal(gradient, np.where(y == 0, 0, 2))


def test_activation_derivatives_at_kinks():
    def slope(f, x):
        return float(jax.grad(f)(x))

    assert slope(ops.relu, 0.0) == 0 and slope(ops.relu, 1.0) == 1
    assert slope(ops.relu6, 0.0) == 0 and slope(ops.relu6, 6.0) == 0
    assert slope(ops.hard_tanh, -1.0) == 1 and slope(ops.hard_tanh, 1.0) == 1
    assert slope(ops.leaky_relu, 0.0) == 1 and slope(ops.elu, 0.0) == 1
    assert slope(ops.sigmoid, 0.0) == 0.25 and slope(ops.tanh, 0.0) == 1
    for alpha in (0.5, 1.0, 3.0):
        assert slope(lambda x, alpha=alpha: ops.elu(x, alpha), 0.0) == alpha  # on the left; on the right it is 1
        assert slope(lambda x, alpha=alpha: ops.celu(x, alpha), 0.0) == 1
    assert slope(ops.selu, 0.0) == pytest.approx(1.0507010 * 1.6732632)
    assert slope(ops.selu, 1e-6) == pytest.approx(1.0507010)
    assert slope(ops.hard_sigmoid, -3.0) == 0 and slope(ops.hard_sigmoid, 3.0) == 0
    assert slope(ops.hard_silu, -3.0) == 0 and slope(ops.hard_silu, 3.0) == 1
    assert slope(ops.soft_sign, 0.0) == 1 and slope(ops.mish, 0.0) == pytest.approx(0.6)
    for smooth in (ops.log_sigmoid, ops.softplus, ops.squareplus, ops.silu, ops.gelu):
        assert slope(smooth, 0.0) == 0.5
    assert np.isnan(slope(lambda x: ops.squareplus(x, 0.0), 0.0))
    assert ops.swish is ops.silu and ops.hard_swish is ops.hard_silu


def test_glu_gates_one_half_of_channels(rng):
    x = jnp.asarray(rng.normal(size=(2, 3, 6)), jnp.float32)
    np.testing.assert_allclose(ops.glu(x), x[..., :3] * ops.sigmoid(x[..., 3:]), rtol=1e-6)


def test_cross_entropy_matches_formula_and_is_finite(x64, rng):
    logits, label = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), label]
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, label), expected, rtol=1e-12)
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, np.eye(4)[label]), expected, rtol=1e-12)
    loss, gradient = jax.value_and_grad(lambda z: ops.softmax_cross_entropy(z, jnp.array([0])).sum())(
        jnp.array([[-200.0, 200.0]])
    )
    assert loss == 400 and gradient.tolist() == [[-1, 1]]


@pytest.mark.parametrize("label", [-1, 3])
def test_cross_entropy_of_traced_invalid_label_is_nan(label):
    """The value of a traced label is unknown, and −1 must not index the last class."""
    logits, dy = jnp.array([[1.0, 2, 3], [4, 5, 7]]), jnp.ones(2)
    loss = jax.jit(ops.softmax_cross_entropy)(logits, jnp.array([label, 2]))
    assert np.isnan(loss[0]) and loss[1] > 0
    by_autodiff = jax.jit(jax.grad(lambda z, label: ops.softmax_cross_entropy(z, label).sum()))
    by_hand = jax.jit(ops.backward.softmax_cross_entropy)
    for gradient in (by_autodiff(logits, jnp.array([label, 2])), by_hand(logits, jnp.array([label, 2]), dy)):
        assert not gradient[0].any() and gradient[1].any()


def test_is_correct_of_nan_logits_is_false():
    logits = jnp.array([[np.nan, np.nan], [1.0, 0.0], [0.0, np.nan]])
    assert ops.is_correct(logits, jnp.array([0, 0, 1])).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.softmax_cross_entropy(jnp.ones((2, 3), jnp.int32), jnp.ones(2, jnp.int32)),
            r"softmax_cross_entropy: logits is int32; convert it first",
        ),
        (lambda: ops.dense(jnp.ones((1, 2, 2, 1)), jnp.ones((4, 3))), r"dense: x .* should be \(N, 4\): put flatten"),
        (
            lambda: ops.dense(jnp.ones((1, 5)), jnp.ones((4, 3))),
            r"dense: x has 5 values per example but kernel \(4, 3\)",
        ),
        (lambda: ops.dense(jnp.ones((1, 4)), jnp.ones(4)), r"dense: kernel \(4,\) should be \(inputs, outputs\)"),
        (lambda: ops.glu(jnp.ones((2, 5))), r"^glu: x \(2, 5\) must have an even size along axis -1"),
        (lambda: ops.flatten(jnp.ones(3)), r"flatten: x \(3,\) should be \(N, \.\.\.\)"),
        (lambda: ops.dropout(jnp.ones(3), None, 0.5), r"^dropout: needs a key, jax.random.key"),
        (lambda: ops.dropout(jnp.ones(3), jax.random.key(0), 1.0), r"dropout: rate=1\.0 is the fraction dropped"),
        (lambda: ops.dropout(jnp.ones(3), jax.random.key(0), "0.5"), r"^dropout: rate='0.5' is the fraction dropped"),
        (lambda: ops.dropout(jnp.ones(3), 0, 0.5), r"^dropout: key should be one jax.random.key\(…\), not 0"),
        (
            lambda: ops.dropout(jnp.ones(3), jax.random.split(jax.random.key(0)), 0.5),
            r"^dropout: key should be one jax.random.key",
        ),
        (
            lambda: ops.spatial_dropout(jnp.ones((2, 3)), jax.random.key(0), 0.5),
            r"spatial_dropout: x \(2, 3\) should be \(N, \*spatial, C\); for rows of values use dropout",
        ),
        (lambda: ops.spatial_dropout(jnp.ones((2, 3, 1)), None, 0.5), r"^spatial_dropout: needs a key, jax.random"),
        (
            lambda: ops.spatial_dropout(jnp.ones((2, 3, 1)), jax.random.key(0), -0.1),
            r"spatial_dropout: rate=-0\.1 is the fraction dropped",
        ),
        (
            lambda: ops.spatial_dropout(jnp.ones((2, 3, 1), jnp.int32), jax.random.key(0), 0.1),
            r"spatial_dropout: x is int32; convert it first",
        ),
        (
            lambda: ops.softmax_cross_entropy(jnp.ones((2, 3)), jnp.ones(3, jnp.int32)),
            r"softmax_cross_entropy: labels int32\(3,\) must be class indices, int\(2,\)",
        ),
        (
            lambda: ops.softmax_cross_entropy(jnp.ones((2, 3)), np.array([0, -1])),
            r"^softmax_cross_entropy: label -1 is none of the 3 classes of logits",
        ),
        (
            lambda: jax.jit(jax.grad(lambda z: ops.softmax_cross_entropy(z, np.array([3])).sum()))(jnp.ones((1, 3))),
            r"^softmax_cross_entropy: label 3 is none of the 3 classes",
        ),
        (
            lambda: ops.backward.softmax_cross_entropy(jnp.ones((1, 3)), jnp.array([3]), jnp.ones(1)),
            r"^softmax_cross_entropy: label 3 is none of the 3 classes",
        ),
        (
            lambda: ops.softmax_cross_entropy(jnp.ones(3), jnp.ones(3)),
            r"^softmax_cross_entropy: logits \(3,\) should be \(N, classes\)",
        ),
    ],
)
def test_linear_ops_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()
