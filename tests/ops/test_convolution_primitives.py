"""The three passes of ``impl="auto"``: all CPU lowerings, and the rules of the jax primitives."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jax.test_util import check_grads

import numpy_reference as reference
from convolution_cases import CASES, Case
from jaxconv import ops
from jaxconv.ops.convolution import lowerings as common_lowerings
from jaxconv.ops.convolution import primitives
from jaxconv.ops.convolution.cpu import autotune, dispatch, lowerings
from jaxconv.shapes import Window, resolve_window

# Cases that CASES do not cover: sub-batches, more than a few channels, and all categories of groups.
NO_PADDING = ((0, 0), (0, 0))
PRIMITIVE_CASES = [
    Case("sub-batches", (36, 6, 5, 4), (3, 2, 4, 5), (1, 1), "VALID", NO_PADDING, (1, 1), 1),
    Case("sub-batches, stride 2", (48, 7, 6, 5), (3, 3, 5, 4), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("pixels between windows", (2, 8, 9, 4), (1, 2, 4, 4), (3, 4), "VALID", NO_PADDING, (1, 1), 1),
    Case("pixels after the last window", (2, 8, 9, 5), (3, 3, 5, 4), (3, 3), "VALID", NO_PADDING, (1, 1), 1),
    Case("padding wider than the kernel", (2, 4, 5, 4), (2, 2, 4, 4), (1, 2), 3, ((3, 3), (3, 3)), (1, 1), 1),
    Case("padding wider, stride 2", (2, 2, 3, 4), (2, 2, 4, 4), (2, 2), 4, ((4, 4), (4, 4)), (1, 1), 1),
    Case("stride and dilation", (2, 9, 9, 4), (2, 3, 4, 4), (2, 2), 1, ((1, 1), (1, 1)), (2, 1), 1),
    Case("groups and stride", (2, 7, 6, 8), (3, 3, 4, 6), (2, 1), 1, ((1, 1), (1, 1)), (1, 1), 2),
    Case("many groups", (2, 5, 4, 66), (2, 2, 2, 66), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 33),
    Case("depthwise, 1 filter", (3, 6, 5, 5), (3, 3, 1, 5), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 5),
    Case("depthwise, 3 filters, stride 2", (3, 6, 5, 2), (3, 2, 1, 6), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 2),
    Case("depthwise, 5 filters", (3, 6, 5, 2), (3, 2, 1, 10), (1, 1), "VALID", NO_PADDING, (1, 1), 2),
    Case("depthwise, many groups, 5 filters", (2, 4, 4, 33), (2, 2, 1, 165), (1, 1), "VALID", NO_PADDING, (1, 1), 33),
    Case("one channel", (3, 6, 5, 1), (3, 2, 1, 16), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("one channel, stride and dilation", (2, 9, 8, 1), (2, 3, 1, 17), (2, 1), 1, ((1, 1), (1, 1)), (2, 1), 1),
    Case("one channel, few filters", (17, 6, 5, 1), (3, 3, 1, 3), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("1-D", (17, 11, 5), (3, 5, 4), (2,), ((2, 1),), ((2, 1),), (1,), 1),
    Case("3-D", (2, 4, 5, 4, 4), (2, 3, 2, 4, 3), (2, 1, 1), "VALID", ((0, 0),) * 3, (1, 1, 1), 1),
]
EVERY_CASE = pytest.mark.parametrize("case", [*CASES, *PRIMITIVE_CASES], ids=lambda case: case.name)


def factors_and_sums(case, dtype=jnp.float32):
    x, kernel = case.arrays()
    y = reference.conv(x, kernel, *case.resolved())
    dy = np.random.default_rng(3).normal(size=y.shape)
    dx, dk = reference.conv_gradients(x, kernel, dy, *case.resolved())
    return [jnp.asarray(a, dtype) for a in (x, kernel, dy)], {"y": y, "x": dx, "kernel": dk}


def spec_of(case, dtype=jnp.float32, sums=jnp.float32):
    size = case.x[1:-1]
    window = resolve_window(Window(case.kernel[:-2], case.stride, case.padding, case.dilation), size)
    return primitives.ConvSpec(window, size, case.groups, (jnp.dtype(dtype), jnp.dtype(dtype), jnp.dtype(sums)), None)


def assert_close(actual, expected, dtype=jnp.float32):
    atol = float(jnp.finfo(dtype).eps) * 16 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, atol=atol, rtol=0)


@EVERY_CASE
def test_value_and_gradients_match_plain_loops(case):
    (x, kernel, dy), expected = factors_and_sums(case)
    y, vjp = jax.vjp(jax.jit(partial(ops.conv, **case.options)), x, kernel)
    dx, dk = vjp(dy)
    for actual, name in ((y, "y"), (dx, "x"), (dk, "kernel")):
        assert_close(actual, expected[name])


@EVERY_CASE
def test_lax_passes_match_plain_loops(case):
    (x, kernel, dy), expected = factors_and_sums(case)
    spec = spec_of(case)
    assert_close(common_lowerings.lax_forward(x, kernel, spec), expected["y"])
    assert_close(common_lowerings.lax_kernel_gradient(x, dy, spec), expected["kernel"])
    assert_close(common_lowerings.lax_input_gradient(kernel, dy, spec), expected["x"])


@EVERY_CASE
def test_cpu_lowerings_match_plain_loops(case):
    """Includes lowerings that the table of this machine does not select."""
    (x, kernel, dy), expected = factors_and_sums(case)
    spec = spec_of(case)
    arrays = {"x": x, "kernel": kernel, "y": dy}
    for output in primitives.FACTORS:
        operands = [arrays[name] for name in primitives.other_operands(output)]
        for name in autotune.supported_lowerings(
            output, autotune.conv_category(kernel.shape[-2], kernel.shape[-1] // case.groups, case.groups)
        ):
            assert_close(jax.jit(dispatch.LOWERINGS[name][output], static_argnums=2)(*operands, spec), expected[output])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_cpu_uses_lowerings_of_the_table(x64, monkeypatch, dtype):
    """Another lowering would be correct but slow, which no test of values detects."""
    case = next(case for case in PRIMITIVE_CASES if case.name == "depthwise, 1 filter")
    used = {}

    def spy(name, output, lowering):
        return lambda *args: used.update({output: name}) or lowering(*args)

    for name, by_pass in list(dispatch.LOWERINGS.items()):
        monkeypatch.setitem(
            dispatch.LOWERINGS, name, {output: spy(name, output, by_pass[output]) for output in by_pass}
        )
    (x, kernel, dy), _ = factors_and_sums(case, dtype)
    jax.jit(lambda x, kernel, dy: jax.vjp(partial(ops.conv, **case.options), x, kernel)[1](dy)).lower(x, kernel, dy)
    jax.jit(partial(ops.conv, **case.options)).lower(x, kernel)
    selected = {output: autotune.best_lowering(output, "depthwise") for output in primitives.FACTORS}
    assert used == (selected if dtype == jnp.float32 else dict.fromkeys(selected, "products"))


@pytest.mark.parametrize("name", ["plain", "stride", "groups", "depthwise", "sub-batches, stride 2"])
def test_half_precision_passes_are_rounded_once(name):
    case = next(case for case in [*CASES, *PRIMITIVE_CASES] if case.name == name)
    (x, kernel, dy), _ = factors_and_sums(case, jnp.bfloat16)
    exact_factors = [np.asarray(a, np.float64) for a in (x, kernel, dy)]
    y, vjp = jax.vjp(partial(ops.conv, **case.options), x, kernel)
    expected = (
        reference.conv(*exact_factors[:2], *case.resolved()),
        *reference.conv_gradients(*exact_factors, *case.resolved()),
    )
    for actual, exact in zip((y, *vjp(dy)), expected):
        assert actual.dtype == jnp.bfloat16
        rounded = np.asarray(jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16), np.float64)
        # Half a unit of bfloat16, and the error of the float32 sum, which may change the rounding.
        np.testing.assert_allclose(np.asarray(actual, np.float64), rounded, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"stride": 2, "padding": "SAME"}], ids=str)
def test_derivatives_of_every_order_and_mode(x64, rng, options):
    c = 4 // options.get("groups", 1)
    x, kernel = jnp.asarray(rng.normal(size=(2, 5, 4, 4))), jnp.asarray(rng.normal(size=(3, 2, c, 4)))
    check_grads(partial(ops.conv, **options), (x, kernel), order=3, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("output", primitives.FACTORS)
@pytest.mark.parametrize("batched", [(0, None), (None, 1), (1, 0), (-1, 2)], ids=str)
@pytest.mark.parametrize("name", ["plain", "stride", "groups", "depthwise"])
def test_vmap_of_pass_matches_loop(output, batched, name):
    case = next(case for case in CASES if case.name == name)
    spec, rng = spec_of(case), np.random.default_rng(5)
    shapes = {"x": case.x, "kernel": case.kernel}
    shapes["y"] = primitives.shape_of("y", case.x, case.kernel, spec)
    operands = [
        jnp.asarray(rng.normal(size=(3, *shapes[factor])), jnp.float32) for factor in primitives.other_operands(output)
    ]
    pairs = [[a[i] if axis is not None else a[0] for a, axis in zip(operands, batched)] for i in range(3)]
    expected = jnp.stack([primitives.apply_pass(output, *pair, spec) for pair in pairs])
    args = [a[0] if axis is None else jnp.moveaxis(a, 0, axis) for a, axis in zip(operands, batched)]
    actual = jax.vmap(lambda a, b: primitives.apply_pass(output, a, b, spec), batched)(*args)
    assert_close(actual, expected)


def test_nested_vmap_of_gradients_matches_loop(rng):
    """Per-example gradients of several networks: all three kinds of batching, nested."""
    x, kernels = (
        jnp.asarray(rng.normal(size=(5, 6, 6, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 3, 3, 3, 4)), jnp.float32),
    )

    def loss(kernel, image):
        return jnp.sum(jnp.tanh(ops.conv(image[None], kernel)))

    actual = jax.vmap(lambda kernel: jax.vmap(jax.grad(loss), (None, 0))(kernel, x))(kernels)
    assert actual.shape == (2, 5, 3, 3, 3, 4)
    for i, j in itertools.product(range(2), range(5)):
        assert_close(actual[i, j], jax.grad(loss)(kernels[i], x[j]))


def test_checkpoint_and_scan_match_unrolled(rng):
    x = jnp.asarray(rng.normal(size=(4, 6, 6, 4)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(3, 3, 3, 4, 4)), jnp.float32) / 6

    def layer(x, kernel):
        return jnp.tanh(ops.conv(x, kernel, padding="SAME"))

    def unrolled(kernels):
        y = x
        for kernel in kernels:
            y = layer(y, kernel)
        return jnp.sum(y**2)

    def scanned(kernels):
        return jnp.sum(jax.lax.scan(lambda y, k: (jax.checkpoint(layer)(y, k), None), x, kernels)[0] ** 2)

    assert_close(jax.grad(scanned)(kernels), jax.grad(unrolled)(kernels))


def test_shard_map_sums_gradient_of_replicated_kernel(rng):
    """Images are sharded and the kernel is replicated, so its gradient is a sum over devices."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = jnp.asarray(rng.normal(size=(4, 6, 6, 4)), jnp.float32), jnp.ones((3, 3, 4, 2), jnp.float32)

    def loss(x, kernel):
        sharded_loss = jax.shard_map(
            lambda x, kernel: jax.lax.psum(jnp.sum(ops.conv(x, kernel) ** 2), "data"),
            mesh=mesh,
            in_specs=(PartitionSpec("data"), PartitionSpec()),
            out_specs=PartitionSpec(),
        )
        return sharded_loss(x, kernel)

    expected = jax.grad(lambda x, kernel: jnp.sum(ops.conv(x, kernel) ** 2), (0, 1))(x, kernel)
    for actual, expected_gradient in zip(jax.jit(jax.grad(loss, (0, 1)))(x, kernel), expected):
        assert_close(actual, expected_gradient)
    traced = str(jax.make_jaxpr(jax.grad(loss, 1))(x, kernel))
    assert "psum" in traced.split("conv_kernel")[1]  # after the gradient of the local images


def test_cases_cover_all_categories_and_branches():
    """The cases cover every category of the CPU table, so an error in any of them fails a test above."""
    covered = set()
    for case in [*CASES, *PRIMITIVE_CASES]:
        covered.add(autotune.conv_category(case.kernel[-2], case.kernel[-1] // case.groups, case.groups))
        if case.x[0] >= 2 * lowerings.MIN_SUB_BATCH:
            covered.add("sub-batches")
        if max(case.stride) > 1 and max(case.dilation) == 1:
            covered.add("phases")
    assert covered == {*autotune.CASES, "sub-batches", "phases"}
