"""Why it answers as it does: the parts of each image that an attribution blames, and what the filters wait for."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxconv import plot, runtime
from jaxconv.explain import applicable_methods, grad_cam, maximize_activation, top_activating_patches
from jaxconv.explain.attribution import upsample_map
from jaxconv.layers import Layer
from jaxconv.plot import rgb
from jaxconv.report.context import ReportContext, spread
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, Pictures, Section

MOST_FILTERS, MOST_PATCHES, MOST_LAYERS = 10, 8, 3
STEPS = 128  # in which an image is made for a filter


def attribution_heatmaps(
    model: Layer, params: Any, state: Any, images: np.ndarray, labels: np.ndarray, layer: str | None = None
) -> dict[str, np.ndarray]:
    """Every attribution that can be asked of the model, of each image: by name, ``(N, H, W)``."""
    methods = applicable_methods(model, images.shape[1:])
    if layer is not None:
        methods["grad_cam"] = lambda model, params, state, images, label: upsample_map(
            grad_cam(model, params, state, images, label, layer=layer), images.shape[1:3]
        )
    quickly = runtime.fast_compile_options()  # each runs once

    def heat(method: Callable[..., jax.Array]) -> np.ndarray:
        program = jax.jit(lambda x, label: method(model, params, state, x, label), compiler_options=quickly)
        return np.asarray(program(images, labels))

    return {name: heat(method) for name, method in methods.items()}


def attention_section(subject: ReportContext) -> Section:
    """For each image a row, and a column for each attribution."""
    images, labels, names, said = subject.examples
    heats = attribution_heatmaps(*subject.network, images, labels, subject.layer)
    rows = []
    for i, (name, answer) in enumerate(zip(names, said, strict=True)):
        row = [tile(rgb.to_rgb(images[i]), name)]
        row += [tile(rgb.overlay(images[i], heat[i]), f"{method} of {name}") for method, heat in heats.items()]
        rows.append((f"{name} → {answer}", row))
    headings = ["", "image", *(method.replace("_", " ") for method in heats)]
    lead = (
        "Each picture answers in its own way what in the image speaks for the class: where a grey patch hurts most "
        "(occlusion), where a change of a pixel would count (saliency and its smoother kin), which parts of the last "
        "feature maps speak for the class (Grad-CAM). Bright is much. They need not agree; where they do, believe them "
        "sooner."
    )
    titles = [f"{name} → {answer}" for name, answer in zip(names, said, strict=True)]
    figures = {"attributions.png": plot.attributions(images, heats, titles)}
    return Section("attention", "What it looked at", [lead], [Block(pictures=Pictures(headings, rows))], figures)


def feature_visualization_section(subject: ReportContext) -> Section | None:
    """What some filters wait for: an image made for each, and the parts of test images that excite it most."""
    (model, params, state), images = subject.network, subject.images
    if not subject.convolutions:
        return None
    blocks, key = [], jax.random.key(0)
    for row in spread(subject.convolutions, MOST_LAYERS):
        channels = range(min(MOST_FILTERS, row.shape[-1]))
        made = maximize_activation(
            model,
            params,
            state,
            images.shape[1:],
            layer=row.name,
            channels=channels,
            key=key,
            num_steps=STEPS,
        )
        found = top_activating_patches(
            model, params, state, images, layer=row.name, channels=channels, count=min(MOST_PATCHES, len(images))
        )
        rows = [
            (
                f"filter {k}",
                [
                    tile(rgb.to_rgb(np.asarray(made[k])), f"made for filter {k} of {row.name}"),
                    *(tile(rgb.to_rgb(patch), f"excites filter {k} of {row.name}") for patch in found.patches[k]),
                ],
            )
            for k in channels
        ]
        headings = ["", "made for it", "strongest", *[""] * (found.patches.shape[1] - 1)]
        sees = "×".join(map(str, row.receptive_field)) if row.receptive_field else "all"
        blocks.append(Block(f"{row.name}, which sees {sees} pixels", pictures=Pictures(headings, rows)))
    lead = (
        "The first picture of each row was grey, and was changed until the filter answered as much as it can. Beside "
        "it are the parts of real images that excite the filter most, as large as its receptive field. Deeper layers "
        "see more, and wait for more than an edge."
    )
    figures = {
        "patches.png": plot.activating_patches(found, f"what excites the filters of {row.name} most")
    }  # of the last layer
    return Section("wishes", "What the filters wait for", [lead], blocks, figures)
