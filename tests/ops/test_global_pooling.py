"""Global and adaptive pooling, compared with plain loops over PyTorch's windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import InputError, ops


def adaptive_pool_loops(x, out, reduce):
    """Reduce PyTorch's windows: pixels ⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1 of every axis, in exact arithmetic."""
    y = np.zeros((x.shape[0], *out, x.shape[-1]))
    for q in np.ndindex(*out):
        window = tuple(slice(i * n // o, ((i + 1) * n + o - 1) // o) for i, n, o in zip(q, x.shape[1:-1], out))
        y[(slice(None), *q)] = reduce(x[(slice(None), *window)].reshape(len(x), -1, x.shape[-1]), axis=1)
    return y


def test_global_pools_match_numpy(rng):
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(ops.global_avg_pool(x), x.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(ops.global_max_pool(x), x.max(axis=(1, 2)))
    gradient = jax.grad(lambda x: ops.global_max_pool(x, ties="split").sum())(jnp.ones((1, 2, 4, 1), jnp.bfloat16))
    np.testing.assert_array_equal(gradient, jnp.full_like(gradient, 1 / 8))


@pytest.mark.parametrize(("op", "reduce"), [(ops.adaptive_avg_pool, np.mean), (ops.adaptive_max_pool, np.max)])
@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((7, 5), (3, 5)),  # overlapping; single pixels
        ((8, 9), (4, 3)),  # exact
        ((3, 4), (5, 9)),  # more windows than pixels
        ((6, 11), (1, 7)),
        ((10,), (3,)),
        ((3, 5, 4), (2, 3, 3)),
    ],
)
def test_adaptive_pools_use_pytorch_windows(x64, rng, op, reduce, size, out):
    x = rng.permutation(np.arange(float(np.prod(size)) * 4)).reshape(2, *size, 2)
    f = jax.jit(lambda x: op(x, out))
    np.testing.assert_allclose(f(jnp.asarray(x)), adaptive_pool_loops(x, out, reduce), rtol=1e-12)
    if len(size) == 2:  # the dimensions are separable, so two suffice
        check_grads(f, (jnp.asarray(x),), order=1, modes=("rev",), eps=0.1, atol=1e-9, rtol=1e-9)


def test_adaptive_max_pool_gradient_goes_to_first_tie():
    x = jnp.array([[1.0, 2, 7], [7, 1, 7]])[None, :, :, None]
    for pool in (lambda x: ops.adaptive_max_pool(x, 1), ops.global_max_pool):
        gradient = jax.grad(lambda x, pool=pool: pool(x).sum())(x)
        assert gradient[0, :, :, 0].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_adaptive_max_pool_splits_ties(rng):
    """Overlapping and shorter windows count each pixel once."""
    x = rng.integers(0, 2, size=(2, 5, 7, 3)).astype(np.float32)
    dy = rng.normal(size=(2, 3, 4, 3))
    expected = np.zeros(x.shape)
    for i, j in np.ndindex(3, 4):
        window = (slice(None), slice(i * 5 // 3, -(-(i + 1) * 5 // 3)), slice(j * 7 // 4, -(-(j + 1) * 7 // 4)))
        is_max = x[window] == x[window].max(axis=(1, 2), keepdims=True)
        expected[window] += is_max / is_max.sum(axis=(1, 2), keepdims=True) * dy[:, i, None, j, None]
    _, vjp = jax.vjp(lambda x: ops.adaptive_max_pool(x, (3, 4), ties="split"), x)
    np.testing.assert_allclose(vjp(jnp.asarray(dy, jnp.float32))[0], expected, rtol=1e-5, atol=1e-6)
    global_gradient = jax.grad(lambda x: ops.global_max_pool(x, ties="split").sum())(x)
    np.testing.assert_allclose(global_gradient, jax.grad(lambda x: ops.adaptive_max_pool(x, 1, ties="split").sum())(x))


@pytest.mark.parametrize("op", [ops.adaptive_avg_pool, ops.adaptive_max_pool])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_adaptive_window_ignores_nan_outside(op, value):
    x = jnp.zeros((1, 5, 7, 1)).at[0, 2, 3].set(value)
    is_affected = ~np.isfinite(op(x, (3, 3))[0, :, :, 0])
    # Windows of 5 rows: 0-1, 1-3, 3-4; window 1 of 7 columns: 2-4.
    assert is_affected.tolist() == [[False] * 3, [False, True, False], [False] * 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.global_avg_pool(jnp.ones((1, 0, 4, 1))), r"global_avg_pool: .* at least one pixel"),
        (lambda: ops.adaptive_avg_pool(jnp.ones((1, 4, 4, 1)), 0), r"adaptive_avg_pool: out 0: give an int of at le"),
        (lambda: ops.adaptive_max_pool(jnp.ones((1, 4, 4, 1)), (2,)), r"adaptive_max_pool: out \(2,\): .* or 2 of"),
        (lambda: ops.adaptive_max_pool(jnp.ones((4, 4)), 2), r"adaptive_max_pool: x \(4, 4\) should be \(N, \*sp"),
        (lambda: ops.adaptive_avg_pool(jnp.ones((1, 4, 1), jnp.uint8), 2), r"adaptive_avg_pool: x is uint8"),
        (
            lambda: ops.adaptive_max_pool(jnp.ones((1, 4, 1)), 2, ties="both"),
            r"^adaptive_max_pool: unknown ties 'both'",
        ),
        (lambda: ops.global_max_pool(jnp.ones((1, 4, 1)), ties="lst"), r"^global_max_pool: unknown ties 'lst'.*first"),
    ],
)
def test_global_pools_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()
