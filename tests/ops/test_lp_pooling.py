"""L^p pooling: values, derivatives, kinks, and magnitudes at which |x|^p underflows or overflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import numpy_reference as reference
from jaxconv import InputError, ops


def norm_of_order(p):
    """Return the p-norm of stacked pixels, in their precision."""
    return lambda pixels, axis: (np.abs(pixels) ** p).sum(axis) ** (1 / p)


@pytest.mark.parametrize(
    ("p", "window", "options", "resolved"),
    [
        (1, (3, 2), {"stride": (2, 1), "padding": 1}, ((2, 1), ((1, 1), (1, 1)), (1, 1))),
        (1.5, (2, 2), {"stride": 1, "dilation": (2, 3)}, ((1, 1), ((0, 0), (0, 0)), (2, 3))),
        (2, (2, 3), {}, ((2, 3), ((0, 0), (0, 0)), (1, 1))),
        (np.float32(3), (3, 2), {"stride": (2, 1), "padding": 1}, ((2, 1), ((1, 1), (1, 1)), (1, 1))),
        (7.5, (3, 1), {"stride": 1}, ((1, 1), ((0, 0), (0, 0)), (1, 1))),
    ],
)
def test_lp_pool_matches_loops_and_finite_differences(x64, rng, p, window, options, resolved):
    x = rng.normal(size=(1, 5, 6, 2))
    x = np.sign(x) * (0.3 + np.abs(x))  # away from the kinks at 0
    f = jax.jit(lambda x: ops.lp_pool(x, window, p=p, **options))
    np.testing.assert_allclose(
        f(jnp.asarray(x)), reference.pool(x, window, *resolved, norm_of_order(float(p))), rtol=1e-12
    )
    check_grads(f, (jnp.asarray(x),), order=2, modes=("rev",), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_lp_pool_of_zeros_has_zero_value_and_gradient(p):
    f = jax.jit(lambda x: ops.lp_pool(x, 2, p=p))

    x = jnp.array([0.0, 0, 0, 5])[None, :, None]
    np.testing.assert_allclose(f(x)[0, :, 0], [0, 5])
    np.testing.assert_allclose(jax.jit(jax.grad(lambda x: f(x).sum()))(x)[0, :, 0], [0, 0, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(f, (x,), (jnp.ones_like(x),))[1][0, :, 0], [0, 1], rtol=1e-6)
    assert jnp.isfinite(jax.jit(jax.hessian(lambda x: f(x).sum()))(x)).all()


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 10])
def test_lp_pool_of_extreme_magnitudes_is_accurate(p):
    """Magnitudes at which |x|^p underflows or overflows float32."""
    f = jax.jit(jax.value_and_grad(lambda x: ops.lp_pool(x[None, :, None], 3, p=p).sum()))
    x = np.array([3.0, -4, 1])
    for magnitude in (1e-30, 1e30, -1e30):
        y, gradient = f(jnp.asarray(x * magnitude, jnp.float32))
        np.testing.assert_allclose(y, norm_of_order(p)(x, 0) * abs(magnitude), rtol=3e-6)
        expected = np.sign(x * magnitude) * np.abs(x / norm_of_order(p)(x, 0)) ** (p - 1)
        np.testing.assert_allclose(gradient, expected, rtol=3e-6)


def test_lp_pool_of_inf_and_nan():
    x = jnp.array([jnp.inf, 1, jnp.nan, 1, jnp.inf, jnp.nan, -jnp.inf, jnp.inf])[None, :, None]
    for p in (1, 2, 2.5):
        assert str(ops.lp_pool(x, 2, p=p)[0, :, 0].tolist()) == "[inf, nan, nan, inf]"


def test_lp_pool_second_derivative_at_zero_pixel(x64):
    """√(x² + 9) has second derivative 1/3 at x = 0, which a derivative through |x| would miss."""
    hessian = jax.hessian(lambda x: ops.lp_pool(x[None, :, None], 2).sum())(jnp.array([0.0, 3.0]))
    np.testing.assert_allclose(hessian, [[1 / 3, 0], [0, 0]], atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.lp_pool(jnp.ones((1, 4, 1)), 2, p=0.5), r"lp_pool: p must be a number >= 1, got 0\.5"),
        (lambda: ops.lp_pool(jnp.ones((1, 4, 1)), 2, p=np.nan), r"lp_pool: p must be a number >= 1, got nan"),
        (lambda: ops.lp_pool(jnp.ones((1, 4, 1)), 2, p="2"), r"lp_pool: p must be a number >= 1, got '2'"),
        (
            lambda: ops.lp_pool(jnp.ones((1, 4, 1)), 2, p=np.inf),
            r"lp_pool: p must be finite; .* max_pool\(jnp\.abs\(x\)",
        ),
        (lambda: ops.lp_pool(jnp.ones((1, 4, 1), int), 2), r"lp_pool: x is int32; convert it first"),
        (lambda: ops.lp_pool(jnp.ones((1, 4, 1), complex), 2), r"lp_pool: x is complex64"),
    ],
)
def test_lp_pool_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()
