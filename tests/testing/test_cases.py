"""Comparison cases: every op in all of its implementations, layers and whole models."""

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
def test_op_cases_agree(x64, op):
    groups = 2 if op in ("conv", "conv_transpose", "group_norm") else 1
    case = make_op_case(op, SHAPES.get(op, (2, 3, 2, 4)), features=6, kernel_size=(3, 2), groups=groups)
    assert "manual" in case.functions and len(case.names) == len(case.args)
    comparison = compare_all(case.functions, *case.args, names=case.names)
    assert comparison.ok and max(row.max_rel_error for row in comparison.rows) <= 1e-12
    assert check_grads(next(iter(case.functions.values())), *case.args, names=case.names, num_entries=8).ok


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
def test_op_case_options_reach_the_op(x64, op, options):
    case = make_op_case(op, (1, 5, 4, 2), features=2, kernel_size=2, **options)
    x, *parameters = case.args
    op_options = {"num_groups": options["groups"]} if op == "group_norm" else options
    expected = getattr(ops, op)(x, *parameters or [2], **op_options)
    for function in case.functions.values():
        np.testing.assert_allclose(jax.jit(function)(*case.args), expected, rtol=1e-12, atol=1e-12)
    names = [*list(case.functions)[:2], "manual"]
    assert compare_all({name: case.functions[name] for name in names}, *case.args).ok


@pytest.mark.parametrize("op", ["relu", "max_pool", "global_max_pool"])
def test_op_cases_with_kinks(x64, op):
    case = make_op_case(op, (1, 6, 7, 2), kernel_size=2, kinks=True)
    comparison = compare_all(case.functions, *case.args, names=case.names)
    assert comparison.ok and sum(row.kinks for row in comparison.rows) > 0


def test_cases_are_float64_without_x64_mode():
    assert all(arg.dtype == jnp.float64 for op in OP_CASES for arg in make_op_case(op).args)
    params, x = model_case("small_cnn", layer="conv1", batch_size=1).args
    assert {leaf.dtype for leaf in jax.tree.leaves([params, x])} == {jnp.dtype("float64")}
    assert not jax.config.jax_enable_x64


def test_custom_gradient_gets_only_passed_arguments(x64, rng):
    x, kernel, bias = (jnp.asarray(rng.normal(size=size)) for size in [(1, 4, 4, 1), (2, 2, 1, 2), (2,)])
    without_bias = with_custom_gradient(ops.conv, lambda x, kernel, dy: backward.conv(x, kernel, dy)[:2])
    assert compare(ops.conv, without_bias, x, kernel).ok
    with_bias = with_custom_gradient(ops.conv, lambda x, kernel, bias, dy: backward.conv(x, kernel, dy))
    assert compare(ops.conv, with_bias, x, kernel, bias).ok
    assert [row.name for row in check_grads(without_bias, x, kernel, num_entries=2).rows] == ["x", "kernel"]


def test_model_case_in_float32_agrees(rng):
    """The reference runs in float64, so the images, which are not an argument, are converted too."""
    case = model_case("small_cnn", batch_size=1, dtype=jnp.float32)
    comparison = compare_all({"lax": case.functions["lax"]}, *case.args, names=case.names)
    assert comparison.ok and comparison.dtype == "float32" and 0 < comparison.rows[0].max_abs_error


@pytest.mark.parametrize("layer", ["conv2", "max_pool1"])
def test_layer_case_agrees(x64, layer):
    case = model_case("lenet5", layer=layer, batch_size=2)
    assert case.args[1].shape == {"conv2": (2, 14, 14, 6), "max_pool1": (2, 28, 28, 6)}[layer]
    assert ("manual" in case.functions) == (layer == "conv2")
    chosen = {name: case.functions[name] for name in case.functions if name in ("lax", "im2col", "manual")}
    assert compare_all(chosen, *case.args, names=case.names).ok


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
def test_invalid_case_arguments_raise(call, message):
    with pytest.raises(InputError, match=message):
        call()
