"""Convolution and transposed convolution compared with PyTorch: values and gradients in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import ops

torch = pytest.importorskip("torch", reason="the benchmarks extra is not installed")
functional = torch.nn.functional
pytestmark = pytest.mark.frameworks

# size, window, stride, padding, dilation; every geometry is combined with all channels, features and groups below
GEOMETRIES = [
    ((7,), (3,), 2, 1, 2),
    ((9, 8), (3, 2), (2, 1), (1, 0), 1),
    ((8, 9), (2, 3), 1, 2, (3, 2)),
    ((5, 4, 6), (2, 3, 2), (1, 2, 3), (0, 1, 1), 1),
]
CHANNELS = [(2, 3, 1), (4, 6, 2), (3, 6, 3)]
CASES = [(*geometry, *channels) for geometry, channels in itertools.product(GEOMETRIES, CHANNELS)]
EVERY_CASE = pytest.mark.parametrize(("size", "window", "stride", "padding", "dilation", "c", "o", "groups"), CASES)


def to_torch(array, *, kernel=False):
    """Convert to channels first; a kernel from (*window, C/g, O) to (O, C/g, *window)."""
    array = np.asarray(array)
    array = np.moveaxis(array, (-1, -2), (0, 1)) if kernel else np.moveaxis(array, -1, 1)
    return torch.tensor(np.ascontiguousarray(array), requires_grad=True)


def from_torch(tensor, *, kernel=False):
    array = tensor.detach().numpy()
    return np.moveaxis(array, (0, 1), (-1, -2)) if kernel else np.moveaxis(array, 1, -1)


@EVERY_CASE
@pytest.mark.parametrize("impl", ["lax", "explicit"])
def test_conv_matches_pytorch(x64, rng, impl, size, window, stride, padding, dilation, c, o, groups):
    x, kernel, bias = rng.normal(size=(2, *size, c)), rng.normal(size=(*window, c // groups, o)), rng.normal(size=o)
    torch_args = [to_torch(x), to_torch(kernel, kernel=True), torch.tensor(bias, requires_grad=True)]
    conv = getattr(functional, f"conv{len(size)}d")
    expected = conv(*torch_args, stride=stride, padding=padding, dilation=dilation, groups=groups)
    dy = rng.normal(size=from_torch(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))

    @jax.jit
    def jaxconv_result(x, kernel, bias, dy):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "impl": impl}
        y, vjp = jax.vjp(lambda *a: ops.conv(*a, **options), x, kernel, bias)
        return y, *vjp(dy)

    y, dx, d_kernel, d_bias = jaxconv_result(*map(jnp.asarray, (x, kernel, bias, dy)))
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(y, from_torch(expected), **close)
    np.testing.assert_allclose(dx, from_torch(torch_args[0].grad), **close)
    np.testing.assert_allclose(d_kernel, from_torch(torch_args[1].grad, kernel=True), **close)
    np.testing.assert_allclose(d_bias, torch_args[2].grad.numpy(), **close)


@EVERY_CASE
@pytest.mark.parametrize(("impl", "extra"), [("lax", 1), ("explicit", 0)])
def test_conv_transpose_matches_pytorch(x64, rng, impl, extra, size, window, stride, padding, dilation, c, o, groups):
    output_padding = tuple(
        extra if s > 1 or d > 1 else 0 for s, d in zip(*(np.broadcast_to(v, len(size)) for v in (stride, dilation)))
    )
    x, kernel = rng.normal(size=(2, *size, c)), rng.normal(size=(*window, c // groups, o))
    # The layout of PyTorch is (C, O / groups, *window): group by group, input channels first.
    grouped = kernel.reshape(*window, c // groups, groups, o // groups)
    torch_kernel = np.moveaxis(grouped, (-2, -3, -1), (0, 1, 2)).reshape(c, o // groups, *window)
    torch_args = [to_torch(x), torch.tensor(torch_kernel.copy(), requires_grad=True)]
    conv = getattr(functional, f"conv_transpose{len(size)}d")
    expected = conv(
        *torch_args, stride=stride, padding=padding, output_padding=output_padding, groups=groups, dilation=dilation
    )
    dy = rng.normal(size=from_torch(expected).shape)
    expected.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))

    @jax.jit
    def jaxconv_result(x, kernel, dy):
        y, vjp = jax.vjp(
            lambda x, k: ops.conv_transpose(
                x,
                k,
                stride=stride,
                padding=padding,
                output_padding=output_padding,
                dilation=dilation,
                groups=groups,
                impl=impl,
            ),
            x,
            kernel,
        )
        return y, *vjp(dy)

    y, dx, d_kernel = jaxconv_result(*map(jnp.asarray, (x, kernel, dy)))
    close = {"rtol": 1e-10, "atol": 1e-12}
    np.testing.assert_allclose(y, from_torch(expected), **close)
    np.testing.assert_allclose(dx, from_torch(torch_args[0].grad), **close)
    d_kernel_expected = torch_args[1].grad.numpy().reshape(groups, c // groups, o // groups, *window)
    d_kernel_expected = np.moveaxis(d_kernel_expected, (0, 1, 2), (-2, -3, -1)).reshape(kernel.shape)
    np.testing.assert_allclose(d_kernel, d_kernel_expected, **close)
