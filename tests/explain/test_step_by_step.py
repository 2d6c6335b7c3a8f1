"""The sum behind one number: what it comes to is what the op gives, and jax's own gradients; bad input is told."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convolution_cases import CASES
from jaxconv import InputError, ops
from jaxconv.explain import arithmetic
from jaxconv.explain.step_by_step.registry import EXPLAINERS


def some(rng, shape):
    """The first and the last index, where windows meet borders, and two between."""
    yield from [(0,) * len(shape), tuple(n - 1 for n in shape)]
    yield from (tuple(int(rng.integers(n)) for n in shape) for _ in range(2))


def holds(rng, name, arrays, *fixed, **options):
    """Totals equal the op and jax's own gradients, for the value and for every array in ``arrays``."""

    @jax.jit
    def value_and_gradients(dy, *values):
        y, vjp = jax.vjp(lambda *values: getattr(ops, name)(*values, *fixed, **options), *values)
        return (y, *vjp(dy.reshape(y.shape)))

    values = list(map(jnp.asarray, arrays.values()))
    shape = jax.eval_shape(lambda: getattr(ops, name)(*values, *fixed, **options)).shape
    dy = rng.normal(size=shape)
    y, *gradients = map(np.asarray, value_and_gradients(jnp.asarray(dy), *values))
    asked = [("value", y, None), *zip(arrays, gradients, [dy] * len(gradients), strict=True)]
    for of, wanted, given in asked:
        for at in some(rng, wanted.shape):
            got = arithmetic(name, *values, *fixed, index=at, wrt=of, dy=given, **options)
            np.testing.assert_allclose(got.total, wanted[at], rtol=1e-12, atol=1e-13, err_msg=str(got))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_convolution_comes_to_what_the_op_and_jax_give(x64, rng, case):
    x, kernel = case.arrays()
    holds(rng, "conv", {"x": x, "kernel": kernel, "bias": rng.normal(size=kernel.shape[-1])}, **case.options)


@pytest.mark.parametrize("padding_mode", ["circular", "reflect", "replicate", "symmetric"])
def test_padding_that_repeats_pixels(x64, rng, padding_mode):
    arrays = {"x": rng.normal(size=(2, 5, 6, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    holds(rng, "conv", arrays, stride=(2, 1), padding=((2, 1), (0, 2)), padding_mode=padding_mode)


def test_flipped_convolution(x64, rng):
    arrays = {"x": rng.normal(size=(1, 6, 5, 2)), "kernel": rng.normal(size=(3, 2, 2, 3))}
    holds(rng, "conv", arrays, padding="SAME", dilation=(1, 2), flip_kernel=True)


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
    ids=["plain", "cut and kept", "groups", "dilation", "1-D with gaps", "3-D"],
)
def test_transposed_convolution(x64, rng, x, kernel, options):
    arrays = {"x": rng.normal(size=x), "kernel": rng.normal(size=kernel), "bias": rng.normal(size=kernel[-1])}
    holds(rng, "conv_transpose", arrays, **options)


def test_dense_and_flatten(x64, rng):
    arrays = {"x": rng.normal(size=(3, 5)), "kernel": rng.normal(size=(5, 2)), "bias": rng.normal(size=2)}
    holds(rng, "dense", arrays)
    holds(rng, "flatten", {"x": rng.normal(size=(2, 3, 4, 2))})


POOLS = {
    "overlap": ((2, 7, 6, 2), (3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
    "dilated": ((1, 8, 9, 1), 2, {"stride": 1, "dilation": (2, 3)}),
    "hangs over": ((1, 8, 5, 2), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    "1-D": ((2, 9, 3), 3, {}),
    "3-D": ((1, 4, 3, 6, 2), 2, {"padding": "SAME"}),
}


@pytest.mark.parametrize("op", ["max_pool", "avg_pool", "lp_pool"])
@pytest.mark.parametrize("case", POOLS)
def test_pooling(x64, rng, op, case):
    shape, window, options = POOLS[case]
    # Whole numbers from a small range, so that there are ties; for the norms not, which have kinks at 0.
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    holds(rng, op, {"x": x}, window, **options)


@pytest.mark.parametrize("case", ["overlap", "hangs over"])
@pytest.mark.parametrize(
    ("op", "more"),
    [("max_pool", {"ties": "split"}), ("avg_pool", {"count_include_pad": True}), ("lp_pool", {"p": 3})],
)
def test_the_other_rules_of_pooling(x64, rng, op, more, case):
    shape, window, options = POOLS[case]
    x = rng.normal(size=shape) if op == "lp_pool" else rng.integers(-3, 3, size=shape).astype(float)
    holds(rng, op, {"x": x}, window, **options, **more)


@pytest.mark.parametrize("op", ["global_max_pool", "global_avg_pool", "adaptive_max_pool", "adaptive_avg_pool"])
def test_pooling_to_a_size(x64, rng, op):
    x = rng.integers(-2, 3, size=(2, 5, 7, 2)).astype(float)
    for out in [(2, 3), (7, 1)] if op.startswith("adaptive") else [None]:
        holds(rng, op, {"x": x}, *([] if out is None else [out]))


def test_a_window_of_zeros_has_the_slope_that_the_op_gives_it(x64, rng):
    holds(rng, "lp_pool", {"x": np.zeros((1, 4, 1))}, 2, p=1.5)
    holds(rng, "lp_pool", {"x": np.array([0, 2e-200, 0, -1e200]).reshape(1, 4, 1)}, 2, p=3)


@pytest.mark.parametrize("op", ["layer_norm", "group_norm", "instance_norm", "batch_norm", "rms_norm"])
def test_normalisation(x64, rng, op):
    arrays = {"x": rng.normal(size=(2, 3, 4, 6)), "scale": rng.normal(size=6), "bias": rng.normal(size=6)}
    options = {"num_groups": 2} if op == "group_norm" else {}
    if op == "rms_norm":
        del arrays["bias"]
    holds(rng, op, arrays, eps=0.1, **options)
    if op == "batch_norm":
        holds(rng, op, arrays, rng.normal(size=6), rng.uniform(1, 2, size=6))
    else:
        holds(rng, op, {"x": arrays["x"]}, **options)


@pytest.mark.parametrize("size", [1, 4, 5, 99])
def test_local_response_norm(x64, rng, size):
    holds(rng, "local_response_norm", {"x": rng.normal(size=(1, 2, 3, 6))}, size=size, alpha=0.5)


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
def test_activations_also_at_their_kinks_and_far_out(x64, op, options):
    x = np.array([-800.0, -6, -3, -1, -0.3, 0, 0.7, 1, 3, 6, 800])
    dy = np.arange(1.0, 12)
    f = jax.jit(lambda x, dy: jax.vjp(lambda x: getattr(ops, op)(x, **options), x)[1](dy)[0])
    y, dx = map(np.asarray, (getattr(ops, op)(jnp.asarray(x), **options), f(x, dy)))
    # What jax gets by taking two numbers that are nearly the same from each other is rounded as those are.
    atol = {"squareplus": 1e-13, "gelu": 1e-300 if options else 2e-14}.get(op, 1e-300)
    for i in range(len(x)):
        np.testing.assert_allclose(arithmetic(op, x, index=i, **options).total, y[i], rtol=1e-11, atol=atol)
        gradient = arithmetic(op, x, index=i, wrt="x", dy=dy, **options)
        np.testing.assert_allclose(gradient.total, dx[i], rtol=1e-11, atol=atol, err_msg=str(gradient))


@CURVES
def test_activations_have_a_number_wherever_jax_has_one(x64, op, options):
    x = np.array([-np.inf, -1e200, -1e100, 1e100, 1e200, np.inf, np.nan])
    y, vjp = jax.vjp(lambda x: getattr(ops, op)(x, **options), jnp.asarray(x))
    for i in range(len(x)):
        said = [arithmetic(op, x, index=i, wrt=of, dy=dy, **options) for of, dy in [("value", None), ("x", np.ones(7))]]
        for got, wanted in zip(said, (y, vjp(jnp.ones(7))[0])):
            assert not np.isnan(got.total) or np.isnan(wanted[i]), str(got)


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_glu(x64, rng, axis):
    x = rng.normal(size=(4, 2, 6))
    x[0, 0, 0], x[-1, -1, -1] = 800, -800
    holds(rng, "glu", {"x": x}, axis=axis)
    holds(rng, "glu", {"x": -x}, axis=axis)


@pytest.mark.parametrize(("op", "shape"), [("dropout", (3, 7)), ("spatial_dropout", (2, 2, 1, 5))])
def test_dropout(x64, rng, op, shape):
    x, dy, key = rng.normal(size=shape), rng.normal(size=shape), jax.random.key(1)
    y, vjp = jax.vjp(lambda x: getattr(ops, op)(x, key, 0.3), jnp.asarray(x))
    (dx,) = vjp(jnp.asarray(dy))
    assert 0 < (y == 0).sum() < y.size
    for at in np.ndindex(shape):
        word = "dropped" if y[at] == 0 else "kept"
        for got, wanted in [
            (arithmetic(op, x, key, 0.3, index=at), y[at]),
            (arithmetic(op, x, key, rate=0.3, index=at, wrt="x", dy=dy), dx[at]),
        ]:
            np.testing.assert_allclose(got.total, wanted, rtol=1e-12)
            assert [group.label for group in got.groups] == [word]


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_softmax(x64, rng, op, axis):
    holds(rng, op, {"x": 5 * rng.normal(size=(3, 4, 2))}, axis=axis)


def test_the_loss_for_classes_and_for_probabilities(x64, rng):
    logits = 20 * rng.normal(size=(3, 4))
    holds(rng, "softmax_cross_entropy", {"logits": logits}, jnp.array([2, 0, 3]))
    holds(rng, "softmax_cross_entropy", {"logits": logits}, jnp.asarray(rng.uniform(size=(3, 4))))
    maps = rng.normal(size=(2, 2, 4))
    holds(rng, "softmax_cross_entropy", {"logits": maps}, jnp.array([[2, 0], [3, 1]]))


X, K = np.zeros((2, 6, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arithmetic("convv", X, K, index=0), r"unknown op 'convv': did you mean 'conv'\? Known: conv, conv_tr"),
        (lambda: arithmetic(np.tanh, X, index=0), r"unknown op \"<ufunc 'tanh'>\": .*Known: conv, "),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="kernl"),
            r"^conv: unknown of 'kernl': did you mean 'kern",
        ),
        (
            lambda: arithmetic("max_pool", X, 2, index=0, wrt="kernel"),
            r"^max_pool: unknown of 'kernel': Known: value, x$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 4, 0, 0)),
            r"^conv: at=\(0, 4, 0, 0\) is no index of the output, whose shape is \(2, 4, 4, 4\)$",
        ),
        (lambda: arithmetic("conv", X, K, index=(0, -1, 0, 0)), r"^conv: at=\(0, -1, 0, 0\) is no index of the output"),
        (lambda: arithmetic("conv", X, K, index=0), r"^conv: at=0 is no index of the output"),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 3, 0), wrt="kernel", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: at=\(0, 0, 3, 0\) is no index of kernel, whose shape is \(3, 3, 3, 4\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="kernel"),
            r"^conv: of='kernel' needs dy, the gradient of the output, of shape \(2, 4, 4, 4\)$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), wrt="x", dy=X),
            r"^conv: dy \(2, 6, 6, 3\) should be \(2, 4, 4, 4\), the shape of the op's output$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=(0, 0, 0, 0), dy=X),
            r"^conv: dy is for a gradient; say which, of='x'$",
        ),
        (
            lambda: arithmetic("conv", X, K, index=0, wrt="bias", dy=np.zeros((2, 4, 4, 4))),
            r"^conv: there is no bias to take the gradient of; give one$",
        ),
        (lambda: arithmetic("conv", X, K[..., :2, :], index=0), r"^conv: x has 3 channels but kernel"),
        (lambda: arithmetic("conv", X, K, index=0, padding="SAMEE"), r"^conv: unknown padding 'SAMEE'"),
        (lambda: arithmetic("conv", X.astype(np.uint8), K, index=0), r"^conv: x is uint8; convert it first"),
        (
            lambda: arithmetic("softmax", X, index=(0,) * 4, where=X > 0),
            r"^softmax: arithmetic has no words for .* unexpected keyword argument 'where'; leave it out$",
        ),
        (
            lambda: arithmetic("softmax", X, index=(0,) * 4, axis=(0, 1)),
            r"^softmax: arithmetic is for one axis, not \(0, 1",
        ),
        (
            lambda: arithmetic("softmax_cross_entropy", X[0, 0], np.full(6, 3), index=0),
            r"^softmax_cross_entropy: label 3 is none of the 3 classes of logits",
        ),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_how_a_sum_is_computed_does_not_change_it():
    assert arithmetic("conv", X, K, index=(0, 0, 0, 0), impl="fft", precision="highest").total == 0


def test_every_op_has_its_arithmetic():
    computes_no_activation = {"LOWERINGS", "backward", "convolution_matrix", "is_correct", "batch_statistics"}
    converts_parameters = {"from_keras_conv_transpose", "from_lax_conv_transpose"}
    assert EXPLAINERS.keys() == set(ops.__all__) - computes_no_activation - converts_parameters
    for name, (_, gradients) in EXPLAINERS.items():
        assert gradients and set(gradients) <= inspect.signature(getattr(ops, name)).parameters.keys()
