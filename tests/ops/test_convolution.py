"""Lowerings of convolution: values, gradients and transformations, compared with plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_reference as reference
from convolution_cases import CASES
from jaxconv import DtypeError, InputError, ops

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EVERY_IMPL = pytest.mark.parametrize("impl", ["auto", *ops.LOWERINGS])


@EVERY_IMPL
@EVERY_CASE
def test_value_and_gradients_equal_plain_loops(x64, case, impl):
    x, kernel = case.arrays()
    expected = reference.conv(x, kernel, *case.resolved())
    dy = np.random.default_rng(1).normal(size=expected.shape)

    @jax.jit
    def value_and_gradients(x, kernel, dy):
        y, vjp = jax.vjp(lambda x, k: ops.conv(x, k, impl=impl, **case.options), x, kernel)
        return y, *vjp(dy)

    actual = value_and_gradients(x, kernel, dy)
    for a, b in zip(actual, (expected, *reference.conv_gradients(x, kernel, dy, *case.resolved())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@EVERY_IMPL
def test_bias_is_added_per_filter(x64, rng, impl):
    x, kernel, bias = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(2, 2, 3, 6)), rng.normal(size=6)
    y, vjp = jax.vjp(lambda b: ops.conv(x, kernel, b, impl=impl), jnp.asarray(bias))
    np.testing.assert_allclose(y, reference.conv(x, kernel, (1, 1), ((0, 0),) * 2, (1, 1), 1) + bias, rtol=1e-12)
    dy = rng.normal(size=y.shape)
    np.testing.assert_allclose(vjp(jnp.asarray(dy))[0], dy.sum(axis=(0, 1, 2)), rtol=1e-12)


@EVERY_IMPL
def test_transformations_match_eager(x64, rng, impl):
    x, kernel = jnp.asarray(rng.normal(size=(3, 2, 6, 5, 2))), jnp.asarray(rng.normal(size=(3, 2, 2, 3)))

    def f(x, k):
        return ops.conv(x, k, stride=(2, 1), padding="SAME", impl=impl)

    @jax.jit
    def transformed(x, kernel, d):
        kernels = jnp.stack([kernel, -2 * kernel])
        _, tangent = jax.jvp(lambda x: f(x, kernel), (x[0],), (d,))
        return jax.vmap(f, (0, None))(x, kernel), jax.vmap(f, (None, 0))(x[0], kernels), tangent

    eager = np.stack([f(example, kernel) for example in x])
    d = jnp.asarray(rng.normal(size=x[0].shape))
    over_x, over_kernels, tangent = transformed(x, kernel, d)
    np.testing.assert_allclose(over_x, eager, rtol=1e-12)
    np.testing.assert_allclose(over_kernels, [eager[0], -2 * eager[0]], rtol=1e-12)
    # A convolution is linear in x, so its derivative along d is the convolution of d.
    np.testing.assert_allclose(tangent, f(d, kernel), rtol=1e-12)


@EVERY_IMPL
def test_conv_is_traced_once_per_shape(impl):
    traces = []

    @jax.jit
    def f(x, k):
        traces.append(x.shape)
        return ops.conv(x, k, impl=impl)

    for seed in range(3):
        f(jax.random.normal(jax.random.key(seed), (1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("padding_mode", "numpy_mode"),
    [("circular", "wrap"), ("reflect", "reflect"), ("replicate", "edge"), ("symmetric", "symmetric")],
)
@EVERY_IMPL
def test_padding_modes_match_numpy(x64, rng, impl, padding_mode, numpy_mode):
    x, kernel = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 2, 2, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)), mode=numpy_mode)
    expected = reference.conv(padded, kernel, (1, 1), ((0, 0),) * 2, (1, 1), 1)
    actual = ops.conv(jnp.asarray(x), jnp.asarray(kernel), padding="SAME", padding_mode=padding_mode, impl=impl)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_lowerings_agree_on_random_arguments(data):
    def ints(low, high, count):
        return data.draw(st.tuples(*[st.integers(low, high)] * count))

    ndim = data.draw(st.integers(1, 3))
    groups, c, o = ints(1, 3, 3)
    window, stride, dilation = ints(1, 3, ndim), ints(1, 3, ndim), ints(1, 2, ndim)
    padding = data.draw(
        st.sampled_from(["VALID", "SAME", "SAME_LOWER", "FULL"])
        | st.just(tuple(zip(ints(0, 3, ndim), ints(0, 3, ndim))))
    )
    size = tuple(d * (f - 1) + 1 + extra for d, f, extra in zip(dilation, window, ints(0, 3, ndim), strict=True))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, c * groups)).astype(np.float32)
    kernel = rng.normal(size=(*window, c, o * groups)).astype(np.float32)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    reference_output, *rest = jax.jit(
        lambda x, k: [ops.conv(x, k, impl=impl, precision="highest", **options) for impl in ops.LOWERINGS]
    )(x, kernel)
    for output in rest:
        assert reference_output.shape == output.shape
        # A float32 sum of n products of magnitude 1 has an error of about n·2⁻²⁴, by FFT slightly more.
        np.testing.assert_allclose(reference_output, output, rtol=0, atol=kernel[..., 0].size * 2e-6)


JUNK = st.sampled_from([0, -1, 1.5, "two", None, (1,), (1, 2, 3), (0, 1), True, [2, 2], ((1, 2), (3, -4)), "SMAE"])
SIZES = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    x=SIZES | st.just([2, 5, 6, 4]),
    kernel=SIZES | st.just([3, 2, 4, 6]),
    options=st.fixed_dictionaries(
        {},
        optional={"stride": JUNK, "padding": JUNK, "dilation": JUNK, "groups": JUNK | st.integers(1, 3), "impl": JUNK},
    ),
    op=st.sampled_from([ops.conv, ops.conv_transpose]),
)
def test_invalid_random_arguments_raise_input_error(x, kernel, options, op):
    """Random arguments give either InputError or an output with pixels."""
    try:
        y = jax.eval_shape(lambda: op(jnp.zeros(x), jnp.zeros(kernel), **options))
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) > 20
    else:
        assert 0 not in y.shape[1:]


@EVERY_IMPL
def test_half_precision_with_bias_is_rounded_once(rng, impl):
    x, kernel, bias = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in [(1, 6, 7, 8), (3, 2, 8, 5), (5,)])
    exact = reference.conv(*(np.asarray(a, float) for a in (x, kernel)), (1, 1), ((0, 0),) * 2, (1, 1), 1)
    expected = np.asarray(exact + np.asarray(bias, float), np.float32).astype(jnp.bfloat16)
    conv = jax.jit(functools.partial(ops.conv, impl=impl))
    assert np.mean(conv(x, kernel, bias) == expected) > 0.99  # rounding in float32 may change a tie
    # The product overflows float16, but the sum with the bias does not.
    x, kernel, bias = (jnp.array(v, jnp.float16) for v in ([[[300.0]]], [[[300.0]]], [-60000.0]))
    assert conv(x, kernel, bias).item() == 30000


@EVERY_IMPL
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(rng, impl, dtype):
    """bfloat16 has 8 significant bits, so a bfloat16 sum of ones would stop at 256."""
    conv = jax.jit(functools.partial(ops.conv, impl=impl))
    ones = conv(jnp.ones((1, 32, 16), dtype), jnp.ones((32, 16, 1), dtype))
    assert ones.dtype == dtype and ones.item() == 512
    x, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in [(1, 6, 7, 40), (3, 4, 40, 3)])
    expected = reference.conv(*(np.asarray(a, np.float64) for a in (x, kernel)), (1, 1), ((0, 0),) * 2, (1, 1), 1)
    y, vjp = jax.vjp(conv, x, kernel)
    # Rounded once, at the end: within half a unit in the last place.
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=float(jnp.finfo(dtype).eps), atol=1e-3)
    assert [gradient.dtype for gradient in vjp(y)] == [dtype, dtype]


X, K = np.zeros((2, 6, 6, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, K[:, :, :1]), {}, r"conv: x has 3 channels but kernel \(3, 3, 1, 4\) takes 1 × groups=1"),
        ((X.transpose(0, 3, 1, 2), K), {}, r"conv: x \(2, 3, 6, 6\) looks channels-first; move axis 1 to the end"),
        ((X[0], K), {}, r"conv: x \(6, 6, 3\) should have 4 axes.*add the batch axis, x\[None\]"),
        ((X, K[0, 0]), {}, r"conv: kernel \(3, 4\) should be \(\*window, C // groups, O\)"),
        ((X[:, :2], K), {}, r"conv: window \(3, 3\) on an input of \(2, 6\), dimension 0: .* spans 3 pixels .* only 2"),
        ((X, K), {"padding": "SAMEE"}, r"conv: unknown padding 'SAMEE': did you mean 'SAME'\?"),
        ((X, K), {"padding": "CAUSAL"}, r"conv: padding 'CAUSAL' is for one dimension"),
        ((X, K), {"padding": -1}, r"conv: padding -1 is negative"),
        ((X, K), {"padding": ((1, 1),)}, r"conv: padding \(\(1, 1\),\) has 1 entries for 2 dimensions"),
        ((X, K), {"padding": 1.5}, r"conv: padding must be one of VALID, .*, got 1\.5"),
        ((X, K), {"stride": 0}, r"conv: stride 0: give an int of at least 1, or 2 of them"),
        ((X, K), {"stride": (1, 1, 1)}, r"conv: stride \(1, 1, 1\): give an int"),
        ((X, K), {"dilation": 2.0}, r"conv: dilation 2\.0: give an int"),
        ((X, K), {"groups": 1.0}, r"conv: groups=1\.0 should be an int of at least 1"),
        ((X, K), {"groups": 3}, r"conv: groups=3 does not divide the 4 filters"),
        (
            (X, K),
            {"impl": "laxx"},
            r"^conv: unknown impl 'laxx': did you mean 'lax'\? Known: auto, lax, explicit, im2col, toeplitz, fft",
        ),
        ((X, K), {"padding_mode": "mirror"}, r"^conv: unknown padding_mode 'mirror'"),
        ((X, K), {"precision": "best"}, r"^conv: unknown precision 'best': Known: default, high, highest"),
        ((X, K), {"flip_kernel": "no"}, r"^conv: flip_kernel='no' should be True or False"),
        ((None, K), {}, r"^conv: x should be an array of numbers, not None"),
        ((X, [[1], [2, 3]]), {}, r"^conv: kernel should be an array of numbers, not \[\[1\], \[2, 3\]\]"),
        ((X, K, "none"), {}, r"^conv: bias should be an array of numbers, not 'none'"),
        (
            (X[:, :0], K),
            {"padding_mode": "reflect", "padding": 2},
            r"^conv: padding_mode='reflect' has no pixel to repeat in x \(2, 0, 6, 3\)",
        ),
        ((X, K, np.zeros(3, np.float32)), {}, r"conv: bias \(3,\) should be \(4,\)"),
        ((X, K[..., :0]), {}, r"conv: kernel \(3, 3, 3, 0\) is empty"),
    ],
)
def test_conv_invalid_arguments_raise(arguments, options, message):
    with pytest.raises(InputError, match=message):
        ops.conv(*arguments, **options)


@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        (X.astype(np.uint8), K, r"conv: x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"),
        (X.astype(np.complex64), K.astype(np.complex64), r"conv: x is complex64; convert it first"),
        (X, K.astype(np.int32), r"conv: kernel is int32; convert it first"),
        (X, K.astype(jnp.bfloat16), r"conv: x is float32 but kernel is bfloat16; cast one"),
    ],
)
def test_conv_invalid_dtypes_raise(x, kernel, message):
    with pytest.raises(DtypeError, match=message):
        ops.conv(x, kernel)
    assert issubclass(DtypeError, TypeError) and issubclass(DtypeError, ValueError)


def test_auto_equals_one_lowering(rng):
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, 6, 5, 2), (3, 2, 2, 3)])
    auto = ops.conv(x, kernel)
    assert any((auto == ops.conv(x, kernel, impl=impl)).all() for impl in ops.LOWERINGS)


@EVERY_IMPL
def test_empty_batch_gives_empty_output(impl):
    assert ops.conv(X[:0], K, impl=impl).shape == (0, 4, 4, 4)


@EVERY_IMPL
def test_flip_kernel_matches_scipy(x64, rng, impl):
    x, kernel = rng.normal(size=(1, 6, 7, 1)), rng.normal(size=(3, 2, 1, 1))
    expected = scipy.signal.convolve2d(x[0, :, :, 0], kernel[:, :, 0, 0], mode="full")
    actual = ops.conv(jnp.asarray(x), jnp.asarray(kernel), padding="FULL", flip_kernel=True, impl=impl)
    np.testing.assert_allclose(actual[0, :, :, 0], expected, rtol=1e-11, atol=1e-13)


@EVERY_CASE
def test_convolution_matrix_matches_conv(x64, case):
    x, kernel = case.arrays()
    expected = reference.conv(x[:1], kernel, *case.resolved())

    @jax.jit
    def products(x, kernel):
        matrix = ops.convolution_matrix(kernel, x.shape, **case.options)
        return matrix, matrix @ x.ravel(), matrix.todense() @ x.ravel()

    matrix, *matrix_products = products(x[0], kernel)
    for product in matrix_products:
        np.testing.assert_allclose(product, expected.ravel(), rtol=1e-12, atol=1e-12)
    # The matrix stores exactly the kernel entries that meet a pixel.
    size, window = case.x[1:-1], case.kernel[:-2]
    connections = list(reference.window_entries(size, window, case.stride, case.pads, case.dilation))
    assert matrix.nse == len(connections) * case.kernel[-2] * case.kernel[-1]


def test_shared_weight_gradient_is_sum_over_copies(x64, rng):
    kernel, x = jnp.asarray(rng.normal(size=(3, 2, 2, 3))), jnp.asarray(rng.normal(size=(5, 4, 2)))
    dy = jnp.asarray(rng.normal(size=3 * 3 * 3))
    matrix = ops.convolution_matrix(kernel, x.shape)
    copy_gradients = np.outer(dy, x.ravel())  # ∂(dy · M x) / ∂M
    weight_indices = ops.convolution_matrix(jnp.arange(1.0, kernel.size + 1).reshape(kernel.shape), x.shape).todense()
    sum_over_copies = np.array([copy_gradients[weight_indices == i].sum() for i in range(1, kernel.size + 1)])
    actual = jax.grad(lambda k: dy @ (ops.convolution_matrix(k, x.shape) @ x.ravel()))(kernel)
    np.testing.assert_allclose(actual.ravel(), sum_over_copies, rtol=1e-12)
    assert matrix.shape == (27, 40)


def test_convolution_matrix_invalid_arguments_raise():
    with pytest.raises(InputError, match=r"convolution_matrix: x has 2 channels but kernel \(3, 3, 3, 4\) takes 3"):
        ops.convolution_matrix(K, (6, 6, 2))
    with pytest.raises(InputError, match=r"convolution_matrix: window \(3, 3\) on an input of \(2, 6\)"):
        ops.convolution_matrix(K, (2, 6, 3))


def test_im2col_of_1x1_kernel_makes_no_copy():
    """The patches, the only large temporary, are x itself."""
    x, kernel = jnp.zeros((4, 32, 32, 16)), jnp.zeros((1, 1, 16, 8))
    compiled = jax.jit(lambda x, k: ops.conv(x, k, impl="im2col")).lower(x, kernel).compile()
    assert "concatenate" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < x.nbytes / 4
