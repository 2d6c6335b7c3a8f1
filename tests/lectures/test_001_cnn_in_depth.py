"""Lecture 001, "CNN in-depth": sizes, parameters, receptive fields, and back-propagation by hand.

One test per row, named after it. Rows tested elsewhere:

    001-02  permuted pixels: an MLP against a CNN               experiments/invariance.py
    001-03  LeNet-5                                             experiments/lenet.py, and 000-14 to 000-21
    001-13  all-convolutional network                           experiments/pooling.py, cifar10.py
    001-14  autoencoders without pooling                        experiments/generative.py
    001-26  beyond image classification                         experiments/sequence.py, generative.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numpy_reference as reference
from jaxconv import Conv, InputError, MaxPool, ops, relu, serial, shapes
from jaxconv.explain import arithmetic, summarize
from jaxconv.shapes import Window
from lecture_tables import as_integers, compiled, image, integers, plane, table

EVERY_IMPL = pytest.mark.parametrize("impl", ops.LOWERINGS)


def test_001_01_digit_is_18_by_18_matrix():
    """The "8" is a matrix of 18×18 numbers from 0 to 255; a color image has three matrices."""
    eight = table("s001_digit8_18x18")
    assert eight.shape == (18, 18) and (eight.min(), eight.max()) == (0, 255)
    assert image(eight).shape == (1, 18, 18, 1) and image(np.stack([eight] * 3, axis=-1)).shape == (1, 18, 18, 3)


def test_001_04_convolution_equivariant_pooling_invariant(rng):
    """The lecture says invariant; a convolution is equivariant, and global pooling makes it invariant (E13)."""
    eight, kernel = image(table("s001_digit8_18x18")), integers(rng, 3, 3, 1, 4)

    def conv(x):
        return relu(ops.conv(x, kernel, padding="SAME", padding_mode="circular"))

    moved = jnp.roll(eight, (5, -3), axis=(1, 2))
    np.testing.assert_array_equal(conv(moved), jnp.roll(conv(eight), (5, -3), axis=(1, 2)))
    assert (conv(moved) != conv(eight)).any()
    np.testing.assert_array_equal(ops.global_max_pool(conv(moved)), ops.global_max_pool(conv(eight)))
    np.testing.assert_allclose(ops.global_avg_pool(conv(moved)), ops.global_avg_pool(conv(eight)), rtol=1e-6)


def test_001_05_output_is_dot_product_of_75_numbers(rng):
    """A 5×5×3 filter on 32×32×3 gives 28×28×1 numbers, each of 75 products and a bias."""
    kernel = 1 + rng.permutation(75).reshape(5, 5, 3, 1).astype(np.float32)
    row = summarize(Conv(1, 5), (32, 32, 3)).rows[0]
    assert row.shape == (28, 28, 1) and row.macs == 75 * 28 * 28
    x = jnp.asarray(integers(rng, 1, 32, 32, 3))
    sum_terms = arithmetic("conv", x, kernel, np.float32([10]), index=(0, 13, 8, 0))
    assert len(sum_terms.terms) == 75 and sum_terms.bias == 10
    assert sum_terms.total == (x[0, 13:18, 8:13] * kernel[..., 0]).sum() + 10
    for position in [(0, 0), (27, 27), (13, 8)]:
        gradient = jax.grad(lambda x, position=position: ops.conv(x, kernel)[(0, *position, 0)])(x)
        assert np.count_nonzero(gradient) == 75


def test_001_06_six_filters_give_six_activation_maps():
    """Six 5×5 filters on 32×32×3: 28×28×6."""
    assert summarize(Conv(6, 5), (32, 32, 3)).rows[0].shape == (28, 28, 6)


def test_001_07_five_neurons_share_receptive_field(rng):
    """All 5 neurons of the depth column at one position have the same receptive field."""
    x, kernel = jnp.asarray(integers(rng, 1, 7, 6, 2)), 1 + rng.uniform(size=(3, 2, 2, 5)).astype(np.float32)
    y, vjp = jax.vjp(lambda x: ops.conv(x, kernel), x)
    patch = np.zeros(x.shape, bool)
    patch[0, 2:5, 3:5] = True
    for neuron in range(5):
        (gradient,) = vjp(jnp.zeros_like(y).at[0, 2, 3, neuron].set(1))
        np.testing.assert_array_equal(gradient != 0, patch)


def test_001_08_filters_start_random():
    """They start random, with He's standard deviation √(2 / (F·F·D)), and depend on the key."""
    first, other = (Conv(64, 5).init(jax.random.key(seed), (32, 32, 16))[0]["kernel"] for seed in (0, 1))
    assert first.shape == (5, 5, 16, 64) and (first != other).all()
    np.testing.assert_allclose([first.mean() + 1, first.std()], [1, np.sqrt(2 / (25 * 16))], rtol=0.01)


def test_001_09_convolution_output_size():
    """7 pixels, filter 3: stride 1 gives 5, stride 2 gives 3, stride 3 is "not possible", but is with padding 1."""
    assert shapes.output_size(7, 3, stride=1, exact=True) == 5
    assert shapes.output_size(7, 3, stride=2, exact=True) == 3
    with pytest.raises(
        InputError, match=r"= 2\.33 window positions is not an integer; padding 1 or 4 on both sides would fit"
    ):
        shapes.output_size(7, 3, stride=3, exact=True)
    assert shapes.output_size(7, 3, stride=3, padding=1, exact=True) == 3
    assert shapes.output_size(7, 3, stride=3) == 2  # rounded down, as in XLA and row 002-10
    x, kernel = np.zeros((1, 7, 7, 1), np.float32), np.zeros((3, 3, 1, 1), np.float32)
    for stride, padding, size in [(1, 0, 5), (2, 0, 3), (3, 0, 2), (3, 1, 3)]:
        assert ops.conv(x, kernel, stride=stride, padding=padding).shape == (1, size, size, 1)


def test_001_10_typical_architecture():
    """conv → relu → conv → relu → pool → conv → relu → conv → relu → pool."""
    block = [Conv(4, 3, padding="SAME"), relu, Conv(4, 3, padding="SAME"), relu, MaxPool(2)]
    table = summarize(serial(*block, *block), (32, 24, 3))
    assert [row.kind for row in table.rows] == ["conv", "relu", "conv", "relu", "max_pool"] * 2
    assert [row.shape for row in table.rows if row.kind == "max_pool"] == [(16, 12, 4), (8, 6, 4)]


@pytest.mark.parametrize(
    ("h", "w", "d", "f", "s"), [(6, 8, 3, 2, 2), (7, 5, 2, 3, 1), (9, 7, 3, 3, 2), (5, 4, 1, 1, 3)]
)
@pytest.mark.parametrize("pool", [ops.max_pool, ops.avg_pool])
def test_001_11_pooling_keeps_depth(rng, pool, h, w, d, f, s):
    """W2 = (W1 − F)/S + 1, D2 = D1, and each map is pooled separately, so channels can be permuted."""
    x = rng.permutation(h * w * d).reshape(1, h, w, d).astype(np.float32)
    y = compiled(pool, x, window_shape=f, stride=s)
    assert y.shape == (1, (h - f) // s + 1, (w - f) // s + 1, d)
    np.testing.assert_array_equal(compiled(pool, x[..., ::-1], window_shape=f, stride=s), y[..., ::-1])


def test_001_12_max_average_and_l2_norm_pooling():
    """Three reductions of one window; the gradient of the norm is finite even where all inputs are zero."""
    x = jnp.array([[3.0, 4.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])[None, :, :, None]
    assert compiled(ops.max_pool, x, window_shape=2).ravel().tolist() == [4, 0]
    assert compiled(ops.avg_pool, x, window_shape=2).ravel().tolist() == [1.75, 0]
    np.testing.assert_allclose(compiled(ops.lp_pool, x, window_shape=2).ravel(), [5, 0], rtol=1e-6)
    slope = jax.jit(jax.grad(lambda x: ops.lp_pool(x, 2).sum()))(x)[0, :, :, 0]
    np.testing.assert_allclose(slope, [[0.6, 0.8, 0, 0], [0, 0, 0, 0]], rtol=1e-6)


@given(f=st.integers(1, 7), d=st.integers(1, 9), k=st.integers(1, 16), size=st.integers(7, 40))
@settings(max_examples=15, deadline=None)
def test_001_15_number_of_parameters(f, d, k, size):
    """F·F·D weights per filter: F·F·D·K weights and K biases, independent of the image size."""
    assert summarize(Conv(k, f), (size, size, d)).params == f * f * d * k + k
    assert summarize(Conv(k, f, use_bias=False), (size, size, d)).params == f * f * d * k


def test_001_16_1x1_filters_and_odd_same_padding(rng):
    """1×1 is a dense layer on every pixel, "because of the depth"; SAME padding of an odd F is symmetric."""
    x, kernel = integers(rng, 2, 3, 4, 5), integers(rng, 1, 1, 5, 6)
    np.testing.assert_array_equal(ops.conv(x, kernel), (x.reshape(-1, 5) @ kernel[0, 0]).reshape(2, 3, 4, 6))
    for f in (1, 3, 5, 7, 11):
        assert shapes.resolve_padding("SAME", 28, f) == ((f - 1) // 2, (f - 1) // 2)
    for f in (2, 4, 6):
        assert shapes.resolve_padding("SAME", 28, f) == (f // 2 - 1, f // 2)


def test_001_17_receptive_field_grows_by_layer():
    """Each layer takes the output of the previous one, so the receptive field grows layer by layer."""
    lenet = [Window(5), Window(2, stride=2)] * 2
    mnist = [Window(3), Window(2, stride=2), Window(3), Window(2, stride=2), Window(3)]
    assert [field[0] for field, _ in shapes.receptive_field(lenet)] == [5, 6, 14, 16]
    assert [field[0] for field, _ in shapes.receptive_field(mnist)] == [3, 4, 8, 10, 18]
    assert [jump[0] for _, jump in shapes.receptive_field(mnist)] == [1, 2, 2, 4, 4]


@EVERY_IMPL
def test_001_18_convolution_of_non_square_sizes(rng, impl):
    """The lecture: "non rectangular image process is still unknown". This is an erratum (E7)."""
    x, kernel = integers(rng, 2, 9, 14, 3), integers(rng, 4, 2, 3, 2)
    options = {"stride": (1, 3), "padding": ((2, 0), (1, 3)), "dilation": (2, 1)}
    expected = reference.conv(x, kernel, (1, 3), ((2, 0), (1, 3)), (2, 1), 1)
    np.testing.assert_array_equal(as_integers(compiled(ops.conv, x, kernel, impl=impl, **options), impl), expected)


def test_001_19_cross_entropy_stays_finite(x64):
    """E = −(t ln y + (1−t) ln(1−y)) is the softmax loss of two classes (E12), and finite for any logits."""
    z, t = np.linspace(-6, 6, 9), np.arange(9) % 2
    y = 1 / (1 + np.exp(-z))
    logits = np.stack([np.zeros(9), z], axis=1)
    binary = -(t * np.log(y) + (1 - t) * np.log(1 - y))
    np.testing.assert_allclose(ops.softmax_cross_entropy(logits, t), binary, rtol=1e-12)
    extreme = jnp.array([[0.0, 200.0], [0.0, -200.0]])
    np.testing.assert_allclose(ops.softmax_cross_entropy(extreme, jnp.array([0, 1])), [200, 200], rtol=1e-12)
    assert np.isfinite(jax.grad(lambda z: ops.softmax_cross_entropy(z, jnp.array([0, 1])).sum())(extreme)).all()


@EVERY_IMPL
def test_001_20_convolution_and_kernel_gradient_sums(rng, impl):
    """y[r,c] = ΣΣ x(r+a, c+b) w(a,b) and ∂L/∂w[a,b] = ΣΣ ∂L/∂y[r,c] x(r+a, c+b), up to k−1 and N−1 (E8)."""
    x, w = integers(rng, 6, 7), integers(rng, 3, 2)
    dy = integers(rng, 4, 6)
    y, dw = np.zeros((4, 6)), np.zeros((3, 2))
    for r, c in np.ndindex(4, 6):
        for a, b in np.ndindex(3, 2):
            y[r, c] += x[r + a, c + b] * w[a, b]
            dw[a, b] += dy[r, c] * x[r + a, c + b]
    actual, vjp = jax.vjp(jax.jit(lambda k: ops.conv(image(x), k, impl=impl)), jnp.asarray(w)[:, :, None, None])
    np.testing.assert_array_equal(as_integers(plane(actual), impl), y)
    np.testing.assert_array_equal(as_integers(vjp(image(dy))[0][:, :, 0, 0], impl), dw)


def test_001_20_kernel_gradient_is_cross_correlation(rng):
    """Image and output gradient are correlated; "Convolution(X, ∂E/∂O)", as printed, would flip it (E11)."""
    x, kernel = integers(rng, 1, 9, 7, 2), integers(rng, 3, 2, 2, 3)
    y, vjp = jax.vjp(lambda k: ops.conv(x, k, stride=2), jnp.asarray(kernel))
    dy = integers(rng, *y.shape)
    # Channels and examples are swapped; the stride becomes a dilation of dy.
    by_channel, dy_kernel = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)
    correlated = ops.conv(by_channel, dy_kernel, dilation=2)[:, :3, :2].transpose(1, 2, 0, 3)
    np.testing.assert_array_equal(vjp(dy)[0], correlated)
    np.testing.assert_array_equal(ops.backward.conv(x, kernel, dy, stride=2)[1], correlated)
    convolved = ops.conv(by_channel, dy_kernel, dilation=2, flip_kernel=True)[:, :3, :2].transpose(1, 2, 0, 3)
    assert (convolved != correlated).any()


def three_by_three(rng):
    """Return the X (3×3), F (2×2) and ∂E/∂O (2×2) of the slides, and the gradients of X and F by jax."""
    x, f, d = (integers(rng, n, n) for n in (3, 2, 2))
    _, vjp = jax.vjp(lambda x, k: ops.conv(x, k), *map(jnp.asarray, (image(x), f[:, :, None, None])))
    dx, df = vjp(image(d))
    return x, f, d, np.asarray(dx)[0, :, :, 0], np.asarray(df)[:, :, 0, 0]


def test_001_21_kernel_gradient_line_by_line(rng):
    """The four lines ∂E/∂F11 to ∂E/∂F22."""
    x, _, d, _, df = three_by_three(rng)
    ((x11, x12, x13), (x21, x22, x23), (x31, x32, x33)), ((o11, o12), (o21, o22)) = x, d
    lines = [
        [o11 * x11 + o12 * x12 + o21 * x21 + o22 * x22, o11 * x12 + o12 * x13 + o21 * x22 + o22 * x23],
        [o11 * x21 + o12 * x22 + o21 * x31 + o22 * x32, o11 * x22 + o12 * x23 + o21 * x32 + o22 * x33],
    ]
    np.testing.assert_array_equal(df, lines)


def test_001_22_input_gradient_line_by_line(rng):
    """The nine lines ∂E/∂X11 to ∂E/∂X33; X23 has F12 where F21 is printed (E9), and the last one is X33 (E10)."""
    _, f, d, dx, _ = three_by_three(rng)
    ((f11, f12), (f21, f22)), ((o11, o12), (o21, o22)) = f, d
    lines = [
        [o11 * f11, o11 * f12 + o12 * f11, o12 * f12],
        [o11 * f21 + o21 * f11, o11 * f22 + o12 * f21 + o21 * f12 + o22 * f11, o12 * f22 + o22 * f12],
        [o21 * f21, o21 * f22 + o22 * f21, o22 * f22],
    ]
    np.testing.assert_array_equal(dx, lines)
    assert dx[1, 2] != o12 * f22 + o22 * f21  # as printed


def test_001_22_input_gradient_is_full_convolution(rng):
    """Convolution with the filter rotated by 180°, over the output gradient padded with k − 1 zeros."""
    x, kernel = jnp.asarray(integers(rng, 2, 7, 6, 2)), integers(rng, 3, 2, 2, 4)
    y, vjp = jax.vjp(lambda x: ops.conv(x, kernel), x)
    dy = integers(rng, *y.shape)
    rotated = kernel[::-1, ::-1].transpose(0, 1, 3, 2)  # with inputs and outputs swapped
    padded = np.pad(dy, ((0, 0), (2, 2), (1, 1), (0, 0)))
    np.testing.assert_array_equal(vjp(dy)[0], ops.conv(padded, rotated))
    np.testing.assert_array_equal(vjp(dy)[0], ops.conv(dy, rotated, padding="FULL"))
    np.testing.assert_array_equal(vjp(dy)[0], ops.backward.conv(x, kernel, dy)[0])


def test_001_23_coverage_of_corner_is_1_of_center_9():
    """Pixel (1,1) is in 1 window, (2,2) in 2×2 and (3,3) in 3×3, as are all interior pixels."""
    coverage = shapes.coverage(Window(3), (7, 7))
    assert coverage[[0, 1, 2, 3], [0, 1, 2, 3]].tolist() == [1, 4, 9, 9]
    matrix = np.asarray(ops.convolution_matrix(np.ones((3, 3, 1, 1), np.float32), (7, 7, 1)).todense())
    np.testing.assert_array_equal(np.count_nonzero(matrix, axis=0).reshape(7, 7), coverage)


def test_001_24_max_pool_gradient_goes_to_argmax(rng):
    """All other units have gradient 0. With ties it goes to the first, or is split, by option."""
    x = jnp.asarray(rng.permutation(24).reshape(1, 4, 6, 1), jnp.float32)
    y, vjp = jax.vjp(jax.jit(lambda x: ops.max_pool(x, 2)), x)
    gradient = vjp(jnp.ones_like(y))[0]
    np.testing.assert_array_equal(gradient, jnp.isin(x, y.ravel()))
    ties = jnp.ones((1, 2, 2, 1))
    for rule, fractions in [("first", [1, 0, 0, 0]), ("split", [0.25] * 4)]:
        tie_gradient = jax.jit(jax.grad(lambda x, rule=rule: ops.max_pool(x, 2, ties=rule).sum()))(ties)
        assert tie_gradient.ravel().tolist() == fractions


@pytest.mark.parametrize("size", [(6,), (4, 6)], ids=["1-D", "2-D"])
@pytest.mark.parametrize("pool", ["max", "mean", "l2"])
def test_001_25_pooling_gradient_is_upsampling(x64, rng, size, pool):
    """δ_x = upsample(δ, g′): every error is distributed over its region, times the derivative of g there."""
    x = rng.permutation(np.arange(1.0, 1 + np.prod(size))).reshape(1, *size, 1)

    def upsample(small):
        for axis in range(len(size)):
            small = np.repeat(small, 2, axis=1 + axis)
        return small

    op = {"max": ops.max_pool, "mean": ops.avg_pool, "l2": ops.lp_pool}[pool]
    y, vjp = jax.vjp(jax.jit(lambda x: op(x, 2)), jnp.asarray(x))
    maxima = upsample(np.asarray(y))
    slope = {"max": np.where(x == maxima, 1.0, 0.0), "mean": 0.5 ** len(size), "l2": x / maxima}[pool]
    delta = rng.normal(size=y.shape)
    np.testing.assert_allclose(vjp(delta)[0], upsample(delta) * slope, rtol=1e-12)


@pytest.mark.parametrize("source", ["cs231n", "Nielsen", "Geitgey", "Sujit Rai", "Springenberg"])
def test_001_27_reading_page_cites_sources(source):
    """The further-reading page of the documentation cites the sources of the lecture."""
    assert source in (Path(__file__).parents[2] / "docs" / "reading.md").read_text()
