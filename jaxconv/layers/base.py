"""The Layer type, a pair of pure functions ``init`` and ``apply``, and the decorator of functions that return one.

The decorator validates calls and makes layers picklable.
"""

import functools
import inspect
import reprlib
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from jaxconv.errors import ArgumentError, InputError, error_context
from jaxconv.layers import foreign
from jaxconv.layers.facts import DEFAULTS, Facts, check_facts, function_facts
from jaxconv.layers.pickling import Recipe
from jaxconv.shapes import Window, is_int
from jaxconv.utils.signatures import check_call, checked_call, no_argument

Tree = dict[str, Any]  # params or state: nested dicts of arrays
Shape = tuple[int, ...]


class _Fields(NamedTuple):
    kind: str
    init: Callable[..., tuple[Tree, Tree]]
    apply: Callable[..., tuple[jax.Array, Tree]]
    children: tuple[tuple[str, "Layer"], ...] = ()
    window: Window | None = None
    name: str | None = None
    merge: Callable[[jax.Array, dict[str, jax.Array]], jax.Array] | None = None
    recipe: Recipe | None = None
    facts: Facts = DEFAULTS


class Layer(_Fields):
    """A pair of pure functions, ``init`` and ``apply``, with metadata about the layer.

    A layer can be pickled if the functions and layers that it was created from can be; a lambda cannot.

    Attributes:
        kind: kind of the layer, such as ``"conv"``; ``serial`` derives the names ``conv1``, ``conv2`` from it.
        init: ``(key, input_shape) -> (params, state)``; ``input_shape`` is the shape of one example, ``(H, W, C)``.
        apply: ``(params, state, x, *, train=False, key=None, mask=None) -> (y, state)``. ``mask`` is True for the
            valid examples of a padded batch; only batch statistics use it.
        children: ``((name, Layer), …)`` of a composite layer, applied in order unless ``merge`` is set.
        merge: ``(x, {name: y}) -> y``, the join of children that all take the same x.
        window: sliding window of the layer, or None; receptive fields are computed from it.
        name: name that replaces the numbered one.
        recipe: the call that created the layer, for pickle; None for a layer made of a user's functions.
        facts: properties that other packages rely on, :class:`Facts`.

    Raises:
        ArgumentError: if ``kind`` is not a string, ``init`` or ``apply`` is not callable, or ``facts`` is not a
            :class:`Facts`.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> "Layer":
        signature = "Layer takes (kind, init, apply), such as Layer('scale', init, apply)"
        try:
            self = super().__new__(cls, *args, **options)
        except TypeError as error:
            call = ", ".join([*map(reprlib.repr, args), *(f"{name}=" for name in options)])
            raise ArgumentError(f"Layer({call}): {signature}: {str(error).partition(') ')[2] or error}") from None
        if not isinstance(self.kind, str):
            raise ArgumentError(f"Layer: kind={reprlib.repr(self.kind)} should be a name: {signature}")
        for name, function in {"init": self.init, "apply": self.apply}.items():
            if not callable(function):
                raise ArgumentError(
                    f"Layer {self.kind!r}: {name} must be a function, got {reprlib.repr(function)}: {signature}"
                )
        check_facts(f"Layer {self.kind!r}", self.facts)
        return self

    def _replace(self, **changes: Any) -> "Layer":
        if "merge" in changes:  # the current facts describe the previous merge
            changes.setdefault("facts", DEFAULTS)
        recipe = self.recipe and self.recipe._replace(changes=self.recipe.changes | changes)
        changes.setdefault("recipe", recipe)
        return super()._replace(**changes)

    def __hash__(self) -> int:
        # Leave out window and recipe, which may contain unhashable values.
        return hash((self.kind, self.init, self.apply, self.name))

    def __repr__(self) -> str:
        children = f", children={', '.join(name for name, _ in self.children)}" if self.children else ""
        return f"<Layer {self.name or self.kind}{children}>"

    def __reduce__(self) -> tuple[Callable[..., "Layer"], tuple[Any, ...]]:
        return (Layer, tuple(self)) if self.recipe is None else self.recipe.reduce()

    def __copy__(self) -> "Layer":
        return self  # a layer is immutable

    def __deepcopy__(self, memo: Any) -> "Layer":
        return self


def output_shape(layer: Layer, params: Tree, state: Tree, input_shape: Shape) -> Shape:
    """Return the output shape of one example, by abstract evaluation of ``apply``; nothing is computed.

    >>> output_shape(as_layer(jax.nn.relu), {}, {}, (28, 28, 1))
    (28, 28, 1)
    """
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    y, _ = jax.eval_shape(layer.apply, params, state, x)
    return y.shape[1:]


def as_layer(layer: Layer | Callable[..., jax.Array]) -> Layer:
    """Convert a function of an array into a Layer without parameters; return a Layer unchanged.

    Raises:
        InputError: if ``layer`` is neither, such as a module of another library, a list of layers, or ``Conv`` itself
            instead of ``Conv(…)``.
        ArgumentError: if ``init`` or ``apply`` of a Layer has the wrong signature.

    >>> as_layer(jax.nn.relu).kind
    'relu'
    """
    if isinstance(layer, Layer):
        _check_functions(layer.kind, layer.init, layer.apply)
        apply = _with_mask(layer.apply)
        return layer if apply is layer.apply else layer._replace(apply=apply)
    foreign.reject_foreign_module(layer)
    if isinstance(layer, list | tuple):
        article_and_type = "a list" if isinstance(layer, list) else "a tuple"
        raise InputError(
            f"{article_and_type} of {len(layer)} is not a layer: write serial(*layers), with the star, "
            "or Layer(kind, init, apply)"
        )
    if not callable(layer):
        raise InputError(f"{reprlib.repr(layer)} is neither a Layer nor a function of an array")
    function = getattr(layer, "func", layer)  # unwrap a functools.partial
    kind = getattr(function, "__name__", type(function).__name__).strip("<>_")
    if function is Layer or getattr(function, "__annotations__", {}).get("return") is Layer:
        raise InputError(f"{kind} makes a layer and is not one itself: write {kind}(…)")
    return stateless(kind, layer, facts=function_facts(function))._replace(recipe=Recipe(as_layer, (layer,)))


@checked_call
def with_facts(function: Layer | Callable[..., jax.Array], **facts: Any) -> Layer:
    """State facts of your own function: ``with_facts(my_relu, keeps_channels=True, rectifies=True)``.

    Args:
        function: a function of an array, or a Layer.
        facts: fields of :class:`Facts`; other fields keep their values.

    Raises:
        ArgumentError: if a name is not a field of :class:`Facts`, or a value is invalid.

    >>> def my_relu(x):
    ...     return jnp.where(x > 0, x, 0)
    >>> as_layer(my_relu).facts.rectifies, with_facts(my_relu, rectifies=True).facts.rectifies
    (False, True)
    """
    for name in facts:
        if name not in Facts._fields:
            raise no_argument(name, Facts._fields).from_source("with_facts")
    layer = as_layer(function)
    updated = layer.facts._replace(**facts)
    check_facts("with_facts", updated)
    return layer._replace(facts=updated)


@functools.lru_cache(maxsize=256)
def _check_functions(
    kind: str, init: Callable[..., tuple[Tree, Tree]], apply: Callable[..., tuple[jax.Array, Tree]]
) -> None:
    """Raise ArgumentError unless ``init`` and ``apply`` accept the arguments that they will be called with."""
    for name, function, args, options, signature in (
        ("init", init, (None,) * 2, {}, "(key, input_shape) and return (params, state)"),
        (
            "apply",
            apply,
            (None,) * 3,
            APPLY_OPTIONS,
            "(params, state, x, *, train=False, key=None) and return (y, state)",
        ),
    ):
        try:
            inspect.signature(function).bind(*args, **options)
        except TypeError as error:
            raise ArgumentError(f"Layer {kind!r}: {name} should take {signature}: {error}") from None
        except ValueError:
            pass  # a built-in function has no inspectable signature


APPLY_OPTIONS: dict[str, Any] = {"train": False, "key": None}  # the keyword arguments that every apply must accept


@functools.lru_cache(maxsize=256)  # return the same function for the same apply, so that jit finds it in its cache
def _with_mask(apply: Callable[..., tuple[jax.Array, Tree]]) -> Callable[..., tuple[jax.Array, Tree]]:
    """Return ``apply`` with a ``mask`` argument, which is ignored if ``apply`` itself does not accept one."""
    parameters = inspect.signature(apply).parameters.values()
    if any(p.name == "mask" or p.kind is p.VAR_KEYWORD for p in parameters):
        return apply
    return functools.partial(_without_mask, apply)


def _without_mask(
    apply: Callable[..., tuple[jax.Array, Tree]], *args: Any, mask: jax.Array | None = None, **options: Any
) -> tuple[jax.Array, Tree]:
    return apply(*args, **options)


def stateless(
    kind: str,
    op: Callable[..., jax.Array],
    init: Callable[..., tuple[Tree, Tree]] = lambda key, input_shape: ({}, {}),
    names: tuple[str, ...] = (),
    *,
    window: Window | None = None,
    name: str | None = None,
    facts: Facts = DEFAULTS,
) -> Layer:
    """Return a layer without state: ``y = op(x, **params)``."""

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_entries("params", params, names)
        return op(x, **params), state

    return Layer(kind, init, apply, window=window, name=name, facts=facts)


def check_entries(description: str, tree: Tree, names: tuple[str, ...]) -> None:
    """Raise InputError unless ``tree``, the params or state of one layer, has exactly these keys."""
    if set(tree) != set(names):
        raise InputError(
            f"{description}: expected keys {', '.join(sorted(names)) or 'none'}, "
            f"got {', '.join(sorted(tree)) or 'none'}; were they created by another model's init?"
        )


P = ParamSpec("P")


def makes_layer(make: Callable[P, Layer]) -> Callable[P, Layer]:
    """Decorate a function that returns a Layer.

    A call with wrong arguments raises an ``ArgumentError``. The layer stores the call as its recipe, from which pickle
    recreates it, and its ``init`` validates the key and the shape.

    >>> from jaxconv import Conv
    >>> Conv(2, 3).recipe.args
    (2, 3)
    >>> Conv(2, 3, strides=2)
    Traceback (most recent call last):
    jaxconv.errors.ArgumentError: Conv: no argument is called strides: did you mean stride? It takes Conv(features, \
kernel_size, *, stride, padding, dilation, groups, padding_mode, flip_kernel, use_bias, kernel_init, impl, precision, \
name)
    """

    @functools.wraps(make)
    def call(*args: P.args, **options: P.kwargs) -> Layer:
        check_call(make, args, options)
        layer = make(*args, **options)
        return layer._replace(init=_validated_init(layer.init), recipe=Recipe(call, args, options))

    return call


def _validated_init(init: Callable[..., tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
    """Return ``init`` with validation of the key and the input shape."""

    def validated(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        with error_context("init"):
            check_key(key)
            input_shape = check_input_shape(input_shape)
        try:
            return init(key, input_shape)
        except InputError as error:
            if len(input_shape) != 4 or "batch axis" in str(error):
                raise
            suggestion = f"input_shape {input_shape} describes a volume; for an image leave out the batch axis"
            explained = type(error)(f"{error} ({suggestion})")
            explained.source = error.source
            raise explained from None

    validated.__name__ = "init"
    return checked_call(validated)


def check_key(key: Any) -> None:
    """Raise InputError unless ``key`` is one random key, not a seed or an array of keys."""
    if is_keys(key):
        raise InputError(f"key must be one random key, got keys of shape {key.shape}: map over them with jax.vmap")
    is_legacy_key = getattr(key, "dtype", None) == jnp.uint32 and np.ndim(key) == 1  # of jax.random.PRNGKey
    if not is_legacy_key and not _is_key(key):
        seed = key if is_int(key) else 0
        displayed = repr(key) if is_int(key) or key is None else type(key).__name__
        raise InputError(f"key={displayed} should be a random key: jax.random.key({seed})")


def is_keys(key: Any) -> bool:
    """Return True for an array of several random keys."""
    return _is_key(key) and key.shape != ()


def _is_key(key: Any) -> bool:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def check_input_shape(input_shape: Any) -> Shape:
    """Return the shape of one example as a tuple.

    Raises:
        InputError: if ``input_shape`` is not a tuple or list of positive ints.

    >>> check_input_shape([28, 28, 1])
    (28, 28, 1)
    """
    requirement = "should be the shape of one example without the batch axis, such as (28, 28, 1)"
    if not isinstance(input_shape, tuple | list):
        raise InputError(f"input_shape {_format_value(input_shape)} {requirement}")
    sizes = tuple(input_shape)
    if not sizes or not all(n >= 1 if is_int(n) else jax.export.is_symbolic_dim(n) for n in sizes):
        raise InputError(f"input_shape {sizes} {requirement}")
    return sizes


def _format_value(value: Any) -> str:
    return f"array{value.shape}" if hasattr(value, "shape") else repr(value)
