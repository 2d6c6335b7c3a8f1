"""Summary of a network: output, parameters, work and receptive field of each layer, as text, Markdown or JSON."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import checks
from jaxconv.errors import InputError, named_errors
from jaxconv.explain.receptive_fields import all_receptive_fields
from jaxconv.layers import Facts, Layer, as_layer, output_shape
from jaxconv.shapes import PositionedReceptiveField, dilated_size, is_int
from jaxconv.utils.tables import as_text, new_table


class LayerSummary(NamedTuple):
    """One layer.

    Attributes:
        name: its path, ``res1/body/conv2``.
        kind: ``conv``, ``max_pool``, …
        shape: of one example's output.
        weights: learned numbers that are no biases: kernels and scales.
        biases: the others.
        state: running statistics, which are not learned.
        macs: products of the forward pass for one example; an addition comes with each.
        training_macs: with the gradients by the kernel and by the input, which take as many each. The input's
            is left out where nothing before the layer is learned.
        activation_bytes: of one example's output in float32, kept in training until the gradient comes back.
        receptive_field: the receptive field in pixels, one entry a dimension; None where it is not known, as behind a
            transposed convolution, and once the image's axes are gone.
        effective_stride: how many pixels lie between what two neighbours see; None as ``receptive_field``.
        dense_params: the weights of a fully connected layer between the same numbers, where this one has a kernel.
        warning: what a reader may stumble over, or nothing.
        facts: those of the layer, which are not in the JSON.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    weights: int
    biases: int
    state: int
    macs: int
    training_macs: int
    activation_bytes: int
    receptive_field: tuple[int, ...] | None
    effective_stride: tuple[int, ...] | None
    dense_params: int
    warning: str = ""
    facts: Facts = Facts()

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


class Summary(NamedTuple):
    """A row for each layer, and what they come to together."""

    input_shape: tuple[int, ...]
    rows: list[LayerSummary]

    @property
    def params(self) -> int:
        return self._sum("params")

    @property
    def weights(self) -> int:
        return self._sum("weights")

    @property
    def biases(self) -> int:
        return self._sum("biases")

    @property
    def state(self) -> int:
        return self._sum("state")

    @property
    def macs(self) -> int:
        return self._sum("macs")

    @property
    def training_macs(self) -> int:
        return self._sum("training_macs")

    @property
    def activation_bytes(self) -> int:
        return self._sum("activation_bytes")

    def share(self, row: LayerSummary) -> float:
        """The part of all parameters that are this layer's."""
        return row.params / self.params if self.params else 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it in names, lists and numbers."""
        names = ("params", "weights", "biases", "state", "macs", "training_macs", "activation_bytes")
        return {
            "input_shape": list(self.input_shape),
            "layers": [self._layer_dict(row) for row in self.rows],
            "total": {name: getattr(self, name) for name in names},
        }

    def _layer_dict(self, row: LayerSummary) -> dict[str, Any]:
        shown = {name: value for name, value in row._asdict().items() if name != "facts"}
        return {**shown, "params": row.params, "share": round(self.share(row), 6)}

    def _sum(self, name: str) -> int:
        return sum(getattr(row, name) for row in self.rows)


def summarize(model: Layer, input_shape: tuple[int, ...]) -> Summary:
    """A model in numbers; nothing is computed or compiled, and no parameter is made.

    Args:
        model: a Layer.
        input_shape: one example's, ``(H, W, C)``.

    Raises:
        InputError: the model cannot take such an example.

    Lecture rows 000-15 to 000-20, 001-17, 003-12, 004-19.

    >>> from jaxconv.models import mnist_cnn
    >>> table = summarize(mnist_cnn(), (28, 28, 1))
    >>> [row.params for row in table.rows if row.params], table.params, table.macs
    ([320, 18496, 36928, 36928, 650], 93322, 2794240)
    >>> [row.receptive_field[0] for row in table.rows if row.kind in ("conv", "max_pool")]
    [3, 4, 8, 10, 18]
    >>> from jaxconv.models import lenet5
    >>> summarize(lenet5(), (32, 32, 1)).rows[0].dense_params
    4816896
    """
    if not all(is_int(n) and n >= 1 for n in input_shape):
        raise InputError(f"input_shape {input_shape}: every size should be a whole number of at least 1")
    if (count := math.prod(input_shape)) >= 2**31:
        raise InputError(f"input_shape {input_shape}: an example of {count:,} numbers; there may be at most 2³¹ − 1")
    model = as_layer(model)
    params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    views = all_receptive_fields(model, input_shape)
    rows: list[LayerSummary] = []
    _walk("", model, params, state, input_shape, False, views, rows)
    return Summary(input_shape, rows)


def _walk(
    path: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: tuple[int, ...],
    learned: bool,
    views: dict[str, PositionedReceptiveField | None],
    rows: list[LayerSummary],
) -> tuple[tuple[int, ...], bool]:
    """Add a layer's rows, and return the shape of its output, and whether that depends on parameters."""
    if not layer.children:
        row = _row(path or layer.kind, layer, params, state, input_shape, learned, views[path or layer.kind])
        rows.append(row)
        return row.shape, learned or row.params > 0
    ends: list[tuple[tuple[int, ...], bool]] = []
    for name, part in layer.children:
        shape, learnt = ends[-1] if ends and layer.merge is None else (input_shape, learned)
        below = f"{path}/{name}" if path else name
        ends.append(_walk(below, part, params.get(name, {}), state.get(name, {}), shape, learnt, views, rows))
    if layer.merge is None:
        return ends[-1]
    return output_shape(layer, params, state, input_shape), any(end for _, end in ends)


def _row(
    name: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: tuple[int, ...],
    learned: bool,
    view: PositionedReceptiveField | None,
) -> LayerSummary:
    shape = output_shape(layer, params, state, input_shape)
    biases = _size(params.get("bias"))
    work = dense = 0
    if "kernel" in params:
        # A kernel is used once at every place of the output, by conv and dense alike; a stamp at every input.
        places = input_shape[:-1] if layer.facts.kernel_use == "scatter" else shape[:-1]
        work = math.prod(places) * math.prod(params["kernel"].shape)
        dense = math.prod(input_shape) * math.prod(shape)
    return LayerSummary(
        name,
        layer.kind,
        shape,
        weights=_size(params) - biases,
        biases=biases,
        state=_size(state),
        macs=work,
        training_macs=work * (3 if learned else 2),
        activation_bytes=4 * math.prod(shape),
        receptive_field=view.field.size if view else None,
        effective_stride=view.field.effective_stride if view else None,
        dense_params=dense,
        warning=_lopsided(layer, name),
        facts=layer.facts,
    )


def _lopsided(layer: Layer, name: str) -> str:
    """A word about an even window that is padded to keep the size: there is no middle to lie over. Row 002-12."""
    window = layer.window
    if layer.facts.kernel_use != "slide" or window is None or window.padding not in ("SAME", "SAME_LOWER"):
        return ""
    per = [np.broadcast_to(sizes, np.shape(window.size)).reshape(-1) for sizes in (window.size, window.dilation)]
    spans = [dilated_size(int(size), int(dilation)) for size, dilation in zip(*per, strict=True)]
    for reach in spans:
        if reach % 2 == 0:
            more = "after" if window.padding == "SAME" else "before"
            return f"{name}: a window over {reach} pixels is padded by one more {more} it: an odd one has a middle"
    return ""


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


FORMATS = ("terminal", "text", "markdown", "json")
WIDE = 400  # more than any table takes


class Column(NamedTuple):
    """A heading, a cell for each row, and one for the total; what is not ``needed`` gives way to a narrow terminal."""

    heading: str
    cell: Callable[[Summary, LayerSummary], str]
    total: Callable[[Summary], str] = lambda summary: ""
    needed: bool = True


def _number(n: int) -> str:
    return f"{n:,}" if n else ""


def _format_size(sizes: tuple[int, ...] | None) -> str:
    return "×".join(map(str, sizes)) if sizes else ""


COLUMNS = (
    Column("layer", lambda s, row: row.name, lambda s: "total"),
    Column("output shape", lambda s, row: str(row.shape)),
    Column("parameters", lambda s, row: _number(row.params), lambda s: f"{s.params:,}"),
    Column("weights", lambda s, row: _number(row.weights), lambda s: f"{s.weights:,}", False),
    Column("biases", lambda s, row: _number(row.biases), lambda s: f"{s.biases:,}", False),
    Column("% params", lambda s, row: f"{s.share(row):.1%}" if row.params else "", lambda s: "", False),
    Column("MACs", lambda s, row: _number(row.macs), lambda s: f"{s.macs:,}"),
    Column(
        "training MACs",
        lambda s, row: _number(row.training_macs),
        lambda s: f"{s.training_macs:,}",
        False,
    ),
    Column("activations", lambda s, row: f"{row.activation_bytes:,} B", lambda s: f"{s.activation_bytes:,} B", False),
    Column("receptive field", lambda s, row: _format_size(row.receptive_field) or "all"),
    Column("stride", lambda s, row: _format_size(row.effective_stride), needed=False),
    Column("dense params", lambda s, row: _number(row.dense_params), needed=False),
)


@named_errors(name="summary")
def format_summary(summary: Summary, format: str = "text", *, title: str = "", width: int = WIDE) -> str:
    """A summary as a table, or as JSON.

    Args:
        summary: from :func:`jaxconv.explain.summarize`.
        format: ``"terminal"``, with lines around; ``"text"``, ``"markdown"`` or ``"json"``.
        title: above a table.
        width: in letters; in a terminal that is narrower than the table some columns are left out, and it says so.

    Below a table are the rows' notes, where there are any.

    Raises:
        InputError: an unknown format.

    >>> from jaxconv.explain import summarize
    >>> from jaxconv.models import mlp
    >>> print(format_summary(summarize(mlp(hidden=()), (2, 2, 1)), "markdown"))
    | layer    | output shape | parameters | weights | biases | % params | MACs | training MACs | activations | receptive field | stride | dense params |
    |----------|--------------|------------|---------|--------|----------|------|---------------|-------------|-----------------|--------|--------------|
    | flatten1 |         (4,) |            |         |        |          |      |               |        16 B |             all |        |              |
    | dense1   |        (10,) |         50 |      40 |     10 |   100.0% |   40 |            80 |        40 B |             all |        |           40 |
    | total    |              |         50 |      40 |     10 |          |   40 |            80 |        56 B |                 |        |              |
    """  # noqa: E501
    checks.one_of("format", format, FORMATS)
    if format == "json":
        return json.dumps(summary.to_dict(), indent=2)
    from rich import box

    boxes = {"terminal": box.HEAVY_HEAD, "text": box.SIMPLE_HEAD, "markdown": box.MARKDOWN}
    notes = "".join(f"\n{row.warning}" for row in summary.rows if row.warning)
    notes = f"\n{notes}" if format == "markdown" and notes else notes  # a table ends with an empty line
    whole = _table(summary, COLUMNS, title, boxes[format])
    if format != "terminal" or max(map(len, whole.splitlines())) <= width:
        return whole + notes
    left_out = ", ".join(column.heading for column in COLUMNS if not column.needed)
    narrow = _table(summary, [column for column in COLUMNS if column.needed], title, boxes[format])
    return f"{narrow}\n(a wider terminal, or --format text, shows more: {left_out}){notes}"


def _table(summary: Summary, columns: "list[Column] | tuple[Column, ...]", title: str, lines: object) -> str:
    from rich import box

    name, *numbers = (column.heading for column in columns)
    table = new_table(title, name, numbers=numbers, box=lines)
    for shown in table.columns:
        shown.no_wrap = True
    for row in summary.rows:
        table.add_row(*(column.cell(summary, row) for column in columns))
    if lines is not box.MARKDOWN:
        table.add_section()
    table.add_row(*(column.total(summary) for column in columns))
    return "\n".join(filter(None, as_text(table, width=WIDE).splitlines()))
