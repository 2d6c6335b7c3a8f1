"""Pooling to a size to order: global and adaptive, against plain loops over PyTorch's windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxconv import InputError, ops


def adaptive(x, out, reduce):
    """PyTorch's windows: pixels ⌊q·n/out⌋ … ⌈(q+1)·n/out⌉ − 1 of every axis, in exact arithmetic."""
    y = np.zeros((x.shape[0], *out, x.shape[-1]))
    for q in np.ndindex(*out):
        cut = tuple(slice(i * n // o, ((i + 1) * n + o - 1) // o) for i, n, o in zip(q, x.shape[1:-1], out))
        y[(slice(None), *q)] = reduce(x[(slice(None), *cut)].reshape(len(x), -1, x.shape[-1]), axis=1)
    return y


def test_global_pools(rng):
    x = rng.normal(size=(2, 5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(ops.global_avg_pool(x), x.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(ops.global_max_pool(x), x.max(axis=(1, 2)))
    flat = jax.grad(lambda x: ops.global_max_pool(x, ties="split").sum())(jnp.ones((1, 2, 4, 1), jnp.bfloat16))
    np.testing.assert_array_equal(flat, jnp.full_like(flat, 1 / 8))


@pytest.mark.parametrize(("op", "reduce"), [(ops.adaptive_avg_pool, np.mean), (ops.adaptive_max_pool, np.max)])
@pytest.mark.parametrize(
    ("size", "out"),
    [
        ((7, 5), (3, 5)),  # overlapping; each pixel alone
        ((8, 9), (4, 3)),  # exact
        ((3, 4), (5, 9)),  # more windows than pixels
        ((6, 11), (1, 7)),
        ((10,), (3,)),
        ((3, 5, 4), (2, 3, 3)),
    ],
)
def test_adaptive_windows_are_pytorchs(x64, rng, op, reduce, size, out):
    x = rng.permutation(np.arange(float(np.prod(size)) * 4)).reshape(2, *size, 2)
    f = jax.jit(lambda x: op(x, out))
    np.testing.assert_allclose(f(jnp.asarray(x)), adaptive(x, out, reduce), rtol=1e-12)
    if len(size) == 2:  # one dimension at a time, so more or fewer are the same
        check_grads(f, (jnp.asarray(x),), order=1, modes=("rev",), eps=0.1, atol=1e-9, rtol=1e-9)


def test_adaptive_maximum_gives_ties_to_the_first_in_reading_order():
    x = jnp.array([[1.0, 2, 7], [7, 1, 7]])[None, :, :, None]
    for pool in (lambda x: ops.adaptive_max_pool(x, 1), ops.global_max_pool):
        slope = jax.grad(lambda x, pool=pool: pool(x).sum())(x)
        assert slope[0, :, :, 0].tolist() == [[0, 0, 1], [0, 0, 0]]


def test_ties_may_share(rng):
    """Windows overlap by a pixel, and a shorter one has one less: none of that may weigh a pixel twice."""
    x = rng.integers(0, 2, size=(2, 5, 7, 3)).astype(np.float32)
    dy = rng.normal(size=(2, 3, 4, 3))
    wanted = np.zeros(x.shape)
    for i, j in np.ndindex(3, 4):
        cut = (slice(None), slice(i * 5 // 3, -(-(i + 1) * 5 // 3)), slice(j * 7 // 4, -(-(j + 1) * 7 // 4)))
        won = x[cut] == x[cut].max(axis=(1, 2), keepdims=True)
        wanted[cut] += won / won.sum(axis=(1, 2), keepdims=True) * dy[:, i, None, j, None]
    _, vjp = jax.vjp(lambda x: ops.adaptive_max_pool(x, (3, 4), ties="split"), x)
    np.testing.assert_allclose(vjp(jnp.asarray(dy, jnp.float32))[0], wanted, rtol=1e-5, atol=1e-6)
    whole = jax.grad(lambda x: ops.global_max_pool(x, ties="split").sum())(x)
    np.testing.assert_allclose(whole, jax.grad(lambda x: ops.adaptive_max_pool(x, 1, ties="split").sum())(x))


@pytest.mark.parametrize("op", [ops.adaptive_avg_pool, ops.adaptive_max_pool])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_adaptive_window_knows_nothing_of_its_neighbours(op, bad):
    x = jnp.zeros((1, 5, 7, 1)).at[0, 2, 3].set(bad)
    touched = ~np.isfinite(op(x, (3, 3))[0, :, :, 0])
    # Of 5 rows window 0 sees 0 1, window 1 sees 1 2 3; of 7 columns window 1 sees 2 3 4.
    assert touched.tolist() == [[False] * 3, [False, True, False], [False] * 3]


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
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
