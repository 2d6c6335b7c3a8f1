"""Validate arguments: rank, dtype, channels, options. Checks run while tracing and cost nothing in compiled code."""

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
    """Raise InputError unless ``name`` is one of the choices.

    >>> one_of("model", "mlp", ["lenet5", "mlp"])
    """
    choices = list(choices)
    if not isinstance(name, str) or name not in choices:
        raise unknown_name_error(kind, name, choices)


def as_array(**value: Any) -> jax.Array:
    """Convert one keyword argument, a list or NumPy array, to a jax array; raise DtypeError if it is not numeric.

    >>> as_array(x=[1, 2])
    Array([1, 2], dtype=int32)
    """
    (array,) = as_arrays(**value)
    return array


def as_arrays(**values: Any) -> list[jax.Array]:
    """Convert keyword arguments to jax arrays, as :func:`as_array`."""
    arrays = []
    for name, value in values.items():
        try:
            arrays.append(jnp.asarray(value))
        except (TypeError, ValueError):
            raise DtypeError(f"{name} should be an array of numbers, not {reprlib.repr(value)}") from None
    return arrays


def floating_dtype(**arrays: jax.Array) -> None:
    """Raise DtypeError for integers, such as uint8 images, and mixed dtypes; both would give wrong results silently."""
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


def rank(x: jax.Array, expected: int, axes: str) -> None:
    """Raise InputError unless x has the expected number of axes; suggest the axis that is probably missing."""
    if x.ndim == expected:
        return
    suggestion = f"x has {x.ndim} axes"
    if x.ndim == expected - 1:
        suggestion = "add the batch axis, x[None], or the channel axis, x[..., None]"
    raise InputError(f"x {x.shape} should have {expected} axes, {axes}: {suggestion}")


def dropout_rate(rate: float) -> None:
    """Raise InputError unless ``rate`` is a number in [0, 1)."""
    if not is_number(rate) or not 0 <= rate < 1:
        raise InputError(f"rate={rate!r} is the fraction dropped: a number of at least 0 and below 1")


def at_least(minimum: int, **values: Any) -> None:
    """Raise InputError unless every keyword argument is an int of at least ``minimum``.

    >>> at_least(1, groups=2)
    """
    for name, value in values.items():
        if not is_int(value) or value < minimum:
            raise InputError(f"{name}={value!r} should be an int of at least {minimum}")


def is_number(value: object) -> TypeGuard[float]:
    """Return True for a real number of Python or NumPy that is not a bool."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def real(name: str, value: object, *, above: float | None = None, minimum: float | None = None) -> None:
    """Raise InputError unless ``value`` is a number, greater than ``above`` or at least ``minimum`` if given."""
    if isinstance(value, jax.Array) and value.ndim == 0:
        if isinstance(value, jax.core.Tracer):
            return  # the value is unknown while tracing
        value = value.item()
    limits = f" above {above}" if above is not None else f" of at least {minimum}" if minimum is not None else ""
    too_small = is_number(value) and not (value > above if above is not None else minimum is None or value >= minimum)
    if not is_number(value) or too_small:
        raise InputError(f"{name}={value!r} should be a number{limits}")


def constant(name: str, value: Any, dtype: jnp.dtype, *, minimum: float = 0) -> jax.Array:
    """Convert a constant to the dtype of a computation; raise InputError if it is below ``minimum``."""
    real(name, value, minimum=minimum)
    return jnp.asarray(value, dtype)


def boolean(name: str, value: object) -> None:
    """Raise InputError unless ``value`` is a bool; a string such as "no" would be truthy."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r} should be True or False")


def precision(value: lax.PrecisionLike) -> None:
    """Raise InputError for an unknown precision string; other values pass through."""
    if isinstance(value, str):
        try:
            lax.Precision(value)
        except ValueError:
            raise unknown_name_error("precision", value, ["default", "high", "highest"]) from None


def per_channel_shape(name: str, array: jax.Array, size: int) -> None:
    """Raise InputError unless a bias or scale has one entry per channel."""
    if jnp.shape(array) != (size,):
        raise InputError(f"{name} {jnp.shape(array)} should be ({size},), one entry for each channel")


def kernel(kernel: jax.Array) -> None:
    """Raise InputError unless a kernel has 1 to 3 window axes and two channel axes, and is not empty."""
    if not 3 <= kernel.ndim <= 5:
        raise InputError(
            f"kernel {kernel.shape} should be (*window, C // groups, O) with 1 to 3 window dimensions: "
            "a 3×3 kernel for one channel and one filter is kernel[:, :, None, None]"
        )
    if 0 in kernel.shape:
        raise InputError(f"kernel {kernel.shape} is empty")


def channels(x: jax.Array, kernel: jax.Array, groups: int) -> None:
    """Raise InputError unless ``groups`` divides the filters and the channels of x match the kernel."""
    *_, c_per_group, features = kernel.shape
    groups_divide(groups, features, f"filters of kernel {kernel.shape}")
    expected = c_per_group * groups
    if x.shape[-1] == expected:
        return
    if x.shape[1] == expected:
        raise InputError(f"x {x.shape} looks channels-first; move axis 1 to the end, jnp.moveaxis(x, 1, -1)")
    raise InputError(f"x has {x.shape[-1]} channels but kernel {kernel.shape} takes {c_per_group} × groups={groups}")


def known_classes(label: Any, num_classes: int) -> None:
    """Raise InputError unless all labels are in [0, num_classes); while tracing, the values are unknown and pass."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(label)):
        return
    indices = np.asarray(label)  # NumPy neither wraps large values to int32 nor traces the comparison
    invalid = indices[(indices < 0) | (indices >= num_classes)]
    if invalid.size:
        raise InputError(f"label {invalid[0]} is none of the {num_classes} classes of logits")


def class_numbers(label: Any, num_classes: int) -> jax.Array:
    """Convert labels of any integer dtype to int32 class indices; −1 for labels outside [0, num_classes).

    Code that counts, compares or indexes by class uses these indices: in uint8 the number 256 wraps to 0, and in int8
    class 128 is negative.

    >>> class_numbers(jnp.array([3, 255], jnp.uint8), 256), class_numbers(jnp.array([3, -128], jnp.int8), 200)
    (Array([  3, 255], dtype=int32), Array([ 3, -1], dtype=int32))
    """
    label = jnp.asarray(label)
    if label.dtype.itemsize < 4:
        label = label.astype(jnp.int32)
    return jnp.where((label >= 0) & (label < num_classes), label.astype(jnp.int32), -1)


def cotangent(dy: jax.Array, y: jax.Array | jax.ShapeDtypeStruct) -> None:
    """Raise InputError unless dy has the shape and dtype of y."""
    if dy.shape != y.shape:
        raise InputError(f"dy {dy.shape} should be {y.shape}, the shape of the op's output")
    if dy.dtype != y.dtype:
        raise DtypeError(f"dy is {dy.dtype} but the op's output is {y.dtype}; cast it, dy.astype({y.dtype})")


def groups_divide(groups: int, count: int, description: str, name: str = "groups") -> None:
    """Raise InputError unless ``groups``, the value of the argument ``name``, divides a count."""
    at_least(1, **{name: groups})
    if count % groups:
        raise InputError(f"{name}={groups} does not divide the {count} {description}")


def channels_per_group(shape: tuple[int, ...], groups: int) -> int:
    """Return the number of channels per group, for a shape whose last axis is the channel axis."""
    groups_divide(groups, shape[-1], f"channels of {shape}")
    return shape[-1] // groups
