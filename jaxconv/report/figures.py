"""Figures of the page: plotly's as JSON for its script, images as PNG in the address of the ``img`` itself."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.utils.terminal import printable

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

from typing import NamedTuple

from jaxconv.plot.rgb import to_data_uri

# Blue and orange differ in lightness too, and both can be read on black and on white.
BLUE, ORANGE = "#3b8bd4", "#e08214"
LINES = (BLUE, ORANGE, "#4aa564", "#b35cc4", "#c44e52", "#8c8c8c", "#937860", "#17a2b8")


def curves(history: Sequence[Mapping[str, Any]], best_epoch: int, measure: str) -> str:
    """Loss or accuracy by epoch, of training and validation, with the epoch that was kept."""
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    epochs = [record["epoch"] for record in history]
    for name, key, color in (("training", measure, BLUE), ("validation", f"val_{measure}", ORANGE)):
        values = [record[key] for record in history]
        figure.add_trace(Scatter(x=epochs, y=values, name=name, mode="lines+markers", line_color=color))
    kept = history[best_epoch - 1][f"val_{measure}"]
    ring = {"size": 14, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": ORANGE}}
    figure.add_trace(Scatter(x=[best_epoch], y=[kept], name=f"kept: {kept:.4f}", mode="markers", marker=ring))
    figure.update_xaxes(title="epoch", dtick=max(1, len(epochs) // 8))
    figure.update_yaxes(title=measure, type="log" if measure == "loss" else "linear")
    return _json(figure)


def confusion(counts: Any, classes: Sequence[str]) -> str:
    """What was taken for what: a row a true class; the colour is the share of the row."""
    from plotly.graph_objects import Figure, Heatmap

    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    written, names = len(classes) <= 20, [_literal(name) for name in classes]
    heat = Heatmap(
        z=(share**0.4).tolist(),  # bent, so that one in a hundred is seen beside the diagonal
        x=names,
        y=names,
        customdata=counts.tolist(),
        text=[[str(n) if n else "" for n in row] for row in counts.tolist()] if written else None,
        texttemplate="%{text}" if written else None,
        hovertemplate="%{y} taken for %{x}: %{customdata}<extra></extra>",
        colorscale="Blues",
        zmin=0,
        zmax=1,
        showscale=False,
    )
    figure = Figure(heat)
    figure.update_xaxes(title="said", type="category", constrain="domain")
    figure.update_yaxes(title="true class", type="category", autorange="reversed", scaleanchor="x", constrain="domain")
    return _json(figure, height=420 if written else 640)


def lines(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str) -> str:
    """Lines by name, each its x and its y."""
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
    return _json(figure, height=300)


def bars(counts: np.ndarray, edges: np.ndarray, x: str) -> str:
    """A histogram that is counted already."""
    from plotly.graph_objects import Bar, Figure

    middles = (edges[1:] + edges[:-1]) / 2
    figure = Figure(Bar(x=middles.tolist(), y=counts.tolist(), marker_color=BLUE, width=np.diff(edges).tolist()))
    figure.update_xaxes(title=x)
    figure.update_layout(bargap=0)
    return _json(figure, height=220)


def _literal(name: str) -> str:
    """A name as plotly shows it literally: it takes ``<b>`` and its like for tags."""
    return html.escape(printable(name), quote=False)


def _json(figure: "Figure", height: int = 340) -> str:
    """Without colours of its own: the page gives those of the reader's theme."""
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 56, "r": 12, "t": 12, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    made = json.loads(figure.to_json())
    # Whatever would end the script that it stands in is written otherwise.
    return json.dumps({"data": made["data"], "layout": made["layout"]}, allow_nan=False).replace("<", "\\u003c")


LARGE = 4000  # pixels; of larger pictures the colours are few, or a page of a deep network would weigh megabytes
COLORS = 64


class ImageTile(NamedTuple):
    """One small picture of the page.

    Attributes:
        source: the picture, as an address that needs no file.
        alt: what it shows, for those who cannot see it.
        caption: below it.
        width, height: of its pixels.
    """

    source: str
    alt: str
    caption: str
    width: int
    height: int


def tile(pixels: np.ndarray, alt: str, caption: str = "") -> ImageTile:
    """A picture for the page.

    Args:
        pixels: ``(H, W, 3)`` uint8, as :mod:`jaxconv.plot.rgb` makes them, or ``(H, W, 4)`` with transparency.
        alt: what it shows.
        caption: below it.

    >>> tile(np.zeros((2, 3, 3), np.uint8), "nothing").source[:22]
    'data:image/png;base64,'
    """
    height, width = pixels.shape[:2]
    colors = COLORS if height * width > LARGE else None
    return ImageTile(to_data_uri(pixels, colors=colors, optimize=True), alt, caption, width, height)
