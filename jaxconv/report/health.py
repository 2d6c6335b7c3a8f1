"""Which of its parts work: filters that are dead or doubled, units that are saturated, gradients that do not arrive."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxconv import plot
from jaxconv.explain import feature_maps, health, histograms
from jaxconv.explain.diagnostics import HealthRow
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import Subject
from jaxconv.report.features import shown_layers
from jaxconv.report.images import tile
from jaxconv.report.page import Block, Section, Table

MOST_HEALTH_IMAGES = 5000  # images that are gone through
MOST_HISTOGRAMS = 12
FEW = 64  # images whose outputs are counted

COLUMNS: dict[str, Callable[[HealthRow], str]] = {
    "layer": lambda row: row.name,
    "channels": lambda row: f"{row.channels:,}",
    "dead": lambda row: _number(row.dead, "d"),
    "live in": lambda row: f"{row.live:.1%}",
    "zeros": lambda row: f"{row.zeros:.1%}",
    "saturated": lambda row: _number(row.saturation, ".1%"),
    "mean |ρ|": lambda row: _number(row.correlation, ".2f"),
    "doubles": lambda row: _number(row.duplicates, "d"),
    "gradient": lambda row: _number(row.gradient, ".1e"),
}


def health_section(subject: Subject) -> Section:
    """The table of :func:`jaxconv.explain.health`, what it warns of, and how weights and feature maps are spread."""
    (model, params, state), (images, labels) = (
        subject.network,
        (subject.images[:MOST_HEALTH_IMAGES], subject.labels[:MOST_HEALTH_IMAGES]),
    )
    found = health(model, params, state, images, labels)
    blocks = [Block(text=warning, tone="warning") for warning in found.warnings]
    if not blocks:
        blocks.append(Block(text="Nothing is wrong: no dead, doubled or starved filter.", tone="good"))
    rows = [[cell(row) for cell in COLUMNS.values()] for row in found.rows]
    blocks.append(Block(table=Table(list(COLUMNS), rows)))
    downloads: dict[str, Any] = {}
    correlated = [row.name for row in found.rows if row.kind == "conv" and row.correlation is not None]
    if correlated:
        name = correlated[-1]
        matrix = found.correlations[name].matrix
        shown = tile(rgb.signed(np.nan_to_num(matrix), 1.0), f"correlations of the feature maps of {name}")
        text = f"Each pixel is a pair of filters of {name}: red if they answer together, blue if one or the other does."
        blocks.append(Block("Do its filters say the same?", text, tiles=[shown], size="large"))
        downloads["correlation.png"] = plot.correlation(matrix, title=f"feature maps of {name}")
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
