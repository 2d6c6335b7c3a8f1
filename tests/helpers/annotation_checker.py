"""Checker for jaxtyping's import hook: ``pytest --jaxtyping-packages=MODULES,annotation_checker.check``."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeCallHintViolation

typed = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result of a call after it returned; numpy arrays and lists count as jax arrays.

    jaxtyping checks a call twice: its arguments before it, with the return annotation replaced by ``Any``, then all of
    it. The first check is dropped, since jaxconv itself refuses invalid arguments, with InputError. A call that returns
    although an argument or the result contradicts its annotation fails.
    """
    if function.__annotations__.get("return") is Any:
        return lambda *args, **kwargs: None
    checked = typed(function)

    def checked_or_converted(*args: Any, **kwargs: Any) -> None:
        try:
            checked(*args, **kwargs)
        except BeartypeCallHintViolation:
            checked(*map(_to_jax, args), **{name: _to_jax(value) for name, value in kwargs.items()})

    return checked_or_converted


def _to_jax(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    is_numeric = isinstance(value, np.ndarray | list) and np.asarray(value).dtype.kind in "biufc"
    return jnp.asarray(value) if is_numeric else value
