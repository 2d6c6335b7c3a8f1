"""Transposed convolution, compared with plain loops and with lax and Keras."""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxconv import InputError, ops
from jaxconv.ops.convolution.transposed import TRANSPOSE_LOWERINGS

EVERY_IMPL = pytest.mark.parametrize("impl", list(TRANSPOSE_LOWERINGS))


def transposed_conv_loops(x, kernel, stride, lows, out, dilation, groups):
    """Compute out[p·stride + u·dilation − low, o] += Σ_c x[p, c] · kernel[u, c, o], one product at a time."""
    *window, c, features = kernel.shape
    y = np.zeros((len(x), *out, features))
    for position in itertools.product(*map(range, x.shape[1:-1])):
        for offset in itertools.product(*map(range, window)):
            q = tuple(p * s + u * d - low for p, s, u, d, low in zip(position, stride, offset, dilation, lows))
            if all(0 <= a < n for a, n in zip(q, out)):
                for o in range(features):
                    first_channel = o // (features // groups) * c
                    for k in range(c):
                        y[(slice(None), *q, o)] += (
                            x[(slice(None), *position, first_channel + k)] * kernel[(*offset, k, o)]
                        )
    return y


# name: shapes of x and kernel, options, pixels cropped at the start, and the output size counted by hand
CASES = {
    "plain": ((2, 3, 4, 2), (3, 2, 2, 3), {}, (0, 0), (5, 5)),
    "stride": ((1, 3, 2, 2), (3, 3, 2, 3), {"stride": (2, 3)}, (0, 0), (7, 6)),
    "gaps": ((1, 3, 2, 1), (1, 2, 1, 2), {"stride": 3}, (0, 0), (7, 5)),
    "padding": ((1, 4, 3, 2), (3, 4, 2, 3), {"stride": 2, "padding": ((1, 2), (2, 0))}, (1, 2), (6, 6)),
    "output_padding": (
        (1, 3, 3, 2),
        (3, 3, 2, 1),
        {"stride": 2, "padding": 1, "output_padding": (1, 0)},
        (1, 1),
        (6, 5),
    ),
    "dilation": ((1, 3, 4, 2), (3, 2, 2, 3), {"dilation": (2, 3), "padding": 1}, (1, 1), (5, 5)),
    "groups": ((2, 3, 2, 4), (2, 3, 2, 6), {"groups": 2, "stride": 2}, (0, 0), (6, 5)),
    "depthwise": ((1, 3, 3, 3), (2, 2, 1, 6), {"groups": 3, "stride": 2, "output_padding": 1}, (0, 0), (7, 7)),
    "same": ((1, 3, 4, 2), (4, 3, 2, 2), {"stride": 2, "padding": "SAME"}, (1, 0), (6, 8)),
    "same, window smaller than stride": ((1, 3, 2, 1), (1, 2, 1, 2), {"stride": 3, "padding": "SAME"}, (0, 0), (9, 6)),
    "same lower": ((1, 3, 4, 2), (4, 3, 2, 2), {"stride": 2, "padding": "SAME_LOWER"}, (1, 1), (6, 8)),
    "full": ((1, 4, 5, 2), (3, 2, 2, 2), {"padding": "FULL"}, (2, 1), (2, 4)),
    "1-D": ((2, 5, 3), (4, 3, 2), {"stride": 3, "dilation": 2}, (0,), (19,)),
    "3-D": ((1, 2, 3, 2, 2), (2, 1, 3, 2, 2), {"stride": (1, 2, 2), "padding": (0, 0, 1)}, (0, 0, 1), (3, 5, 3)),
}


@EVERY_IMPL
@pytest.mark.parametrize(("x", "kernel", "options", "lows", "out"), CASES.values(), ids=CASES)
def test_conv_transpose_matches_plain_loops(x64, rng, impl, x, kernel, options, lows, out):
    ndim = len(x) - 2
    x, kernel = rng.normal(size=x), rng.normal(size=kernel)
    bias = rng.normal(size=kernel.shape[-1])

    def per_dimension(name):
        value = options.get(name, 1)
        return (value,) * ndim if isinstance(value, int) else value

    expected = (
        transposed_conv_loops(
            x, kernel, per_dimension("stride"), lows, out, per_dimension("dilation"), options.get("groups", 1)
        )
        + bias
    )
    actual = jax.jit(lambda *a: ops.conv_transpose(*a, impl=impl, **options))(x, kernel, bias)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("x", "kernel", "options", "lows", "out"), CASES.values(), ids=CASES)
def test_lowerings_have_equal_derivatives(x64, rng, x, kernel, options, lows, out):
    x, kernel = jnp.asarray(rng.normal(size=x)), jnp.asarray(rng.normal(size=kernel))
    dx, dk = (jnp.asarray(rng.normal(size=a.shape)) for a in (x, kernel))

    @jax.jit
    def all_derivatives(x, kernel, dx, dk):
        results = []
        for impl in TRANSPOSE_LOWERINGS:
            f = lambda x, k: ops.conv_transpose(x, k, impl=impl, **options)  # noqa: E731, B023
            y, tangent = jax.jvp(f, (x, kernel), (dx, dk))
            results.append((tangent, *jax.vjp(f, x, kernel)[1](jnp.sin(y))))
        return results

    first, second = all_derivatives(x, kernel, dx, dk)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@EVERY_IMPL
def test_vmap_over_kernels_and_images(x64, rng, impl):
    x, kernels = jnp.asarray(rng.normal(size=(3, 2, 4, 3, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 2, 2)))

    def f(x, kernel):
        return ops.conv_transpose(x, kernel, stride=2, impl=impl)

    looped = jnp.stack([f(a, b) for a, b in zip(x, kernels)])
    np.testing.assert_allclose(jax.vmap(f)(x, kernels), looped, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_in_float32(dtype):
    y = ops.conv_transpose(jnp.ones((1, 1, 600), dtype), jnp.ones((1, 600, 1), dtype), impl="explicit")
    assert y.dtype == dtype and y.item() == 600
    # All windows overlap at one pixel.
    y = ops.conv_transpose(jnp.ones((1, 599, 1), dtype), jnp.ones((599, 1, 1), dtype), padding=598, impl="lax")
    assert y.shape == (1, 1, 1) and abs(y.item() - 599) <= float(jnp.finfo(dtype).eps) * 599


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5),
    f=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    padding=st.sampled_from(["SAME", "VALID"]),
    transpose=st.booleans(),
)
def test_from_lax_conv_transpose_matches_lax(n, f, stride, dilation, padding, transpose):
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, n, 2), (f, 2, 2)])
    expected = lax.conv_transpose(
        x, kernel, (stride,), padding, (dilation,), transpose_kernel=transpose, precision="highest"
    )
    converted, options = ops.from_lax_conv_transpose(
        kernel, stride=stride, padding=padding, dilation=dilation, transpose_kernel=transpose
    )
    np.testing.assert_allclose(ops.conv_transpose(x, converted, **options), expected, rtol=1e-5, atol=1e-5)


def test_from_lax_explicit_padding_matches_lax(rng):
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, 4, 3, 2), (3, 2, 2, 5)])
    expected = lax.conv_transpose(x, kernel, (2, 3), [(2, 3), (0, 1)], precision="highest")
    converted, options = ops.from_lax_conv_transpose(kernel, stride=(2, 3), padding=[(2, 3), (0, 1)])
    np.testing.assert_allclose(ops.conv_transpose(x, converted, **options), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"from_lax_conv_transpose: padding .* is too large: each low must be less"):
        ops.from_lax_conv_transpose(kernel, padding=[(3, 0), (0, 0)])


@pytest.mark.frameworks
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("output_padding", [None, 1])
@pytest.mark.parametrize(("window", "stride", "dilation"), [((3, 4), 2, 1), ((2, 5), 3, 1), ((3, 2), 1, 2)])
def test_from_keras_conv_transpose_matches_keras(monkeypatch, rng, padding, output_padding, window, stride, dilation):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="the benchmarks extra is not installed")
    if output_padding and stride == 1:
        return  # Keras requires output_padding < stride
    layer = keras.layers.Conv2DTranspose(
        5,
        window,
        strides=stride,
        padding=padding,
        output_padding=output_padding,
        dilation_rate=dilation,
        use_bias=False,
    )
    x = rng.normal(size=(2, 4, 3, 2)).astype(np.float32)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected = np.asarray(layer(x))
    kernel, options = ops.from_keras_conv_transpose(
        jnp.asarray(layer.kernel.value),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )
    np.testing.assert_allclose(ops.conv_transpose(x, kernel, **options), expected, rtol=1e-4, atol=1e-5)


X, K = np.zeros((2, 4, 4, 3), np.float32), np.zeros((3, 3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, K[:, :, :1]), {}, r"conv_transpose: x has 3 channels but kernel \(3, 3, 1, 4\) takes 1 × groups=1"),
        ((X[0], K), {}, r"conv_transpose: x \(4, 4, 3\) should have 4 axes"),
        ((X.astype(np.uint8), K), {}, r"conv_transpose: x is uint8; convert it first"),
        ((X, K), {"groups": 3}, r"conv_transpose: groups=3 does not divide the 4 filters"),
        ((X, K), {"output_padding": 1}, r"conv_transpose: output_padding 1 should be less than the stride 1 or"),
        ((X, K), {"stride": 2, "output_padding": -1}, r"conv_transpose: output_padding -1: give an int of at least 0"),
        (
            (X, K),
            {"stride": 2, "padding": "SAME", "output_padding": 1},
            r"conv_transpose: output_padding 1 cannot be combined with padding 'SAME', which fixes the size",
        ),
        (
            (X, K),
            {"padding": 3},
            r"conv_transpose: a window of 3 pixels on an input of \(4, 4\) gives 6 pixels, of which .* pad less",
        ),
        ((X, K), {"impl": "im2col"}, r"^conv_transpose: unknown impl 'im2col'.* Known: auto, lax, explicit"),
        ((X, K), {"padding": "SAMEE"}, r"conv_transpose: unknown padding 'SAMEE': did you mean 'SAME'"),
        ((X, K, np.zeros(3, np.float32)), {}, r"conv_transpose: bias \(3,\) should be \(4,\)"),
        ((X[:, :0], K), {}, r"conv_transpose: .* the output is empty"),
    ],
)
def test_conv_transpose_invalid_arguments_raise(arguments, options, message):
    with pytest.raises(InputError, match=message):
        ops.conv_transpose(*arguments, **options)


def test_conversions_reject_invalid_arguments():
    with pytest.raises(InputError, match=r"^from_keras_conv_transpose: unknown padding 'smae': did you mean 'same'"):
        ops.from_keras_conv_transpose(K, padding="smae")
    with pytest.raises(InputError, match=r"^from_lax_conv_transpose: unknown padding 'FULL'"):
        ops.from_lax_conv_transpose(K, padding="FULL")
    for padding in (1, [(1, 1)], [(1, 2, 3), (1, 2)], ["a", "b"], [1, 1]):
        with pytest.raises(
            InputError, match=r"from_lax_conv_transpose: padding .* must be a name, or one pair \(low, high\)"
        ):
            ops.from_lax_conv_transpose(K, padding=padding)
    with pytest.raises(InputError, match=r"^from_keras_conv_transpose: unknown padding 1:"):
        ops.from_keras_conv_transpose(K, padding=1)
    with pytest.raises(InputError, match=r"^from_keras_conv_transpose: stride 0: give an int of at least 1"):
        ops.from_keras_conv_transpose(K, stride=0)
    with pytest.raises(
        InputError, match=r"^from_lax_conv_transpose: kernel \(3, 4\) should be \(\*window, C // groups, O\)"
    ):
        ops.from_lax_conv_transpose(K[0, 0], padding="SAME")
