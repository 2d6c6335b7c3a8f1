"""Sections on the state of the network: its layers, its geometry and its robustness."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxconv import plot
from jaxconv.explain import corruption_accuracy, coverage_map, diagnose, feature_maps, histograms, translation_test
from jaxconv.explain.corruptions import CORRUPTIONS, corrupt_at_severities
from jaxconv.explain.diagnostics import LayerDiagnosis
from jaxconv.explain.receptive_fields import all_receptive_fields
from jaxconv.layers.traversal import named_layers
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import ReportContext, spread
from jaxconv.report.figures import ImageTile, tile
from jaxconv.report.model_sections import shown_layers
from jaxconv.report.page import Block, Pictures, Section, Table

REPORT_CORRUPTIONS = ("rotation", "scale", "stroke_width", "noise")
MOST_FIELDS = 6
MOST_ROBUSTNESS_IMAGES = 1000  # images, for each strength of each distortion


def geometry_section(subject: ReportContext) -> Section | None:
    """The receptive field of each layer's middle output, drawn on an image, and how often each pixel is looked at."""
    model, summary, image = subject.run.model, subject.summary, subject.examples.images[0]
    views = {name: view for name, view in all_receptive_fields(model, summary.input_shape).items() if view is not None}
    kinds = named_layers(model)
    steps = [name for name in views if kinds[name].window is not None]  # those where more comes into sight
    if not steps:
        return None
    shapes = {row.name: row.shape for row in summary.rows}
    boxes = {name: views[name].bounds([n // 2 for n in shapes[name][:-1]]) for name in spread(steps, MOST_FIELDS)}
    drawn, covered = [], []
    for name, box in boxes.items():
        seen = "×".join(str(high - low) for low, high in box)
        drawn.append(tile(rgb.draw_box(image, box), f"what one output of {name} sees", f"{name}: {seen}"))
        counts = coverage_map(model, summary.input_shape, layer=name)
        covered.append(
            tile(rgb.heatmap(counts), f"how often {name} sees each pixel", f"{name}: {counts.min()} to {counts.max()}")
        )
    lead = (
        "The frame is what one output in the middle of the layer can see of the image: its receptive field. The maps "
        "below it tell how many outputs of the layer see each pixel: those of the corners are used least."
    )
    blocks = [
        Block(tiles=drawn, size="large"),
        Block("How often each pixel is looked at", tiles=covered, size="large"),
    ]
    downloads = {"receptive-fields.png": plot.receptive_field(image, boxes, title="what one output of each layer sees")}
    return Section("geometry", "Where it looks", [lead], blocks, downloads)


def robustness_section(subject: ReportContext) -> Section:
    """Accuracy on images that are moved, turned, enlarged, thickened and in noise."""
    (model, params, state), (images, labels) = (
        subject.network,
        (subject.images[:MOST_ROBUSTNESS_IMAGES], subject.labels[:MOST_ROBUSTNESS_IMAGES]),
    )
    reach = range(-(min(images.shape[1:3]) // 4), min(images.shape[1:3]) // 4 + 1)
    moved = translation_test(
        model,
        params,
        state,
        images[: MOST_ROBUSTNESS_IMAGES // 2],
        labels[: MOST_ROBUSTNESS_IMAGES // 2],
        shifts=reach,
        axis="x",
    )
    found = corruption_accuracy(model, params, state, images, labels, corruptions=REPORT_CORRUPTIONS)
    shift = {"accuracy": ([m.shift for m in moved], [m.accuracy for m in moved])}
    shift["distance of the features"] = ([m.shift for m in moved], [m.feature_distance for m in moved])
    drawn = [("accuracy against shift", figures.lines(shift, "pixels to the right", "accuracy, distance"))]
    for name, pairs in found.items():
        line = {name: ([s for s, _ in pairs], [a for _, a in pairs])}
        said = name.replace("_", " ")
        drawn.append((f"accuracy against {said}", figures.lines(line, f"{said}: {CORRUPTIONS[name].unit}", "accuracy")))
    rows = [
        (name.replace("_", " "), _spoilt(images[0], name, [s for s, _ in found[name]])) for name in REPORT_CORRUPTIONS
    ]
    width = max(len(tiles) for _, tiles in rows)
    lead = (
        f"Accuracy on {len(images):,} test images that are unlike those it was trained on. The distance is how far the "
        "features before the last layer move, as a share of their length."
    )
    pictures = Pictures(["", *[""] * width], rows)
    blocks = [Block(charts=drawn), Block("What these images look like", pictures=pictures)]
    title = f"accuracy on {len(images):,} test images"
    downloads = {
        "robustness.png": plot.accuracy_vs_severity({subject.run.config["model"]: found}, images[0], title=title)
    }
    return Section("robustness", "What it withstands", [lead], blocks, downloads)


def _spoilt(image: np.ndarray, name: str, severities: Sequence[float]) -> list[ImageTile]:
    return [
        tile(rgb.to_rgb(each), f"{name} of {strength:g}")
        for each, strength in zip(np.asarray(corrupt_at_severities(image, name, severities)), severities, strict=True)
    ]


MOST_HEALTH_IMAGES = 5000  # images that are gone through
MOST_HISTOGRAMS = 12
FEW = 64  # images whose outputs are counted

COLUMNS: dict[str, Callable[[LayerDiagnosis], str]] = {
    "layer": lambda row: row.name,
    "channels": lambda row: f"{row.channels:,}",
    "dead": lambda row: _number(row.dead, "d"),
    "live in": lambda row: f"{row.active_fraction:.1%}",
    "zeros": lambda row: f"{row.zero_fraction:.1%}",
    "saturated": lambda row: _number(row.saturation, ".1%"),
    "mean |ρ|": lambda row: _number(row.correlation, ".2f"),
    "doubles": lambda row: _number(row.duplicates, "d"),
    "gradient": lambda row: _number(row.gradient, ".1e"),
}


def health_section(subject: ReportContext) -> Section:
    """The table of :func:`jaxconv.explain.diagnose`, what it warns of, and how weights and feature maps are spread."""
    (model, params, state), (images, labels) = (
        subject.network,
        (subject.images[:MOST_HEALTH_IMAGES], subject.labels[:MOST_HEALTH_IMAGES]),
    )
    found = diagnose(model, params, state, images, labels)
    blocks = [Block(text=warning, tone="warning") for warning in found.warnings]
    if not blocks:
        blocks.append(Block(text="Nothing is wrong: no dead, doubled or starved filter.", tone="good"))
    rows = [[cell(row) for cell in COLUMNS.values()] for row in found.rows]
    blocks.append(Block(table=Table(list(COLUMNS), rows)))
    downloads: dict[str, Any] = {}
    correlated = [row.name for row in found.rows if row.facts.kernel_use == "slide" and row.correlation is not None]
    if correlated:
        name = correlated[-1]
        matrix = found.correlations[name].matrix
        shown = tile(rgb.diverging(np.nan_to_num(matrix), 1.0), f"correlations of the feature maps of {name}")
        text = f"Each pixel is a pair of filters of {name}: red if they answer together, blue if one or the other does."
        blocks.append(Block("Do its filters say the same?", text, tiles=[shown], size="large"))
        downloads["correlation.png"] = plot.correlation_matrix(matrix, title=f"feature maps of {name}")
    weights = {name: each for name, each in histograms(params).items() if name.endswith("kernel")}
    spread = [(f"weights of {name}", figures.bars(each.counts, each.edges, name)) for name, each in weights.items()]
    blocks.append(Block("How the weights are spread", charts=spread[:MOST_HISTOGRAMS]))
    downloads["weights.png"] = plot.histograms(weights, title="weights")
    layers = shown_layers(model)
    some = jax.device_get(jax.jit(lambda x: feature_maps(model, params, state, x, layers=layers))(images[:FEW]))
    outputs = histograms({name: some[name] for name in layers})
    spread = [(f"outputs of {name}", figures.bars(each.counts, each.edges, name)) for name, each in outputs.items()]
    blocks.append(Block("How the outputs are spread", charts=spread[:MOST_HISTOGRAMS]))
    downloads["activations.png"] = plot.histograms(outputs, title=f"outputs, of {len(images[:FEW])} test images")
    lead = (
        f"Seen on {len(images):,} test images. A filter is dead if it is zero for all of them; it is live in as many "
        "images as it answers to anywhere. Saturated outputs stand where their slope is nearly nothing. Feature maps "
        "that go together (|ρ| near 1) say the same twice. The gradient is that of the loss of one batch by the kernel."
    )
    return Section("health", "Health", [lead], blocks, downloads)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
