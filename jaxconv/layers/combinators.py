"""Layers made of layers. Each returns a Layer, so they nest, and treats all its parts alike."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, error_context, named_errors
from jaxconv.layers.base import Layer, Shape, Tree, as_layer, makes_layer, output_shape
from jaxconv.layers.facts import Facts, Merges

Parts = tuple[tuple[str, Layer], ...]


@makes_layer
def serial(*layers: Layer | Callable[..., jax.Array], name: str | None = None) -> Layer:
    """One layer after another: ``y = layers[-1](… layers[0](x))``.

    Args:
        layers: Layers, or plain functions of an array.
        name: in a ``serial`` around this one; by default ``serial1``, ``serial2``, …

    Returns:
        A Layer, whose params and state are dicts with an entry for each part that has any.

    >>> from jaxconv import Conv, Dense, MaxPool, flatten, relu
    >>> model = serial(Conv(4, 3), relu, MaxPool(2), flatten, Dense(10))
    >>> params, state = model.init(jax.random.key(0), (8, 8, 1))
    >>> jax.tree.map(lambda p: p.shape, params)
    {'conv1': {'bias': (4,), 'kernel': (3, 3, 1, 4)}, 'dense1': {'bias': (10,), 'kernel': (36, 10)}}
    >>> logits, state = model.apply(params, state, jax.numpy.ones((2, 8, 8, 1)))
    >>> logits.shape
    (2, 10)
    """
    return _sequence(_named("serial", layers), name)


def _sequence(parts: Parts, name: str | None) -> Layer:
    """Parts of which each takes the output of the one before."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = {}, {}
        for i, (name, part) in enumerate(parts):
            with error_context(name):
                params[name], state[name] = part.init(jax.random.fold_in(key, i), input_shape)
                input_shape = output_shape(part, params[name], state[name], input_shape)
        return _without_empty(params), _without_empty(state)

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_names(parts, params, state)
        new_state = {}
        for i, (name, part) in enumerate(parts):
            x, new_state[name] = _apply_part(i, name, part, params, state, x, train, key, mask)
        return x, _without_empty(new_state)

    return Layer("serial", init, apply, parts, name=name)


@makes_layer
def residual(
    *body: Layer | Callable[..., jax.Array],
    shortcut: Layer | Callable[..., jax.Array] | None = None,
    name: str | None = None,
) -> Layer:
    """Learn the difference: ``y = body(x) + shortcut(x)``, where the shortcut is x itself unless one is given.

    Args:
        body: one layer after another, as in :func:`serial`.
        shortcut: what brings x to the shape of the body's output where that differs, ``Conv(64, 1, stride=2)``.
        name: by default ``res1``, ``res2``, …

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385; lecture rows 003-20, 003-21.

    >>> from jaxconv import Conv
    >>> block = residual(Conv(3, 3, padding="SAME", kernel_init=jax.nn.initializers.zeros))
    >>> params, state = block.init(jax.random.key(0), (5, 5, 3))
    >>> x = jax.numpy.ones((1, 5, 5, 3))
    >>> bool((block.apply(params, state, x)[0] == x).all())          # a residual of zero is the identity
    True
    """
    parts = (("body", serial(*body)), ("shortcut", as_layer(_identity if shortcut is None else shortcut)))

    @named_errors(name="residual")
    def add(x: jax.Array, y: dict[str, jax.Array]) -> jax.Array:
        made, wanted = y["body"].shape[1:], y["shortcut"].shape[1:]
        if made != wanted:
            raise InputError(
                f"of {x.shape[1:]} the body makes {made} but the shortcut {wanted}; "
                f"give shortcut=Conv({made[-1]}, 1, stride=…) or whatever else makes {made}"
            )
        return y["body"] + y["shortcut"]

    return _branches("res", "sum", parts, add, name)


@makes_layer
def parallel(*branches: Layer | Callable[..., jax.Array], name: str | None = None) -> Layer:
    """Several layers beside each other: each sees the same x, and their channels are laid end to end, in that order.

    Args:
        branches: Layers, or plain functions of an array; their outputs may differ in nothing but the channels.
        name: by default ``parallel1``, ``parallel2``, …

    Raises:
        InputError: there is no branch, or (from ``init`` and ``apply``) their outputs differ in another size.

    Source: the module of Inception, Szegedy et al., 2014, https://arxiv.org/abs/1409.4842.

    >>> from jaxconv import Conv, MaxPool
    >>> pooled = serial(MaxPool(3, stride=1, padding="SAME"), Conv(4, 1))
    >>> block = parallel(Conv(8, 1), Conv(16, 3, padding="SAME"), pooled)
    >>> params, state = block.init(jax.random.key(0), (9, 9, 3))
    >>> list(params), block.apply(params, state, jnp.ones((1, 9, 9, 3)))[0].shape
    (['conv1', 'conv2', 'serial1'], (1, 9, 9, 28))
    """
    if not branches:
        raise InputError("parallel: there is no branch; give at least one layer")

    @named_errors(name="parallel")
    def concatenate(x: jax.Array, y: dict[str, jax.Array]) -> jax.Array:
        if len({each.shape[:-1] for each in y.values()}) > 1:
            made = ", ".join(f"{branch} makes {each.shape[1:]}" for branch, each in y.items())
            raise InputError(
                f"of {x.shape[1:]} {made}, which differ in more than their channels; "
                'give each padding="SAME" and the same stride'
            )
        return jnp.concatenate(list(y.values()), axis=-1)

    return _branches("parallel", "concat", _named("parallel", branches), concatenate, name)


def _branches(
    kind: str,
    merges: Merges | None,
    parts: Parts,
    join: Callable[[jax.Array, dict[str, jax.Array]], jax.Array],
    name: str | None,
) -> Layer:
    """Parts that all see the same x, and whose outputs are joined; a join refuses those that do not fit."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = {}, {}
        for i, (name, part) in enumerate(parts):
            with error_context(name):
                params[name], state[name] = part.init(jax.random.fold_in(key, i), input_shape)
        params, state = _without_empty(params), _without_empty(state)
        output_shape(layer, params, state, input_shape)  # or what does not fit would be told by apply only
        return params, state

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_names(parts, params, state)
        y, new_state = {}, {}
        for i, (name, part) in enumerate(parts):
            y[name], new_state[name] = _apply_part(i, name, part, params, state, x, train, key, mask)
        return join(x, y), _without_empty(new_state)

    layer = Layer(kind, init, apply, parts, name=name, merge=join, facts=Facts(merges=merges))
    return layer


def is_combined(layer: Layer) -> bool:
    """Return True if the layer does what its parts do, in order or joined; False for a layer of a user's own."""
    return bool(layer.children) and getattr(layer.apply, "__module__", None) == __name__


def with_parts(layer: Layer, parts: Parts) -> Layer:
    """Return a combined layer with other parts of the same names."""
    return (
        _sequence(parts, layer.name)
        if layer.merge is None
        else _branches(layer.kind, layer.facts.merges, parts, layer.merge, layer.name)
    )


def _named(kind: str, layers: Sequence[Layer | Callable[..., jax.Array]]) -> Parts:
    """Each part with its name: its own, or its kind and a count."""
    parts = [as_layer(layer) for layer in layers]
    counts: dict[str, int] = {}
    names = []
    for layer in parts:
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        names.append(layer.name or f"{layer.kind}{counts[layer.kind]}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{kind}: more than one part is named {', '.join(sorted(twice))}; give each its own name=")
    return tuple(zip(names, parts, strict=True))


def _apply_part(
    i: int,
    name: str,
    part: Layer,
    params: Tree,
    state: Tree,
    x: jax.Array,
    train: bool,
    key: jax.Array | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, Tree]:
    """Give a part its own share of params, state and randomness."""
    key = None if key is None else jax.random.fold_in(key, i)
    with error_context(name):
        return part.apply(params.get(name, {}), state.get(name, {}), x, train=train, key=key, mask=mask)


def check_names(parts: Parts, params: Tree, state: Tree) -> None:
    """Refuse what belongs to another model; what is missing its own part will miss."""
    surplus = (params.keys() | state.keys()) - {name for name, _ in parts}
    if surplus:
        raise InputError(
            f"params or state has {', '.join(sorted(surplus))}, which this model has not; "
            f"its parts are {', '.join(name for name, _ in parts)}"
        )


def _without_empty(tree: Tree) -> Tree:
    return {name: part for name, part in tree.items() if part}


def _identity(x: jax.Array) -> jax.Array:
    return x
