"""Where the network looks, and what becomes of it when images are moved, turned or spoilt."""

from collections.abc import Sequence

import numpy as np

from jaxconv import plot
from jaxconv.explain import coverage_map, robustness, translation_test
from jaxconv.explain.corruptions import DISTORTIONS, at_strengths
from jaxconv.explain.receptive_fields import fields
from jaxconv.layers.traversal import named_layers
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import Subject, spread
from jaxconv.report.images import Tile, tile
from jaxconv.report.page import Block, Pictures, Section

SPOILT = ("rotation", "scale", "stroke_width", "noise")
MOST_FIELDS = 6
MOST_ROBUSTNESS_IMAGES = 1000  # images, for each strength of each distortion


def geometry_section(subject: Subject) -> Section | None:
    """The receptive field of each layer's middle output, drawn on an image, and how often each pixel is looked at."""
    model, summary, image = subject.run.model, subject.summary, subject.examples.images[0]
    views = {name: view for name, view in fields(model, summary.in_shape).items() if view is not None}
    kinds = named_layers(model)
    steps = [name for name in views if kinds[name].window is not None]  # those where more comes into sight
    if not steps:
        return None
    shapes = {row.name: row.shape for row in summary.rows}
    boxes = {name: views[name].box([n // 2 for n in shapes[name][:-1]]) for name in spread(steps, MOST_FIELDS)}
    drawn, covered = [], []
    for name, box in boxes.items():
        seen = "×".join(str(high - low) for low, high in box)
        drawn.append(tile(rgb.framed(image, box), f"what one output of {name} sees", f"{name}: {seen}"))
        counts = coverage_map(model, summary.in_shape, layer=name)
        covered.append(
            tile(rgb.heat(counts), f"how often {name} sees each pixel", f"{name}: {counts.min()} to {counts.max()}")
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


def robustness_section(subject: Subject) -> Section:
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
    found = robustness(model, params, state, images, labels, distortions=SPOILT)
    shift = {"accuracy": ([m.shift for m in moved], [m.accuracy for m in moved])}
    shift["distance of the features"] = ([m.shift for m in moved], [m.distance for m in moved])
    drawn = [("accuracy against shift", figures.lines(shift, "pixels to the right", "accuracy, distance"))]
    for name, pairs in found.items():
        line = {name: ([s for s, _ in pairs], [a for _, a in pairs])}
        said = name.replace("_", " ")
        drawn.append((f"accuracy against {said}", figures.lines(line, f"{said}: {DISTORTIONS[name].unit}", "accuracy")))
    rows = [(name.replace("_", " "), _spoilt(images[0], name, [s for s, _ in found[name]])) for name in SPOILT]
    width = max(len(tiles) for _, tiles in rows)
    lead = (
        f"Accuracy on {len(images):,} test images that are unlike those it was trained on. The distance is how far the "
        "features before the last layer move, as a share of their length."
    )
    pictures = Pictures(["", *[""] * width], rows)
    blocks = [Block(charts=drawn), Block("What these images look like", pictures=pictures)]
    title = f"accuracy on {len(images):,} test images"
    downloads = {"robustness.png": plot.robustness({subject.run.config["model"]: found}, images[0], title=title)}
    return Section("robustness", "What it withstands", [lead], blocks, downloads)


def _spoilt(image: np.ndarray, name: str, strengths: Sequence[float]) -> list[Tile]:
    return [
        tile(rgb.picture(each), f"{name} of {strength:g}")
        for each, strength in zip(np.asarray(at_strengths(image, name, strengths)), strengths, strict=True)
    ]
