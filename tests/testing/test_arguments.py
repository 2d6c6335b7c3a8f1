"""What can be compared: which arguments are moved, which are left alone, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import InputError, ops
from jaxconv.testing import check_grads, compare, compare_all, with_custom_gradient


def test_what_is_closed_over_cannot_be_converted(rng):
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in [(1, 5, 5, 1), (2, 2, 1, 1)])
    with pytest.raises(InputError, match=r"compare: f also runs in float64.* give every array that it uses as an"):
        compare(lambda x: ops.conv(x, kernel), lambda x: ops.conv(x, kernel), x)


def test_trees_are_named_by_their_paths(x64, rng):
    params = {"conv1": {"kernel": jnp.asarray(rng.normal(size=(2, 3))), "bias": jnp.zeros(3)}}

    def f(params, x, label):
        return ops.softmax_cross_entropy(ops.dense(x, **params["conv1"]), label)

    x, label = jnp.asarray(rng.normal(size=(4, 2))), jnp.array([0, 1, 2, 0])
    found = compare(f, lambda *a: f(*a), params, x, label)
    assert {row.quantity for row in found.rows} == {"value", "d params/conv1/bias", "d params/conv1/kernel", "d x"}
    assert [row.name for row in check_grads(f, params, x, label).rows] == [
        "params/conv1/bias",
        "params/conv1/kernel",
        "x",
    ]


def test_what_is_no_floating_array_is_left_as_it_is(x64, rng):
    """The size of a window, the name of a padding, labels: a function meets them as if it were called with them."""
    x, given = jnp.asarray(rng.normal(size=(1, 4, 4, 1))), (2, "SAME", (1, 2), None, True, jnp.tanh, jnp.arange(3))

    def f(x, *rest):
        assert all(one is other or one == other for one, other in zip(rest, given, strict=True))
        return ops.max_pool(x, rest[0], padding=rest[1])

    assert compare(f, f, x, *given).ok and check_grads(f, x, *given, num_entries=4).ok


def test_a_window_is_an_argument_like_any_other(x64, rng):
    x = jnp.asarray(rng.normal(size=(1, 4, 4, 1)))
    assert compare(ops.max_pool, ops.max_pool, x, 2).ok and check_grads(ops.max_pool, x, 2, num_entries=4).ok


def test_pythons_floats_are_arguments_too_and_nothing_is_nothing(x64):
    """Gradients by a number, by numpy's numbers, and by an array of no numbers."""
    args = jnp.ones(2), 0.5, np.float32(2), np.zeros(0)
    f = lambda x, a, b, none: a * x * jnp.asarray(b, x.dtype) + none.sum()  # noqa: E731
    found = compare(f, f, *args)
    assert found.ok and {row.quantity for row in found.rows} == {"value", "d x", "d a", "d b", "d none"}
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
    ids=["product", "only moved", "pixels that tie in fewer digits"],
)
def test_of_several_dtypes_the_least_precise_is_the_measure(x64, f, dtypes):
    a, b = jnp.asarray([1.0, 1.0001, 2.0, 0.3, -1.0, 1.0], dtypes[0]), jnp.linspace(0.1, 1, 6).astype(dtypes[1])
    assert compare(f, f, a, b).ok

    def off(a, b, dy):
        d_a, d_b = jax.vjp(f, a, b)[1](dy)
        return d_a * jnp.asarray(1.05, d_a.dtype), d_b * jnp.asarray(0.95, d_b.dtype)

    found = compare(f, with_custom_gradient(f, off), a, b)
    assert {row.quantity for row in found.rows if not row.ok} == {"d a", "d b"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: compare(jnp.sin, lambda x: x[:1], x), r"compare: <lambda> returns .* but sin returns"),
        (lambda x: compare(jnp.sin, jnp.cos, jnp.arange(3), "SAME"), r"compare: no argument is or holds a floating "),
        (lambda x: compare_all({}, 1.0), r"compare: no function to compare"),
        (lambda x: compare(lambda x: (x, x), jnp.cos, x), r"compare: <lambda> should return one floating array; it "),
        (
            lambda x: compare(jnp.sin, lambda x: x > 0, x),
            r"compare: <lambda> should return one floating array; it .*bool",
        ),
        (lambda x: compare(lambda x: 3, lambda x: 3, x), r"compare: f should return one floating array; it .*int"),
        (lambda x: compare(None, None, x), r"compare: function 1 is None, which is no function"),
        (lambda x: compare(jnp.sin, jnp.sin, x, repeats=-1), r"compare: num_repeats=-1 should be an int of at least 0"),
        (lambda x: compare_all({"sin": jnp.sin}, x, seed=0.5), r"compare: seed=0.5 should be an int of at least 0"),
        (
            lambda x: check_grads(jnp.sin, x, num_directions=0, num_entries=0),
            r"check_grads: .* leave nothing to check",
        ),
        (lambda x: check_grads(jnp.sin, x, num_entries=-1), r"check_grads: num_entries=-1 should be an int"),
        (lambda x: check_grads(jnp.sin, 3), r"check_grads: no argument is or holds a floating array with a nu"),
        (lambda x: check_grads(jnp.argmax, x), r"check_grads: f should return one floating array"),
        (lambda x: check_grads(None, x), r"check_grads: f is None, which is no function"),
    ],
)
def test_bad_input_is_told_what_would_work(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(jnp.ones(2))
    assert "\n" not in str(caught.value)
