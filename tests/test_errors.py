"""Error messages begin with the path of the layer and the innermost function that raised the error."""

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


class UserError(InputError, LookupError):
    """An error class with two parents, as a user may define."""


def raise_error(error):
    raise error


@named_errors
def inner(error):
    """Raise the error.

    >>> inner(InputError("x is 0"))
    Traceback (most recent call last):
    jaxconv.errors.InputError: inner: x is 0
    """
    raise_error(error)


@named_errors
def outer(error, *, call=inner):
    call(error)


def message(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    return str(caught.value)


def test_innermost_function_is_named():
    assert message(outer, InputError("x is 0")) == "inner: x is 0"
    assert message(functools.partial(outer, call=raise_error), InputError("x is 0")) == "outer: x is 0"


def test_named_errors_name_replaces_function_name():
    renamed = named_errors(name="backward.conv")(raise_error)
    assert message(renamed, InputError("dy is missing")) == "backward.conv: dy is missing"
    assert message(named_errors(raise_error, name="flip"), InputError("p=2")) == "flip: p=2"


@pytest.mark.parametrize("kind", [InputError, DtypeError, ArgumentError, UserError])
def test_named_errors_keep_error_class(kind):
    with pytest.raises(kind) as caught:
        outer(kind("x is 0"))
    assert type(caught.value) is kind
    assert caught.value.args == ("inner: x is 0",)
    assert caught.value.source == "inner"


def test_other_errors_pass_through_unchanged():
    error = ValueError("not of jaxconv")
    with pytest.raises(ValueError, match=r"^not of jaxconv$") as caught:
        outer(error)
    assert caught.value is error


def test_traceback_ends_at_raise():
    with pytest.raises(InputError) as caught:
        outer(InputError("x is 0"))
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[-1] == "raise_error"
    assert [name for name in frames if name in ("outer", "inner", "raise_error")] == ["outer", "inner", "raise_error"]
    assert "During handling" not in "".join(traceback.format_exception(caught.value))


def test_named_errors_keep_cause():
    cause = OSError("disk full")

    @named_errors
    def write():
        raise InputError("it cannot be written") from cause

    with pytest.raises(InputError, match=r"^run: write: it cannot be written$") as caught, error_context("run"):
        write()
    assert caught.value.__cause__ is cause


def test_named_error_survives_pickle():
    with pytest.raises(InputError) as caught:
        inner(InputError("x is 0"))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), copy.source) == (InputError, "inner: x is 0", "inner")


def test_error_context_prefixes_path():
    with pytest.raises(InputError, match=r"^conv2: inner: x is 0$"), error_context("conv2"):
        inner(InputError("x is 0"))
    with pytest.raises(InputError, match=r"^block1: conv2: x is 0$"), error_context("block1"), error_context("conv2"):
        raise_error(InputError("x is 0"))


def test_function_around_context_adds_no_name():
    @named_errors
    def fit(error):
        with error_context("conv2"):
            raise_error(error)

    assert message(fit, InputError("x is 0")) == "conv2: x is 0"


def test_decorated_function_keeps_metadata():
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


def test_named_errors_do_not_change_jaxpr():
    def double(x):
        return 2 * x

    x = jnp.ones(3)
    assert str(jax.make_jaxpr(named_errors(double))(x)) == str(jax.make_jaxpr(double)(x))


def test_op_errors_are_named_while_tracing():
    assert message(jax.jit(lambda x: ops.max_pool(x, 0)), jnp.ones((1, 4, 4, 1))).startswith("max_pool: window 0: ")
    assert message(jax.grad(lambda x: ops.dense(x, x).sum()), jnp.ones((2, 3))).startswith("dense: x has 3 values")


def test_nested_op_error_names_inner_op():
    image = jnp.ones((1, 4, 4, 1))
    assert message(filters.sobel, image[0]).startswith("sobel: x (4, 4, 1) should have 4 axes")
    assert message(filters.sobel, image, padding="SOME").startswith("conv: unknown padding 'SOME'")
    assert message(ops.backward.max_pool, image, image, 9).startswith("max_pool: window (9, 9) on an input of (4, 4)")
    assert message(ops.backward.max_pool, image, image, 2).startswith("backward.max_pool: dy (1, 4, 4, 1) should be")


def test_layer_path_precedes_op_name():
    model = serial(serial(Conv(2, 3), name="stem"), Conv(2, 9))
    assert message(model.init, jax.random.key(0), (8, 8, 1)).startswith("conv1: conv: window (9, 9) on an input of")
    inner = serial(serial(Conv(2, 9), name="stem"))
    assert message(inner.init, jax.random.key(0), (8, 8, 1)).startswith("stem: conv1: conv: window (9, 9) on")
    series = serial(Conv(2, (3, 3)))
    assert message(series.init, jax.random.key(0), (8,)).startswith("conv1: Conv: kernel_size (3, 3): give an int")


def test_augmentation_errors_are_named():
    key, image = jax.random.key(0), jnp.ones((4, 4, 1))
    assert message(data.augment.random_horizontal_flip, 2.0).startswith(
        "random_horizontal_flip: p=2.0 should be a number from 0 to 1"
    )
    for augment in (data.augment.random_horizontal_flip(), data.augment.random_rotation(), data.augment.random_crop(2)):
        assert ": images (4, 4, 1) should be (N, H, W, C)" in message(augment, key, image)
    assert message(data.augment.random_rotation(), key, image).startswith("random_rotation: images")
    assert message(data.augment.random_affine(5.0), key, image).startswith("random_affine: images")
