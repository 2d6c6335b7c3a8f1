"""A network as a table: for each layer its output, its parameters, its work and what it can see."""

import math
from typing import Any, NamedTuple

import jax

from jaxconv.errors import InputError
from jaxconv.layers import Layer, as_layer, output_shape
from jaxconv.shapes import View


class Row(NamedTuple):
    """One layer.

    Attributes:
        name: its path, ``res1/body/conv2``.
        kind: ``conv``, ``max_pool``, …
        shape: of one example's output.
        params: learned numbers: weights and biases.
        state: running statistics, which are not learned.
        multiply_adds: products of the forward pass for one example; an addition comes with each.
        sees: the receptive field in pixels, one entry a dimension; None where it is not known, as behind a
            transposed convolution, and once the image's axes are gone.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    params: int
    state: int
    multiply_adds: int
    sees: tuple[int, ...] | None


class Summary(NamedTuple):
    in_shape: tuple[int, ...]
    rows: list[Row]

    @property
    def params(self) -> int:
        return sum(row.params for row in self.rows)

    @property
    def state(self) -> int:
        return sum(row.state for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        return sum(row.multiply_adds for row in self.rows)


def summarize(model: Layer, in_shape: tuple[int, ...]) -> Summary:
    """The table of a model; nothing is computed and no parameter is made.

    Args:
        model: a Layer.
        in_shape: one example's, ``(H, W, C)``.

    Raises:
        InputError: the model cannot take such an example.

    Lecture rows 000-15 to 000-20, 001-17, 004-19.

    >>> from jaxconv.models import mnist_cnn
    >>> table = summarize(mnist_cnn(), (28, 28, 1))
    >>> [row.params for row in table.rows if row.params], table.params, table.multiply_adds
    ([320, 18496, 36928, 36928, 650], 93322, 2794240)
    >>> [row.sees[0] for row in table.rows if row.kind in ("conv", "max_pool")]
    [3, 4, 8, 10, 18]
    """
    if not all(n >= 1 for n in in_shape):
        raise InputError(f"in_shape {in_shape}: every size should be at least 1")
    model = as_layer(model)
    params, state = jax.eval_shape(lambda key: model.init(key, in_shape), jax.random.key(0))
    rows: list[Row] = []
    _walk("", model, params, state, in_shape, View.of_a_pixel(len(in_shape) - 1), rows)
    return Summary(in_shape, rows)


def _walk(
    path: str, layer: Layer, params: Any, state: Any, in_shape: tuple[int, ...], view: View | None, rows: list[Row]
) -> tuple[tuple[int, ...], View | None]:
    """Add a layer's rows, and return the shape and the view that the next layer starts from."""
    if not layer.parts:
        shape = output_shape(layer, params, state, in_shape)
        view = _look(layer, in_shape, shape, view)
        # A kernel is used once at every place of the output, by convolution and dense alike; a stamp at every input.
        places = in_shape[:-1] if layer.kind == "conv_transpose" else shape[:-1]
        work = math.prod(places) * math.prod(params["kernel"].shape) if "kernel" in params else 0
        sees = view.field if view else None
        rows.append(Row(path or layer.kind, layer.kind, shape, _size(params), _size(state), work, sees))
        return shape, view
    ends: list[tuple[tuple[int, ...], View | None]] = []
    for name, part in layer.parts:
        shape, seen = ends[-1] if ends and layer.kind == "serial" else (in_shape, view)
        below = f"{path}/{name}" if path else name
        ends.append(_walk(below, part, params.get(name, {}), state.get(name, {}), shape, seen, rows))
    if layer.kind == "serial":
        return ends[-1]
    # Branches that start together and are added or laid end to end: in each dimension what the widest of them sees.
    shape = output_shape(layer, params, state, in_shape)
    views = [end[1] for end in ends if end[1] is not None]
    if len(views) < len(ends):
        return shape, None
    return shape, View(tuple(map(max, zip(*(v.field for v in views), strict=True))), views[0].jump)


def _look(layer: Layer, in_shape: tuple[int, ...], shape: tuple[int, ...], view: View | None) -> View | None:
    if view is None or len(shape) != len(in_shape) or layer.kind == "conv_transpose":
        return None
    if layer.window is None:  # what keeps the pixels where they are sees no more; of others nothing is known
        return view if shape[:-1] == in_shape[:-1] else None
    return view.through(layer.window)


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
