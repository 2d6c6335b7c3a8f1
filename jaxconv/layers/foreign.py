"""Modules of other libraries: what they are, and how their numbers get into a Layer. No such library is imported."""

from typing import Any, NamedTuple

from jaxconv.errors import InputError


class Library(NamedTuple):
    """A library of networks.

    Attributes:
        name: as its authors write it.
        init, apply: the body of the two functions of a Layer around a ``module`` of it without state, if there is one.
    """

    name: str
    init: str = ""
    apply: str = ""


# By the beginning of the name of the Python module that defines the class.
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


def refuse(value: Any) -> None:
    """Refuse a module of another library: it would be taken for a function, and its parameters never be trained.

    Args:
        value: what should be a layer: also a module's class, its method, or what ``jit`` makes of these.

    Raises:
        InputError: it says what the module is and how to write a Layer around it.
    """
    module = _innermost(value)
    kind = module if isinstance(module, type) else type(module)
    library = _library(kind)
    if library is None:
        return
    use = "use jaxconv's own layers of the same kind"
    if library.apply:
        use += f", or wrap it: {sketch(library, kind.__name__)}"
    raise InputError(
        f"{kind.__name__} is a module of {library.name} and no Layer, so its parameters would not be trained: {use}"
    )


def _innermost(value: Any) -> Any:
    """Return what a partial or jitted function wraps, or a method is bound to; other values as they are."""
    for _ in range(8):  # a partial of a jitted method of a module is still the module's
        if isinstance(value, type) or not callable(value):
            break
        inner = (getattr(value, name, None) for name in ("func", "__wrapped__", "__self__"))
        value = next(filter(callable, inner), None) or value  # built-in functions are bound to a Python module
    return value


def _library(kind: type) -> Library | None:
    modules = [f"{parent.__module__}." for parent in kind.__mro__]
    return next((LIBRARIES[start] for start in LIBRARIES for name in modules if name.startswith(f"{start}.")), None)


def sketch(library: Library, name: str) -> str:
    """Return the Layer around a ``module`` as a line of Python."""
    return (
        f"Layer({name.lower()!r}, lambda key, input_shape: {library.init}, "
        f"lambda params, state, x, train=False, key=None: {library.apply})"
    )
