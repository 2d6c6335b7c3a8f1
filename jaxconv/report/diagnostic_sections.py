"""Sections on receptive fields, robustness, and diagnostics of the layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxconv import plot
from jaxconv.explain import (
    Histogram,
    corruption_accuracy,
    coverage_map,
    diagnose,
    feature_maps,
    histograms,
    translation_test,
)
from jaxconv.explain.corruptions import CORRUPTIONS, corrupt_at_severities
from jaxconv.explain.diagnostics import LayerDiagnosis
from jaxconv.explain.receptive_fields import all_receptive_fields
from jaxconv.layers.traversal import named_layers
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import ReportContext, evenly_spaced
from jaxconv.report.figures import ImageTile, tile
from jaxconv.report.model_sections import shown_layers
from jaxconv.report.page import Block, ImageTable, Section, Table

REPORT_CORRUPTIONS = ("rotation", "scale", "stroke_width", "noise")
MOST_FIELDS = 6
MOST_ROBUSTNESS_IMAGES = 1000  # per severity of each corruption


def geometry_section(context: ReportContext) -> Section | None:
    """Draw the receptive field of each layer's middle output on an image, and the coverage of the pixels."""
    model, summary, image = context.run.model, context.summary, context.examples.images[0]
    all_fields = all_receptive_fields(model, summary.input_shape)
    fields = {name: field for name, field in all_fields.items() if field is not None}
    layers = named_layers(model)
    growing = [name for name in fields if layers[name].window is not None]  # layers that enlarge the receptive field
    if not growing:
        return None
    shapes = {row.name: row.shape for row in summary.rows}
    selected = evenly_spaced(growing, MOST_FIELDS)
    boxes = {name: fields[name].bounds([n // 2 for n in shapes[name][:-1]]) for name in selected}
    field_tiles, coverage_tiles = [], []
    for name, box in boxes.items():
        size = "×".join(str(high - low) for low, high in box)
        alt = f"receptive field of one output of {name}"
        field_tiles.append(tile(rgb.draw_box(image, box), alt, f"{name}: {size}"))
        counts = coverage_map(model, summary.input_shape, layer=name)
        caption = f"{name}: {counts.min()} to {counts.max()}"
        coverage_tiles.append(tile(rgb.heatmap(counts), f"outputs of {name} per pixel", caption))
    intro = (
        "The frame is the receptive field of one output in the middle of the layer: the pixels that it depends on. The "
        "coverage maps count, for each pixel, the outputs of the layer that depend on it; corners have the fewest."
    )
    blocks = [
        Block(tiles=field_tiles, size="large"),
        Block("Coverage: outputs per pixel", tiles=coverage_tiles, size="large"),
    ]
    downloads = {"receptive-fields.png": plot.receptive_field(image, boxes, title="receptive field of one output")}
    return Section("geometry", "Receptive fields", [intro], blocks, downloads)


def robustness_section(context: ReportContext) -> Section:
    """Plot accuracy on translated and corrupted test images."""
    model, params, state = context.network
    images, labels = context.images[:MOST_ROBUSTNESS_IMAGES], context.labels[:MOST_ROBUSTNESS_IMAGES]
    max_shift = min(images.shape[1:3]) // 4
    shift_results = translation_test(
        model,
        params,
        state,
        images[: MOST_ROBUSTNESS_IMAGES // 2],
        labels[: MOST_ROBUSTNESS_IMAGES // 2],
        shifts=range(-max_shift, max_shift + 1),
        axis="x",
    )
    curves = corruption_accuracy(model, params, state, images, labels, corruptions=REPORT_CORRUPTIONS)
    shifts = [result.shift for result in shift_results]
    series = {
        "accuracy": (shifts, [result.accuracy for result in shift_results]),
        "feature distance": (shifts, [result.feature_distance for result in shift_results]),
    }
    charts = [("accuracy against shift", figures.lines(series, "pixels to the right", "accuracy, distance"))]
    for name, points in curves.items():
        line = {name: ([severity for severity, _ in points], [accuracy for _, accuracy in points])}
        words = name.replace("_", " ")
        x_label = f"{words}: {CORRUPTIONS[name].unit}"
        charts.append((f"accuracy against {words}", figures.lines(line, x_label, "accuracy")))
    rows = [
        (name.replace("_", " "), _corrupted_tiles(images[0], name, [severity for severity, _ in curves[name]]))
        for name in REPORT_CORRUPTIONS
    ]
    width = max(len(tiles) for _, tiles in rows)
    intro = (
        f"Accuracy on {len(images):,} test images after a shift or a corruption. The feature distance is the change of "
        "the features before the last layer, relative to their norm."
    )
    image_table = ImageTable(["", *[""] * width], rows)
    blocks = [Block(charts=charts), Block("Examples of corrupted images", images=image_table)]
    title = f"accuracy on {len(images):,} test images"
    downloads = {
        "robustness.png": plot.accuracy_vs_severity({context.run.config["model"]: curves}, images[0], title=title)
    }
    return Section("robustness", "Robustness", [intro], blocks, downloads)


def _corrupted_tiles(image: np.ndarray, name: str, severities: Sequence[float]) -> list[ImageTile]:
    return [
        tile(rgb.to_rgb(corrupted), f"{name} of {severity:g}")
        for corrupted, severity in zip(
            np.asarray(corrupt_at_severities(image, name, severities)), severities, strict=True
        )
    ]


MOST_HEALTH_IMAGES = 5000  # images of the diagnosis
MOST_HISTOGRAMS = 12
FEW = 64  # images of the output histograms

COLUMNS: dict[str, Callable[[LayerDiagnosis], str]] = {
    "layer": lambda row: row.name,
    "channels": lambda row: f"{row.channels:,}",
    "dead": lambda row: _format_number(row.dead, "d"),
    "active in": lambda row: f"{row.active_fraction:.1%}",
    "zeros": lambda row: f"{row.zero_fraction:.1%}",
    "saturated": lambda row: _format_number(row.saturation, ".1%"),
    "mean |ρ|": lambda row: _format_number(row.correlation, ".2f"),
    "duplicates": lambda row: _format_number(row.duplicates, "d"),
    "gradient": lambda row: _format_number(row.gradient, ".1e"),
}


def health_section(context: ReportContext) -> Section:
    """Build the table and warnings of :func:`jaxconv.explain.diagnose`, and histograms of weights and feature maps."""
    model, params, state = context.network
    images, labels = context.images[:MOST_HEALTH_IMAGES], context.labels[:MOST_HEALTH_IMAGES]
    diagnosis = diagnose(model, params, state, images, labels)
    blocks = [Block(text=warning, severity="warning") for warning in diagnosis.warnings]
    if not blocks:
        blocks.append(
            Block(text="No problems found: no dead filters, duplicates or vanishing gradients.", severity="good")
        )
    rows = [[cell(row) for cell in COLUMNS.values()] for row in diagnosis.rows]
    blocks.append(Block(table=Table(list(COLUMNS), rows)))
    downloads: dict[str, Any] = {}
    correlated = [row.name for row in diagnosis.rows if row.facts.kernel_use == "slide" and row.correlation is not None]
    if correlated:
        name = correlated[-1]
        matrix = diagnosis.correlations[name].matrix
        image = tile(rgb.diverging(np.nan_to_num(matrix), 1.0), f"correlations of the feature maps of {name}")
        text = f"Each pixel is a pair of filters of {name}: red for a positive correlation, blue for a negative one."
        blocks.append(Block("Correlation of feature maps", text, tiles=[image], size="large"))
        downloads["correlation.png"] = plot.correlation_matrix(matrix, title=f"feature maps of {name}")
    weights = {name: histogram for name, histogram in histograms(params).items() if name.endswith("kernel")}
    blocks.append(_histogram_block("weights", weights))
    downloads["weights.png"] = plot.histograms(weights, title="weights")
    layers = shown_layers(model)
    maps = jax.device_get(jax.jit(lambda x: feature_maps(model, params, state, x, layers=layers))(images[:FEW]))
    outputs = histograms({name: maps[name] for name in layers})
    blocks.append(_histogram_block("outputs", outputs))
    downloads["activations.png"] = plot.histograms(outputs, title=f"outputs for {len(images[:FEW])} test images")
    intro = (
        f"Measured on {len(images):,} test images. A dead filter is 0 for all of them; “active in” is the fraction of "
        "images in which a filter is nonzero anywhere, averaged over the filters. Saturated outputs lie where the "
        "activation function is nearly flat. Feature maps with |ρ| near 1 are redundant. The gradient is that of the "
        "loss of one batch with respect to the kernel."
    )
    return Section("health", "Layer diagnostics", [intro], blocks, downloads)


def _histogram_block(noun: str, by_name: Mapping[str, Histogram]) -> Block:
    charts = [(f"{noun} of {name}", figures.bars(h.counts, h.edges, name)) for name, h in by_name.items()]
    return Block(f"Histograms of {noun}", charts=charts[:MOST_HISTOGRAMS])


def _format_number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
