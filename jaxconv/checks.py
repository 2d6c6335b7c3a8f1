"""Checks of arguments: rank, dtype, channels, options. They run while tracing and cost nothing in compiled code."""

import reprlib
from collections.abc import Iterable
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxconv.errors import DtypeError, InputError, unknown_name_error
from jaxconv.shapes import is_int


def one_of(kind: str, name: object, choices: Iterable[str]) -> None:
    """Refuse what is not one of the choices.

    >>> one_of("model", "mlp", ["lenet5", "mlp"])
    """
    choices = list(choices)
    if not isinstance(name, str) or name not in choices:
        raise unknown_name_error(kind, name, choices)


def as_array(**value: Any) -> jax.Array:
    """A list or numpy's array, given by its name, as jax's; refuse what is no array of numbers.

    >>> as_array(x=[1, 2])
    Array([1, 2], dtype=int32)
    """
    (array,) = as_arrays(**value)
    return array


def as_arrays(**values: Any) -> list[jax.Array]:
    """Several of them."""
    arrays = []
    for name, value in values.items():
        try:
            arrays.append(jnp.asarray(value))
        except (TypeError, ValueError):
            raise DtypeError(f"{name} should be an array of numbers, not {reprlib.repr(value)}") from None
    return arrays


def floating_dtype(**arrays: jax.Array) -> None:
    """Refuse integers (images straight from a file) and mixed dtypes, both of which would go wrong silently."""
    first, *_ = arrays
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise DtypeError(
                f"{name} is {array.dtype}; convert it first, {name}.astype(jnp.float32)"
                + (" / 255" if array.dtype == jnp.uint8 else "")
            )
        if array.dtype != arrays[first].dtype:
            raise DtypeError(
                f"{first} is {arrays[first].dtype} but {name} is {array.dtype}; cast one, {name}.astype({first}.dtype)"
            )


def rank(x: jax.Array, wanted: int, meaning: str) -> None:
    """Refuse an array without its batch or channel axis, and say which of the two is likely to be missing."""
    if x.ndim == wanted:
        return
    fix = f"x has {x.ndim} axes"
    if x.ndim == wanted - 1:
        fix = "add the batch axis, x[None], or the channel axis, x[..., None]"
    raise InputError(f"x {x.shape} should have {wanted} axes, {meaning}: {fix}")


def dropout_rate(rate: float) -> None:
    """Refuse a rate that drops everything, or is no fraction."""
    if not is_number(rate) or not 0 <= rate < 1:
        raise InputError(f"rate={rate!r} is the fraction dropped: a number of at least 0 and below 1")


def at_least(minimum: int, **values: Any) -> None:
    """Refuse what is no whole number, or too small a one.

    >>> at_least(1, groups=2)
    """
    for name, value in values.items():
        if not is_int(value) or value < minimum:
            raise InputError(f"{name}={value!r} should be an int of at least {minimum}")


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a real number, Python's or numpy's, that is no bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def real(name: str, value: object, *, above: float | None = None, minimum: float | None = None) -> None:
    """Refuse a constant of a formula that is no number, or one for which the formula has no value."""
    if isinstance(value, jax.Array) and value.ndim == 0:
        if isinstance(value, jax.core.Tracer):
            return  # nobody knows it yet
        value = value.item()
    limits = f" above {above}" if above is not None else f" of at least {minimum}" if minimum is not None else ""
    low = is_number(value) and not (value > above if above is not None else minimum is None or value >= minimum)
    if not is_number(value) or low:
        raise InputError(f"{name}={value!r} should be a number{limits}")


def constant(name: str, value: Any, dtype: jnp.dtype, *, minimum: float = 0) -> jax.Array:
    """A constant of a formula in the dtype that it is computed in; refuse one below ``minimum``."""
    real(name, value, minimum=minimum)
    return jnp.asarray(value, dtype)


def boolean(name: str, value: object) -> None:
    """Refuse what is neither True nor False: "no" would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r} should be True or False")


def precision(value: lax.PrecisionLike) -> None:
    """Refuse a precision that jax has no word for; what is not a word is left to jax."""
    if isinstance(value, str):
        try:
            lax.Precision(value)
        except ValueError:
            raise unknown_name_error("precision", value, ["default", "high", "highest"]) from None


def per_channel_shape(name: str, array: jax.Array, size: int) -> None:
    """Refuse a bias or a scale that has not one entry a channel."""
    if jnp.shape(array) != (size,):
        raise InputError(f"{name} {jnp.shape(array)} should be ({size},), one entry for each channel")


def kernel(kernel: jax.Array) -> None:
    """Refuse a kernel without its channel axes, or one that holds nothing."""
    if not 3 <= kernel.ndim <= 5:
        raise InputError(
            f"kernel {kernel.shape} should be (*window, C // groups, O) with 1 to 3 window dimensions: "
            "a 3×3 kernel for one channel and one filter is kernel[:, :, None, None]"
        )
    if 0 in kernel.shape:
        raise InputError(f"kernel {kernel.shape} is empty")


def channels(x: jax.Array, kernel: jax.Array, groups: int) -> None:
    """Refuse groups that do not divide the filters, and an x whose channels the kernel does not take."""
    *_, c_per_group, features = kernel.shape
    groups_divide(groups, features, f"filters of kernel {kernel.shape}")
    expected = c_per_group * groups
    if x.shape[-1] == expected:
        return
    if x.shape[1] == expected:
        raise InputError(f"x {x.shape} looks channels-first; move axis 1 to the end, jnp.moveaxis(x, 1, -1)")
    raise InputError(f"x has {x.shape[-1]} channels but kernel {kernel.shape} takes {c_per_group} × groups={groups}")


def known_classes(label: Any, num_classes: int) -> None:
    """Refuse a class number that is none of the ``num_classes``; while tracing, nobody knows the numbers."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(label)):
        return
    numbers = np.asarray(label)  # compared by numpy, which neither wraps them into int32 nor traces the comparison
    wrong = numbers[(numbers < 0) | (numbers >= num_classes)]
    if wrong.size:
        raise InputError(f"label {wrong[0]} is none of the {num_classes} classes of logits")


def class_numbers(label: Any, num_classes: int) -> jax.Array:
    """Class numbers of any integer dtype in int32; −1 for what is none of the ``num_classes``.

    Everything that counts, compares or indexes by class does so with these: in a smaller dtype 256 classes are 0, and
    class 128 is negative.

    >>> class_numbers(jnp.array([3, 255], jnp.uint8), 256), class_numbers(jnp.array([3, -128], jnp.int8), 200)
    (Array([  3, 255], dtype=int32), Array([ 3, -1], dtype=int32))
    """
    label = jnp.asarray(label)
    if label.dtype.itemsize < 4:
        label = label.astype(jnp.int32)
    return jnp.where((label >= 0) & (label < num_classes), label.astype(jnp.int32), -1)


def cotangent(dy: jax.Array, y: jax.Array | jax.ShapeDtypeStruct) -> None:
    """Refuse a dy that cannot be the gradient of y."""
    if dy.shape != y.shape:
        raise InputError(f"dy {dy.shape} should be {y.shape}, the shape of the op's output")
    if dy.dtype != y.dtype:
        raise DtypeError(f"dy is {dy.dtype} but the op's output is {y.dtype}; cast it, dy.astype({y.dtype})")


def groups_divide(groups: int, count: int, what: str, name: str = "groups") -> None:
    """Raise InputError unless ``groups``, the value of the argument ``name``, divides a count."""
    at_least(1, **{name: groups})
    if count % groups:
        raise InputError(f"{name}={groups} does not divide the {count} {what}")


def channels_per_group(shape: tuple[int, ...], groups: int) -> int:
    """The channels of one group, for a shape that ends with all of them."""
    groups_divide(groups, shape[-1], f"channels of {shape}")
    return shape[-1] // groups
