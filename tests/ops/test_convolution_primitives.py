"""The three passes of ``impl="auto"``, in every way that a CPU takes them, and all that jax does with primitives."""

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

# What CASES, which are small, do not reach: parts of a batch, more channels than a few, groups of every kind.
NONE = ((0, 0), (0, 0))
WAYS = [
    Case("parts of a batch", (36, 6, 5, 4), (3, 2, 4, 5), (1, 1), "VALID", NONE, (1, 1), 1),
    Case("parts of a batch, stride 2", (48, 7, 6, 5), (3, 3, 5, 4), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("a pixel that no tap sees", (2, 8, 9, 4), (1, 2, 4, 4), (3, 4), "VALID", NONE, (1, 1), 1),
    Case("pixels after the last window", (2, 8, 9, 5), (3, 3, 5, 4), (3, 3), "VALID", NONE, (1, 1), 1),
    Case("padding wider than the kernel", (2, 4, 5, 4), (2, 2, 4, 4), (1, 2), 3, ((3, 3), (3, 3)), (1, 1), 1),
    Case("padding wider, stride 2", (2, 2, 3, 4), (2, 2, 4, 4), (2, 2), 4, ((4, 4), (4, 4)), (1, 1), 1),
    Case("stride and dilation", (2, 9, 9, 4), (2, 3, 4, 4), (2, 2), 1, ((1, 1), (1, 1)), (2, 1), 1),
    Case("groups and stride", (2, 7, 6, 8), (3, 3, 4, 6), (2, 1), 1, ((1, 1), (1, 1)), (1, 1), 2),
    Case("many groups", (2, 5, 4, 66), (2, 2, 2, 66), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 33),
    Case("depthwise, 1 filter", (3, 6, 5, 5), (3, 3, 1, 5), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 5),
    Case("depthwise, 3 filters, stride 2", (3, 6, 5, 2), (3, 2, 1, 6), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 2),
    Case("depthwise, 5 filters", (3, 6, 5, 2), (3, 2, 1, 10), (1, 1), "VALID", NONE, (1, 1), 2),
    Case("depthwise, many groups, 5 filters", (2, 4, 4, 33), (2, 2, 1, 165), (1, 1), "VALID", NONE, (1, 1), 33),
    Case("one channel", (3, 6, 5, 1), (3, 2, 1, 16), (1, 1), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("one channel, stride and dilation", (2, 9, 8, 1), (2, 3, 1, 17), (2, 1), 1, ((1, 1), (1, 1)), (2, 1), 1),
    Case("one channel, few filters", (17, 6, 5, 1), (3, 3, 1, 3), (2, 2), 1, ((1, 1), (1, 1)), (1, 1), 1),
    Case("1-D", (17, 11, 5), (3, 5, 4), (2,), ((2, 1),), ((2, 1),), (1,), 1),
    Case("3-D", (2, 4, 5, 4, 4), (2, 3, 2, 4, 3), (2, 1, 1), "VALID", ((0, 0),) * 3, (1, 1, 1), 1),
]
EVERY_WAY = pytest.mark.parametrize("case", [*CASES, *WAYS], ids=lambda case: case.name)


def three(case, dtype=jnp.float32):
    x, kernel = case.arrays()
    y = reference.conv(x, kernel, *case.resolved())
    dy = np.random.default_rng(3).normal(size=y.shape)
    dx, dk = reference.conv_gradients(x, kernel, dy, *case.resolved())
    return [jnp.asarray(a, dtype) for a in (x, kernel, dy)], {"y": y, "x": dx, "kernel": dk}


def form_of(case, dtype=jnp.float32, sums=jnp.float32):
    size = case.x[1:-1]
    window = resolve_window(Window(case.kernel[:-2], case.stride, case.padding, case.dilation), size)
    return primitives.Form(window, size, case.groups, (jnp.dtype(dtype), jnp.dtype(dtype), jnp.dtype(sums)), None)


def close(got, want, dtype=jnp.float32):
    np.testing.assert_allclose(got, want, atol=float(jnp.finfo(dtype).eps) * 16 * max(1.0, np.abs(want).max()), rtol=0)


@EVERY_WAY
def test_value_and_gradients_are_the_sums_by_loops(case):
    (x, kernel, dy), want = three(case)
    y, vjp = jax.vjp(jax.jit(partial(ops.conv, **case.options)), x, kernel)
    dx, dk = vjp(dy)
    for got, name in ((y, "y"), (dx, "x"), (dk, "kernel")):
        close(got, want[name])


@EVERY_WAY
def test_what_a_gpu_or_tpu_is_given_is_the_same(case):
    (x, kernel, dy), want = three(case)
    form = form_of(case)
    close(common_lowerings.lax_forward(x, kernel, form), want["y"])
    close(common_lowerings.lax_kernel_gradient(x, dy, form), want["kernel"])
    close(common_lowerings.lax_input_gradient(kernel, dy, form), want["x"])


@EVERY_WAY
def test_every_lowering_for_a_cpu_is_the_same_sum(case):
    """Also those that the table does not choose today: another machine's may."""
    (x, kernel, dy), want = three(case)
    form = form_of(case)
    factors = {"x": x, "kernel": kernel, "y": dy}
    for wanted in primitives.FACTORS:
        given = [factors[name] for name in primitives.others(wanted)]
        for name in autotune.supported_lowerings(
            wanted, autotune.conv_category(kernel.shape[-2], kernel.shape[-1] // case.groups, case.groups)
        ):
            close(jax.jit(dispatch.LOWERINGS[name][wanted], static_argnums=2)(*given, form), want[wanted])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_cpu_takes_what_the_table_names(x64, monkeypatch, dtype):
    """Another lowering would be as right, and only slow: no test of values sees it."""
    case = next(case for case in WAYS if case.name == "depthwise, 1 filter")
    taken = {}

    def spied(name, wanted, lowering):
        return lambda *args: taken.update({wanted: name}) or lowering(*args)

    for name, by_pass in list(dispatch.LOWERINGS.items()):
        monkeypatch.setitem(
            dispatch.LOWERINGS, name, {wanted: spied(name, wanted, by_pass[wanted]) for wanted in by_pass}
        )
    (x, kernel, dy), _ = three(case, dtype)
    jax.jit(lambda x, kernel, dy: jax.vjp(partial(ops.conv, **case.options), x, kernel)[1](dy)).lower(x, kernel, dy)
    jax.jit(partial(ops.conv, **case.options)).lower(x, kernel)
    single = {wanted: autotune.best_lowering(wanted, "depthwise") for wanted in primitives.FACTORS}
    assert taken == (single if dtype == jnp.float32 else dict.fromkeys(single, "products"))


@pytest.mark.parametrize("name", ["plain", "stride", "groups", "depthwise", "parts of a batch, stride 2"])
def test_half_precision_is_added_up_in_float32_and_rounded_once(name):
    case = next(case for case in [*CASES, *WAYS] if case.name == name)
    (x, kernel, dy), _ = three(case, jnp.bfloat16)
    wide = [np.asarray(a, np.float64) for a in (x, kernel, dy)]
    y, vjp = jax.vjp(partial(ops.conv, **case.options), x, kernel)
    want = reference.conv(*wide[:2], *case.resolved()), *reference.conv_gradients(*wide, *case.resolved())
    for got, exact in zip((y, *vjp(dy)), want):
        assert got.dtype == jnp.bfloat16
        rounded = np.asarray(jnp.asarray(exact, jnp.float32).astype(jnp.bfloat16), np.float64)
        # Half a unit of bfloat16, and the float32 sum's own error where that tips the rounding.
        np.testing.assert_allclose(np.asarray(got, np.float64), rounded, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"stride": 2, "padding": "SAME"}], ids=str)
def test_derivatives_of_every_order_and_mode(x64, rng, options):
    c = 4 // options.get("groups", 1)
    x, kernel = jnp.asarray(rng.normal(size=(2, 5, 4, 4))), jnp.asarray(rng.normal(size=(3, 2, c, 4)))
    check_grads(partial(ops.conv, **options), (x, kernel), order=3, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wanted", primitives.FACTORS)
@pytest.mark.parametrize("batched", [(0, None), (None, 1), (1, 0), (-1, 2)], ids=str)
@pytest.mark.parametrize("name", ["plain", "stride", "groups", "depthwise"])
def test_vmap_is_a_loop(wanted, batched, name):
    case = next(case for case in CASES if case.name == name)
    form, rng = form_of(case), np.random.default_rng(5)
    shapes = {"x": case.x, "kernel": case.kernel}
    shapes["y"] = primitives.shape_of("y", case.x, case.kernel, form)
    given = [jnp.asarray(rng.normal(size=(3, *shapes[each])), jnp.float32) for each in primitives.others(wanted)]
    pairs = [[a[i] if axis is not None else a[0] for a, axis in zip(given, batched)] for i in range(3)]
    want = jnp.stack([primitives.run(wanted, *pair, form) for pair in pairs])
    args = [a[0] if axis is None else jnp.moveaxis(a, 0, axis) for a, axis in zip(given, batched)]
    got = jax.vmap(lambda a, b: primitives.run(wanted, a, b, form), batched)(*args)
    close(got, want)


def test_vmap_of_vmap_and_of_gradients(rng):
    """Per-example gradients of several networks at once: all three kinds of batching, one inside another."""
    x, kernels = (
        jnp.asarray(rng.normal(size=(5, 6, 6, 3)), jnp.float32),
        jnp.asarray(rng.normal(size=(2, 3, 3, 3, 4)), jnp.float32),
    )

    def loss(kernel, image):
        return jnp.sum(jnp.tanh(ops.conv(image[None], kernel)))

    got = jax.vmap(lambda kernel: jax.vmap(jax.grad(loss), (None, 0))(kernel, x))(kernels)
    assert got.shape == (2, 5, 3, 3, 3, 4)
    for i, j in itertools.product(range(2), range(5)):
        close(got[i, j], jax.grad(loss)(kernels[i], x[j]))


def test_remat_and_scan_change_nothing(rng):
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

    close(jax.grad(scanned)(kernels), jax.grad(unrolled)(kernels))


def test_shard_map_adds_up_the_gradient_of_a_shared_kernel(rng):
    """Each device has images of its own and the kernel is everybody's: its gradient is a sum over devices."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = jnp.asarray(rng.normal(size=(4, 6, 6, 4)), jnp.float32), jnp.ones((3, 3, 4, 2), jnp.float32)

    def loss(x, kernel):
        mine = jax.shard_map(
            lambda x, kernel: jax.lax.psum(jnp.sum(ops.conv(x, kernel) ** 2), "data"),
            mesh=mesh,
            in_specs=(PartitionSpec("data"), PartitionSpec()),
            out_specs=PartitionSpec(),
        )
        return mine(x, kernel)

    want = jax.grad(lambda x, kernel: jnp.sum(ops.conv(x, kernel) ** 2), (0, 1))(x, kernel)
    for got, each in zip(jax.jit(jax.grad(loss, (0, 1)))(x, kernel), want):
        close(got, each)
    traced = str(jax.make_jaxpr(jax.grad(loss, 1))(x, kernel))
    assert "psum" in traced.split("conv_kernel")[1]  # after the gradient of each device's own images


def test_no_route_is_left_out():
    """Each kind that the table for a CPU knows is among the cases: a planted error in any of them is seen above."""
    seen = set()
    for case in [*CASES, *WAYS]:
        seen.add(autotune.conv_category(case.kernel[-2], case.kernel[-1] // case.groups, case.groups))
        if case.x[0] >= 2 * lowerings.PART:
            seen.add("parts")
        if max(case.stride) > 1 and max(case.dilation) == 1:
            seen.add("phases")
    assert seen == {*autotune.CASES, "parts", "phases"}
