"""Windows, strides and padding of huge size raise one-line errors immediately, without allocating memory."""

import copy
import pickle

import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import AvgPool, Conv, InputError, MaxPool, layers, ops, shapes
from jaxconv.shapes import Window

HUGE = 10**12
X, KERNEL = jnp.ones((1, 6, 6, 1)), jnp.ones((3, 3, 1, 1))
CALLS = {
    "padding": (lambda: ops.conv(X, KERNEL, padding=HUGE), "^conv: the padded input would have 2000000000006 ×"),
    "one side": (lambda: ops.conv(X, KERNEL, padding=((HUGE, 0), (0, 0))), "1000000000006 × 6 pixels, and at most 2³¹"),
    "mode": (lambda: ops.conv(X, KERNEL, padding=HUGE, padding_mode="circular"), "^conv: the padded input would have"),
    "in 2-D": (lambda: ops.conv(X, KERNEL, padding=10**5), "200006 × 200006 pixels"),
    "stride": (lambda: ops.conv(X, KERNEL, stride=HUGE), "^conv: stride 1000000000000 is too large: give at most"),
    "dilation": (lambda: ops.conv(X, KERNEL, dilation=2**31 - 1, padding="SAME"), "^conv: the padded input would"),
    "30 digits": (lambda: ops.conv(X, KERNEL, stride=10**30), "^conv: stride 10+ is too large"),
    "gradient": (lambda: ops.backward.conv(X, KERNEL, X, padding=HUGE), "^conv: the padded input would have"),
    "pool": (lambda: ops.max_pool(X, 2, padding=HUGE), "^max_pool: the padded input would have 2000000000006 ×"),
    "pool window": (lambda: ops.lp_pool(X, HUGE, padding=HUGE), "^lp_pool: window 1000000000000 is too large"),
    "adaptive": (
        lambda: ops.adaptive_avg_pool(X, 10**6),
        "^adaptive_avg_pool: the output would have 1000000 × 1000000",
    ),
    "transpose": (lambda: ops.conv_transpose(X, KERNEL, stride=10**9), "^conv_transpose: the output would have 5"),
    "transpose dilation": (lambda: ops.conv_transpose(X, KERNEL, dilation=10**9), "^conv_transpose: the output would"),
    "matrix": (
        lambda: ops.convolution_matrix(KERNEL, (HUGE, HUGE, 1)),
        "^convolution_matrix: the padded input would have",
    ),
    "large matrix": (
        lambda: ops.convolution_matrix(KERNEL, (5000, 5000, 1)),
        "^convolution_matrix: the matrix of kernel .* 224,820",
    ),
    "toeplitz": (
        lambda: ops.conv(jnp.ones((1, 5000, 5000, 1)), KERNEL, impl="toeplitz"),
        "^conv: the matrix of kernel .* at most 67,108,864 are supported: use smaller images or another impl",
    ),
    "coverage": (lambda: shapes.coverage(Window(3), (HUGE, HUGE)), "^the padded input would have"),
    "policy": (lambda: shapes.output_size(7, 3, stride=2**31 - 1, exact=True), "would fit, or stride 1, 2 or 4$"),
    "long": (
        lambda: shapes.output_size(HUGE, 3, stride=7, exact=True),
        "padding 1 or 8 on both sides would fit, or stride 1$",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_huge_sizes_raise_one_line_errors(name):
    call, message = CALLS[name]
    with pytest.raises(InputError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_largest_stride_is_accepted():
    for impl in ("auto", *ops.LOWERINGS):
        assert ops.conv(X, KERNEL, stride=2**31 - 1, impl=impl).tolist() == [[[[9.0]]]]
    assert ops.max_pool(X, 2, stride=2**31 - 1).tolist() == [[[[1.0]]]]


def test_same_padding_of_huge_size_is_exact():
    """Division of floats would be wrong by a pixel."""
    size = 2**62 + 1
    assert shapes.resolve_padding("SAME", size, 3, 1) == (1, 1)
    assert shapes.resolve_padding("SAME", size, 2, 2) == (0, 1)


def test_suggested_padding_matches_search():
    for size in range(1, 10):
        for window in range(1, 5):
            for stride in range(1, 7):
                if size < window or (size - window) % stride == 0:
                    continue
                with pytest.raises(InputError) as raised:
                    shapes.output_size(size, window, stride=stride, exact=True)
                fits = [p for p in range(window + stride) if (size + 2 * p - window) % stride == 0][:2]
                expected = f"padding {' or '.join(map(str, fits))} on both sides" if fits else "padding ("
                assert expected in str(raised.value)


LAYERS = [
    lambda window: Conv(3, window, stride=list(window), padding=[[1, 2], [0, 1]], dilation=np.array([1, 1])),
    lambda window: MaxPool(window),
    lambda window: AvgPool(window, stride=window, padding=[1, [0, 1]]),
    lambda window: layers.ConvTranspose(3, window, stride=window),
]


@pytest.mark.parametrize("make_layer", LAYERS)
def test_layers_with_list_arguments_are_hashable(make_layer):
    """A hash makes them valid static arguments of jit."""
    for window in ([3, 3], np.array([3, 3])):
        layer = make_layer(window)
        hash(layer)
        assert layer.window == make_layer((3, 3)).window and hash(layer.window) == hash(make_layer((3, 3)).window)


def test_window_survives_copy_and_pickle():
    window = Window([3, 3], padding=[[1, 2], 0])
    for restored in (copy.deepcopy(window), pickle.loads(pickle.dumps(window)), window._replace(stride=1)):
        assert restored == window and type(restored) is Window
