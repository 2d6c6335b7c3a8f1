"""What all functions that make a layer have in common: clear errors for wrong calls, and layers that can be pickled."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import InputError
from jaxconv.layers.base import Layer, Shape, Tree
from jaxconv.layers.pickling import Recipe
from jaxconv.shapes import is_int
from jaxconv.utils.signatures import check_call, checked_call

P = ParamSpec("P")


def makes_layer(make: Callable[P, Layer]) -> Callable[P, Layer]:
    """Decorate a function that returns a Layer.

    A call with wrong arguments raises an ``ArgumentError``. The layer remembers the call, by which pickle makes it
    again, and its ``init`` checks the key and the shape.

    >>> from jaxconv import Conv
    >>> Conv(2, 3).recipe.args
    (2, 3)
    >>> Conv(2, 3, strides=2)
    Traceback (most recent call last):
    jaxconv.errors.ArgumentError: Conv: no argument is called strides: did you mean stride? It takes Conv(features, \
kernel_size, *, stride, padding, dilation, groups, pad_mode, flip, use_bias, kernel_init, impl, precision, name)
    """

    @functools.wraps(make)
    def call(*args: P.args, **options: P.kwargs) -> Layer:
        check_call(make, args, options)
        layer = make(*args, **options)
        return layer._replace(init=_checked(layer.init), recipe=Recipe(call, args, options))

    return call


def _checked(init: Callable[..., tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
    """Return the same init, which refuses what is no key or no shape."""

    def checked(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        check_key("init", key)
        in_shape = check_in_shape("init", in_shape)
        try:
            return init(key, in_shape)
        except InputError as error:
            if len(in_shape) != 4 or "batch axis" in str(error):
                raise
            hint = f"in_shape {in_shape} is a volume; of an image leave out the batch axis"
            raise type(error)(f"{error} ({hint})") from None

    checked.__name__ = "init"
    return checked_call(checked)


def check_key(who: str, key: Any) -> None:
    """Refuse a seed, or several keys, where one random key is needed."""
    if is_keys(key):
        raise InputError(f"{who}: key is {key.shape} keys, not one: jax.vmap takes one of them at a time")
    old = getattr(key, "dtype", None) == jnp.uint32 and np.ndim(key) == 1  # as jax.random.PRNGKey makes it
    if not old and not _is_key(key):
        number = key if is_int(key) else 0
        given = repr(key) if is_int(key) or key is None else type(key).__name__
        raise InputError(f"{who}: key={given} should be a random key: jax.random.key({number})")


def is_keys(key: Any) -> bool:
    """Return whether this is an array of several random keys."""
    return _is_key(key) and key.shape != ()


def _is_key(key: Any) -> bool:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def check_in_shape(who: str, in_shape: Any) -> Shape:
    """Return the shape of one example as a tuple; refuse what is none.

    >>> check_in_shape("init", [28, 28, 1])
    (28, 28, 1)
    """
    wanted = "should be the shape of one example without the batch axis, such as (28, 28, 1)"
    if not isinstance(in_shape, tuple | list):
        raise InputError(f"{who}: in_shape {_shown(in_shape)} {wanted}")
    sizes = tuple(in_shape)
    if not sizes or not all(n >= 1 if is_int(n) else jax.export.is_symbolic_dim(n) for n in sizes):
        raise InputError(f"{who}: in_shape {sizes} {wanted}")
    return sizes


def _shown(value: Any) -> str:
    return f"array{value.shape}" if hasattr(value, "shape") else repr(value)
