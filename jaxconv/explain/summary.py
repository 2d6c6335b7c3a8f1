"""Model summary: output shape, parameters, MACs and receptive field of each layer, as text, Markdown or JSON."""

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
    """Summary of one layer.

    Attributes:
        name: path of the layer, ``res1/body/conv2``.
        kind: ``conv``, ``max_pool``, …
        shape: output shape of one example.
        weights: number of trainable kernel and scale values.
        biases: number of biases.
        state: number of running-statistics values, which are not trained.
        macs: multiply-accumulate operations of the forward pass for one example.
        training_macs: MACs of the forward pass and of the gradients with respect to kernel and input, ``macs`` each.
            The gradient of the input is not counted if no earlier layer has parameters.
        activation_bytes: size of one example's output in float32, which training stores for the backward pass.
        receptive_field: size of the receptive field in pixels per dimension; None if unknown, as after a transposed
            convolution, and without spatial axes.
        effective_stride: distance in pixels between the receptive fields of neighboring outputs; None as
            ``receptive_field``.
        dense_params: number of weights of a fully connected layer with the same input and output; 0 without a kernel.
        warning: note on unexpected behavior, or empty.
        facts: the layer's facts, which are not part of the JSON.
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
        """Number of weights and biases."""
        return self.weights + self.biases


class Summary(NamedTuple):
    """Summaries of the layers, and their totals."""

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
        """Return the layer's fraction of all parameters."""
        return row.params / self.params if self.params else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON-serializable dicts, lists and numbers."""
        names = ("params", "weights", "biases", "state", "macs", "training_macs", "activation_bytes")
        return {
            "input_shape": list(self.input_shape),
            "layers": [self._layer_dict(row) for row in self.rows],
            "total": {name: getattr(self, name) for name in names},
        }

    def _layer_dict(self, row: LayerSummary) -> dict[str, Any]:
        fields = {name: value for name, value in row._asdict().items() if name != "facts"}
        return {**fields, "params": row.params, "share": round(self.share(row), 6)}

    def _sum(self, name: str) -> int:
        return sum(getattr(row, name) for row in self.rows)


def summarize(model: Layer, input_shape: tuple[int, ...]) -> Summary:
    """Summarize a model from shapes alone: no parameter is allocated, and nothing is compiled or run.

    Args:
        model: a Layer.
        input_shape: shape of one example, ``(H, W, C)``.

    Raises:
        InputError: if the model cannot take such an example.

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
        raise InputError(f"input_shape must be ints >= 1, got {input_shape}")
    if (count := math.prod(input_shape)) >= 2**31:
        raise InputError(f"input_shape must have at most 2³¹ − 1 values, got {input_shape}: {count:,} values")
    model = as_layer(model)
    params, state = jax.eval_shape(lambda: model.init(jax.random.key(0), input_shape))
    fields = all_receptive_fields(model, input_shape)
    rows: list[LayerSummary] = []
    _walk("", model, params, state, input_shape, False, fields, rows)
    return Summary(input_shape, rows)


def _walk(
    path: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: tuple[int, ...],
    learned: bool,
    fields: dict[str, PositionedReceptiveField | None],
    rows: list[LayerSummary],
) -> tuple[tuple[int, ...], bool]:
    """Append the rows of a layer; return its output shape, and True if the output depends on parameters."""
    if not layer.children:
        summary = _layer_summary(
            path or layer.kind, layer, params, state, input_shape, learned, fields[path or layer.kind]
        )
        rows.append(summary)
        return summary.shape, learned or summary.params > 0
    outputs: list[tuple[tuple[int, ...], bool]] = []
    for name, child in layer.children:
        shape, child_learned = outputs[-1] if outputs and layer.merge is None else (input_shape, learned)
        child_path = f"{path}/{name}" if path else name
        outputs.append(
            _walk(child_path, child, params.get(name, {}), state.get(name, {}), shape, child_learned, fields, rows)
        )
    if layer.merge is None:
        return outputs[-1]
    return output_shape(layer, params, state, input_shape), any(depends for _, depends in outputs)


def _layer_summary(
    name: str,
    layer: Layer,
    params: Any,
    state: Any,
    input_shape: tuple[int, ...],
    learned: bool,
    field: PositionedReceptiveField | None,
) -> LayerSummary:
    shape = output_shape(layer, params, state, input_shape)
    biases = _num_elements(params.get("bias"))
    macs = dense_params = 0
    if "kernel" in params:
        # conv and dense use the kernel once per output position, a transposed convolution once per input position.
        positions = input_shape[:-1] if layer.facts.kernel_use == "scatter" else shape[:-1]
        macs = math.prod(positions) * math.prod(params["kernel"].shape)
        dense_params = math.prod(input_shape) * math.prod(shape)
    return LayerSummary(
        name,
        layer.kind,
        shape,
        weights=_num_elements(params) - biases,
        biases=biases,
        state=_num_elements(state),
        macs=macs,
        training_macs=macs * (3 if learned else 2),
        activation_bytes=4 * math.prod(shape),
        receptive_field=field.field.size if field else None,
        effective_stride=field.field.effective_stride if field else None,
        dense_params=dense_params,
        warning=_asymmetric_padding_note(layer, name),
        facts=layer.facts,
    )


def _asymmetric_padding_note(layer: Layer, name: str) -> str:
    """Return a note if SAME padding of an even window is asymmetric, else an empty string. Lecture row 002-12."""
    window = layer.window
    if layer.facts.kernel_use != "slide" or window is None or window.padding not in ("SAME", "SAME_LOWER"):
        return ""
    sizes_and_dilations = [
        np.broadcast_to(sizes, np.shape(window.size)).reshape(-1) for sizes in (window.size, window.dilation)
    ]
    extents = [dilated_size(int(size), int(dilation)) for size, dilation in zip(*sizes_and_dilations, strict=True)]
    for extent in extents:
        if extent % 2 == 0:
            side = "after" if window.padding == "SAME" else "before"
            return f"{name}: SAME padding of an even window ({extent} pixels) adds one pixel more {side} the image"
    return ""


def _num_elements(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


FORMATS = ("terminal", "text", "markdown", "json")
MAX_WIDTH = 400  # wider than any table


class Column(NamedTuple):
    """Table column: heading, cell of each row, and cell of the total; hidden in a narrow terminal unless required."""

    heading: str
    cell: Callable[[Summary, LayerSummary], str]
    total: Callable[[Summary], str] = lambda summary: ""
    required: bool = True


def _format_number(value: int) -> str:
    return f"{value:,}" if value else ""


def _format_size(sizes: tuple[int, ...] | None) -> str:
    return "×".join(map(str, sizes)) if sizes else ""


COLUMNS = (
    Column("layer", lambda s, row: row.name, lambda s: "total"),
    Column("output shape", lambda s, row: str(row.shape)),
    Column("parameters", lambda s, row: _format_number(row.params), lambda s: f"{s.params:,}"),
    Column("weights", lambda s, row: _format_number(row.weights), lambda s: f"{s.weights:,}", False),
    Column("biases", lambda s, row: _format_number(row.biases), lambda s: f"{s.biases:,}", False),
    Column("% params", lambda s, row: f"{s.share(row):.1%}" if row.params else "", lambda s: "", False),
    Column("MACs", lambda s, row: _format_number(row.macs), lambda s: f"{s.macs:,}"),
    Column(
        "training MACs",
        lambda s, row: _format_number(row.training_macs),
        lambda s: f"{s.training_macs:,}",
        False,
    ),
    Column("activations", lambda s, row: f"{row.activation_bytes:,} B", lambda s: f"{s.activation_bytes:,} B", False),
    Column("receptive field", lambda s, row: _format_size(row.receptive_field) or "all"),
    Column("stride", lambda s, row: _format_size(row.effective_stride), required=False),
    Column("dense params", lambda s, row: _format_number(row.dense_params), required=False),
)


@named_errors(name="summary")
def format_summary(summary: Summary, format: str = "text", *, title: str = "", width: int = MAX_WIDTH) -> str:
    """Format a summary as a table, followed by the warnings of its rows, or as JSON.

    Args:
        summary: result of :func:`jaxconv.explain.summarize`.
        format: ``"terminal"`` (with box lines), ``"text"``, ``"markdown"`` or ``"json"``.
        title: title above the table.
        width: width of the terminal in characters. If it is narrower than the table, optional columns are hidden and
            listed below.

    Raises:
        InputError: if the format is unknown.

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
    full = _table(summary, COLUMNS, title, boxes[format])
    if format != "terminal" or max(map(len, full.splitlines())) <= width:
        return full + notes
    hidden = ", ".join(column.heading for column in COLUMNS if not column.required)
    narrow = _table(summary, [column for column in COLUMNS if column.required], title, boxes[format])
    return f"{narrow}\n(columns hidden in a narrow terminal: {hidden}; --format text shows all){notes}"


def _table(summary: Summary, columns: "list[Column] | tuple[Column, ...]", title: str, box_style: object) -> str:
    from rich import box

    name, *numbers = (column.heading for column in columns)
    table = new_table(title, name, numbers=numbers, box=box_style)
    for column in table.columns:
        column.no_wrap = True
    for row in summary.rows:
        table.add_row(*(column.cell(summary, row) for column in columns))
    if box_style is not box.MARKDOWN:
        table.add_section()
    table.add_row(*(column.total(summary) for column in columns))
    return "\n".join(filter(None, as_text(table, width=MAX_WIDTH).splitlines()))
