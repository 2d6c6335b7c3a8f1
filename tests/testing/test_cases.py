"""Ready-made comparisons: every op in all the ways that the library has, and whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, ops
from jaxconv.models.comparison_cases import model_contest
from jaxconv.ops import backward
from jaxconv.testing import CONTESTS, check_gradients, compare, compare_all, contest, with_gradient

SHAPES = {op: (2, 7, 6, 4) for op in ("conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool")}
SHAPES |= {"dense": (5, 4), "softmax_cross_entropy": (5, 4)}


@pytest.mark.parametrize("op", CONTESTS)
def test_every_contest_agrees(x64, op):
    groups = 2 if op in ("conv", "conv_transpose", "group_norm") else 1
    ready = contest(op, SHAPES.get(op, (2, 3, 2, 4)), features=6, kernel=(3, 2), groups=groups)
    assert "by hand" in ready.functions and len(ready.names) == len(ready.args)
    found = compare_all(ready.functions, *ready.args, names=ready.names)
    assert found.ok and max(row.relative for row in found.rows) <= 1e-12
    assert check_gradients(next(iter(ready.functions.values())), *ready.args, names=ready.names, entries=8).ok


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("conv", {"padding": (2, 1), "pad_mode": "reflect"}),
        ("conv", {"flip": True}),
        ("conv_transpose", {"stride": 2, "output_padding": (1, 0)}),
        ("lp_pool", {"p": 3.0}),
        ("group_norm", {"groups": 2}),
    ],
)
def test_what_is_asked_for_is_what_is_compared(x64, op, options):
    ready = contest(op, (1, 5, 4, 2), features=2, kernel=2, **options)
    x, *parameters = ready.args
    wanted = getattr(ops, op)(x, *parameters or [2], **options)
    for function in ready.functions.values():
        np.testing.assert_allclose(jax.jit(function)(*ready.args), wanted, rtol=1e-12, atol=1e-12)
    some = {name: ready.functions[name] for name in list(ready.functions)[:2]} | {"by hand": ready.functions["by hand"]}
    assert compare_all(some, *ready.args).ok


@pytest.mark.parametrize("op", ["relu", "max_pool", "global_max_pool"])
def test_contests_with_kinks(x64, op):
    ready = contest(op, (1, 6, 7, 2), kernel=2, kinks=True)
    found = compare_all(ready.functions, *ready.args, names=ready.names)
    assert found.ok and sum(row.kinks for row in found.rows) > 0


def test_float64_is_float64_whatever_jax_is_set_to():
    assert all(arg.dtype == jnp.float64 for op in CONTESTS for arg in contest(op).args)
    params, x = model_contest("small_cnn", layer="conv1", batch=1).args
    assert {leaf.dtype for leaf in jax.tree.leaves([params, x])} == {jnp.dtype("float64")}
    assert not jax.config.jax_enable_x64


def test_the_gradient_is_given_the_arguments_of_the_call_and_no_defaults(x64, rng):
    x, kernel, bias = (jnp.asarray(rng.normal(size=size)) for size in [(1, 4, 4, 1), (2, 2, 1, 2), (2,)])
    two = with_gradient(ops.conv, lambda x, kernel, dy: backward.conv(x, kernel, dy)[:2])
    assert compare(ops.conv, two, x, kernel).ok
    three = with_gradient(ops.conv, lambda x, kernel, bias, dy: backward.conv(x, kernel, dy))
    assert compare(ops.conv, three, x, kernel, bias).ok
    assert [row.name for row in check_gradients(two, x, kernel, entries=2).rows] == ["x", "kernel"]


def test_a_network_in_float32(rng):
    """Measured against float64, in which it runs too: its images, which are no argument, have to go along."""
    ready = model_contest("small_cnn", batch=1, dtype=jnp.float32)
    found = compare_all({"lax": ready.functions["lax"]}, *ready.args, names=ready.names)
    assert found.ok and found.dtype == "float32" and 0 < found.rows[0].absolute


@pytest.mark.parametrize("layer", ["conv2", "max_pool1"])
def test_a_layer_in_every_lowering(x64, layer):
    ready = model_contest("lenet5", layer=layer, batch=2)
    assert ready.args[1].shape == {"conv2": (2, 14, 14, 6), "max_pool1": (2, 28, 28, 6)}[layer]
    assert ("by hand" in ready.functions) == (layer == "conv2")
    chosen = {name: ready.functions[name] for name in ready.functions if name in ("lax", "im2col", "by hand")}
    assert compare_all(chosen, *ready.args, names=ready.names).ok


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: contest("convv"), r"compare: unknown op 'convv': did you mean 'conv'"),
        (lambda: contest("conv", seed=-1), r"conv: seed=-1 should be an int of at least 0"),
        (lambda: contest("conv", features=2.0), r"conv: features=2.0 should be an int of at least 1"),
        (lambda: contest("conv", kernel=0), r"conv: kernel 0: give an int of at least 1, or 2 of them"),
        (lambda: contest("conv", kernel=(1, 2, 3)), r"conv: kernel \(1, 2, 3\): give an int of at least 1, or 2"),
        (lambda: contest("max_pool", kernel=0), r"max_pool: window 0: give an int"),
        (lambda: contest("relu", kinks="no"), r"relu: kinks='no' should be True or False"),
        (lambda: contest("conv", dtype="int32"), r"conv: dtype='int32' should be a floating one, such as jnp.float32"),
        (lambda: contest("conv", dtype="float99"), r"conv: dtype='float99' should be a floating one"),
        (lambda: contest("conv", (8, 28)), r"conv: shape \(8, 28\) should be \(N, \*spatial, C\)"),
        (lambda: contest("relu", 8), r"relu: shape \(8,\) should be \(N, values\)"),
        (lambda: contest("conv", (8, 9, 9, 3), groups=2), r"conv: groups=2 does not divide the 3 channels"),
        (lambda: contest("dense", (0, 4)), r"dense: shape \(0, 4\) should be \(N, values\)"),
        (lambda: model_contest("mlp"), r"model 'mlp' has no convolution"),
        (lambda: model_contest("lenet5", layer="conv9"), r"unknown layer of lenet5 'conv9': did you mean 'conv"),
        (lambda: model_contest("lenet5", batch=0), r"lenet5: batch=0 should be an int of at least 1"),
        (lambda: model_contest("lenet5", batch=1.5), r"lenet5: batch=1.5 should be an int of at least 1"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
