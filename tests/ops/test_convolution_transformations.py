"""``impl="auto"`` under jax's transformations: what lax's convolution allows, it allows, with the same numbers."""

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


def close(got, want, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        scale = max(1.0, np.abs(other).max(initial=0))
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


def arrays(rng, *shapes):
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def loss(x, kernel, impl="auto", **options):
    return jnp.sin(ops.conv(x, kernel, impl=impl, **options)).sum()


def with_gradients(impl, **options):
    return jax.value_and_grad(partial(loss, impl=impl, **options), (0, 1))


def test_without_jit_it_is_the_same(rng):
    x, kernel = arrays(rng, (2, 6, 5, 4), (3, 2, 2, 6))
    with jax.disable_jit():
        got = with_gradients("auto", groups=2)(x, kernel)
    close(got, with_gradients("lax", groups=2)(x, kernel))


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)
def test_vmap_over_an_empty_axis_is_an_empty_array(axes):
    x, kernel = jnp.zeros((*(0,) * (axes[0] == 0), 2, 7, 3)), jnp.zeros((*(0,) * (axes[1] == 0), 3, 3, 4))

    def shapes(impl):
        return jax.eval_shape(jax.vmap(with_gradients(impl), axes), x, kernel)

    assert shapes("auto") == shapes("lax")
    assert jax.vmap(ops.conv, axes)(x, kernel).shape == (0, 2, 5, 4)


def test_vmap_over_empty_batches(rng):
    x, kernels = jnp.zeros((3, 0, 7, 3)), arrays(rng, (3, 3, 3, 4))[0]
    for axes, kernel in (((0, 0), kernels), ((0, None), kernels[0])):
        got = jax.vmap(with_gradients("auto"), axes)(x, kernel)
        close(got, jax.vmap(with_gradients("lax"), axes)(x, kernel))


def test_taylor_series_through_it_are_those_of_lax(rng):
    x, kernel = arrays(rng, (2, 6, 3), (3, 3, 4))
    series = (x**2, x, 1 - x), (kernel, kernel**2, kernel)

    def terms(impl):
        return jet(lambda x, kernel: jnp.sin(ops.conv(x, kernel, impl=impl)), (x, kernel), series)

    got, want = terms("auto"), terms("lax")
    close(got, want, 1e-4)


def kept(policy, impl, x, kernel):
    """The lines that jax prints, one for each array that is kept, and the gradient."""

    def both(kernel):
        return jnp.sin(ops.conv(jnp.sin(ops.conv(x, kernel, impl=impl)), kernel, impl=impl)).sum()

    program = jax.checkpoint(both, policy=policy)
    with contextlib.redirect_stdout(io.StringIO()) as lines:
        print_saved_residuals(program, kernel)
    return lines.getvalue().count("\n"), jax.grad(program)(kernel)


def test_policies_of_checkpoint_keep_what_they_keep_of_lax(rng):
    x, kernel = arrays(rng, (2, 8, 3), (3, 3, 3))
    policies = jax.checkpoint_policies
    counts = []
    for policy in (policies.dots_saveable, policies.nothing_saveable, policies.everything_saveable):
        (count, gradient), (of_lax, want) = (kept(policy, impl, x, kernel) for impl in ("auto", "lax"))
        counts.append(count)
        assert count == of_lax
        close(gradient, want)
    assert counts[0] == counts[1] + 2  # both products, and nothing else

    def by_name(primitive, *_, **__):
        return primitive.name == "conv_y"

    assert kept(by_name, "auto", x, kernel)[0] == counts[0]


KINDS = {
    "few channels": ((9, 8, 3), (3, 3, 3, 8), {"stride": 2}),
    "depthwise": ((6, 5, 4), (3, 3, 1, 4), {"groups": 4}),
    "one channel": ((6, 5, 1), (3, 3, 1, 16), {"padding": 1}),
    "many groups": ((6, 66), (2, 2, 66), {"groups": 33}),
}


def test_value_and_gradients_are_exported_for_batches_of_any_size(rng):
    kernels = arrays(rng, *(kernel for _, kernel, _ in KINDS.values()))

    def every(impl, *xs):
        return [
            with_gradients(impl, **options)(x, kernel)
            for (_, _, options), x, kernel in zip(KINDS.values(), xs, kernels, strict=True)
        ]

    batch = export.symbolic_shape("batch")[0]
    symbols = [jax.ShapeDtypeStruct((batch, *size), jnp.float32) for size, _, _ in KINDS.values()]
    exported = export.export(jax.jit(partial(every, "auto")))(*symbols)
    xs = arrays(rng, *((3, *size) for size, _, _ in KINDS.values()))
    close(exported.call(*xs), jax.jit(partial(every, "lax"))(*xs), 1e-4)


def test_training_with_batch_norm_is_exported_for_batches_of_any_size(rng):
    model = serial(Conv(4, 3), BatchNorm(), relu, flatten, Dense(3))
    params, state = model.init(jax.random.key(0), (6, 5, 2))

    def gradient(params, x):
        return jax.grad(lambda params: (model.apply(params, state, x, train=True)[0] ** 2).sum())(params)

    batch = export.symbolic_shape("batch")[0]
    exported = export.export(jax.jit(gradient))(params, jax.ShapeDtypeStruct((batch, 6, 5, 2), jnp.float32))
    (x,) = arrays(rng, (5, 6, 5, 2))
    close(exported.call(params, x), jax.jit(gradient)(params, x), 1e-4)


LARGE = {
    "stride": ((2, 61, 62, 3), (16, 15, 3, 5), {"stride": (16, 13)}),
    "taps": ((1, 20, 20, 4), (13, 14, 1, 8), {"groups": 4, "padding": 3}),
    "no second place": ((1, 6, 6, 4), (3, 3, 4, 2), {"stride": 2**31 - 1}),
}


def operations(x, kernel, **options):
    program = jax.jit(with_gradients("auto", **options)).lower(x, kernel).as_text()
    return program.count("stablehlo.") + program.count("call @")


@pytest.mark.parametrize("name", LARGE)
def test_large_windows_and_strides_are_few_operations(name, rng):
    x_shape, kernel_shape, options = LARGE[name]
    x, kernel = arrays(rng, x_shape, kernel_shape)
    assert operations(x, kernel, **options) < 20 * dispatch.MOST_PIECES
    got, want = (jax.jit(with_gradients(impl, **options))(x, kernel) for impl in ("auto", "lax"))
    close(got, want, 1e-4)


def test_pieces_are_those_of_the_programs(rng, monkeypatch):
    """So that what is counted is what is compiled: at the limit nothing is left to lax, and beyond it all is."""
    x, kernel = arrays(rng, (2, 12, 12, 4), (3, 3, 4, 4))
    form = primitives.Form(resolve_window(Window(3, 3), (12, 12)), (12, 12), 1, (x.dtype,) * 3, None)
    assert (
        dispatch.pieces("y", "products", 4, form) == 9
        and dispatch.pieces("x", "library", 4, form) == 9 * dispatch.PHASE
    )
    assert dispatch.pieces("y", "taps", 4, form) == 36 and dispatch.pieces("y", "library", 4, form) == 1
    left = []

    def spied(wanted, lowering):
        return lambda *given: left.append(wanted) or lowering(*given)

    for wanted, lowering in list(lowerings.LAX_PASSES.items()):
        monkeypatch.setitem(lowerings.LAX_PASSES, wanted, spied(wanted, lowering))
    for most, expected in ((dispatch.pieces("x", "library", 4, form), []), (0, ["kernel", "x", "y"])):
        monkeypatch.setattr(dispatch, "MOST_PIECES", most)
        jax.clear_caches()
        left.clear()
        jax.jit(with_gradients("auto", stride=3)).lower(x, kernel)
        assert sorted(set(left)) == expected
