"""Mathematical properties of convolution, tested for every lowering."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_reference as reference
from convolution_cases import CASES
from jaxconv import ops
from jaxconv.ops.numerics import swap_channels
from jaxconv.shapes import dilated_size

EVERY_CASE = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
EVERY_IMPL = pytest.mark.parametrize("impl", ["auto", *ops.LOWERINGS])
SMALL = [
    ((1, 4, 3, 1), (2, 2, 1, 2), {"stride": (2, 1), "padding": "SAME"}),
    ((1, 3, 4, 2), (2, 1, 1, 2), {"groups": 2, "dilation": (2, 1)}),
]


@EVERY_CASE
def test_conv_transpose_is_adjoint_of_conv(x64, case):
    """⟨conv(x), z⟩ = ⟨x, conv_transpose(z)⟩ for all x and z."""
    x, kernel = map(jnp.asarray, case.arrays())
    options = {"stride": case.stride, "padding": case.pads, "dilation": case.dilation, "groups": case.groups}
    y = ops.conv(x, kernel, **options)
    z = jnp.asarray(np.random.default_rng(2).normal(size=y.shape))
    base_size = [
        (out - 1) * s + dilated_size(f, d) - low - high
        for out, s, f, d, (low, high) in zip(y.shape[1:-1], case.stride, case.kernel, case.dilation, case.pads)
    ]
    output_padding = tuple(n - m for n, m in zip(x.shape[1:-1], base_size))
    adjoint = ops.conv_transpose(z, swap_channels(kernel, case.groups), output_padding=output_padding, **options)
    assert adjoint.shape == x.shape
    np.testing.assert_allclose(jnp.vdot(y, z), jnp.vdot(x, adjoint), rtol=1e-11)


@EVERY_IMPL
def test_conv_is_linear_in_each_argument(x64, rng, impl):
    x, x2 = jnp.asarray(rng.normal(size=(2, 2, 6, 5, 2)))
    kernel, kernel2 = jnp.asarray(rng.normal(size=(2, 3, 2, 2, 3)))

    @jax.jit
    def f(x, kernel):
        return ops.conv(x, kernel, stride=(2, 1), padding="SAME", impl=impl)

    np.testing.assert_allclose(f(x - 3 * x2, kernel), f(x, kernel) - 3 * f(x2, kernel), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(f(x, kernel - 3 * kernel2), f(x, kernel) - 3 * f(x, kernel2), rtol=1e-11, atol=1e-12)


@EVERY_IMPL
def test_circular_conv_is_translation_equivariant(x64, rng, impl):
    """Circular convolution commutes with shifts; with stride 2, a shift by 2 becomes a shift by 1."""
    x, kernel = jnp.asarray(rng.normal(size=(1, 6, 8, 2))), jnp.asarray(rng.normal(size=(3, 3, 2, 2)))

    def f(x, stride):
        return ops.conv(x, kernel, padding=1, padding_mode="circular", stride=stride, impl=impl)

    np.testing.assert_allclose(
        f(jnp.roll(x, (2, 3), (1, 2)), 1), jnp.roll(f(x, 1), (2, 3), (1, 2)), rtol=1e-10, atol=1e-13
    )
    np.testing.assert_allclose(
        f(jnp.roll(x, (2, 4), (1, 2)), 2), jnp.roll(f(x, 2), (1, 2), (1, 2)), rtol=1e-10, atol=1e-13
    )


@EVERY_IMPL
@pytest.mark.parametrize(("shape", "window", "options"), SMALL, ids=["stride", "groups"])
def test_second_derivatives_match_jacobian_products(x64, rng, impl, shape, window, options):
    """The Hessian of ½‖conv(x, k)‖² in k is JᵀJ, where column i of J is the convolution with unit kernel i."""
    x, kernel = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=window))
    pads = ((0, 1), (0, 1)) if "padding" in options else ((0, 0), (0, 0))
    resolved = (options.get("stride", (1, 1)), pads, options.get("dilation", (1, 1)), options.get("groups", 1))

    def energy(x, kernel):
        return 0.5 * (ops.conv(x, kernel, impl=impl, **options) ** 2).sum()

    unit_kernels = np.eye(kernel.size).reshape(-1, *window)
    jacobian = np.stack([reference.conv(np.asarray(x), unit, *resolved).ravel() for unit in unit_kernels], axis=1)
    by_kernel = jax.jit(jax.hessian(energy, argnums=1))(x, kernel).reshape(kernel.size, kernel.size)
    np.testing.assert_allclose(by_kernel, jacobian.T @ jacobian, rtol=1e-10, atol=1e-12)
    unit_images = np.eye(x.size).reshape(-1, *shape)
    jacobian = np.stack([reference.conv(unit, np.asarray(kernel), *resolved).ravel() for unit in unit_images], axis=1)
    by_x = jax.jit(jax.hessian(energy))(x, kernel).reshape(x.size, x.size)
    np.testing.assert_allclose(by_x, jacobian.T @ jacobian, rtol=1e-10, atol=1e-12)


@EVERY_IMPL
def test_forward_and_reverse_mode_are_transposes(x64, rng, impl):
    """⟨dy, J·(dx, dk)⟩ = ⟨Jᵀ·dy, (dx, dk)⟩ for tangents of both arguments."""
    x, kernel = jnp.asarray(rng.normal(size=(2, 6, 5, 4))), jnp.asarray(rng.normal(size=(3, 2, 2, 6)))
    dx, dk = (jnp.asarray(rng.normal(size=a.shape)) for a in (x, kernel))

    def f(x, kernel):
        return ops.conv(x, kernel, stride=2, padding=1, groups=2, impl=impl)

    y, tangent = jax.jit(lambda *a: jax.jvp(f, a[:2], a[2:]))(x, kernel, dx, dk)
    dy = jnp.asarray(rng.normal(size=y.shape))
    gradients = jax.jit(lambda dy: jax.vjp(f, x, kernel)[1](dy))(dy)
    np.testing.assert_allclose(
        jnp.vdot(dy, tangent), jnp.vdot(gradients[0], dx) + jnp.vdot(gradients[1], dk), rtol=1e-11
    )


@EVERY_IMPL
def test_jit_matches_eager_without_tracer_leaks(rng, impl):
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, 5, 4, 2), (2, 2, 2, 3)])

    def f(x, kernel):
        return ops.conv(x, kernel, padding="SAME", impl=impl)

    with jax.checking_leaks():
        jitted = jax.jit(f)(x, kernel)
        jax.jit(jax.grad(lambda x: f(x, kernel).sum()))(x)
    np.testing.assert_allclose(jitted, f(x, kernel), rtol=1e-5, atol=1e-5)


@EVERY_IMPL
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_gradients_sum_in_float32(impl, dtype):
    """A sum of 3,600 ones would stop at 256 in bfloat16 and at 2,048 in float16."""
    x, kernel, bias = jnp.ones((1, 3600, 1), dtype), jnp.ones((1, 1, 1), dtype), jnp.zeros(1, dtype)

    def loss(kernel, bias):
        return ops.conv(x, kernel, bias, impl=impl).astype(jnp.float32).sum()

    d_kernel, d_bias = jax.grad(loss, argnums=(0, 1))(kernel, bias)
    expected = float(jnp.asarray(3600, dtype))
    assert (d_kernel.item(), d_bias.item()) == (expected, expected)
    assert d_kernel.dtype == d_bias.dtype == dtype


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jaxconv import ops
mesh = Mesh(np.array(jax.devices()), ("data",))
rng = np.random.default_rng(0)
x, kernel = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in [(8, 6, 5, 4), (3, 2, 2, 6)])
sharded, replicated = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
for impl in ops.LOWERINGS:
    def f(x, kernel):
        y = ops.conv(x, kernel, stride=2, padding=1, groups=2, impl=impl)
        return (y**2).sum(), y
    step = jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True))
    ((loss, y), (dx, dk)) = step(jax.device_put(x, sharded), jax.device_put(kernel, replicated))
    ((loss1, y1), (dx1, dk1)) = step(x, kernel)
    for a, b in [(loss, loss1), (y, y1), (dx, dx1), (dk, dk1)]:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    print(impl, len(y.sharding.device_set))
"""


def test_sharded_batch_matches_one_device():
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
    }
    completed = subprocess.run(
        [sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=True
    )
    assert completed.stdout.splitlines() == [f"{impl} 4" for impl in ops.LOWERINGS]
