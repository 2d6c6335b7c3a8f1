"""Figures that diagnose a network: channel correlations, norms by layer, histograms."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.plot.figures import literal, literals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from jaxconv.explain import Histogram


@named_errors
def correlation_matrix(matrix: Any, *, title: str = "") -> "Figure":
    """Plot the correlation of each pair of channels: positive red, negative blue.

    Args:
        matrix: ``(C, C)``, from :func:`jaxconv.explain.feature_correlation`; constant channels (NaN) are gray.
        title: figure title, printed before the mean |ρ|.

    Raises:
        InputError: if the matrix is not square, or empty.

    >>> correlation_matrix(np.array([[1.0, -0.5], [-0.5, 1.0]]), title="conv1").axes[0].get_title()
    'conv1: mean |ρ| 0.50'
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    matrix = np.asarray(matrix, np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError(f"matrix must be (C, C), got {matrix.shape}")
    figure = Figure(figsize=(5, 4.3), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.75")
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    figure.colorbar(image, label="ρ")
    off_diagonal = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
    off_diagonal = off_diagonal[np.isfinite(off_diagonal)]
    summary = f"mean |ρ| {off_diagonal.mean():.2f}" if len(off_diagonal) else "fewer than two channels vary"
    constant = int(np.isnan(np.diag(matrix)).sum())
    summary += f", {constant} constant (gray)" if constant else ""
    axes.set(xlabel="channel", ylabel="channel", title=literal(f"{title}: {summary}" if title else summary))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    return figure


@named_errors
def norms_by_layer(
    networks: Mapping[str, Mapping[str, Any]], *, label: str = "‖d loss / d kernel‖", title: str = ""
) -> "Figure":
    """Plot one value per layer, from the first layer to the last, one line per network.

    Args:
        networks: by name, the result of :func:`jaxconv.explain.gradient_norms` or ``update_ratios``. Values that are 0
            or not finite are omitted, because the scale is logarithmic.
        label: the quantity, written on the y axis.
        title: figure title.

    Raises:
        InputError: if no network has a value.

    Lecture row 003-22.

    >>> figure = norms_by_layer({"plain": {"conv1": 1e-6, "conv2": 1e-3}, "residual": {"conv1": 0.1, "conv2": 0.2}})
    >>> [line.get_label() for line in figure.axes[0].lines], figure.axes[0].get_yscale()
    (['plain', 'residual'], 'log')
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not any(networks.values()):
        raise InputError("networks must have a value for at least one layer, got none")
    figure = Figure(figsize=(7, 3.6), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, layers in networks.items():
        norms_line(axes, layers, marker="o", ms=4, label=literal(name))
    axes.set(yscale="log", ylabel=literal(label), title=literal(title))
    names = [tuple(layers) for layers in networks.values()]
    if len(set(names)) == 1 and len(names[0]) <= 12:
        axes.set_xticks(range(1, len(names[0]) + 1), literals(names[0]), rotation=30, ha="right", fontsize=8)
    else:
        axes.set_xlabel("layer with a kernel, from the image to the logits")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def norms_line(axes: "Axes", layers: Mapping[str, Any], **style: Any) -> "Line2D":
    """Draw one network's values by layer; values without a logarithm become gaps."""
    values = np.array([float(value) for value in layers.values()])
    values[~((values > 0) & np.isfinite(values))] = np.nan
    [line] = axes.plot(np.arange(1, len(values) + 1), values, **style)
    return line


@named_errors
def histograms(histograms_by_name: Mapping[str, "Histogram"], *, columns: int = 4, title: str = "") -> "Figure":
    """Plot histograms, one panel each; counts are on a logarithmic scale.

    Args:
        histograms_by_name: histograms by name, from :func:`jaxconv.explain.histograms`.
        columns: maximum number of panels in a row.
        title: figure title.

    Raises:
        InputError: if there is no histogram.

    >>> from jaxconv.explain import histograms as count_histograms
    >>> figure = histograms(count_histograms({"conv1": np.array([0.0, 0.5, 1.0, np.nan])}))
    >>> figure.axes[0].get_title()
    'conv1\\n1 NaN'
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not histograms_by_name:
        raise InputError("histograms_by_name must have at least one histogram, got none")
    columns = min(columns, len(histograms_by_name))
    rows = -(-len(histograms_by_name) // columns)
    figure = Figure(figsize=(2.4 * columns + 0.3, 1.9 * rows + 0.3 * bool(title)), dpi=110, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[len(histograms_by_name) :]:
        axes.axis("off")
    for axes, (name, histogram) in zip(panels, histograms_by_name.items(), strict=False):
        axes.stairs(histogram.counts, histogram.edges, fill=True, color="tab:blue", alpha=0.8)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        nonfinite = [f"{n:,} {kind}" for n, kind in ((histogram.nan, "NaN"), (histogram.inf, "infinite")) if n]
        axes.set_title(literal("\n".join([name, *([", ".join(nonfinite)] if nonfinite else [])])), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    figure.suptitle(literal(title), fontsize=10)
    return figure
