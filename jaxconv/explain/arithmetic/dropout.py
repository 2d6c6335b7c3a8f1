"""Dropout: what is kept is scaled up, what is dropped is 0, and the gradient goes the same way."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxconv import ops
from jaxconv.explain.step_by_step.terms import Arithmetic, Asked, Group, Term, plain, read, summed


def dropout(asked: Asked, x: np.ndarray, key: Any, rate: float) -> Arithmetic:
    """``y = x · keep / (1 − rate)``. No formula says what a key keeps: the op is asked, with ones for x."""
    if not getattr(ops, asked.op)(jnp.ones(x.shape), key, rate)[asked.at]:
        return asked.answer([Group("dropped", (), 0.0, "dropped: 0")])
    number = read("x", x, asked.at) if asked.of == "value" else read("dy", asked.dy, asked.at)
    term = Term((number,), number.value / (1 - rate), f"{plain(number.value)} / (1 - {plain(rate)})")
    return asked.answer([summed("kept", [term])])
