"""Layers: pairs of pure functions, ``init`` and ``apply``, and the decorator of the functions that make them.

The decorator gives clear errors for wrong calls, and layers that can be pickled.
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
    """A pair of pure functions, with what a reader of the model wants to know about it.

    A layer can be pickled if the functions and layers that it was made of can: so not with a lambda among its parts.

    Attributes:
        kind: what it is; ``serial`` names its parts ``conv1``, ``conv2``, ``dense1`` after it.
        init: ``(key, input_shape) -> (params, state)``; ``input_shape`` is one example's, ``(H, W, C)``.
        apply: ``(params, state, x, *, train=False, key=None, mask=None) -> (y, state)``. ``mask`` marks the
            examples of a padded batch that count; only statistics over the batch need it.
        children: ``((name, Layer), …)`` of a layer made of layers, one after another unless there is a ``merge``.
        merge: of parts that all see the same x: ``(x, {name: y}) -> y``.
        window: how it slides over the image, if it does; for receptive fields.
        name: overrides the counted name.
        recipe: the call that made it, for pickle; None for a layer of a user's own functions.
        facts: the properties that other packages rely on, :class:`Facts`.

    Raises:
        ArgumentError: no kind, an init or apply that is no function, or facts that are no :class:`Facts`.
    """

    __slots__ = ()

    def __new__(cls, *args: Any, **options: Any) -> "Layer":
        takes = "Layer takes (kind, init, apply), such as Layer('scale', init, apply)"
        try:
            self = super().__new__(cls, *args, **options)
        except TypeError as error:
            given = ", ".join([*map(reprlib.repr, args), *(f"{name}=" for name in options)])
            raise ArgumentError(f"Layer({given}): {takes}: {str(error).partition(') ')[2] or error}") from None
        if not isinstance(self.kind, str):
            raise ArgumentError(f"Layer: kind={reprlib.repr(self.kind)} should be a name: {takes}")
        for name, function in {"init": self.init, "apply": self.apply}.items():
            if not callable(function):
                raise ArgumentError(f"Layer {self.kind!r}: {name}={reprlib.repr(function)} is no function: {takes}")
        check_facts(f"Layer {self.kind!r}", self.facts)
        return self

    def _replace(self, **changes: Any) -> "Layer":
        if "merge" in changes:  # the old facts describe the old merge
            changes.setdefault("facts", DEFAULTS)
        recipe = self.recipe and self.recipe._replace(changes=self.recipe.changes | changes)
        changes.setdefault("recipe", recipe)
        return super()._replace(**changes)

    def __hash__(self) -> int:
        return hash((self.kind, self.init, self.apply, self.name))  # what a window or a recipe holds may have none

    def __repr__(self) -> str:
        parts = f", children={', '.join(name for name, _ in self.children)}" if self.children else ""
        return f"<Layer {self.name or self.kind}{parts}>"

    def __reduce__(self) -> tuple[Callable[..., "Layer"], tuple[Any, ...]]:
        return (Layer, tuple(self)) if self.recipe is None else self.recipe.reduced()

    def __copy__(self) -> "Layer":
        return self  # nothing of it changes

    def __deepcopy__(self, memo: Any) -> "Layer":
        return self


def output_shape(layer: Layer, params: Tree, state: Tree, input_shape: Shape) -> Shape:
    """The shape of one example's output, from the layer's own ``apply``, without computing anything.

    >>> output_shape(as_layer(jax.nn.relu), {}, {}, (28, 28, 1))
    (28, 28, 1)
    """
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    y, _ = jax.eval_shape(layer.apply, params, state, x)
    return y.shape[1:]


def as_layer(layer: Layer | Callable[..., jax.Array]) -> Layer:
    """A function of an array as a Layer without parameters; a Layer as it is.

    Raises:
        InputError: what is neither, such as a module of another library, a list of layers, or ``Conv`` without a call.
        ArgumentError: a Layer whose functions do not take what they are given.

    >>> as_layer(jax.nn.relu).kind
    'relu'
    """
    if isinstance(layer, Layer):
        _check_functions(layer.kind, layer.init, layer.apply)
        apply = _with_mask(layer.apply)
        return layer if apply is layer.apply else layer._replace(apply=apply)
    foreign.refuse(layer)
    if isinstance(layer, list | tuple):
        what = "a list" if isinstance(layer, list) else "a tuple"
        raise InputError(
            f"{what} of {len(layer)} is no layer: write serial(*layers), with the star, or Layer(kind, init, apply)"
        )
    if not callable(layer):
        raise InputError(f"{reprlib.repr(layer)} is neither a Layer nor a function of an array")
    function = getattr(layer, "func", layer)  # of a functools.partial
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
    changed = layer.facts._replace(**facts)
    check_facts("with_facts", changed)
    return layer._replace(facts=changed)


@functools.lru_cache(maxsize=256)
def _check_functions(
    kind: str, init: Callable[..., tuple[Tree, Tree]], apply: Callable[..., tuple[jax.Array, Tree]]
) -> None:
    """Refuse a layer's functions if they cannot be called as every layer's are."""
    for name, function, args, options, takes in (
        ("init", init, (None,) * 2, {}, "(key, input_shape) and return (params, state)"),
        ("apply", apply, (None,) * 3, CALL, "(params, state, x, *, train=False, key=None) and return (y, state)"),
    ):
        try:
            inspect.signature(function).bind(*args, **options)
        except TypeError as error:
            raise ArgumentError(f"Layer {kind!r}: {name} should take {takes}: {error}") from None
        except ValueError:
            pass  # a built-in function, whose signature is not known


CALL: dict[str, Any] = {"train": False, "key": None}  # what every apply is given by name


@functools.lru_cache(maxsize=256)  # the same function every time, so that jit knows it again
def _with_mask(apply: Callable[..., tuple[jax.Array, Tree]]) -> Callable[..., tuple[jax.Array, Tree]]:
    """A layer written without ``mask`` (it looks at one example at a time) is a layer like any other."""
    takes = inspect.signature(apply).parameters.values()
    if any(p.name == "mask" or p.kind is p.VAR_KEYWORD for p in takes):
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
    """A layer without state: ``y = op(x, **params)``."""

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


def check_entries(what: str, tree: Tree, names: tuple[str, ...]) -> None:
    """Refuse params or state that some other layer made, before an op meets them."""
    if set(tree) != set(names):
        raise InputError(
            f"{what} holds {', '.join(sorted(tree)) or 'nothing'} where {', '.join(sorted(names)) or 'nothing'} "
            "is wanted: was it made by the init of another model?"
        )


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
kernel_size, *, stride, padding, dilation, groups, padding_mode, flip_kernel, use_bias, kernel_init, impl, precision, \
name)
    """

    @functools.wraps(make)
    def call(*args: P.args, **options: P.kwargs) -> Layer:
        check_call(make, args, options)
        layer = make(*args, **options)
        return layer._replace(init=_checked(layer.init), recipe=Recipe(call, args, options))

    return call


def _checked(init: Callable[..., tuple[Tree, Tree]]) -> Callable[..., tuple[Tree, Tree]]:
    """Return the same init, which refuses what is no key or no shape."""

    def checked(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        with error_context("init"):
            check_key(key)
            input_shape = check_input_shape(input_shape)
        try:
            return init(key, input_shape)
        except InputError as error:
            if len(input_shape) != 4 or "batch axis" in str(error):
                raise
            hint = f"input_shape {input_shape} is a volume; of an image leave out the batch axis"
            mended = type(error)(f"{error} ({hint})")
            mended.source = error.source
            raise mended from None

    checked.__name__ = "init"
    return checked_call(checked)


def check_key(key: Any) -> None:
    """Refuse a seed, or several keys, where one random key is needed."""
    if is_keys(key):
        raise InputError(f"key is {key.shape} keys, not one: jax.vmap takes one of them at a time")
    old = getattr(key, "dtype", None) == jnp.uint32 and np.ndim(key) == 1  # as jax.random.PRNGKey makes it
    if not old and not _is_key(key):
        number = key if is_int(key) else 0
        given = repr(key) if is_int(key) or key is None else type(key).__name__
        raise InputError(f"key={given} should be a random key: jax.random.key({number})")


def is_keys(key: Any) -> bool:
    """Return whether this is an array of several random keys."""
    return _is_key(key) and key.shape != ()


def _is_key(key: Any) -> bool:
    return isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def check_input_shape(input_shape: Any) -> Shape:
    """Return the shape of one example as a tuple; refuse what is none.

    >>> check_input_shape([28, 28, 1])
    (28, 28, 1)
    """
    wanted = "should be the shape of one example without the batch axis, such as (28, 28, 1)"
    if not isinstance(input_shape, tuple | list):
        raise InputError(f"input_shape {_shown(input_shape)} {wanted}")
    sizes = tuple(input_shape)
    if not sizes or not all(n >= 1 if is_int(n) else jax.export.is_symbolic_dim(n) for n in sizes):
        raise InputError(f"input_shape {sizes} {wanted}")
    return sizes


def _shown(value: Any) -> str:
    return f"array{value.shape}" if hasattr(value, "shape") else repr(value)
