"""What optimisers and parameters have to be for a step, and how an optimiser is called."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxconv.errors import InputError

GIVEN = ("value", "grad", "value_fn")  # to an optimiser that takes more than gradients


def is_floating(array: Any) -> bool:
    """Return whether an array holds floating numbers: keys, flags and counters do not."""
    return jnp.issubdtype(_dtype(array), jnp.floating)


def _dtype(array: Any) -> Any:
    return array.dtype if hasattr(array, "dtype") else jnp.result_type(array)


def check_optimizer(who: str, optimizer: Any) -> None:
    """Refuse what is no optimiser of optax.

    >>> check_optimizer("fit", "adam")
    Traceback (most recent call last):
    jaxconv.errors.InputError: fit: optimizer='adam' is a name: give the optimiser, optax.adam(1e-3), or \
jaxconv.train.make_optimizer('adam')
    """
    if callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None)):
        return
    if isinstance(optimizer, str):
        name = optimizer if hasattr(optax, optimizer) else "adam"
        use = f"give the optimiser, optax.{name}(1e-3), or jaxconv.train.make_optimizer({name!r})"
        raise InputError(f"{who}: optimizer={optimizer!r} is a name: {use}")
    name = getattr(optimizer, "__name__", type(optimizer).__name__)
    if callable(optimizer) and str(getattr(optimizer, "__module__", "")).partition(".")[0] == "optax":
        raise InputError(
            f"{who}: optimizer={name} makes an optimiser and is not one itself: call it, optax.{name}(1e-3)"
        )
    raise InputError(f"{who}: optimizer={name} should be an optimiser of optax, such as optax.adam(1e-3)")


def check_params(params: Any) -> None:
    """Refuse parameters that have no gradient."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(_dtype(leaf), jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"train step: the parameter {name} is {_dtype(leaf)}, which has no gradient: keep it in state"
            )


def update(
    optimizer: optax.GradientTransformation,
    grads: Any,
    opt_state: Any,
    params: Any,
    value: jax.Array,
    value_fn: Callable[[Any], jax.Array],
) -> tuple[Any, Any]:
    """Return the optimiser's updates and its new state.

    Args:
        optimizer: of optax. One that takes more than gradients is given all of ``GIVEN``.
        grads: the gradient at ``params``.
        opt_state, params: the optimiser's state and the parameters.
        value: the loss at ``params``.
        value_fn: the loss of the same batch at any parameters.

    Raises:
        InputError: an optimiser that takes something else.
    """
    if not isinstance(optimizer, optax.GradientTransformationExtraArgs | optax.MultiSteps):
        return optimizer.update(grads, opt_state, params)
    given = dict(zip(GIVEN, (value, grads, value_fn), strict=True))
    takes = inspect.signature(optimizer.update).parameters.values()
    if not any(p.kind is p.VAR_KEYWORD for p in takes):
        given = {p.name: given[p.name] for p in takes if p.name in given}
    try:
        return optimizer.update(grads, opt_state, params, **given)
    except TypeError as error:
        if "keyword-only argument" not in str(error):
            raise
        raise InputError(
            f"train step: the optimizer takes {str(error).rpartition(': ')[2]}, which the step does not give; "
            f"it gives {', '.join(GIVEN)}"
        ) from error
