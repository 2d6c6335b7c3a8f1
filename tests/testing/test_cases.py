"""Ready-made comparisons: every op in all the ways that the library has, and whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, ops
from jaxconv.models.comparison_cases import model_case
from jaxconv.ops import backward
from jaxconv.testing import OP_CASES, check_grads, compare, compare_all, make_op_case, with_custom_gradient

SHAPES = {op: (2, 7, 6, 4) for op in ("conv", "conv_transpose", "max_pool", "avg_pool", "lp_pool")}
SHAPES |= {"dense": (5, 4), "softmax_cross_entropy": (5, 4)}


@pytest.mark.parametrize("op", OP_CASES)
def test_every_contest_agrees(x64, op):
    groups = 2 if op in ("conv", "conv_transpose", "group_norm") else 1
    ready = make_op_case(op, SHAPES.get(op, (2, 3, 2, 4)), features=6, kernel_size=(3, 2), groups=groups)
    assert "manual" in ready.functions and len(ready.names) == len(ready.args)
    found = compare_all(ready.functions, *ready.args, names=ready.names)
    assert found.ok and max(row.max_rel_error for row in found.rows) <= 1e-12
    assert check_grads(next(iter(ready.functions.values())), *ready.args, names=ready.names, num_entries=8).ok


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("conv", {"padding": (2, 1), "padding_mode": "reflect"}),
        ("conv", {"flip_kernel": True}),
        ("conv_transpose", {"stride": 2, "output_padding": (1, 0)}),
        ("lp_pool", {"p": 3.0}),
        ("group_norm", {"groups": 2}),
    ],
)
def test_what_is_asked_for_is_what_is_compared(x64, op, options):
    ready = make_op_case(op, (1, 5, 4, 2), features=2, kernel_size=2, **options)
    x, *parameters = ready.args
    renamed = {"num_groups": options["groups"]} if op == "group_norm" else options
    wanted = getattr(ops, op)(x, *parameters or [2], **renamed)
    for function in ready.functions.values():
        np.testing.assert_allclose(jax.jit(function)(*ready.args), wanted, rtol=1e-12, atol=1e-12)
    some = {name: ready.functions[name] for name in list(ready.functions)[:2]} | {"manual": ready.functions["manual"]}
    assert compare_all(some, *ready.args).ok


@pytest.mark.parametrize("op", ["relu", "max_pool", "global_max_pool"])
def test_contests_with_kinks(x64, op):
    ready = make_op_case(op, (1, 6, 7, 2), kernel_size=2, kinks=True)
    found = compare_all(ready.functions, *ready.args, names=ready.names)
    assert found.ok and sum(row.kinks for row in found.rows) > 0


def test_float64_is_float64_whatever_jax_is_set_to():
    assert all(arg.dtype == jnp.float64 for op in OP_CASES for arg in make_op_case(op).args)
    params, x = model_case("small_cnn", layer="conv1", batch_size=1).args
    assert {leaf.dtype for leaf in jax.tree.leaves([params, x])} == {jnp.dtype("float64")}
    assert not jax.config.jax_enable_x64


def test_the_gradient_is_given_the_arguments_of_the_call_and_no_defaults(x64, rng):
    x, kernel, bias = (jnp.asarray(rng.normal(size=size)) for size in [(1, 4, 4, 1), (2, 2, 1, 2), (2,)])
    two = with_custom_gradient(ops.conv, lambda x, kernel, dy: backward.conv(x, kernel, dy)[:2])
    assert compare(ops.conv, two, x, kernel).ok
    three = with_custom_gradient(ops.conv, lambda x, kernel, bias, dy: backward.conv(x, kernel, dy))
    assert compare(ops.conv, three, x, kernel, bias).ok
    assert [row.name for row in check_grads(two, x, kernel, num_entries=2).rows] == ["x", "kernel"]


def test_a_network_in_float32(rng):
    """Measured against float64, in which it runs too: its images, which are no argument, have to go along."""
    ready = model_case("small_cnn", batch_size=1, dtype=jnp.float32)
    found = compare_all({"lax": ready.functions["lax"]}, *ready.args, names=ready.names)
    assert found.ok and found.dtype == "float32" and 0 < found.rows[0].max_abs_error


@pytest.mark.parametrize("layer", ["conv2", "max_pool1"])
def test_a_layer_in_every_lowering(x64, layer):
    ready = model_case("lenet5", layer=layer, batch_size=2)
    assert ready.args[1].shape == {"conv2": (2, 14, 14, 6), "max_pool1": (2, 28, 28, 6)}[layer]
    assert ("manual" in ready.functions) == (layer == "conv2")
    chosen = {name: ready.functions[name] for name in ready.functions if name in ("lax", "im2col", "manual")}
    assert compare_all(chosen, *ready.args, names=ready.names).ok


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_op_case("convv"), r"compare: unknown op 'convv': did you mean 'conv'"),
        (lambda: make_op_case("conv", seed=-1), r"conv: seed=-1 should be an int of at least 0"),
        (lambda: make_op_case("conv", features=2.0), r"conv: features=2.0 should be an int of at least 1"),
        (lambda: make_op_case("conv", kernel_size=0), r"conv: kernel_size 0: give an int of at least 1, or 2 of them"),
        (
            lambda: make_op_case("conv", kernel_size=(1, 2, 3)),
            r"conv: kernel_size \(1, 2, 3\): give an int of at least 1, or 2",
        ),
        (lambda: make_op_case("max_pool", kernel_size=0), r"max_pool: window 0: give an int"),
        (lambda: make_op_case("relu", kinks="no"), r"relu: kinks='no' should be True or False"),
        (
            lambda: make_op_case("conv", dtype="int32"),
            r"conv: dtype='int32' should be a floating one, such as jnp.float32",
        ),
        (lambda: make_op_case("conv", dtype="float99"), r"conv: dtype='float99' should be a floating one"),
        (lambda: make_op_case("conv", (8, 28)), r"conv: input_shape \(8, 28\) should be \(N, \*spatial, C\)"),
        (lambda: make_op_case("relu", 8), r"relu: input_shape \(8,\) should be \(N, values\)"),
        (lambda: make_op_case("conv", (8, 9, 9, 3), groups=2), r"conv: groups=2 does not divide the 3 channels"),
        (lambda: make_op_case("dense", (0, 4)), r"dense: input_shape \(0, 4\) should be \(N, values\)"),
        (lambda: model_case("mlp"), r"model 'mlp' has no convolution"),
        (lambda: model_case("lenet5", layer="conv9"), r"unknown layer of lenet5 'conv9': did you mean 'conv"),
        (lambda: model_case("lenet5", batch_size=0), r"lenet5: batch_size=0 should be an int of at least 1"),
        (lambda: model_case("lenet5", batch_size=1.5), r"lenet5: batch_size=1.5 should be an int of at least 1"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message):
        call()
