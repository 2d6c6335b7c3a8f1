"""Arguments of comparisons: floating leaves, other leaves, and invalid arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, ops
from jaxconv.testing import check_grads, compare, compare_all, with_custom_gradient


def test_compare_closed_over_array_raises(rng):
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, 5, 5, 1), (2, 2, 1, 1)])
    with pytest.raises(
        InputError, match=r"compare: f failed in float64.* pass every array that it uses as an argument"
    ):
        compare(lambda x: ops.conv(x, kernel), lambda x: ops.conv(x, kernel), x)


def test_pytree_leaves_are_named_by_path(x64, rng):
    params = {"conv1": {"kernel": jnp.asarray(rng.normal(size=(2, 3))), "bias": jnp.zeros(3)}}

    def f(params, x, label):
        return ops.softmax_cross_entropy(ops.dense(x, **params["conv1"]), label)

    x, label = jnp.asarray(rng.normal(size=(4, 2))), jnp.array([0, 1, 2, 0])
    comparison = compare(f, lambda *a: f(*a), params, x, label)
    assert {row.quantity for row in comparison.rows} == {"value", "d params/conv1/bias", "d params/conv1/kernel", "d x"}
    assert [row.name for row in check_grads(f, params, x, label).rows] == [
        "params/conv1/bias",
        "params/conv1/kernel",
        "x",
    ]


def test_other_leaves_are_passed_on_unchanged(x64, rng):
    """The size of a window, the name of a padding and labels are passed on unchanged."""
    x, others = jnp.asarray(rng.normal(size=(1, 4, 4, 1))), (2, "SAME", (1, 2), None, True, jnp.tanh, jnp.arange(3))

    def f(x, *passed):
        assert all(actual is other or actual == other for actual, other in zip(passed, others, strict=True))
        return ops.max_pool(x, passed[0], padding=passed[1])

    assert compare(f, f, x, *others).ok and check_grads(f, x, *others, num_entries=4).ok


def test_window_argument_is_passed_on(x64, rng):
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 1)))
    assert compare(ops.max_pool, ops.max_pool, x, 2).ok and check_grads(ops.max_pool, x, 2, num_entries=4).ok


def test_python_floats_have_gradients(x64):
    """Gradients by a Python float, a numpy scalar and an empty array."""
    args = jnp.ones(2), 0.5, np.float32(2), np.zeros(0)
    f = lambda x, a, b, empty: a * x * jnp.asarray(b, x.dtype) + empty.sum()  # noqa: E731
    comparison = compare(f, f, *args)
    assert comparison.ok
    assert {row.quantity for row in comparison.rows} == {"value", "d x", "d a", "d b", "d empty"}
    assert [row.name for row in check_grads(f, *args).rows] == ["x", "a", "b"]
    assert compare(lambda x: 1.0, lambda x: jnp.ones(()), jnp.ones(2)).ok


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("float64", "float16")])
@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: a * b.astype(a.dtype),
        lambda a, b: jnp.concatenate([a.astype(b.dtype), b]),
        lambda a, b: ops.max_pool(a.astype(b.dtype)[None, :, None], 2)[0, :, 0] * b[:3],
    ],
    ids=["product", "concatenation", "ties after rounding"],
)
def test_mixed_dtypes_use_the_least_precise(x64, f, dtypes):
    a, b = jnp.asarray([1.0, 1.0001, 2.0, 0.3, -1.0, 1.0], dtypes[0]), jnp.linspace(0.1, 1, 6).astype(dtypes[1])
    assert compare(f, f, a, b).ok

    def wrong_gradient(a, b, dy):
        d_a, d_b = jax.vjp(f, a, b)[1](dy)
        return d_a * jnp.asarray(1.05, d_a.dtype), d_b * jnp.asarray(0.95, d_b.dtype)

    comparison = compare(f, with_custom_gradient(f, wrong_gradient), a, b)
    assert {row.quantity for row in comparison.rows if not row.ok} == {"d a", "d b"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: compare(jnp.sin, lambda x: x[:1], x), r"compare: <lambda> must return the shape of sin, .* got "),
        (
            lambda x: compare(jnp.sin, jnp.cos, jnp.arange(3), "SAME"),
            r"compare: expected at least one argument with a non-empty floating array",
        ),
        (lambda x: compare_all({}, 1.0), r"compare: implementations is empty: give at least one function"),
        (lambda x: compare(lambda x: (x, x), jnp.cos, x), r"compare: <lambda> must return one floating array, got "),
        (
            lambda x: compare(jnp.sin, lambda x: x > 0, x),
            r"compare: <lambda> must return one floating array, got .*bool",
        ),
        (lambda x: compare(lambda x: 3, lambda x: 3, x), r"compare: f must return one floating array, got .*int"),
        (lambda x: compare(None, None, x), r"compare: function 1 must be a function of the arguments, got None"),
        (lambda x: compare(jnp.sin, jnp.sin, x, repeats=-1), r"compare: num_repeats=-1 should be an int of at least 0"),
        (lambda x: compare_all({"sin": jnp.sin}, x, seed=0.5), r"compare: seed=0.5 should be an int of at least 0"),
        (
            lambda x: check_grads(jnp.sin, x, num_directions=0, num_entries=0),
            r"check_grads: num_directions=0 and num_entries=0 leave nothing to check",
        ),
        (lambda x: check_grads(jnp.sin, x, num_entries=-1), r"check_grads: num_entries=-1 should be an int"),
        (
            lambda x: check_grads(jnp.sin, 3),
            r"check_grads: expected at least one argument with a non-empty floating array",
        ),
        (lambda x: check_grads(jnp.argmax, x), r"check_grads: f must return one floating array, got "),
        (lambda x: check_grads(None, x), r"check_grads: f must be a function of the arguments, got None"),
    ],
)
def test_invalid_arguments_raise(call, message):
    with pytest.raises(InputError, match=message) as error:
        call(jnp.ones(2))
    assert "\n" not in str(error.value)
