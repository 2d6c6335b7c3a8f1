"""What a layer is: a pair of pure functions, one that makes parameters and one that uses them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError
from jaxconv.shapes import Window

Tree = dict[str, Any]  # params or state: nested dicts of arrays
Shape = tuple[int, ...]


class Layer(NamedTuple):
    """A pair of pure functions, with what a reader of the model wants to know about it.

    Attributes:
        kind: what it is; ``serial`` names its parts ``conv1``, ``conv2``, ``dense1`` after it.
        init: ``(key, in_shape) -> (params, state)``; ``in_shape`` is one example's, ``(H, W, C)``.
        apply: ``(params, state, x, *, train=False, key=None, mask=None) -> (y, state)``. ``mask`` marks the
            examples of a padded batch that count; only statistics over the batch need it.
        parts: ``((name, Layer), …)`` of a layer made of layers, one after another unless there is a ``join``.
        join: of parts that all see the same x: ``(x, {name: y}) -> y``.
        window: how it slides over the image, if it does; for receptive fields.
        name: overrides the counted name.
    """

    kind: str
    init: Callable[..., tuple[Tree, Tree]]
    apply: Callable[..., tuple[jax.Array, Tree]]
    parts: tuple[tuple[str, "Layer"], ...] = ()
    window: Window | None = None
    name: str | None = None
    join: Callable[[jax.Array, dict[str, jax.Array]], jax.Array] | None = None


def output_shape(layer: Layer, params: Tree, state: Tree, in_shape: Shape) -> Shape:
    """The shape of one example's output, from the layer's own ``apply``, without computing anything.

    >>> output_shape(as_layer(jax.nn.relu), {}, {}, (28, 28, 1))
    (28, 28, 1)
    """
    x = jax.ShapeDtypeStruct((1, *in_shape), jnp.float32)
    y, _ = jax.eval_shape(layer.apply, params, state, x)
    return y.shape[1:]


def as_layer(layer: Layer | Callable[..., jax.Array]) -> Layer:
    """A function of an array as a Layer without parameters; a Layer as it is.

    >>> as_layer(jax.nn.relu).kind
    'relu'
    """
    if isinstance(layer, Layer):
        return layer._replace(apply=_with_mask(layer.apply))
    if not callable(layer):
        raise InputError(f"{layer!r} is neither a Layer nor a function of an array")
    function = getattr(layer, "func", layer)  # of a functools.partial
    kind = getattr(function, "__name__", type(function).__name__).strip("<>_")
    if getattr(function, "__annotations__", {}).get("return") is Layer:
        raise InputError(f"{kind} makes a layer and is not one itself: write {kind}(…)")
    return stateless(kind, layer)


@functools.lru_cache(maxsize=256)  # the same function every time, so that jit knows it again
def _with_mask(apply: Callable[..., tuple[jax.Array, Tree]]) -> Callable[..., tuple[jax.Array, Tree]]:
    """A layer written without ``mask`` (it looks at one example at a time) is a layer like any other."""
    takes = inspect.signature(apply).parameters.values()
    if any(p.name == "mask" or p.kind is p.VAR_KEYWORD for p in takes):
        return apply
    return lambda *args, mask=None, **options: apply(*args, **options)


def stateless(
    kind: str,
    op: Callable[..., jax.Array],
    init: Callable[..., tuple[Tree, Tree]] = lambda key, in_shape: ({}, {}),
    names: tuple[str, ...] = (),
    *,
    window: Window | None = None,
    name: str | None = None,
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

    return Layer(kind, init, apply, window=window, name=name)


def check_entries(what: str, tree: Tree, names: tuple[str, ...]) -> None:
    """Refuse params or state that some other layer made, before an op meets them."""
    if set(tree) != set(names):
        raise InputError(
            f"{what} holds {', '.join(sorted(tree)) or 'nothing'} where {', '.join(sorted(names)) or 'nothing'} "
            "is wanted: was it made by the init of another model?"
        )
