"""Recognize modules of other libraries and suggest a Layer that wraps them; none of these libraries is imported."""

from typing import Any, NamedTuple

from jaxconv.errors import InputError


class Library(NamedTuple):
    """A neural network library.

    Attributes:
        name: display name.
        init, apply: source of the two functions of a Layer that wraps a stateless ``module``; empty if it cannot.
    """

    name: str
    init: str = ""
    apply: str = ""


# Keyed by the first components of the Python module that defines the class.
LIBRARIES = {
    "flax.nnx": Library(
        "Flax NNX",
        "(nnx.split(module)[1], {})",
        "(nnx.merge(nnx.graphdef(module), params)(x), state)",
    ),
    "flax.linen": Library(
        "Flax Linen",
        "(module.init(key, jnp.ones((1, *input_shape)))['params'], {})",
        "(module.apply({'params': params}, x), state)",
    ),
    "equinox": Library(
        "Equinox",
        "(eqx.filter(module, eqx.is_array), {})",
        "(jax.vmap(eqx.combine(params, eqx.filter(module, eqx.is_array, inverse=True)))(x), state)",
    ),
    "haiku": Library(
        "Haiku",
        "(module.init(key, jnp.ones((1, *input_shape))), {})",
        "(module.apply(params, key, x), state)",
    ),
    "keras": Library("Keras"),
    "tf_keras": Library("Keras"),
    "tensorflow": Library("TensorFlow"),
    "torch": Library("PyTorch"),
}


def reject_foreign_module(value: Any) -> None:
    """Raise InputError for a module of another library: as a plain function, its parameters would not be trained.

    Args:
        value: candidate layer: a module, its class, its method, or a jitted function or partial of these.

    Raises:
        InputError: if ``value`` is a module of another library; the message gives a Layer that wraps it.
    """
    module = _innermost(value)
    module_type = module if isinstance(module, type) else type(module)
    library = _library(module_type)
    if library is None:
        return
    name = module_type.__name__
    suggestion = "use jaxconv's own layers of the same kind"
    if library.apply:
        suggestion += f", or wrap it: {wrapper_source(library, name)}"
    raise InputError(
        f"{name} is a module of {library.name}, not a Layer, so its parameters would not be trained: {suggestion}"
    )


def _innermost(value: Any) -> Any:
    """Unwrap partials and jitted functions, and return the object that a method is bound to."""
    for _ in range(8):  # unwrap nested wrappers, such as a partial of a jitted method
        if isinstance(value, type) or not callable(value):
            break
        inner = (getattr(value, name, None) for name in ("func", "__wrapped__", "__self__"))
        value = next(filter(callable, inner), None) or value  # built-in functions are bound to a Python module
    return value


def _library(module_type: type) -> Library | None:
    modules = [f"{parent.__module__}." for parent in module_type.__mro__]
    return next((LIBRARIES[prefix] for prefix in LIBRARIES for name in modules if name.startswith(f"{prefix}.")), None)


def wrapper_source(library: Library, name: str) -> str:
    """Return one line of Python that wraps a ``module`` of this library in a Layer."""
    return (
        f"Layer({name.lower()!r}, lambda key, input_shape: {library.init}, "
        f"lambda params, state, x, train=False, key=None: {library.apply})"
    )
