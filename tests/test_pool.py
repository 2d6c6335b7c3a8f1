"""Pooling against plain loops, torch's rules for overhanging windows, and what happens at ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.test_util import check_grads

from jaxconv import InputError, ops

CASES = {
    "plain": ((2, 6, 8, 3), {"window": 2}, (2, 2), ((0, 0), (0, 0)), (1, 1)),
    "overlap": ((1, 7, 6, 2), {"window": (3, 2), "stride": (2, 1)}, (2, 1), ((0, 0), (0, 0)), (1, 1)),
    "padded": ((1, 6, 5, 2), {"window": 3, "stride": 2, "padding": 1}, (2, 2), ((1, 1), (1, 1)), (1, 1)),
    "same": ((1, 7, 6, 2), {"window": 2, "padding": "SAME"}, (2, 2), ((0, 1), (0, 0)), (1, 1)),
    "dilated": ((1, 8, 9, 2), {"window": 2, "stride": 1, "dilation": (2, 3)}, (1, 1), ((0, 0), (0, 0)), (2, 3)),
    "1-D": ((2, 9, 3), {"window": 3}, (3,), ((0, 0),), (1,)),
    "3-D": ((1, 4, 4, 6, 2), {"window": 2}, (2, 2, 2), ((0, 0),) * 3, (1, 1, 1)),
}
EVERY_CASE = pytest.mark.parametrize(("shape", "options", "stride", "pads", "dilation"), CASES.values(), ids=CASES)


def windows(options, stride):
    window = options["window"]
    return (window,) * len(stride) if isinstance(window, int) else window


@pytest.mark.parametrize(("op", "reduce"), [(ops.max_pool, np.max), (ops.avg_pool, np.mean)], ids=["max", "avg"])
@EVERY_CASE
def test_value_equals_plain_loops_and_gradient_its_differences(
    x64, rng, op, reduce, shape, options, stride, pads, dilation
):
    x = rng.permutation(np.arange(float(np.prod(shape)))).reshape(shape)  # no ties
    wanted = reference.pool(x, windows(options, stride), stride, pads, dilation, reduce)
    np.testing.assert_allclose(op(jnp.asarray(x), **options), wanted, rtol=1e-12)
    # Both are linear between ties, and the entries are 1 apart: a difference over 0.1 is exact.
    check_grads(lambda x: op(x, **options), (jnp.asarray(x),), order=1, modes=("rev",), eps=0.1, atol=1e-9, rtol=1e-9)


def test_pooled_gradients_go_where_the_loops_say(x64, rng):
    x = jnp.asarray(rng.permutation(np.arange(36.0)).reshape(1, 6, 6, 1))
    dy = rng.normal(size=(1, 3, 3, 1))
    routed, spread = np.zeros(x.shape), np.zeros(x.shape)
    for i in range(3):
        for j in range(3):
            block = np.asarray(x)[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0]
            a, b = np.unravel_index(block.argmax(), (2, 2))
            routed[0, 2 * i + a, 2 * j + b, 0] = dy[0, i, j, 0]
            spread[0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 0] = dy[0, i, j, 0] / 4
    np.testing.assert_allclose(jax.vjp(lambda x: ops.max_pool(x, 2), x)[1](jnp.asarray(dy))[0], routed)
    np.testing.assert_allclose(jax.vjp(lambda x: ops.avg_pool(x, 2), x)[1](jnp.asarray(dy))[0], spread)


@pytest.mark.parametrize("include", [False, True])
def test_average_at_the_border_counts_what_it_says(include):
    y = ops.avg_pool(jnp.ones((1, 4, 4, 1)), 3, stride=1, padding=1, count_include_pad=include)[0, :, :, 0]
    corner, edge = (4 / 9, 6 / 9) if include else (1, 1)
    np.testing.assert_allclose([y[0, 0], y[0, 1], y[1, 1]], [corner, edge, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "places"),
    # PyTorch's rule: a last window may hang over the end, but must start on a pixel (or on the low padding).
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
def test_ceil_mode_lets_the_last_window_hang_over(size, window, stride, padding, places):
    x = jnp.arange(1.0, size + 1)[None, :, None]
    y = ops.max_pool(x, window, stride=stride, padding=padding, ceil_mode=True)[0, :, 0]
    assert y.shape == (places,)
    starts = [p * stride - padding for p in range(places)]
    assert y.tolist() == [min(size, start + window) for start in starts]
    mean = ops.avg_pool(x, window, stride=stride, padding=padding, ceil_mode=True)[0, :, 0]
    real = [[v for v in range(start + 1, start + window + 1) if 1 <= v <= size] for start in starts]
    np.testing.assert_allclose(mean, [np.mean(v) for v in real], rtol=1e-6)


def test_first_of_equals_gets_the_whole_gradient():
    gradient = jax.grad(lambda x: ops.max_pool(x, 2).sum())(jnp.ones((1, 2, 4, 1)))
    assert gradient[0, :, :, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]


def test_integers_negatives_and_nan_keep_their_meaning():
    x = jnp.asarray([[200, 3], [7, 255]], jnp.uint8)[None, :, :, None]
    assert ops.max_pool(x, 2).item() == 255 and ops.max_pool(x, 2).dtype == jnp.uint8
    assert ops.max_pool(jnp.full((1, 2, 2, 1), -5.0), 3, padding=1).item() == -5
    for hole in range(4):
        assert np.isnan(ops.max_pool(jnp.zeros(4).at[hole].set(jnp.nan).reshape(1, 2, 2, 1), 2).item())


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_averages_add_up_in_float32(dtype):
    # 40 × 3008 is more than float16 can hold, and more finely graded than bfloat16 is.
    y = ops.avg_pool(jnp.full((1, 40, 1), 3008, dtype), 40)
    assert y.dtype == dtype and y.item() == 3008


def test_global_pools(rng):
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(ops.global_avg_pool(x), x.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(ops.global_max_pool(x), x.max(axis=(1, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.max_pool(jnp.ones((1, 3, 3, 1)), 4), r"max_pool: window \(4, 4\) on an input of \(3, 3\)"),
        (lambda: ops.avg_pool(jnp.ones((1, 3, 3, 1)), 2, padding=2), r"avg_pool: padding .* sees nothing else"),
        (lambda: ops.max_pool(jnp.ones((3, 3)), 2), r"max_pool: x \(3, 3\) should be \(N, \*spatial, C\)"),
        (lambda: ops.avg_pool(jnp.ones((1, 4, 4, 1), jnp.uint8), 2), r"avg_pool: x is uint8"),
        (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1), bool), 2), r"max_pool: x is bool, which has no largest value"),
        (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1)), 2, stride=0), r"max_pool: stride 0: give an int"),
        (lambda: ops.global_avg_pool(jnp.ones((1, 0, 4, 1))), r"global_avg_pool: .* at least one pixel"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
