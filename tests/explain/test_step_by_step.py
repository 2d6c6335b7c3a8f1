"""Totals of arithmetic match the ops and JAX's gradients; invalid arguments raise."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convolution_cases import CASES
from jaxconv import InputError, ops
from jaxconv.explain import arithmetic
from jaxconv.explain.step_by_step.registry import EXPLAINERS


def sample_indices(rng, shape):
    """Yield the first and the last index, where windows touch the border, and two random ones."""
    yield from [(0,) * len(shape), tuple(n - 1 for n in shape)]
    yield from (tuple(int(rng.integers(n)) for n in shape) for _ in range(2))


def check_totals(rng, name, arrays, *fixed, **options):
    """Check that totals equal the op and JAX's gradients, for the value and for every array in ``arrays``."""

    @jax.jit
    def value_and_gradients(dy, *values):
        y, vjp = jax.vjp(lambda *values: getattr(ops, name)(*values, *fixed, **options), *values)
        return (y, *vjp(dy.reshape(y.shape)))

    values = list(map(jnp.asarray, arrays.values()))
    shape = jax.eval_shape(lambda: getattr(ops, name)(*values, *fixed, **options)).shape
    dy = rng.normal(size=shape)
    y, *gradients = map(np.asarray, value_and_gradients(jnp.asarray(dy), *values))
    queries = [("value", y, None), *zip(arrays, gradients, [dy] * len(gradients), strict=True)]
    for wrt, expected, output_gradient in queries:
        for index in sample_indices(rng, expected.shape):
            actual = arithmetic(name, *values, *fixed, index=index, wrt=wrt, dy=output_gradient, **options)
            np.testing.assert_allclose(actual.total, expected[index], rtol=1e-12, atol=1e-13, err_msg=str(actual))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conv_matches_op_and_gradients(x64, rng, case):
    x, kernel = case.arrays()
    check_totals(rng, "conv", {"x": x, "kernel": kernel, "bias": rng.normal(size=kernel.shape[-1])}, **case.options)


@pytest.mark.parametrize("padding_mode", ["circular", "reflect", "replicate", "symmetric"])
def test_conv_padding_modes_match_op(x64, rng, padding_mode):
    arrays = {"x": rng.normal(size=(2, 5, 6, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    check_totals(rng, "conv", arrays, stride=(2, 1), padding=((2, 1), (0, 2)), padding_mode=padding_mode)


def test_conv_flip_kernel_matches_op(x64, rng):
    arrays = {"x": rng.normal(size=(1, 6, 5, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    check_totals(rng, "conv", arrays, padding="SAME", dilation=(1, 2), flip_kernel=True)


@pytest.mark.parametrize(
    ("x", "kernel", "options"),
    [
        ((2, 3, 4, 2), (3, 2, 2, 3), {}),
        ((1, 3, 4, 2), (3, 2, 2, 3), {"stride": (2, 3), "padding": ((1, 0), (0, 1)), "output_padding": (1, 2)}),
        ((1, 4, 3, 4), (2, 3, 2, 6), {"stride": 2, "padding": "SAME", "groups": 2}),
        ((1, 4, 3, 2), (3, 2, 2, 2), {"dilation": (2, 3), "padding": 1}),
        ((2, 5, 3), (2, 3, 2), {"stride": 3}),
        ((1, 2, 3, 2, 1), (2, 1, 2, 1, 2), {"stride": (1, 2, 2)}),
    ],
    ids=["plain", "padding and output_padding", "groups", "dilation", "1-D with gaps", "3-D"],
)
def test_conv_transpose_matches_op(x64, rng, x, kernel, options):
    arrays = {"x": rng.normal(size=x), "kernel": rng.normal(size=kernel), "bias": rng.normal(size=kernel[-1])}
    check_totals(rng, "conv_transpose", arrays, **options)


def test_dense_and_flatten_match_op(x64, rng):
    arrays = {"x": rng.normal(size=(3, 5)), "kernel": rng.normal(size=(5, 2)), "bias": rng.normal(size=2)}
    check_totals(rng, "dense", arrays)
    check_totals(rng, "flatten", {"x": rng.normal(size=(2, 3, 4, 2))})


POOLS = {
    "overlap": ((2, 7, 6, 2), (3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
    "dilated": ((1, 8, 9, 1), 2, {"stride": 1, "dilation": (2, 3)}),
    "hangs over": ((1, 8, 5, 2), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "1-D": ((2, 9, 3), 3, {}),
    "3-D": ((1, 4, 3, 6, 2), 2, {"padding": "SAME"}),
}


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "lp_pool"])
@pytest.mark.parametrize("case", POOLS)
def test_pooling_matches_op(x64, rng, op, case):
    shape, window, options = POOLS[case]
    # Small integers create ties; not for lp_pool, which has a kink at 0.
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    check_totals(rng, op, {"x": x}, window, **options)


@pytest.mark.parametrize("case", ["overlap", "hangs over"])
@pytest.mark.parametrize(
    ("op", "extra"),
    [("max_pool", {"ties": "split"}), ("avg_pool", {"count_include_pad": True}), ("lp_pool", {"p": 3})],
)
def test_pooling_options_match_op(x64, rng, op, extra, case):
    shape, window, options = POOLS[case]
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    check_totals(rng, op, {"x": x}, window, **options, **extra)


@pytest.mark.parametrize("op", ["global_max_pool", "global_avg_pool", "adaptive_max_pool", "adaptive_avg_pool"])
def test_global_and_adaptive_pooling_match_op(x64, rng, op):
    x = rng.integers(-2, 3, size=(2, 5, 7, 2)).astype(float)
    for output_size in [(2, 3), (7, 1)] if op.startswith("adaptive") else [None]:
        check_totals(rng, op, {"x": x}, *([] if output_size is None else [output_size]))


def test_lp_pool_of_zeros_has_slope_of_op(x64, rng):
    check_totals(rng, "lp_pool", {"x": np.zeros((1, 4, 1))}, 2, p=1.5)
    check_totals(rng, "lp_pool", {"x": np.array([0, 2e-200, 0, -1e200]).reshape(1, 4, 1)}, 2, p=3)


@pytest.mark.parametrize("op", ["layer_norm", "group_norm", "instance_norm", "batch_norm", "rms_norm"])
def test_normalization_matches_op(x64, rng, op):
    arrays = {"x": rng.normal(size=(2, 3, 4, 6)), "scale": rng.normal(size=6), "bias": rng.normal(size=6)}
    options = {"num_groups": 2} if op == "group_norm" else {}
    if op == "rms_norm":
        del arrays["bias"]
    check_totals(rng, op, arrays, eps=0.1, **options)
    if op == "batch_norm":
        check_totals(rng, op, arrays, rng.normal(size=6), rng.uniform(1, 2, size=6))
    else:
        check_totals(rng, op, {"x": arrays["x"]}, **options)


@pytest.mark.parametrize("size", [1, 4, 5, 99])
def test_local_response_norm_matches_op(x64, rng, size):
    check_totals(rng, "local_response_norm", {"x": rng.normal(size=(1, 2, 3, 6))}, size=size, alpha=0.5)


SLOPES = """relu relu6 leaky_relu elu celu selu hard_tanh hard_sigmoid hard_silu hard_swish soft_sign sigmoid
    log_sigmoid tanh softplus squareplus silu swish mish gelu""".split()
CURVES = pytest.mark.parametrize(
    ("op", "options"),
    [
        *((name, {}) for name in SLOPES),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("elu", {"alpha": 0.5}),
        ("celu", {"alpha": 0.5}),
        ("squareplus", {"b": 0.1}),
        ("gelu", {"approximate": False}),
    ],
    ids=str,
)


@CURVES
def test_activations_match_op_at_kinks_and_extremes(x64, op, options):
    x = np.array([-800.0, -6, -3, -1, -0.3, 0, 0.7, 1, 3, 6, 800])
    dy = np.arange(1.0, 12)
    f = jax.jit(lambda x, dy: jax.vjp(lambda x: getattr(ops, op)(x, **options), x)[1](dy)[0])
    y, dx = map(np.asarray, (getattr(ops, op)(jnp.asarray(x), **options), f(x, dy)))
    # JAX computes these by cancellation, so its result has the rounding error of the operands.
    atol = {"squareplus": 1e-13, "gelu": 1e-300 if options else 2e-14}.get(op, 1e-300)
    for i in range(len(x)):
        np.testing.assert_allclose(arithmetic(op, x, index=i, **options).total, y[i], rtol=1e-11, atol=atol)
        gradient = arithmetic(op, x, index=i, wrt="x", dy=dy, **options)
        np.testing.assert_allclose(gradient.total, dx[i], rtol=1e-11, atol=atol, err_msg=str(gradient))


@CURVES
def test_activations_are_nan_only_where_op_is(x64, op, options):
    x = np.array([-np.inf, -1e200, -1e100, 1e100, 1e200, np.inf, np.nan])
    y, vjp = jax.vjp(lambda x: getattr(ops, op)(x, **options), jnp.asarray(x))
    for i in range(len(x)):
        results = [
            arithmetic(op, x, index=i, wrt=wrt, dy=dy, **options) for wrt, dy in [("value", None), ("x", np.ones(7))]
        ]
        for actual, expected in zip(results, (y, vjp(jnp.ones(7))[0])):
            assert not np.isnan(actual.total) or np.isnan(expected[i]), str(actual)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_glu_matches_op(x64, rng, axis):
    x = rng.normal(size=(4, 2, 6))
    x[0, 0, 0], x[-1, -1, -1] = 800, -800
    check_totals(rng, "glu", {"x": x}, axis=axis)
    check_totals(rng, "glu", {"x": -x}, axis=axis)


@pytest.mark.parametrize(("op", "shape"), [("dropout", (3, 7)), ("spatial_dropout", (2, 2, 1, 5))])
def test_dropout_matches_op(x64, rng, op, shape):
    x, dy, key = rng.normal(size=shape), rng.normal(size=shape), jax.random.key(1)
    y, vjp = jax.vjp(lambda x: getattr(ops, op)(x, key, 0.3), jnp.asarray(x))
    (dx,) = vjp(jnp.asarray(dy))
    assert 0 < (y == 0).sum() < y.size
    for index in np.ndindex(shape):
        label = "dropped" if y[index] == 0 else "kept"
        for actual, expected in [
            (arithmetic(op, x, key, 0.3, index=index), y[index]),
            (arithmetic(op, x, key, rate=0.3, index=index, wrt="x", dy=dy), dx[index]),
        ]:
            np.testing.assert_allclose(actual.total, expected, rtol=1e-12)
            assert [group.label for group in actual.groups] == [label]


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax_matches_op(x64, rng, op, axis):
    check_totals(rng, op, {"x": 5 * rng.normal(size=(3, 4, 2))}, axis=axis)


def test_cross_entropy_of_classes_and_probabilities(x64, rng):
    logits = 20 * rng.normal(size=(3, 4))
    check_totals(rng, "softmax_cross_entropy", {"logits": logits}, jnp.array([2, 0, 3]))
    check_totals(rng, "softmax_cross_entropy", {"logits": logits}, jnp.asarray(rng.uniform(size=(3, 4))))
    maps = rng.normal(size=(2, 2, 4))
    check_totals(rng, "softmax_cross_entropy", {"logits": maps}, jnp.array([[2, 0], [3, 1]]))


X, K = np.zeros((2, 6, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arithmetic("convv", X, K, index=0), r"unknown op 'convv': did you mean 'conv'\? Known: conv, conv_tr"),
        (lambda: arithmetic(np.tanh, X, index=0), r"unknown op \"<ufunc 'tanh'>\": .*Known: conv, "),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="kernl"),
            r"^conv: unknown wrt 'kernl': did you mean 'kern",
        ),
        (
            lambda: arithmetic("max_pool", X, 2, index=0, wrt="kernel"),
            r"^max_pool: unknown wrt 'kernel': Known: value, x$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 4, 0, 0)),
            r"^conv: index must be an index of the output of shape \(2, 4, 4, 4\), got \(0, 4, 0, 0\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, -1, 0, 0)),
            r"^conv: index must be an index of the output .* got \(0, -1, 0, 0\)$",
        ),
        (lambda: arithmetic("conv", X, K, index=0), r"^conv: index must be an index of the output .* got 0$"),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 3, 0), wrt="kernel", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: index must be an index of kernel of shape \(3, 3, 3, 4\), got \(0, 0, 3, 0\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="kernel"),
            r"^conv: wrt='kernel' requires dy, the gradient of the output, of shape \(2, 4, 4, 4\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="x", dy=X),
            r"^conv: dy must have the shape of the output, \(2, 4, 4, 4\), got \(2, 6, 6, 3\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), dy=X),
            r"^conv: dy requires a gradient: set wrt, such as wrt='x'$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=0, wrt="bias", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: wrt='bias' requires the argument bias, which is not given$",
        ),
        (lambda: arithmetic("conv", X, K[..., :2, :], index=0), r"^conv: x has 3 channels but kernel"),
        (lambda: arithmetic("conv", X, K, index=0, padding="SAMEE"), r"^conv: unknown padding 'SAMEE'"),
        (lambda: arithmetic("conv", X.astype(np.uint8), K, index=0), r"^conv: x is uint8; convert it first"),
        (
            lambda: arithmetic("softmax", X, index=(0,) * 4, where=X > 0),
            r"^softmax: arithmetic does not support .* unexpected keyword argument 'where'$",
        ),
        (
            lambda: arithmetic("softmax", X, index=(0,) * 4, axis=(0, 1)),
            r"^softmax: arithmetic supports one axis, an int, got \(0, 1",
        ),
        (
            lambda: arithmetic("softmax_cross_entropy", X[0, 0], np.full(6, 3), index=0),
            r"^softmax_cross_entropy: label 3 is none of the 3 classes of logits",
        ),
    ],
)
def test_arithmetic_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_arithmetic_ignores_impl_and_precision():
    assert arithmetic("conv", X, K, index=(0, 0, 0, 0), impl="fft", precision="highest").total == 0


def test_explainers_cover_all_ops():
    no_activations = {"LOWERINGS", "backward", "convolution_matrix", "is_correct", "batch_statistics"}
    converters = {"from_keras_conv_transpose", "from_lax_conv_transpose"}
    assert EXPLAINERS.keys() == set(ops.__all__) - no_activations - converters
    for name, (_, gradients) in EXPLAINERS.items():
        assert gradients and set(gradients) <= inspect.signature(getattr(ops, name)).parameters.keys()
