"""Layers made of layers. Each returns a Layer, so they nest, and treats all its parts alike."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import jax

from jaxconv.errors import InputError
from jaxconv.layers.layer import Layer, Shape, Tree, as_layer, output_shape


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
    parts = _named([as_layer(layer) for layer in layers])

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        params, state = {}, {}
        for i, (name, part) in enumerate(parts):
            with _inside(name):
                params[name], state[name] = part.init(jax.random.fold_in(key, i), in_shape)
                in_shape = output_shape(part, params[name], state[name], in_shape)
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
        _check_names(parts, params, state)
        new_state = {}
        for i, (name, part) in enumerate(parts):
            x, new_state[name] = _apply_part(i, name, part, params, state, x, train, key, mask)
        return x, _without_empty(new_state)

    return Layer("serial", init, apply, parts, name=name)


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

    def init(key: jax.Array, in_shape: Shape) -> tuple[Tree, Tree]:
        params, state, out = {}, {}, {}
        for i, (name, part) in enumerate(parts):
            with _inside(name):
                params[name], state[name] = part.init(jax.random.fold_in(key, i), in_shape)
                out[name] = output_shape(part, params[name], state[name], in_shape)
        if out["body"] != out["shortcut"]:
            raise InputError(
                f"residual: of {in_shape} the body makes {out['body']} but the shortcut {out['shortcut']}; "
                f"give shortcut=Conv({out['body'][-1]}, 1, stride=…) or whatever else makes {out['body']}"
            )
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
        _check_names(parts, params, state)
        y, new_state = {}, {}
        for i, (name, part) in enumerate(parts):
            y[name], new_state[name] = _apply_part(i, name, part, params, state, x, train, key, mask)
        return y["body"] + y["shortcut"], _without_empty(new_state)

    return Layer("res", init, apply, parts, name=name)


def _named(layers: Sequence[Layer]) -> tuple[tuple[str, Layer], ...]:
    counts: dict[str, int] = {}
    names = []
    for layer in layers:
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
        names.append(layer.name or f"{layer.kind}{counts[layer.kind]}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"serial: more than one part is named {', '.join(sorted(twice))}; give each its own name=")
    return tuple(zip(names, layers, strict=True))


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
    with _inside(name):
        return part.apply(params.get(name, {}), state.get(name, {}), x, train=train, key=key, mask=mask)


def _check_names(parts: tuple[tuple[str, Layer], ...], params: Tree, state: Tree) -> None:
    """Refuse what belongs to another model; what is missing its own part will miss."""
    surplus = (params.keys() | state.keys()) - {name for name, _ in parts}
    if surplus:
        raise InputError(
            f"params or state has {', '.join(sorted(surplus))}, which this model has not; "
            f"its parts are {', '.join(name for name, _ in parts)}"
        )


@contextmanager
def _inside(name: str) -> Iterator[None]:
    """Put a part's name before its errors: ``conv2: conv: the window …``."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{name}: {error}").with_traceback(error.__traceback__) from None


def _without_empty(tree: Tree) -> Tree:
    return {name: part for name, part in tree.items() if part}


def _identity(x: jax.Array) -> jax.Array:
    return x
