"""Figures of the HTML page: plotly figures as JSON, images as PNG in data URIs."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxconv.plot.rgb import to_data_uri
from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Blue and orange differ in lightness as well, and contrast with both a white and a black page.
BLUE, ORANGE = "#3b8bd4", "#e08214"
LINES = (BLUE, ORANGE, "#4aa564", "#b35cc4", "#c44e52", "#8c8c8c", "#937860", "#17a2b8")


def curves(history: Sequence[Mapping[str, Any]], best_epoch: int, metric: str) -> str:
    """Plot loss or accuracy by epoch, for training and validation, with the best epoch marked."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    epochs = [record["epoch"] for record in history]
    for name, key, color in (("training", metric, BLUE), ("validation", f"val_{metric}", ORANGE)):
        values = [record[key] for record in history]
        figure.add_trace(Scatter(x=epochs, y=values, name=name, mode="lines+markers", line_color=color))
    best = history[best_epoch - 1][f"val_{metric}"]
    ring = {"size": 14, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": ORANGE}}
    figure.add_trace(Scatter(x=[best_epoch], y=[best], name=f"best: {best:.4f}", mode="markers", marker=ring))
    figure.update_xaxes(title="epoch", dtick=max(1, len(epochs) // 8))
    figure.update_yaxes(title=metric, type="log" if metric == "loss" else "linear")
    return _to_json(figure)


def confusion(counts: Any, class_names: Sequence[str]) -> str:
    """Plot a confusion matrix, one row per true class, colored by the fraction of the row."""
    from plotly.graph_objects import Figure, Heatmap

    counts = np.asarray(counts)
    fraction = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    annotate, names = len(class_names) <= 20, [_literal(name) for name in class_names]
    heatmap = Heatmap(
        z=(fraction**0.4).tolist(),  # nonlinear, so that 1 % is visible beside the diagonal
        x=names,
        y=names,
        customdata=counts.tolist(),
        text=[[str(n) if n else "" for n in row] for row in counts.tolist()] if annotate else None,
        texttemplate="%{text}" if annotate else None,
        hovertemplate="true %{y}, predicted %{x}: %{customdata}<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
        showscale=False,
    )
    figure = Figure(heatmap)
    figure.update_xaxes(title="predicted class", type="category", constrain="domain")
    figure.update_yaxes(title="true class", type="category", autorange="reversed", scaleanchor="x", constrain="domain")
    return _to_json(figure, height=420 if annotate else 640)


def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """Plot lines by name, each given as ``(x values, y values)``."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for (name, (xs, ys)), color in zip(series.items(), LINES * (1 + len(series) // len(LINES)), strict=False):
        figure.add_trace(
            Scatter(
                x=list(map(float, xs)),
                y=list(map(float, ys)),
                name=_literal(name),
                mode="lines+markers",
                line_color=color,
            )
        )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    figure.update_layout(showlegend=len(series) > 1)
    return _to_json(figure, height=300)


def bars(counts: np.ndarray, edges: np.ndarray, x: str) -> str:
    """Plot a histogram from its counts and bin edges."""
    from plotly.graph_objects import Bar, Figure

    centers = (edges[1:] + edges[:-1]) / 2
    figure = Figure(Bar(x=centers.tolist(), y=counts.tolist(), marker_color=BLUE, width=np.diff(edges).tolist()))
    figure.update_xaxes(title=x)
    figure.update_layout(bargap=0)
    return _to_json(figure, height=220)


def _literal(name: str) -> str:
    """Escape a name for plotly, which interprets ``<b>`` and similar tags."""
    return html.escape(printable(name), quote=False)


def _to_json(figure: "Figure", height: int = 340) -> str:
    """Serialize a figure without colors of text and axes; the page's script sets them for the current theme."""
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    content = json.loads(figure.to_json())
    # Escape "<", because "</script>" in a name would end the script element that holds the JSON.
    return json.dumps({"data": content["data"], "layout": content["layout"]}, allow_nan=False).replace("<", "\\u003c")


LARGE = 4000  # pixels; larger images are quantized; else the page of a deep network would take megabytes
COLORS = 64


class ImageTile(NamedTuple):
    """One small image of the page.

    Attributes:
        source: image as a data URI.
        alt: description for screen readers.
        caption: text below the image.
        width: width in pixels.
        height: height in pixels.
    """

    source: str
    alt: str
    caption: str
    width: int
    height: int


def tile(pixels: np.ndarray, alt: str, caption: str = "") -> ImageTile:
    """Encode an image for the page.

    Args:
        pixels: ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.rgb` returns it, or ``(H, W, 4)`` with transparency.
        alt: description for screen readers.
        caption: text below the image.

    >>> tile(np.zeros((2, 3, 3), np.uint8), "nothing").source[:22]
    'data:image/png;base64,'
    """
    height, width = pixels.shape[:2]
    colors = COLORS if height * width > LARGE else None
    return ImageTile(to_data_uri(pixels, colors=colors, optimize=True), alt, caption, width, height)
