"""What every op asks of its arrays: rank, dtype and channels. All of it is known while tracing, so it costs nothing."""

import jax
import jax.numpy as jnp

from jaxconv.errors import DtypeError, InputError


def floating(op: str, **arrays: jax.Array) -> None:
    """Refuse integers (images straight from a file) and mixed dtypes, both of which would go wrong silently."""
    first, *_ = arrays
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.inexact):
            raise DtypeError(
                f"{op}: {name} is {array.dtype}; convert it first, {name}.astype(jnp.float32)"
                + (" / 255" if array.dtype == jnp.uint8 else "")
            )
        if array.dtype != arrays[first].dtype:
            raise DtypeError(
                f"{op}: {first} is {arrays[first].dtype} but {name} is {array.dtype}; "
                f"cast one, {name}.astype({first}.dtype)"
            )


def accumulator(x: jax.Array) -> jnp.dtype:
    """The dtype to add up in: a bfloat16 sum of ones stops at 256, so at least float32."""
    return jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype


def rank(op: str, x: jax.Array, wanted: int, meaning: str) -> None:
    """Refuse an array without its batch or channel axis, and say which of the two is likely to be missing."""
    if x.ndim == wanted:
        return
    fix = f"x has {x.ndim} axes"
    if x.ndim == wanted - 1:
        fix = "add the batch axis, x[None], or the channel axis, x[..., None]"
    raise InputError(f"{op}: x {x.shape} should have {wanted} axes, {meaning}: {fix}")


def dropped(op: str, rate: float) -> None:
    """Refuse a rate that drops everything, or is no fraction."""
    if not 0 <= rate < 1:
        raise InputError(f"{op}: rate={rate} is the fraction dropped; it should be at least 0 and below 1")


def vector(op: str, name: str, array: jax.Array, size: int) -> None:
    """Refuse a bias or a scale that has not one entry a channel."""
    if array.shape != (size,):
        raise InputError(f"{op}: {name} {array.shape} should be ({size},), one entry for each channel")
