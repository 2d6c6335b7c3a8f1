"""Pooling: plain loops, PyTorch's rules for partial windows, and ties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

import numpy_reference as reference
from jaxconv import DtypeError, InputError, ops

CASES = {
    "plain": ((2, 6, 8, 3), {"window_shape": 2}, (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "overlap": ((1, 7, 6, 2), {"window_shape": (3, 2), "stride": (2, 1)}, (2, 1), ((0, 0), (0, 0)), (1, 1)),
    "padded": ((1, 6, 5, 2), {"window_shape": 3, "stride": 2, "padding": 1}, (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "same": ((1, 7, 6, 2), {"window_shape": 2, "padding": "SAME"}, (2, 2), ((0, 1), (0, 0)), (1, 1)),
    "dilated": ((1, 8, 9, 2), {"window_shape": 2, "stride": 1, "dilation": (2, 3)}, (1, 1), ((0, 0), (0, 0)), (2, 3)),
    "1-D": ((2, 9, 3), {"window_shape": 3}, (3,), ((0, 0),), (1,)),
    "3-D": ((1, 4, 4, 6, 2), {"window_shape": 2}, (2, 2, 2), ((0, 0),) * 3, (1, 1, 1)),
}
EVERY_CASE = pytest.mark.parametrize(("shape", "options", "stride", "pads", "dilation"), CASES.values(), ids=CASES)


def window_of(options, stride):
    window = options["window_shape"]
    return (window,) * len(stride) if isinstance(window, int) else window


def max_pool_gradient_loops(x, dy, window, stride, pads, dilation, ties):
    """Gradient of max pooling by plain loops: dy of each window goes to its maxima, or to the first of them."""
    dx, pixels_by_position = np.zeros(x.shape), {}
    for position, _, pixel in reference.window_entries(x.shape[1:-1], window, stride, pads, dilation):
        pixels_by_position.setdefault(position, []).append(pixel)
    for position, pixels in pixels_by_position.items():
        for n in range(x.shape[0]):
            for c in range(x.shape[-1]):
                values = [x[(n, *pixel, c)] for pixel in pixels]
                maxima = [pixel for pixel, value in zip(pixels, values) if value == max(values)]
                maxima = maxima[:1] if ties == "first" else maxima
                for pixel in maxima:
                    dx[(n, *pixel, c)] += dy[(n, *position, c)] / len(maxima)
    return dx


def norm_of_order_3(pixels, axis):
    return (np.abs(pixels) ** 3).sum(axis) ** (1 / 3)


LINEAR = {
    "max": (ops.max_pool, np.max),
    "max, split": (functools.partial(ops.max_pool, ties="split"), np.max),
    "avg": (ops.avg_pool, np.mean),
}


@pytest.mark.parametrize(("op", "reduce"), LINEAR.values(), ids=LINEAR)
@EVERY_CASE
def test_pools_match_loops_and_finite_differences(x64, rng, op, reduce, shape, options, stride, pads, dilation):
    x = rng.permutation(1.0 + np.arange(np.prod(shape))).reshape(shape)  # no ties
    expected = reference.pool(x, window_of(options, stride), stride, pads, dilation, reduce)
    f = jax.jit(functools.partial(op, **options))
    np.testing.assert_allclose(f(jnp.asarray(x)), expected, rtol=1e-12)
    # All ops are linear between ties, and entries differ by 1, so a finite difference with step 0.1 is exact.
    check_grads(f, (jnp.asarray(x),), order=1, modes=("rev",), eps=0.1, atol=1e-9, rtol=1e-9)


def test_pool_gradients_match_plain_loops(x64, rng):
    x = jnp.asarray(rng.permutation(np.arange(36.0)).reshape(1, 6, 6, 1))
    dy = rng.normal(size=(1, 3, 3, 1))
    max_gradient, avg_gradient = np.zeros(x.shape), np.zeros(x.shape)
    for i in range(3):
        for j in range(3):
            block = np.asarray(x)[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
            a, b = np.unravel_index(block.argmax(), (2, 2))
            max_gradient[0, 2 * i + a, 2 * j + b, 0] = dy[0, i, j, 0]
            avg_gradient[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0] = dy[0, i, j, 0] / 4
    np.testing.assert_allclose(jax.vjp(lambda x: ops.max_pool(x, 2), x)[1](jnp.asarray(dy))[0], max_gradient)
    np.testing.assert_allclose(jax.vjp(lambda x: ops.avg_pool(x, 2), x)[1](jnp.asarray(dy))[0], avg_gradient)


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_avg_pool_at_border_with_count_include_pad(count_include_pad):
    y = ops.avg_pool(jnp.ones((1, 4, 4, 1)), 3, stride=1, padding=1, count_include_pad=count_include_pad)[0, :, :, 0]
    corner, edge = (4 / 9, 6 / 9) if count_include_pad else (1, 1)
    np.testing.assert_allclose([y[0, 0], y[0, 1], y[1, 1]], [corner, edge, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "num_positions"),
    # PyTorch's rule: the last window may exceed the input, but must start on a pixel (or on the low padding).
    [
        (7, 2, 2, 0, 4),
        (6, 2, 2, 0, 3),
        (5, 2, 3, 0, 2),
        (7, 3, 3, 1, 3),
        (4, 1, 3, 0, 2),
        (5, 3, 3, 1, 2),
        (2, 2, 4, 1, 1),
    ],
)
def test_ceil_mode_adds_partial_last_window(size, window, stride, padding, num_positions):
    x = jnp.arange(1.0, size + 1)[None, :, None]
    y = ops.max_pool(x, window, stride=stride, padding=padding, ceil_mode=True)[0, :, 0]
    assert y.shape == (num_positions,)
    starts = [p * stride - padding for p in range(num_positions)]
    assert y.tolist() == [min(size, start + window) for start in starts]
    mean = ops.avg_pool(x, window, stride=stride, padding=padding, ceil_mode=True)[0, :, 0]
    values_inside = [[v for v in range(start + 1, start + window + 1) if 1 <= v <= size] for start in starts]
    np.testing.assert_allclose(mean, [np.mean(v) for v in values_inside], rtol=1e-6)
    sums = ops.lp_pool(x, window, stride=stride, padding=padding, ceil_mode=True, p=1)[0, :, 0]
    np.testing.assert_allclose(sums, [np.sum(v) for v in values_inside], rtol=1e-6)


@pytest.mark.parametrize("ties", ["first", "split"])
@EVERY_CASE
def test_max_pool_ties_match_plain_loops(x64, rng, ties, shape, options, stride, pads, dilation):
    x = rng.integers(0, 2, size=shape).astype(float)  # windows with one or several maxima, up to all pixels
    y, vjp = jax.vjp(jax.jit(lambda x: ops.max_pool(x, ties=ties, **options)), jnp.asarray(x))
    dy = rng.normal(size=y.shape)
    expected = max_pool_gradient_loops(x, dy, window_of(options, stride), stride, pads, dilation, ties)
    np.testing.assert_allclose(vjp(jnp.asarray(dy))[0], expected, rtol=1e-12, atol=1e-12)


def test_max_pool_splits_gradient_over_three_ties():
    x = jnp.array([2.0, 7, 7, 1, 7])[None, :, None]
    split = jax.grad(lambda x: ops.max_pool(x, 5, ties="split").sum())(x)[0, :, 0]
    np.testing.assert_allclose(split, [0, 1 / 3, 1 / 3, 0, 1 / 3], rtol=1e-6)
    first = jax.grad(lambda x: ops.max_pool(x, 5).sum())(x)[0, :, 0]
    np.testing.assert_array_equal(first, [0, 1, 0, 0, 0])


def test_max_pool_of_integers_negatives_and_nan():
    x = jnp.asarray([[200, 3], [7, 255]], jnp.uint8)[None, :, :, None]
    assert ops.max_pool(x, 2).item() == 255 and ops.max_pool(x, 2).dtype == jnp.uint8
    assert ops.max_pool(jnp.full((1, 2, 2, 1), -5.0), 3, padding=1).item() == -5
    for index_of_nan in range(4):
        assert np.isnan(ops.max_pool(jnp.zeros(4).at[index_of_nan].set(jnp.nan).reshape(1, 2, 2, 1), 2).item())


OPS = {
    "max": functools.partial(ops.max_pool, window_shape=(3, 2), stride=1, padding=1),
    "max, split": functools.partial(ops.max_pool, window_shape=(3, 2), stride=1, padding=1, ties="split"),
    "avg": functools.partial(ops.avg_pool, window_shape=(3, 2), stride=1, padding=1),
    "l2": functools.partial(ops.lp_pool, window_shape=(3, 2), stride=1, padding=1),
    "l3": functools.partial(ops.lp_pool, window_shape=(2, 3), stride=1, dilation=2, p=3),
    "adaptive avg": functools.partial(ops.adaptive_avg_pool, output_size=(3, 5)),
    "adaptive max": functools.partial(ops.adaptive_max_pool, output_size=(3, 5)),
    "global avg": ops.global_avg_pool,
    "global max": ops.global_max_pool,
}
EVERY_OP = pytest.mark.parametrize("op", OPS.values(), ids=OPS)


@EVERY_OP
def test_pool_transformations_match_eager(x64, rng, op):
    x, d = jnp.asarray(rng.normal(size=(2, 2, 2, 8, 7, 2)))
    eager = op(x[0])  # not compiled
    dy = jnp.asarray(rng.normal(size=eager.shape))

    @jax.jit
    def transformed(x, d, dy):
        _, forward = jax.jvp(op, (x[0],), (d[0],))
        (backward,) = jax.vjp(op, x[0])[1](dy)
        return jax.vmap(op)(x), jnp.stack([op(image) for image in x]), (forward * dy).sum(), (backward * d[0]).sum()

    mapped, one_by_one, forward, backward = transformed(x, d, dy)
    np.testing.assert_allclose(one_by_one[0], eager, rtol=1e-12)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-12)
    np.testing.assert_allclose(forward, backward, rtol=1e-10)


def value_and_gradient(op):
    return jax.jit(lambda x, dy: (op(x), *jax.vjp(op, x)[1](dy)))


@EVERY_OP
def test_half_precision_pools_sum_in_float32(x64, rng, op, dtype=jnp.bfloat16):
    """The value, and the gradient of overlapping windows, equal those of float64 rounded once."""
    x = jnp.asarray(rng.normal(1, 1, size=(2, 9, 11, 3)), dtype)
    dy = jnp.asarray(rng.normal(size=jax.eval_shape(op, x).shape), dtype)
    actual = value_and_gradient(op)(x, dy)
    exact = value_and_gradient(op)(x.astype(jnp.float64), dy.astype(jnp.float64))
    assert [half.dtype for half in actual] == [dtype, dtype]
    for half, expected in zip(actual, exact):
        np.testing.assert_allclose(np.asarray(half, float), expected, rtol=float(jnp.finfo(dtype).eps), atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_averages_do_not_overflow_half_precision(dtype):
    # The sum 40 × 3008 overflows float16, and bfloat16 would round the partial sums.
    x = jnp.full((1, 40, 1), 3008, dtype)
    averages = [ops.avg_pool(x, 40), ops.adaptive_avg_pool(x, 1), ops.global_avg_pool(x)]
    assert [y.dtype for y in averages] == [dtype] * 3 and [y.item() for y in averages] == [3008] * 3


def test_max_pools_keep_integer_dtype():
    x = jnp.asarray([[-7, 3], [5, -100]], jnp.int8)[None, :, :, None]
    for op in (
        ops.global_max_pool,
        lambda x: ops.adaptive_max_pool(x, 1),
        lambda x: ops.max_pool(x, 2, ties="split"),
    ):
        assert op(x).dtype == jnp.int8 and op(x).item() == 5


POOLS = {
    "max": (ops.max_pool, np.max),
    "split": (functools.partial(ops.max_pool, ties="split"), np.max),
    "avg": (ops.avg_pool, np.mean),
    "l3": (functools.partial(ops.lp_pool, p=3), norm_of_order_3),
}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_pools_of_random_arguments_match_plain_loops(data):
    def ints(low, high, count):
        return data.draw(st.tuples(*[st.integers(low, high)] * count))

    ndim = data.draw(st.integers(1, 3))
    window, stride, dilation = ints(1, 3, ndim), ints(1, 3, ndim), ints(1, 2, ndim)
    # Every window must contain a pixel, so padding is less than the window, and no dilation gap spans the image.
    size = tuple(d * (f - 1) + 1 + extra for d, f, extra in zip(dilation, window, ints(0, 2, ndim)))
    pads = tuple(tuple(min(p, f - 1) for p in ints(0, 2, 2)) for f in window)
    x = np.random.default_rng(sum(size)).normal(size=(2, *size, 2)).astype(np.float32)
    options = {"window_shape": window, "stride": stride, "padding": pads, "dilation": dilation}
    actual = jax.jit(lambda x: [op(x, **options) for op, _ in POOLS.values()])(x)
    for y, (_, reduce) in zip(actual, POOLS.values()):
        expected = reference.pool(x.astype(np.float64), window, stride, pads, dilation, reduce)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_pools_of_random_invalid_arguments_raise(data):
    name = data.draw(st.sampled_from(["max_pool", "avg_pool", "lp_pool"]))
    ndim = data.draw(st.integers(1, 3))
    options = {"window_shape": 2, "stride": 1, "padding": 0, "dilation": 1}
    sizes = [0, -1, 1.5, "2", True, (), (1,) * (ndim + 1), (2, 0, 2, 2)[:ndim] if ndim > 1 else (0,)]
    illegal = {
        "window_shape": [*sizes, None, 5, (4,) * (ndim - 1) + (6,)],
        "stride": sizes,
        "dilation": [*sizes, 4],
        "padding": [-1, 1.5, "SAMEE", None, (1,) * (ndim + 1), ((1, -1),) * ndim, 2, ((0, 2),) * ndim],
    }
    option = data.draw(st.sampled_from(sorted(illegal)))
    options[option] = data.draw(st.sampled_from(illegal[option]))
    with pytest.raises(InputError, match=f"^{name}: ") as raised:
        getattr(ops, name)(jnp.ones((1, *(4,) * ndim, 2)), **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.max_pool(jnp.ones((1, 3, 3, 1)), 4), r"max_pool: window \(4, 4\) on an input of \(3, 3\)"),
        (lambda: ops.avg_pool(jnp.ones((1, 3, 3, 1)), 2, padding=2), r"avg_pool: padding .* contains only padding"),
        (lambda: ops.max_pool(jnp.ones((3, 3)), 2), r"max_pool: x \(3, 3\) should be \(N, \*spatial, C\): add the ba"),
        (lambda: ops.max_pool([[[1.0], [2.0]]], 2, ceil_mode="no"), r"^max_pool: ceil_mode='no' should be True or"),
        (lambda: ops.avg_pool("image", 2), r"^avg_pool: x should be an array of numbers, not 'image'"),
        (lambda: ops.avg_pool(jnp.ones((1, 3, 1)), 2, count_include_pad=2), r"^avg_pool: count_include_pad=2 should"),
        (lambda: ops.avg_pool(jnp.ones((1, 4, 4, 1), jnp.uint8), 2), r"avg_pool: x is uint8"),
        (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1), bool), 2), r"max_pool: x is bool, which has no largest value"),
        (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1)), 2, stride=0), r"max_pool: stride 0: give an int"),
        (
            lambda: ops.max_pool(jnp.ones((1, 4, 1)), 2, ties="frist"),
            r"^max_pool: unknown ties 'frist': did you mean 'first'\? Known: first, split",
        ),
    ],
)
def test_pools_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    "op", [lambda x: ops.max_pool(x, 2), lambda x: ops.adaptive_max_pool(x, 2), ops.global_max_pool]
)
@pytest.mark.parametrize("dtype", [bool, complex])
def test_max_pools_of_unordered_dtypes_raise(op, dtype):
    with pytest.raises(DtypeError, match=r"max_pool: x is (bool|complex64), which has no largest value"):
        op(jnp.ones((1, 4, 4, 1), dtype))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_padding_gets_no_gradient(dtype):
    """As in PyTorch (2.13, max_pool1d), in a window of −∞ and padding the maximum is a pixel."""
    x = jnp.array([-np.inf, -np.inf, 1, 2], dtype)[None, :, None]
    all_lowest = jnp.full((1, 4, 1), -np.inf, dtype)

    def gradient_of(x, window, **options):
        y, vjp = jax.vjp(jax.jit(lambda x: ops.max_pool(x, window, **options)), x)
        by_hand = jax.jit(lambda x, dy: ops.backward.max_pool(x, dy, window, **options))(x, jnp.ones_like(y))
        (dx,) = vjp(jnp.ones_like(y))
        np.testing.assert_array_equal(dx, by_hand)
        return dx.ravel().tolist()

    assert gradient_of(x, 2, padding=1) == [1, 0, 1, 1]
    assert gradient_of(all_lowest, 3, stride=1, padding=1) == [2, 1, 1, 0]
    assert gradient_of(x, 2, padding=1, ties="split") == [1, 0, 1, 1]
    assert gradient_of(all_lowest, 2, padding=1, ties="split") == [1, 0.5, 0.5, 1]
    with_nans = jnp.array([1, np.nan, np.nan, 0], dtype)[None, :, None]
    assert gradient_of(with_nans, 4) == [0, 1, 0, 0]
    assert gradient_of(with_nans, 4, ties="split") == [0, 0.5, 0.5, 0]


def test_ceil_mode_window_exceeds_both_ends():
    """As in PyTorch, where ``max_pool1d([1, 2], 3, stride=2, ceil_mode=True)`` is [2]."""
    x = jnp.array([1.0, 2])[None, :, None]
    assert ops.max_pool(x, 3, stride=2, ceil_mode=True).tolist() == [[[2]]]
    assert ops.avg_pool(x, 3, stride=2, ceil_mode=True).tolist() == [[[1.5]]]
    assert ops.max_pool(x, 3, stride=2, ceil_mode=True, padding=1).tolist() == [[[2], [2]]]
    with pytest.raises(InputError, match="the window spans 4 pixels but the padded input has only 2"):
        ops.max_pool(x, 4, stride=2, ceil_mode=True)


@EVERY_OP
def test_empty_batch_gives_empty_output(op):
    x = jnp.ones((2, 6, 9, 3))
    assert jax.jit(op)(x[:0]).shape == (0, *jax.eval_shape(op, x).shape[1:])
