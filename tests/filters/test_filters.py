"""Fixed kernels and filters, compared with SciPy's correlation on images with a replicated border."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.signal import correlate2d

from jaxconv import DtypeError, InputError, filters, ops

KERNELS = {name: getattr(filters, name) for name in filters.__all__ if isinstance(getattr(filters, name), np.ndarray)}


def correlate_replicated(plane, kernel):
    """Correlate one channel with one kernel, with a replicated border."""
    pads = [((n - 1) // 2, n // 2) for n in kernel.shape]
    return correlate2d(np.pad(plane, pads, mode="edge"), kernel, mode="valid")


@pytest.mark.parametrize("name", KERNELS)
def test_apply_filter_matches_scipy_per_channel(x64, rng, name):
    x, kernel = rng.normal(size=(2, 6, 7, 3)), KERNELS[name]
    y = filters.apply_filter(x, kernel)
    assert y.shape == x.shape
    for n in range(2):
        for c in range(3):
            expected = correlate_replicated(x[n, :, :, c], kernel)
            np.testing.assert_allclose(y[n, :, :, c], expected, rtol=1e-12, atol=1e-12)


def test_apply_filter_matches_scipy_with_other_padding(x64, rng):
    x, kernel = rng.normal(size=(1, 6, 5, 2)), rng.normal(size=(2, 3))
    y = filters.apply_filter(x, kernel, padding="VALID")
    np.testing.assert_allclose(y[0, :, :, 1], correlate2d(x[0, :, :, 1], kernel, mode="valid"), rtol=1e-12)
    y = filters.apply_filter(x, kernel, padding="FULL", padding_mode="zeros")
    np.testing.assert_allclose(y[0, :, :, 0], correlate2d(x[0, :, :, 0], kernel, mode="full"), rtol=1e-12)


def test_conv_kernel_sums_channels(x64, rng):
    x, kernel = rng.normal(size=(1, 5, 6, 4)), rng.normal(size=(3, 2))
    expected = sum(correlate2d(x[0, :, :, c], kernel, mode="valid") for c in range(4))
    np.testing.assert_allclose(ops.conv(x, filters.conv_kernel(kernel, 4))[0, :, :, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["BLUR", "SHARPEN"])
def test_normalized_kernels_preserve_brightness(name):
    x = jnp.full((1, 5, 4, 2), 0.7)
    np.testing.assert_allclose(filters.apply_filter(x, filters.normalized(KERNELS[name])), x, rtol=1e-6)


def test_edges_and_sobel_match_formula(x64, rng):
    x = rng.normal(size=(1, 6, 7, 2))
    for c in range(2):
        h = correlate_replicated(x[0, :, :, c], filters.SOBEL_Y)
        v = correlate_replicated(x[0, :, :, c], np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]))
        for actual, expected in zip(filters.edges(x), (h, v)):
            np.testing.assert_allclose(actual[0, :, :, c], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(filters.sobel(x)[0, :, :, c], np.hypot(h, v), rtol=1e-12)
        np.testing.assert_allclose(filters.sobel(x, combine="l1")[0, :, :, c], abs(h) + abs(v), rtol=1e-12)


@pytest.mark.parametrize("combine", ["l1", "l2"])
def test_sobel_gradient_is_zero_on_flat_image(x64, rng, combine):
    @jax.jit
    def f(x):
        return filters.sobel(x, combine=combine)

    # On random images no edge is 0, so the function is differentiable within eps.
    check_grads(f, (jnp.asarray(rng.normal(size=(1, 4, 5, 1))),), order=1, modes=("rev",), eps=1e-6, rtol=1e-6)
    flat = jnp.full((1, 5, 6, 1), 3.0)
    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(flat), jnp.zeros_like(flat))
    one_edge = flat.at[:, :, 3:].set(4.0)
    gradient = jax.grad(lambda x: f(x).sum())(one_edge)[0, :, :, 0]
    assert np.isfinite(gradient).all() and (gradient[:, 0] == 0).all() and gradient[2].tolist() == [0, -4, -4, 4, 4, 0]


def test_box_detector_matches_two_correlations(x64, rng):
    x = rng.normal(size=(1, 6, 7, 2))
    y = filters.box_detector(x)
    assert y.shape == x.shape
    for c in range(2):
        padded = np.pad(x[0, :, :, c], 3, mode="edge")
        h, v = (correlate2d(padded, k, mode="valid") for k in (filters.SOBEL_Y, -filters.SOBEL_X))
        expected = correlate2d(h, filters.BOX_H, mode="valid") + correlate2d(v, filters.BOX_V, mode="valid")
        np.testing.assert_allclose(y[0, :, :, c], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("f", [filters.sobel, filters.box_detector, lambda x: filters.apply_filter(x, filters.BLUR)])
def test_filters_preserve_dtype_under_jit(f, dtype):
    x = jnp.asarray(np.arange(30).reshape(1, 5, 6, 1), dtype)
    assert jax.jit(f)(x).dtype == dtype and jax.jit(f)(x).shape == x.shape


def test_apply_filter_kernel_gradient():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    gradient = jax.grad(lambda kernel: filters.apply_filter(x, kernel, padding="VALID").sum())(jnp.ones((3, 3)))
    np.testing.assert_array_equal(gradient, [[1, 3, 5], [9, 11, 13], [17, 19, 21]])  # sums over the two windows


def test_filter_constants_are_read_only():
    for kernel in KERNELS.values():
        with pytest.raises(ValueError, match="read-only"):
            kernel[0, 0] = 7


X = np.zeros((1, 5, 6, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: filters.sobel(X, combine="L2"), r"^sobel: unknown combine 'L2': .*Known: l1, l2"),
        (lambda: filters.sobel(X[0]), r"sobel: x \(5, 6, 3\) should have 4 axes, \(N, H, W, C\): add the batch axis"),
        (lambda: filters.edges(X[0, 0]), r"edges: x \(6, 3\) should have 4 axes, \(N, H, W, C\)"),
        (lambda: filters.box_detector(X[..., 0]), r"box_detector: x \(1, 5, 6\) should .* the channel axis"),
        (lambda: filters.apply_filter(X, np.ones(3)), r"apply_filter: kernel \(3,\) should be \(kh, kw\)"),
        (lambda: filters.apply_filter(X, filters.BLUR[..., None]), r"apply_filter: kernel \(3, 3, 1\) should be"),
        (lambda: filters.conv_kernel(np.ones((3, 3)), 0), r"^conv_kernel: channels=0 should be an int of at least 1"),
        (lambda: filters.conv_kernel(np.ones((3, 3, 1)), 3), r"conv_kernel: kernel \(3, 3, 1\) should be \(kh, kw\)"),
        (lambda: filters.normalized(filters.SOBEL_X), r"normalized: kernel .* sums to 0, as edge kernels do"),
        (lambda: filters.normalized(np.zeros((2, 2))), r"normalized: kernel .* sums to 0"),
        (lambda: filters.normalized([[0.1, 0.2, -0.3]]), r"normalized: kernel .* sums to 0"),  # 0 up to rounding
    ],
)
def test_filters_reject_invalid_arguments(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_filters_reject_uint8_images():
    with pytest.raises(DtypeError, match=r"sobel: x is uint8; convert it first, x\.astype\(jnp\.float32\) / 255"):
        filters.sobel(X.astype(np.uint8))
