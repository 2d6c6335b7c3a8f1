"""Gradients derived by hand, compared with plain loops and with jax autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_reference as reference
from convolution_cases import CASES
from jaxconv import DtypeError, InputError, ops
from jaxconv._compat import closed_jaxpr
from jaxconv.explain import arithmetic
from jaxconv.ops import backward

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@EVERY_CASE
def test_conv_equals_plain_loops(x64, case):
    x, kernel = case.arrays()
    y = reference.conv(x, kernel, *case.resolved())
    dy = np.random.default_rng(1).normal(size=y.shape)
    actual = jax.jit(lambda *a: backward.conv(*a, **case.options))(x, kernel, dy)
    expected = (*reference.conv_gradients(x, kernel, dy, *case.resolved()), dy.sum(axis=tuple(range(dy.ndim - 1))))
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect", "replicate", "symmetric"])
def test_conv_gradients_with_padding_modes_match_autodiff(x64, rng, padding_mode, flip):
    x, kernel = jnp.asarray(rng.normal(size=(2, 5, 4, 2))), jnp.asarray(rng.normal(size=(3, 4, 2, 3)))
    options = {"padding": ((2, 1), (1, 3)), "stride": (1, 2), "padding_mode": padding_mode, "flip_kernel": flip}
    y, vjp = jax.vjp(jax.jit(lambda x, k: ops.conv(x, k, **options)), x, kernel)
    dy = jnp.asarray(rng.normal(size=y.shape))
    by_hand = jax.jit(lambda *a: backward.conv(*a, **options))(x, kernel, dy)
    for a, b in zip(by_hand[:2], vjp(dy), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 3), "padding": ((1, 2), (0, 1)), "output_padding": (1, 2)},
        {"dilation": (2, 1), "groups": 2, "padding": "SAME", "stride": 2},
    ],
)
def test_conv_transpose_equals_autodiff(x64, rng, options):
    x = jnp.asarray(rng.normal(size=(2, 4, 3, 4)))
    kernel = jnp.asarray(rng.normal(size=(3, 2, 4 // options.get("groups", 1), 6)))
    y, vjp = jax.vjp(jax.jit(lambda *a: ops.conv_transpose(*a, **options)), x, kernel, jnp.zeros(6))
    dy = jnp.asarray(rng.normal(size=y.shape))
    by_hand = jax.jit(lambda *a: backward.conv_transpose(*a, **options))(x, kernel, dy)
    for a, b in zip(by_hand, vjp(dy), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


POOLS = {
    "plain": ((2, 6, 4, 3), {"window_shape": 2}),
    "overlap": ((1, 7, 6, 2), {"window_shape": (3, 2), "stride": (2, 1)}),
    "padded": ((1, 6, 5, 2), {"window_shape": 3, "stride": 2, "padding": ((1, 0), (1, 1))}),
    "dilated": ((1, 8, 9, 2), {"window_shape": 2, "stride": 1, "dilation": (2, 3)}),
    "ceil": ((1, 7, 5, 2), {"window_shape": 2, "ceil_mode": True}),
    "gaps": ((1, 7, 8, 1), {"window_shape": 2, "stride": 3}),
    "1-D": ((2, 9, 3), {"window_shape": 3, "padding": "SAME"}),
    "3-D": ((1, 4, 4, 6, 2), {"window_shape": 2}),
}
EVERY_POOL = pytest.mark.parametrize(("shape", "options"), POOLS.values(), ids=POOLS)


@pytest.mark.parametrize(
    ("op", "op_options"),
    [
        ("max_pool", {}),
        ("max_pool", {"ties": "split"}),
        ("avg_pool", {}),
        ("avg_pool", {"count_include_pad": True}),
        ("lp_pool", {}),
        ("lp_pool", {"p": 3.0}),
        ("lp_pool", {"p": 1.0}),
    ],
)
@EVERY_POOL
def test_pools_equal_autodiff(x64, rng, op, op_options, shape, options):
    options = options | op_options
    window = options.pop("window_shape")
    # Integers, so that there are ties, and a corner of zeros, where the norm has a kink.
    x = jnp.asarray(rng.integers(-3, 4, size=shape).astype(float)).at[:, :3, :3].set(0)

    @jax.jit
    def gradients(x):
        y, vjp = jax.vjp(lambda x: getattr(ops, op)(x, window, **options), x)
        dy = jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        return getattr(backward, op)(x, dy, window, **options), vjp(dy)[0]

    by_hand, by_autodiff = gradients(x)
    np.testing.assert_allclose(by_hand, by_autodiff, rtol=1e-12, atol=1e-12)


def test_max_pool_gradient_goes_to_one_pixel(x64, rng):
    """The gradient is one-hot in every window, including ties: lecture row 001-24."""
    x = jnp.asarray(rng.integers(0, 2, size=(1, 6, 8, 2)).astype(float))
    dy = jnp.asarray(rng.normal(size=(1, 3, 4, 2)))
    dx = np.asarray(backward.max_pool(x, dy, 2))
    blocks = dx.reshape(1, 3, 2, 4, 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(-1, 4)
    assert (np.count_nonzero(blocks, axis=1) == 1).all()
    np.testing.assert_array_equal(blocks.sum(axis=1), np.asarray(dy).ravel())


def test_max_pool_gradient_goes_to_first_nan():
    """Autodiff, the gradient by hand and the step-by-step arithmetic agree for NaN pixels."""
    x, dy = jnp.array([1, jnp.nan, jnp.nan, 2, 0, 3]).reshape(1, 6, 1), jnp.array([[[5.0], [7.0]]])
    y, vjp = jax.vjp(lambda x: ops.max_pool(x, 3), x)
    assert jnp.isnan(y[0, 0, 0]) and y[0, 1, 0] == 3
    for dx in (vjp(dy)[0], backward.max_pool(x, dy, 3)):
        np.testing.assert_array_equal(dx.ravel(), [0, 5, 0, 0, 0, 7])
    totals = [arithmetic("max_pool", x, 3, wrt="x", dy=dy, index=(0, i, 0)).total for i in range(6)]
    assert totals == [0, 5, 0, 0, 0, 7]


@pytest.mark.parametrize(
    ("name", "slope"),
    [
        ("relu", lambda x: x > 0),
        ("tanh", lambda x: np.cosh(x) ** -2.0),
        ("sigmoid", lambda x: np.exp(x) / (1 + np.exp(x)) ** 2),
    ],
)
def test_activation_gradients_match_slopes(x64, rng, name, slope):
    x, dy = 3 * rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    x[0, :2] = 0
    np.testing.assert_allclose(getattr(backward, name)(x, dy), dy * slope(x), rtol=1e-12)
    by_autodiff = jax.vjp(getattr(ops, name), jnp.asarray(x))[1](jnp.asarray(dy))[0]
    np.testing.assert_allclose(getattr(backward, name)(x, dy), by_autodiff, rtol=1e-9, atol=1e-15)


def test_pool_gradients_accept_lists():
    assert backward.max_pool([[[1.0], [2.0]]], [[[3.0]]], 2).tolist() == [[[0], [3]]]
    assert backward.avg_pool([[[1.0], [2.0]]], [[[3.0]]], 2).tolist() == [[[1.5], [1.5]]]


def test_tanh_gradient_is_accurate_in_float16():
    """cosh²(6.5) overflows float16, but its inverse does not underflow."""
    x = jnp.array([6.5], jnp.float16)
    np.testing.assert_allclose(backward.tanh(x, jnp.ones_like(x)), np.cosh(6.5) ** -2, rtol=1e-2)


def test_sigmoid_gradient_is_accurate_when_saturated():
    slope = backward.sigmoid(jnp.array([30.0, -30.0]), jnp.ones(2))
    np.testing.assert_allclose(slope, [np.exp(-30)] * 2, rtol=1e-5)


def test_dense_flatten_and_global_pool_equal_autodiff(x64, rng):
    x, kernel = jnp.asarray(rng.normal(size=(3, 4))), jnp.asarray(rng.normal(size=(4, 2)))
    dy = jnp.asarray(rng.normal(size=(3, 2)))
    expected = jax.vjp(ops.dense, x, kernel, jnp.zeros(2))[1](dy)
    for a, b in zip(backward.dense(x, kernel, dy), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    images = jnp.asarray(rng.normal(size=(2, 3, 4, 2)))
    for name, shape in {"flatten": (2, 24), "global_avg_pool": (2, 2)}.items():
        dy = jnp.asarray(rng.normal(size=shape))
        expected = jax.vjp(getattr(ops, name), images)[1](dy)[0]
        np.testing.assert_allclose(getattr(backward, name)(images, dy), expected, rtol=1e-12)


def test_cross_entropy_equals_autodiff(x64, rng):
    logits, dy = jnp.asarray(5 * rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=6))
    class_indices = jnp.asarray(rng.integers(0, 4, 6))
    probabilities = jnp.asarray(rng.uniform(size=(6, 4)))  # not normalized
    for label in (class_indices, probabilities):
        expected = jax.vjp(lambda z: ops.softmax_cross_entropy(z, label), logits)[1](dy)[0]  # noqa: B023
        np.testing.assert_allclose(backward.softmax_cross_entropy(logits, label, dy), expected, rtol=1e-12, atol=1e-13)
    saturated = backward.softmax_cross_entropy(jnp.array([[200.0, -200.0]]), jnp.array([1]), jnp.array([1.0]))
    assert saturated.tolist() == [[1, -1]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gradients_sum_in_float32(dtype):
    x, kernel, dy = jnp.ones((1, 3600, 1), dtype), jnp.ones((1, 1, 1), dtype), jnp.ones((1, 3600, 1), dtype)
    _, d_kernel, d_bias = jax.jit(backward.conv)(x, kernel, dy)
    expected = float(jnp.asarray(3600, dtype))
    assert (d_kernel.item(), d_bias.item(), d_bias.dtype) == (expected, expected, dtype)
    single_peak = jnp.zeros((1, 59, 1), dtype).at[0, 29].set(1)  # the maximum of 30 windows
    dy = jnp.full((1, 30, 1), 99.25, jnp.float32).astype(dtype)
    summed = jnp.asarray(30 * float(dy[0, 0, 0]), dtype)
    max_pool = jax.jit(lambda x, dy: backward.max_pool(x, dy, 30, stride=1))
    assert max_pool(single_peak, dy)[0, 29, 0] == summed
    _, d_kernel, d_bias = jax.jit(backward.dense)(
        jnp.ones((3600, 1), dtype), jnp.ones((1, 1), dtype), jnp.ones((3600, 1), dtype)
    )
    assert (d_kernel.item(), d_bias.item()) == (expected, expected)


def test_matrix_products_use_highest_precision():
    """GPUs and TPUs multiply float32 with reduced precision by default; on a CPU only the jaxpr shows the setting."""

    def precisions(program):
        for eqn in program.eqns:
            if eqn.primitive.name == "dot_general":
                yield eqn.params["precision"]
            for value in eqn.params.values():
                for inner in value if isinstance(value, tuple | list) else [value]:
                    if (program := closed_jaxpr(inner)) is not None:
                        yield from precisions(program.jaxpr)

    grouped_x, grouped_kernel = jnp.ones((2, 6, 6, 8)), jnp.ones((3, 3, 4, 6))
    precisions_found = [
        *precisions(
            jax.make_jaxpr(lambda *a: backward.conv(*a, groups=2))(
                grouped_x, grouped_kernel, jnp.ones((2, 4, 4, 6))
            ).jaxpr
        ),
        *precisions(jax.make_jaxpr(backward.conv)(X, K, DY).jaxpr),
        *precisions(jax.make_jaxpr(backward.conv_transpose)(X, K, jnp.ones((2, 8, 8, 4))).jaxpr),
        *precisions(jax.make_jaxpr(backward.dense)(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones((2, 4))).jaxpr),
    ]
    assert len(precisions_found) > 40 and set(precisions_found) == {(jax.lax.Precision.HIGHEST,) * 2}


X, K, DY = np.zeros((2, 6, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32), np.zeros((2, 4, 4, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: backward.conv(X, K, DY[:, :3]),
            r"backward\.conv: dy \(2, 3, 4, 4\) should be \(2, 4, 4, 4\), the shape",
        ),
        (lambda: backward.conv(X, K[:, :, :1], DY), r"conv: x has 3 channels but kernel"),
        (lambda: backward.conv_transpose(X, K, DY), r"backward\.conv_transpose: dy .* should be \(2, 8, 8, 4\)"),
        (lambda: backward.max_pool(X, DY, 2), r"backward\.max_pool: dy \(2, 4, 4, 4\) should be \(2, 3, 3, 3\)"),
        (lambda: backward.max_pool(X, DY, 7), r"max_pool: window \(7, 7\) on an input of \(6, 6\)"),
        (lambda: backward.bias(1.0), r"^backward\.bias: dy \(\) should be \(N, \*spatial, O\)"),
        (lambda: backward.max_pool(None, DY, 2), r"^backward\.max_pool: x should be an array of numbers, not None"),
        (lambda: backward.relu(X, DY), r"backward\.relu: dy \(2, 4, 4, 4\) should be \(2, 6, 6, 3\)"),
        (lambda: backward.dense(X[0, 0], K[0, 0], DY[0, 0]), r"backward\.dense: dy \(4, 4\) should be \(6, 4\)"),
        (
            lambda: backward.softmax_cross_entropy(X[0, 0], np.zeros(6, int), np.ones(5, np.float32)),
            r"backward\.softmax_cross_entropy: dy \(5,\) should be \(6,\)",
        ),
    ],
)
def test_invalid_dy_raises(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_dy_of_other_dtype_raises():
    with pytest.raises(DtypeError, match=r"backward\.relu: dy is bfloat16 but the op's output is float32; cast it"):
        backward.relu(X, X.astype(jnp.bfloat16))
