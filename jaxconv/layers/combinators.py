"""Composite layers: ``serial``, ``residual`` and ``parallel``. Each returns a Layer, so they nest."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxconv.errors import InputError, error_context, named_errors
from jaxconv.layers.base import Layer, Shape, Tree, as_layer, makes_layer, output_shape
from jaxconv.layers.facts import Facts, Merges

Children = tuple[tuple[str, Layer], ...]


@makes_layer
def serial(*layers: Layer | Callable[..., jax.Array], name: str | None = None) -> Layer:
    """Apply layers in order: ``y = layers[-1](… layers[0](x))``.

    Args:
        layers: Layers, or plain functions of an array.
        name: name within a surrounding ``serial``; by default ``serial1``, ``serial2``, …

    Returns:
        A Layer, whose params and state are dicts with an entry for each child that has any.

    >>> from jaxconv import Conv, Dense, MaxPool, flatten, relu
    >>> model = serial(Conv(4, 3), relu, MaxPool(2), flatten, Dense(10))
    >>> params, state = model.init(jax.random.key(0), (8, 8, 1))
    >>> jax.tree.map(lambda p: p.shape, params)
    {'conv1': {'bias': (4,), 'kernel': (3, 3, 1, 4)}, 'dense1': {'bias': (10,), 'kernel': (36, 10)}}
    >>> logits, state = model.apply(params, state, jax.numpy.ones((2, 8, 8, 1)))
    >>> logits.shape
    (2, 10)
    """
    return _sequence(_named_children("serial", layers), name)


def _sequence(children: Children, name: str | None) -> Layer:
    """Return a layer that passes the output of each child to the next."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = {}, {}
        for i, (name, child) in enumerate(children):
            with error_context(name):
                params[name], state[name] = child.init(jax.random.fold_in(key, i), input_shape)
                input_shape = output_shape(child, params[name], state[name], input_shape)
        return _drop_empty(params), _drop_empty(state)

    def apply(
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        check_names(children, params, state)
        new_state = {}
        for i, (name, child) in enumerate(children):
            x, new_state[name] = _apply_child(i, name, child, params, state, x, train, key, mask)
        return x, _drop_empty(new_state)

    return Layer("serial", init, apply, children, name=name)


@makes_layer
def residual(
    *body: Layer | Callable[..., jax.Array],
    shortcut: Layer | Callable[..., jax.Array] | None = None,
    name: str | None = None,
) -> Layer:
    """Add a shortcut to the body: ``y = body(x) + shortcut(x)``; the shortcut is the identity by default.

    Args:
        body: layers that are applied in order, as in :func:`serial`.
        shortcut: projection of x to the shape of the body's output, such as ``Conv(64, 1, stride=2)``; needed if the
            body changes the shape.
        name: name within a surrounding layer; by default ``res1``, ``res2``, …

    Raises:
        InputError: from ``init`` and ``apply``, if body and shortcut return different shapes.

    Source: He et al., 2015, https://arxiv.org/abs/1512.03385; lecture rows 003-20, 003-21.

    >>> from jaxconv import Conv
    >>> block = residual(Conv(3, 3, padding="SAME", kernel_init=jax.nn.initializers.zeros))
    >>> params, state = block.init(jax.random.key(0), (5, 5, 3))
    >>> x = jax.numpy.ones((1, 5, 5, 3))
    >>> bool((block.apply(params, state, x)[0] == x).all())          # a residual of zero is the identity
    True
    """
    children = (("body", serial(*body)), ("shortcut", as_layer(_identity if shortcut is None else shortcut)))

    @named_errors(name="residual")
    def add(x: jax.Array, y: dict[str, jax.Array]) -> jax.Array:
        body_shape, shortcut_shape = y["body"].shape[1:], y["shortcut"].shape[1:]
        if body_shape != shortcut_shape:
            raise InputError(
                f"for an input {x.shape[1:]} the body returns {body_shape} but the shortcut {shortcut_shape}; "
                f"give shortcut=Conv({body_shape[-1]}, 1, stride=…) or another layer that returns {body_shape}"
            )
        return y["body"] + y["shortcut"]

    return _branches("res", "sum", children, add, name)


@makes_layer
def parallel(*branches: Layer | Callable[..., jax.Array], name: str | None = None) -> Layer:
    """Apply branches to the same x and concatenate their outputs along the channel axis, in order.

    Args:
        branches: Layers, or plain functions of an array; their outputs may differ in the number of channels only.
        name: name within a surrounding layer; by default ``parallel1``, ``parallel2``, …

    Raises:
        InputError: if there is no branch, or (from ``init`` and ``apply``) their outputs differ in another size.

    Source: the Inception module, Szegedy et al., 2014, https://arxiv.org/abs/1409.4842.

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
        if len({output.shape[:-1] for output in y.values()}) > 1:
            shapes = ", ".join(f"{branch} returns {output.shape[1:]}" for branch, output in y.items())
            raise InputError(
                f"for an input {x.shape[1:]} {shapes}, which may differ in their channels only; "
                'give every branch padding="SAME" and the same stride'
            )
        return jnp.concatenate(list(y.values()), axis=-1)

    return _branches("parallel", "concat", _named_children("parallel", branches), concatenate, name)


def _branches(
    kind: str,
    merges: Merges | None,
    children: Children,
    join: Callable[[jax.Array, dict[str, jax.Array]], jax.Array],
    name: str | None,
) -> Layer:
    """Return a layer that applies all children to the same x and joins their outputs; ``join`` checks the shapes."""

    def init(key: jax.Array, input_shape: Shape) -> tuple[Tree, Tree]:
        params, state = {}, {}
        for i, (name, child) in enumerate(children):
            with error_context(name):
                params[name], state[name] = child.init(jax.random.fold_in(key, i), input_shape)
        params, state = _drop_empty(params), _drop_empty(state)
        output_shape(layer, params, state, input_shape)  # raise for incompatible shapes here, not only in apply
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
        check_names(children, params, state)
        y, new_state = {}, {}
        for i, (name, child) in enumerate(children):
            y[name], new_state[name] = _apply_child(i, name, child, params, state, x, train, key, mask)
        return join(x, y), _drop_empty(new_state)

    layer = Layer(kind, init, apply, children, name=name, merge=join, facts=Facts(merges=merges))
    return layer


def is_composite(layer: Layer) -> bool:
    """Return True for a layer that does nothing but apply its children; False for a user's own layer."""
    return bool(layer.children) and getattr(layer.apply, "__module__", None) == __name__


def with_children(layer: Layer, children: Children) -> Layer:
    """Return a composite layer with its children replaced by others of the same names."""
    return (
        _sequence(children, layer.name)
        if layer.merge is None
        else _branches(layer.kind, layer.facts.merges, children, layer.merge, layer.name)
    )


def _named_children(kind: str, layers: Sequence[Layer | Callable[..., jax.Array]]) -> Children:
    """Pair each layer with a name: its own, or its kind and a number."""
    children = [as_layer(layer) for layer in layers]
    counts: dict[str, int] = {}
    names = []
    for layer in children:
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        names.append(layer.name or f"{layer.kind}{counts[layer.kind]}")
    duplicates = {name for name in names if names.count(name) > 1}
    if duplicates:
        raise InputError(
            f"{kind}: more than one layer is named {', '.join(sorted(duplicates))}; give every layer its own name="
        )
    return tuple(zip(names, children, strict=True))


def _apply_child(
    i: int,
    name: str,
    child: Layer,
    params: Tree,
    state: Tree,
    x: jax.Array,
    train: bool,
    key: jax.Array | None,
    mask: jax.Array | None,
) -> tuple[jax.Array, Tree]:
    """Apply a child with its subtree of params and state, and a key of its own."""
    key = None if key is None else jax.random.fold_in(key, i)
    with error_context(name):
        return child.apply(params.get(name, {}), state.get(name, {}), x, train=train, key=key, mask=mask)


def check_names(children: Children, params: Tree, state: Tree) -> None:
    """Raise InputError for entries of params or state that no child has; missing entries are left to the children."""
    unexpected = (params.keys() | state.keys()) - {name for name, _ in children}
    if unexpected:
        raise InputError(
            f"params or state has unexpected keys {', '.join(sorted(unexpected))}; "
            f"the layers of this model are {', '.join(name for name, _ in children)}"
        )


def _drop_empty(tree: Tree) -> Tree:
    return {name: subtree for name, subtree in tree.items() if subtree}


def _identity(x: jax.Array) -> jax.Array:
    return x
