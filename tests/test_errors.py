"""Errors name the function that raised them: the innermost one, once, and the path of its layer before it."""

import doctest
import functools
import inspect
import pickle
import traceback

import jax
import jax.numpy as jnp
import pytest

from jaxconv import Conv, data, filters, ops, serial
from jaxconv.errors import ArgumentError, DtypeError, InputError, error_context, named_errors
from jaxconv.layers import as_layer


class ColourError(InputError, LookupError):
    """Of two parents, as a user's own may be."""


def refuse(error):
    raise error


@named_errors
def inner(error):
    """Raise the error.

    >>> inner(InputError("x is 0"))
    Traceback (most recent call last):
    jaxconv.errors.InputError: inner: x is 0
    """
    refuse(error)


@named_errors
def outer(error, *, call=inner):
    call(error)


def message(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    return str(caught.value)


def test_the_innermost_named_function_wins():
    assert message(outer, InputError("x is 0")) == "inner: x is 0"
    assert message(functools.partial(outer, call=refuse), InputError("x is 0")) == "outer: x is 0"


def test_another_name_replaces_the_functions_own():
    renamed = named_errors(name="backward.conv")(refuse)
    assert message(renamed, InputError("dy is missing")) == "backward.conv: dy is missing"
    assert message(named_errors(refuse, name="flip"), InputError("p=2")) == "flip: p=2"


@pytest.mark.parametrize("kind", [InputError, DtypeError, ArgumentError, ColourError])
def test_the_class_of_an_error_is_kept(kind):
    with pytest.raises(kind) as caught:
        outer(kind("x is 0"))
    assert type(caught.value) is kind
    assert caught.value.args == ("inner: x is 0",)
    assert caught.value.source == "inner"


def test_other_errors_pass_through_as_they_are():
    error = ValueError("not of jaxconv")
    with pytest.raises(ValueError, match=r"^not of jaxconv$") as caught:
        outer(error)
    assert caught.value is error


def test_the_traceback_ends_where_the_error_was_raised():
    with pytest.raises(InputError) as caught:
        outer(InputError("x is 0"))
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "refuse"
    assert [name for name in frames if name in ("outer", "inner", "refuse")] == ["outer", "inner", "refuse"]
    assert "During handling" not in "".join(traceback.format_exception(caught.value))


def test_the_cause_of_an_error_is_kept():
    cause = OSError("disk full")

    @named_errors
    def write():
        raise InputError("it cannot be written") from cause

    with pytest.raises(InputError, match=r"^run: write: it cannot be written$") as caught, error_context("run"):
        write()
    assert caught.value.__cause__ is cause


def test_a_named_error_can_be_pickled():
    with pytest.raises(InputError) as caught:
        inner(InputError("x is 0"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.source) == (InputError, "inner: x is 0", "inner")


def test_a_context_puts_its_path_outside():
    with pytest.raises(InputError, match=r"^conv2: inner: x is 0$"), error_context("conv2"):
        inner(InputError("x is 0"))
    with pytest.raises(InputError, match=r"^block1: conv2: x is 0$"), error_context("block1"), error_context("conv2"):
        refuse(InputError("x is 0"))


def test_a_function_around_a_context_adds_nothing():
    @named_errors
    def fit(error):
        with error_context("conv2"):
            refuse(error)

    assert message(fit, InputError("x is 0")) == "conv2: x is 0"


def test_a_decorated_function_is_introspected_as_the_function_itself():
    def pool(x: jax.Array, window: int, *, stride: int = 1) -> jax.Array:
        """Pool."""

    named = named_errors(pool)
    assert inspect.signature(named) == inspect.signature(pool)
    assert (named.__name__, named.__qualname__, named.__module__) == (pool.__name__, pool.__qualname__, __name__)
    assert (named.__doc__, inspect.get_annotations(named)) == (pool.__doc__, inspect.get_annotations(pool))
    assert pickle.loads(pickle.dumps(ops.max_pool)) is ops.max_pool
    assert as_layer(ops.flatten).kind == "flatten"


def test_doctests_of_decorated_functions_are_collected():
    import jaxconv.ops.pooling

    names = {test.name for test in doctest.DocTestFinder().find(jaxconv.ops.pooling) if test.examples}
    assert {"jaxconv.ops.pooling.max_pool", "jaxconv.ops.pooling.global_avg_pool"} <= names


def test_compiled_code_is_the_same():
    def double(x):
        return 2 * x

    x = jnp.ones(3)
    assert str(jax.make_jaxpr(named_errors(double))(x)) == str(jax.make_jaxpr(double)(x))


def test_ops_name_themselves_while_tracing():
    assert message(jax.jit(lambda x: ops.max_pool(x, 0)), jnp.ones((1, 4, 4, 1))).startswith("max_pool: window 0: ")
    assert message(jax.grad(lambda x: ops.dense(x, x).sum()), jnp.ones((2, 3))).startswith("dense: x has 3 values")


def test_of_two_ops_the_inner_one_speaks():
    image = jnp.ones((1, 4, 4, 1))
    assert message(filters.sobel, image[0]).startswith("sobel: x (4, 4, 1) should have 4 axes")
    assert message(filters.sobel, image, padding="SOME").startswith("conv: unknown padding 'SOME'")
    assert message(ops.backward.max_pool, image, image, 9).startswith("max_pool: window (9, 9) on an input of (4, 4)")
    assert message(ops.backward.max_pool, image, image, 2).startswith("backward.max_pool: dy (1, 4, 4, 1) should be")


def test_a_layers_path_comes_before_the_op():
    model = serial(serial(Conv(2, 3), name="stem"), Conv(2, 9))
    assert message(model.init, jax.random.key(0), (8, 8, 1)).startswith("conv1: conv: window (9, 9) on an input of")
    inner = serial(serial(Conv(2, 9), name="stem"))
    assert message(inner.init, jax.random.key(0), (8, 8, 1)).startswith("stem: conv1: conv: window (9, 9) on")
    series = serial(Conv(2, (3, 3)))
    assert message(series.init, jax.random.key(0), (8,)).startswith("conv1: Conv: kernel_size (3, 3): give an int")


def test_an_augmentation_names_itself_when_it_is_made_and_when_it_is_used():
    key, image = jax.random.key(0), jnp.ones((4, 4, 1))
    assert message(data.augment.random_horizontal_flip, 2.0).startswith(
        "random_horizontal_flip: p=2.0 should be a number from 0 to 1"
    )
    for augment in (data.augment.random_horizontal_flip(), data.augment.random_rotation(), data.augment.random_crop(2)):
        assert ": images (4, 4, 1) should be (N, H, W, C)" in message(augment, key, image)
    assert message(data.augment.random_rotation(), key, image).startswith("random_rotation: images")
    assert message(data.augment.random_affine(5.0), key, image).startswith("random_affine: images")
