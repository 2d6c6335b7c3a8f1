"""Transformations of ``impl="auto"``, compared with lax's convolution."""

import contextlib
import io
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.ad_checkpoint import print_saved_residuals
from jax.experimental.jet import jet

from jaxconv import BatchNorm, Conv, Dense, flatten, ops, relu, serial
from jaxconv.ops.convolution import lowerings, primitives
from jaxconv.ops.convolution.cpu import dispatch
from jaxconv.shapes import Window, resolve_window


def assert_close(actual, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, np.abs(b).max(initial=0))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def arrays(rng, *shapes):
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def loss(x, kernel, impl="auto", **options):
    return jnp.sin(ops.conv(x, kernel, impl=impl, **options)).sum()


def with_gradients(impl, **options):
    return jax.value_and_grad(partial(loss, impl=impl, **options), (0, 1))


def test_disable_jit_matches_lax(rng):
    x, kernel = arrays(rng, (2, 6, 5, 4), (3, 2, 2, 6))
    with jax.disable_jit():
        actual = with_gradients("auto", groups=2)(x, kernel)
    assert_close(actual, with_gradients("lax", groups=2)(x, kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)
def test_vmap_over_empty_axis_gives_empty_output(axes):
    x, kernel = jnp.zeros((*(0,) * (axes[0] == 0), 2, 7, 3)), jnp.zeros((*(0,) * (axes[1] == 0), 3, 3, 4))

    def shapes(impl):
        return jax.eval_shape(jax.vmap(with_gradients(impl), axes), x, kernel)

    assert shapes("auto") == shapes("lax")
    assert jax.vmap(ops.conv, axes)(x, kernel).shape == (0, 2, 5, 4)


def test_vmap_over_empty_batches_matches_lax(rng):
    x, kernels = jnp.zeros((3, 0, 7, 3)), arrays(rng, (3, 3, 3, 4))[0]
    for axes, kernel in (((0, 0), kernels), ((0, None), kernels[0])):
        actual = jax.vmap(with_gradients("auto"), axes)(x, kernel)
        assert_close(actual, jax.vmap(with_gradients("lax"), axes)(x, kernel))


def test_jet_matches_lax(rng):
    x, kernel = arrays(rng, (2, 6, 3), (3, 3, 4))
    series = (x**2, x, 1 - x), (kernel, kernel**2, kernel)

    def taylor_terms(impl):
        return jet(lambda x, kernel: jnp.sin(ops.conv(x, kernel, impl=impl)), (x, kernel), series)

    actual, expected = taylor_terms("auto"), taylor_terms("lax")
    assert_close(actual, expected, 1e-4)


def num_residuals_and_gradient(policy, impl, x, kernel):
    """Return the number of saved residuals, which jax prints one per line, and the gradient."""

    def two_layers(kernel):
        return jnp.sin(ops.conv(jnp.sin(ops.conv(x, kernel, impl=impl)), kernel, impl=impl)).sum()

    checkpointed = jax.checkpoint(two_layers, policy=policy)
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        print_saved_residuals(checkpointed, kernel)
    return lines.getvalue().count("\n"), jax.grad(checkpointed)(kernel)


def test_checkpoint_policies_match_lax(rng):
    x, kernel = arrays(rng, (2, 8, 3), (3, 3, 3))
    policies = jax.checkpoint_policies
    counts = []
    for policy in (policies.dots_saveable, policies.nothing_saveable, policies.everything_saveable):
        (count, gradient), (count_lax, expected) = (
            num_residuals_and_gradient(policy, impl, x, kernel) for impl in ("auto", "lax")
        )
        counts.append(count)
        assert count == count_lax
        assert_close(gradient, expected)
    assert counts[0] == counts[1] + 2  # exactly the two convolutions

    def saves_conv(primitive, *_, **__):
        return primitive.name == "conv_y"

    assert num_residuals_and_gradient(saves_conv, "auto", x, kernel)[0] == counts[0]


CASES = {
    "few channels": ((9, 8, 3), (3, 3, 3, 8), {"stride": 2}),
    "depthwise": ((6, 5, 4), (3, 3, 1, 4), {"groups": 4}),
    "one channel": ((6, 5, 1), (3, 3, 1, 16), {"padding": 1}),
    "many groups": ((6, 66), (2, 2, 66), {"groups": 33}),
}


def test_export_with_symbolic_batch_matches_lax(rng):
    kernels = arrays(rng, *(kernel for _, kernel, _ in CASES.values()))

    def all_cases(impl, *xs):
        return [
            with_gradients(impl, **options)(x, kernel)
            for (_, _, options), x, kernel in zip(CASES.values(), xs, kernels, strict=True)
        ]

    batch = export.symbolic_shape("batch")[0]
    symbols = [jax.ShapeDtypeStruct((batch, *size), jnp.float32) for size, _, _ in CASES.values()]
    exported = export.export(jax.jit(partial(all_cases, "auto")))(*symbols)
    xs = arrays(rng, *((3, *size) for size, _, _ in CASES.values()))
    assert_close(exported.call(*xs), jax.jit(partial(all_cases, "lax"))(*xs), 1e-4)


def test_export_of_batch_norm_training_with_symbolic_batch(rng):
    model = serial(Conv(4, 3), BatchNorm(), relu, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (6, 5, 2))

    def gradient(params, x):
        return jax.grad(lambda params: (model.apply(params, state, x, train=True)[0] ** 2).sum())(params)

    batch = export.symbolic_shape("batch")[0]
    exported = export.export(jax.jit(gradient))(params, jax.ShapeDtypeStruct((batch, 6, 5, 2), jnp.float32))
    (x,) = arrays(rng, (5, 6, 5, 2))
    assert_close(exported.call(params, x), jax.jit(gradient)(params, x), 1e-4)


LARGE = {
    "stride": ((2, 61, 62, 3), (16, 15, 3, 5), {"stride": (16, 13)}),
    "taps": ((1, 20, 20, 4), (13, 14, 1, 8), {"groups": 4, "padding": 3}),
    "one position": ((1, 6, 6, 4), (3, 3, 4, 2), {"stride": 2**31 - 1}),
}


def count_operations(x, kernel, **options):
    text = jax.jit(with_gradients("auto", **options)).lower(x, kernel).as_text()
    return text.count("stablehlo.") + text.count("call @")


@pytest.mark.parametrize("name", LARGE)
def test_large_windows_and_strides_have_few_operations(name, rng):
    x_shape, kernel_shape, options = LARGE[name]
    x, kernel = arrays(rng, x_shape, kernel_shape)
    assert count_operations(x, kernel, **options) < 20 * dispatch.MAX_OPERATIONS
    actual, expected = (jax.jit(with_gradients(impl, **options))(x, kernel) for impl in ("auto", "lax"))
    assert_close(actual, expected, 1e-4)


def test_num_operations_decides_fallback_to_lax(rng, monkeypatch):
    """At the limit no pass falls back to lax, and beyond it every pass does."""
    x, kernel = arrays(rng, (2, 12, 12, 4), (3, 3, 4, 4))
    spec = primitives.ConvSpec(resolve_window(Window(3, 3), (12, 12)), (12, 12), 1, (x.dtype,) * 3, None)
    assert (
        dispatch.num_operations("y", "products", 4, spec) == 9
        and dispatch.num_operations("x", "library", 4, spec) == 9 * dispatch.OPERATIONS_PER_PHASE
    )
    assert dispatch.num_operations("y", "taps", 4, spec) == 36 and dispatch.num_operations("y", "library", 4, spec) == 1
    lax_passes = []

    def spy(output, lowering):
        return lambda *operands: lax_passes.append(output) or lowering(*operands)

    for output, lowering in list(lowerings.LAX_PASSES.items()):
        monkeypatch.setitem(lowerings.LAX_PASSES, output, spy(output, lowering))
    for max_operations, expected in ((dispatch.num_operations("x", "library", 4, spec), []), (0, ["kernel", "x", "y"])):
        monkeypatch.setattr(dispatch, "MAX_OPERATIONS", max_operations)
        jax.clear_caches()
        lax_passes.clear()
        jax.jit(with_gradients("auto", stride=3)).lower(x, kernel)
        assert sorted(set(lax_passes)) == expected
