"""Every lowering of convolution gives the one sum: in value, in both gradients, under every transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from cases import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxconv import DtypeError, InputError, ops

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EVERY_IMPL = pytest.mark.parametrize("impl", ["auto", *ops.LOWERINGS])


@EVERY_IMPL
@EVERY_CASE
def test_value_and_gradients_equal_plain_loops(x64, case, impl):
    x, kernel = case.arrays()
    wanted = reference.conv(x, kernel, *case.resolved())
    dy = np.random.default_rng(1).normal(size=wanted.shape)

    @jax.jit
    def value_and_gradients(x, kernel, dy):
        y, vjp = jax.vjp(lambda x, k: ops.conv(x, k, impl=impl, **case.options), x, kernel)
        return y, *vjp(dy)

    got = value_and_gradients(x, kernel, dy)
    for a, b in zip(got, (wanted, *reference.conv_gradients(x, kernel, dy, *case.resolved())), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@EVERY_IMPL
def test_bias_is_added_once_a_filter(x64, rng, impl):
    x, kernel, bias = rng.normal(size=(2, 5, 4, 3)), rng.normal(size=(2, 2, 3, 6)), rng.normal(size=6)
    y, vjp = jax.vjp(lambda b: ops.conv(x, kernel, b, impl=impl), jnp.asarray(bias))
    np.testing.assert_allclose(y, reference.conv(x, kernel, (1, 1), ((0, 0),) * 2, (1, 1), 1) + bias, rtol=1e-12)
    dy = rng.normal(size=y.shape)
    np.testing.assert_allclose(vjp(jnp.asarray(dy))[0], dy.sum(axis=(0, 1, 2)), rtol=1e-12)


@EVERY_IMPL
def test_transformations_agree(x64, rng, impl):
    x, kernel = jnp.asarray(rng.normal(size=(3, 2, 6, 5, 2))), jnp.asarray(rng.normal(size=(3, 2, 2, 3)))

    def f(x, k):
        return ops.conv(x, k, stride=(2, 1), padding="SAME", impl=impl)

    eager = jnp.stack([f(one, kernel) for one in x])
    np.testing.assert_allclose(jax.jit(jax.vmap(f, (0, None)))(x, kernel), eager, rtol=1e-12)
    kernels = jnp.stack([kernel, -2 * kernel])
    np.testing.assert_allclose(jax.vmap(f, (None, 0))(x[0], kernels)[1], -2 * eager[0], rtol=1e-12)
    # Forward mode: a convolution is linear in x, so its derivative along d is the convolution of d.
    d = jnp.asarray(rng.normal(size=x[0].shape))
    np.testing.assert_allclose(jax.jvp(lambda x: f(x, kernel), (x[0],), (d,))[1], f(d, kernel), rtol=1e-12)


@EVERY_IMPL
def test_one_trace_a_shape(impl):
    traces = []

    @jax.jit
    def f(x, k):
        traces.append(x.shape)
        return ops.conv(x, k, impl=impl)

    for seed in range(3):
        f(jax.random.normal(jax.random.key(seed), (1, 4, 4, 1)), jnp.ones((2, 2, 1, 1)))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("pad_mode", "numpy_mode"),
    [("circular", "wrap"), ("reflect", "reflect"), ("replicate", "edge"), ("symmetric", "symmetric")],
)
@EVERY_IMPL
def test_pad_modes_are_those_of_numpy(x64, rng, impl, pad_mode, numpy_mode):
    x, kernel = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 2, 2, 3))
    padded = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)), mode=numpy_mode)
    wanted = reference.conv(padded, kernel, (1, 1), ((0, 0),) * 2, (1, 1), 1)
    got = ops.conv(jnp.asarray(x), jnp.asarray(kernel), padding="SAME", pad_mode=pad_mode, impl=impl)
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_circular_convolution_is_translation_equivariant(x64, rng):
    x, kernel = jnp.asarray(rng.normal(size=(1, 6, 7, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 2)))

    def f(x):
        return ops.conv(x, kernel, padding="SAME", pad_mode="circular", impl="explicit")

    np.testing.assert_allclose(f(jnp.roll(x, (2, 3), (1, 2))), jnp.roll(f(x), (2, 3), (1, 2)), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_lowerings_agree_on_whatever_is_legal(data):
    def ints(low, high, count):
        return data.draw(st.tuples(*[st.integers(low, high)] * count))

    ndim = data.draw(st.integers(1, 3))
    groups, c, o = ints(1, 3, 3)
    window, stride, dilation = ints(1, 3, ndim), ints(1, 3, ndim), ints(1, 2, ndim)
    padding = data.draw(
        st.sampled_from(["VALID", "SAME", "SAME_LOWER", "FULL"])
        | st.just(tuple(zip(ints(0, 3, ndim), ints(0, 3, ndim))))
    )
    size = tuple(d * (f - 1) + 1 + more for d, f, more in zip(dilation, window, ints(0, 3, ndim), strict=True))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, c * groups)).astype(np.float32)
    kernel = rng.normal(size=(*window, c, o * groups)).astype(np.float32)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    first, *others = jax.jit(
        lambda x, k: [ops.conv(x, k, impl=impl, precision="highest", **options) for impl in ops.LOWERINGS]
    )(x, kernel)
    for other in others:
        assert first.shape == other.shape
        # A float32 sum of n products of size 1 is right to about n·2⁻²⁴.
        np.testing.assert_allclose(first, other, rtol=0, atol=kernel[..., 0].size * 2e-6)


@EVERY_IMPL
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_adds_up_in_float32(rng, impl, dtype):
    """bfloat16 has 8 digits: a sum of ones kept in it would stop at 256."""
    ones = ops.conv(jnp.ones((1, 32, 16), dtype), jnp.ones((32, 16, 1), dtype), impl=impl)
    assert ones.dtype == dtype and ones.item() == 512
    x, kernel = (jnp.asarray(rng.normal(size=size), dtype) for size in [(1, 6, 7, 40), (3, 4, 40, 3)])
    wanted = reference.conv(*(np.asarray(a, np.float64) for a in (x, kernel)), (1, 1), ((0, 0),) * 2, (1, 1), 1)
    y, vjp = jax.vjp(lambda x, k: ops.conv(x, k, impl=impl), x, kernel)
    # Rounded once, at the end: to half a unit in the last place.
    np.testing.assert_allclose(np.asarray(y, np.float64), wanted, rtol=float(jnp.finfo(dtype).eps), atol=1e-3)
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
        ((X, K), {"padding": 1.5}, r"conv: padding 1\.5 is none of the forms"),
        ((X, K), {"stride": 0}, r"conv: stride 0: give an int of at least 1, or 2 of them"),
        ((X, K), {"stride": (1, 1, 1)}, r"conv: stride \(1, 1, 1\): give an int"),
        ((X, K), {"dilation": 2.0}, r"conv: dilation 2\.0: give an int"),
        ((X, K), {"groups": 1.0}, r"conv: groups=1\.0 does not divide"),
        ((X, K), {"groups": 3}, r"conv: groups=3 does not divide the 4 filters"),
        ((X, K), {"impl": "laxx"}, r"unknown impl 'laxx': did you mean 'lax'\? Known: auto, lax, explicit"),
        ((X, K), {"pad_mode": "mirror"}, r"unknown pad_mode 'mirror'"),
        ((X, K, np.zeros(3, np.float32)), {}, r"conv: bias \(3,\) should be \(4,\)"),
        ((X, K[..., :0]), {}, r"conv: kernel \(3, 3, 3, 0\) is empty"),
    ],
)
def test_bad_input_is_told_what_would_work(arguments, options, message):
    with pytest.raises(InputError, match=message):
        ops.conv(*arguments, **options)


@pytest.mark.parametrize(
    ("x", "kernel", "message"),
    [
        (X.astype(np.uint8), K, r"conv: x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"),
        (X, K.astype(np.int32), r"conv: kernel is int32; convert it first"),
        (X, K.astype(jnp.bfloat16), r"conv: x is float32 but kernel is bfloat16; cast one"),
    ],
)
def test_wrong_dtypes_are_refused(x, kernel, message):
    with pytest.raises(DtypeError, match=message):
        ops.conv(x, kernel)
    assert issubclass(DtypeError, TypeError) and issubclass(DtypeError, ValueError)


def test_an_empty_batch_is_an_empty_answer():
    assert ops.conv(X[:0], K, impl="explicit").shape == ops.conv(X[:0], K).shape == (0, 4, 4, 4)
