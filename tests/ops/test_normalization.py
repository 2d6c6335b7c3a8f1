"""Normalization, compared with formulas in float64, also in half precision and under transformations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import DtypeError, InputError, ops

EPS = 1e-2  # large, so that a misplaced eps is detected


def normalize_block(block, eps=EPS):
    return (block - block.mean()) / np.sqrt(((block - block.mean()) ** 2).mean() + eps)


def normalize_groups(x, groups):
    """Normalize each group of consecutive channels of each example."""
    y, group_size = np.zeros(x.shape), x.shape[-1] // groups
    for n in range(len(x)):
        for g in range(groups):
            y[n, ..., g * group_size : (g + 1) * group_size] = normalize_block(
                x[n, ..., g * group_size : (g + 1) * group_size]
            )
    return y


def apply_per_pixel(x, f):
    return np.stack([f(pixel) for pixel in x.reshape(-1, x.shape[-1])]).reshape(x.shape)


def local_response(pixel, radius=1):
    """Local response norm of AlexNet, with k = 2, α = 0.3, β = 0.75."""
    sums = [sum(a * a for j, a in enumerate(pixel) if abs(j - i) <= radius) for i in range(len(pixel))]
    return np.array([a / (2 + 0.3 * s) ** 0.75 for a, s in zip(pixel, sums)])


NORMS = {
    "layer": (functools.partial(ops.layer_norm, eps=EPS), lambda x: apply_per_pixel(x, normalize_block)),
    "group 1": (functools.partial(ops.group_norm, num_groups=1, eps=EPS), lambda x: normalize_groups(x, 1)),
    "group 3": (functools.partial(ops.group_norm, num_groups=3, eps=EPS), lambda x: normalize_groups(x, 3)),
    "instance": (functools.partial(ops.instance_norm, eps=EPS), lambda x: normalize_groups(x, x.shape[-1])),
    "rms": (
        functools.partial(ops.rms_norm, eps=EPS),
        lambda x: apply_per_pixel(x, lambda v: v / np.sqrt(np.mean(v * v) + EPS)),
    ),
    "response": (
        functools.partial(ops.local_response_norm, size=3, alpha=0.3),
        lambda x: apply_per_pixel(x, local_response),
    ),
}
EVERY_NORM = pytest.mark.parametrize(("op", "expected"), NORMS.values(), ids=NORMS)
# Number of learned vectors: scale and bias, or scale only.
NUM_VECTORS = {"layer": 2, "group 3": 2, "instance": 2, "rms": 1}


@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (3, 4, 6), (2, 2, 3, 2, 6)], ids=["2-D", "1-D", "3-D"])
@EVERY_NORM
def test_norms_match_formula(x64, rng, op, expected, shape):
    x = rng.normal(1, 2, size=shape)
    np.testing.assert_allclose(jax.jit(op)(jnp.asarray(x)), expected(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["layer", "group 3", "rms", "response"])
def test_norms_accept_two_axes(x64, rng, name):
    op, expected = NORMS[name]
    x = rng.normal(1, 2, size=(4, 6))
    np.testing.assert_allclose(op(jnp.asarray(x)), expected(x), rtol=1e-12)


@pytest.mark.parametrize(("name", "num_vectors"), NUM_VECTORS.items(), ids=NUM_VECTORS)
def test_scale_and_bias_are_applied_last(x64, rng, name, num_vectors):
    op, expected = NORMS[name]
    x, (scale, bias) = rng.normal(1, 2, size=(2, 3, 2, 6)), rng.normal(size=(2, 6))
    actual = op(jnp.asarray(x), *map(jnp.asarray, (scale, bias)[:num_vectors]))
    np.testing.assert_allclose(actual, expected(x) * scale + (bias if num_vectors == 2 else 0), rtol=1e-12, atol=1e-12)


@EVERY_NORM
def test_norm_derivatives_match_finite_differences(x64, rng, op, expected):
    x = jnp.asarray(rng.normal(size=(2, 4, 6)))
    check_grads(jax.jit(op), (x,), order=2, modes=("rev",), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "num_vectors"), NUM_VECTORS.items(), ids=NUM_VECTORS)
def test_scale_and_bias_gradients_match_finite_differences(x64, rng, name, num_vectors):
    op, _ = NORMS[name]
    arrays = [jnp.asarray(rng.normal(size=size)) for size in [(2, 3, 6), (6,), (6,)][: 1 + num_vectors]]
    check_grads(jax.jit(op), tuple(arrays), order=1, modes=("rev",), rtol=1e-6, atol=1e-6)


@EVERY_NORM
def test_norm_transformations_match_eager(x64, rng, op, expected):
    x, d, dy = jnp.asarray(rng.normal(size=(3, 2, 3, 4, 6)))

    @jax.jit
    def transformed(x, d, dy):
        _, forward = jax.jvp(op, (x,), (d,))
        (backward,) = jax.vjp(op, x)[1](dy)
        one_by_one = jnp.stack([op(example[None])[0] for example in x])  # examples are independent
        return one_by_one, jax.vmap(lambda example: op(example[None])[0])(x), (forward * dy).sum(), (backward * d).sum()

    one_by_one, mapped, forward, backward = transformed(x, d, dy)
    np.testing.assert_allclose(op(x), one_by_one, rtol=1e-12)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(forward, backward, rtol=1e-10)


@EVERY_NORM
def test_half_precision_is_normalized_in_float32(x64, rng, op, expected, dtype=jnp.bfloat16):
    """Value and gradient, whose terms nearly cancel, equal those of float64 rounded once."""
    f = jax.jit(lambda x, dy: (op(x), *jax.vjp(op, x)[1](dy)))
    x, dy = (jnp.asarray(rng.normal(mean, 1, size=(2, 8, 9, 6)), dtype) for mean in (50, 0))
    actual = f(x, dy)
    assert [half.dtype for half in actual] == [dtype, dtype]
    for half, exact in zip(actual, f(x.astype(jnp.float64), dy.astype(jnp.float64))):
        np.testing.assert_allclose(np.asarray(half, float), exact, rtol=float(jnp.finfo(dtype).eps), atol=1e-4)


@pytest.mark.parametrize("name", ["layer", "group 1", "instance"])
def test_example_norms_are_accurate_for_large_mean(rng, name):
    op, expected = NORMS[name]
    x = (1e4 + rng.normal(size=(2, 9, 8, 6))).astype(np.float32)
    np.testing.assert_allclose(op(x), expected(x.astype(np.float64)), atol=3e-3)


def test_constant_example_gives_zero_and_finite_gradient():
    x = jnp.full((1, 3, 2, 4), 7.0)
    for op in (ops.layer_norm, ops.instance_norm, functools.partial(ops.group_norm, num_groups=2)):
        y, gradient = jax.jit(lambda x, op=op: (op(x), jax.grad(lambda x: (op(x) * jnp.cos(x)).sum())(x)))(x)
        assert not y.any() and jnp.isfinite(gradient).all()
    assert jnp.isfinite(jax.jit(jax.grad(lambda x: ops.rms_norm(x).sum()))(0 * x)).all()


def test_local_response_norm_defaults_and_sizes():
    """Defaults are those of the paper; size 4 acts as 5; a size beyond the channels includes all of them."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 2, 3, 7)), jnp.float32)
    assert (ops.local_response_norm(x) == ops.local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=2.0)).all()
    assert (ops.local_response_norm(x, size=4) == ops.local_response_norm(x, size=5)).all()
    expected_all_channels = x / (2 + 0.5 * jnp.square(x).sum(axis=-1, keepdims=True)) ** 0.75
    np.testing.assert_allclose(ops.local_response_norm(x, size=99, alpha=0.5), expected_all_channels, rtol=1e-5)


@pytest.mark.parametrize(
    ("flax_module", "op"),
    [
        (nn.LayerNorm(epsilon=EPS), NORMS["layer"][0]),
        (nn.GroupNorm(3, epsilon=EPS), NORMS["group 3"][0]),
        (nn.InstanceNorm(epsilon=EPS), NORMS["instance"][0]),
        (nn.RMSNorm(epsilon=EPS), NORMS["rms"][0]),
    ],
    ids=["layer", "group 3", "instance", "rms"],
)
def test_norms_match_flax(rng, flax_module, op):
    x = jnp.asarray(rng.normal(size=(2, 5, 4, 6)), jnp.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        shapes = jax.eval_shape(flax_module.init, jax.random.key(0), x)["params"]
        params = {name: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for name, p in shapes.items()}
        expected = flax_module.apply({"params": params}, x)
    np.testing.assert_allclose(op(x, **params), expected, rtol=1e-5, atol=1e-5)


def test_batch_norm_matches_formula(x64, rng):
    x, scale, bias = rng.normal(3, 2, size=(4, 3, 5, 2)), rng.normal(size=2), rng.normal(size=2)
    expected = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-3) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias)), eps=1e-3), expected, rtol=1e-12)
    mean, var = rng.normal(size=2), rng.uniform(1, 2, size=2)
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var))), expected, rtol=1e-12)
    check_grads(ops.batch_norm, tuple(map(jnp.asarray, (x, scale, bias))), order=1, modes=("rev",), rtol=1e-6)


def test_batch_norm_is_accurate_for_large_mean(rng):
    x = (1e4 + rng.normal(size=(1000, 1))).astype(np.float32)
    np.testing.assert_allclose(ops.batch_statistics(x)[1], x.astype(np.float64).var(0), rtol=1e-3)
    y = ops.batch_norm(x, jnp.ones(1), jnp.zeros(1))
    expected = (x.astype(np.float64) - x.astype(np.float64).mean()) / x.astype(np.float64).std()
    np.testing.assert_allclose(y, expected, atol=2e-3)


def test_masked_statistics_match_valid_examples(x64, rng):
    x = rng.normal(size=(5, 3, 3, 2))
    actual = ops.batch_statistics(jnp.asarray(x), jnp.asarray([True, False, True, True, False]))
    valid = x[[0, 2, 3]]
    np.testing.assert_allclose(actual, (valid.mean((0, 1, 2)), valid.var((0, 1, 2))), rtol=1e-12)


def test_batch_norm_of_bfloat16_is_computed_in_float32(rng):
    x = jnp.asarray(100 + rng.normal(size=(64, 2)), jnp.bfloat16)
    y = ops.batch_norm(x, jnp.ones(2), jnp.zeros(2))
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), (exact - exact.mean(0)) / exact.std(0), atol=2e-2)


X = np.zeros((2, 3, 3, 4), np.float32)


def test_masked_examples_do_not_affect_output_or_gradient():
    """Masked NaN and infinite values affect neither value nor gradient."""
    x, mask = jnp.array([[1.0, 2], [3, 8], [np.nan, np.inf]]), [True, True, False]
    scale, bias = jnp.array([2.0, 3]), jnp.array([5.0, 7])

    def loss(x, **options):
        return (ops.batch_norm(x, scale, bias, eps=0.1, **options)[:2] * jnp.array([[1.0, 2], [5, 4]])).sum()

    np.testing.assert_allclose(loss(x, mask=mask), loss(x[:2]), rtol=1e-6)
    gradient = jax.grad(loss)(x, mask=mask)
    np.testing.assert_allclose(gradient[:2], jax.grad(loss)(x[:2]), rtol=1e-6)
    assert not gradient[2].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.batch_norm(jnp.ones((2, 1), jnp.uint8), *jnp.ones((4, 1))),
            r"batch_norm: x is uint8; convert it first",
        ),
        (
            lambda: ops.batch_statistics(jnp.ones((3, 2)), jnp.array([True])),
            r"^batch_statistics: mask bool\(1,\) should be bool\(3,\), one entry per example",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(2), jnp.ones(3)),
            r"batch_norm: scale \(2,\) should be \(3,\)",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3)),
            r"batch_norm: give both mean and var, or neither",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((2, 3)), jnp.ones(3), jnp.ones(3), jnp.ones(3), jnp.ones(1)),
            r"batch_norm: var \(1,\) should be \(3,\)",
        ),
        (
            lambda: ops.batch_norm(jnp.ones((1, 3)), jnp.ones(3), jnp.ones(3)),
            r"^batch_norm: x \(1, 3\) has 1 value to average over; .* the bias alone",
        ),
        (lambda: ops.batch_statistics(X[:0]), r"batch_statistics: x \(0, 3, 3, 4\) has 0 value to average over"),
        (
            lambda: ops.batch_statistics(X, [0.0, 1.0]),
            r"^batch_statistics: mask float32\(2,\) should be bool\(2,\)",
        ),
        (lambda: ops.batch_statistics(X, [False, False]), r"^batch_statistics: mask is False for every example"),
        (
            lambda: ops.batch_norm(X, *jnp.ones((4, 4)), mask=[True, False]),
            r"^batch_norm: mask cannot be combined with mean and var",
        ),
        (lambda: ops.layer_norm(X, eps="a"), r"^layer_norm: eps='a' should be a number of at least 0"),
        (lambda: ops.rms_norm(X, eps=-1.0), r"^rms_norm: eps=-1\.0 should be a number of at least 0"),
        (lambda: ops.local_response_norm(X, alpha="a"), r"^local_response_norm: alpha='a' should be a number"),
        (lambda: ops.local_response_norm(X, k=0.0), r"^local_response_norm: k=0\.0 should be a number above 0"),
        (lambda: ops.local_response_norm(X, size=True), r"^local_response_norm: size=True should be an int"),
        (lambda: ops.layer_norm(X, jnp.ones(3)), r"layer_norm: scale \(3,\) should be \(4,\)"),
        (lambda: ops.rms_norm(X, jnp.ones((1, 4))), r"rms_norm: scale \(1, 4\) should be \(4,\)"),
        (lambda: ops.instance_norm(X, None, jnp.ones(1)), r"instance_norm: bias \(1,\) should be \(4,\)"),
        (lambda: ops.layer_norm(X[0, 0, 0]), r"layer_norm: x \(4,\) should be .* add the batch axis"),
        (lambda: ops.layer_norm(X[..., :1]), r"layer_norm: x \(2, 3, 3, 1\) has 1 channel to average over;"),
        (lambda: ops.instance_norm(X[:, 0, 0]), r"instance_norm: x \(2, 4\) has 1 pixel to average over"),
        (lambda: ops.instance_norm(X[:, :0]), r"instance_norm: x \(2, 0, 3, 4\) has 0 pixel to average over"),
        (lambda: ops.group_norm(X[:, 0, 0], num_groups=4), r"group_norm: x \(2, 4\) has 1 value to average over"),
        (
            lambda: ops.group_norm(X, num_groups=3),
            r"group_norm: num_groups=3 does not divide the 4 channels of x \(2, 3",
        ),
        (lambda: ops.group_norm(X, num_groups=0), r"^group_norm: num_groups=0 should be an int of at least 1"),
        (lambda: ops.group_norm(X, num_groups=2.0), r"^group_norm: num_groups=2\.0 should be an int"),
        (lambda: ops.local_response_norm(X, size=0), r"local_response_norm: size=0 should be an int of at least 1"),
        (lambda: ops.local_response_norm(X, size=2.5), r"local_response_norm: size=2\.5 should be an int"),
    ],
)
def test_norms_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()


@EVERY_NORM
def test_norms_of_integers_raise(op, expected):
    with pytest.raises(DtypeError, match=r"_norm: x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"):
        op(X.astype(np.uint8))


@EVERY_NORM
def test_empty_batch_gives_empty_output(op, expected):
    assert op(np.zeros((0, 3, 3, 6), np.float32)).shape == (0, 3, 3, 6)


def test_batch_norm_precision_ignores_statistics_dtype(x64, rng):
    """Images of float64 with float32 statistics, and all in bfloat16, are normalized in at least float32."""
    x, scale, bias = rng.normal(size=(4, 3, 2)), rng.normal(size=2), rng.normal(size=2)
    mean, var = rng.normal(size=2).astype(np.float32), rng.uniform(1, 2, size=2).astype(np.float32)
    expected = (x - mean.astype(float)) / np.sqrt(var.astype(float) + 1e-5) * scale + bias
    actual = ops.batch_norm(*map(jnp.asarray, (x, scale, bias, mean, var)))
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    half = [jnp.asarray(a, jnp.bfloat16) for a in (x, scale, bias, mean, var)]
    x, scale, bias, mean, var = (np.asarray(a, float) for a in half)
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(np.asarray(ops.batch_norm(*half), float), expected, rtol=2**-8, atol=1e-6)


def test_running_statistics_keep_their_dtype(x64, rng):
    from jaxconv import BatchNorm

    layer = BatchNorm()
    params, state = layer.init(jax.random.key(0), (3, 2))
    _, after = layer.apply(params, state, jnp.asarray(rng.normal(size=(4, 3, 2))), train=True)
    assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, state)
