"""Sections on attribution: heatmaps of each example, and the inputs that activate some filters most."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxconv import plot, runtime
from jaxconv.explain import applicable_methods, grad_cam, maximize_activation, top_activating_patches
from jaxconv.explain.attribution import upsample_map
from jaxconv.layers import Layer
from jaxconv.plot import rgb
from jaxconv.report.context import ReportContext, evenly_spaced
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, ImageTable, Section

MOST_FILTERS, MOST_PATCHES, MOST_LAYERS = 10, 8, 3
STEPS = 128  # gradient ascent steps of each maximizing image


def attribution_heatmaps(
    model: Layer, params: Any, state: Any, images: np.ndarray, labels: np.ndarray, layer: str | None = None
) -> dict[str, np.ndarray]:
    """Compute every applicable attribution of each image: by method, ``(N, H, W)``."""
    methods = applicable_methods(model, images.shape[1:])
    if layer is not None:
        methods["grad_cam"] = lambda model, params, state, images, label: upsample_map(
            grad_cam(model, params, state, images, label, layer=layer), images.shape[1:3]
        )
    options = runtime.fast_compile_options()  # each method runs once, so compile time dominates

    def compute_heatmap(method: Callable[..., jax.Array]) -> np.ndarray:
        compiled = jax.jit(lambda x, label: method(model, params, state, x, label), compiler_options=options)
        return np.asarray(compiled(images, labels))

    return {name: compute_heatmap(method) for name, method in methods.items()}


def attention_section(context: ReportContext) -> Section:
    """Build a table with one row per image and one column per attribution method."""
    images, labels, names, predictions = context.examples
    heatmaps = attribution_heatmaps(*context.network, images, labels, context.layer)
    titles = [f"{name} → {prediction}" for name, prediction in zip(names, predictions, strict=True)]
    rows = []
    for i, (name, title) in enumerate(zip(names, titles, strict=True)):
        row = [tile(rgb.to_rgb(images[i]), name)]
        row += [tile(rgb.overlay(images[i], heatmap[i]), f"{method} of {name}") for method, heatmap in heatmaps.items()]
        rows.append((title, row))
    headings = ["", "image", *(method.replace("_", " ") for method in heatmaps)]
    intro = (
        "Each column is one attribution method; bright pixels matter most for the class. Occlusion measures the loss "
        "of probability when a gray patch covers a region. Saliency and its variants use the gradient with respect to "
        "the pixels. Grad-CAM weights the last feature maps by their gradients. The methods need not agree; regions "
        "on which they agree are more reliable."
    )
    figures = {"attributions.png": plot.attributions(images, heatmaps, titles)}
    return Section("attention", "Attribution", [intro], [Block(images=ImageTable(headings, rows))], figures)


def feature_visualization_section(context: ReportContext) -> Section | None:
    """Build a table of filters: a maximizing image, and the patches of test images that activate the filter most."""
    (model, params, state), images = context.network, context.images
    if not context.convolutions:
        return None
    blocks, key = [], jax.random.key(0)
    for layer in evenly_spaced(context.convolutions, MOST_LAYERS):
        channels = range(min(MOST_FILTERS, layer.shape[-1]))
        maximizing_images = maximize_activation(
            model,
            params,
            state,
            images.shape[1:],
            layer=layer.name,
            channels=channels,
            key=key,
            num_steps=STEPS,
        )
        top = top_activating_patches(
            model, params, state, images, layer=layer.name, channels=channels, count=min(MOST_PATCHES, len(images))
        )
        rows = [
            (
                f"filter {k}",
                [
                    tile(rgb.to_rgb(np.asarray(maximizing_images[k])), f"maximizes filter {k} of {layer.name}"),
                    *(tile(rgb.to_rgb(patch), f"activates filter {k} of {layer.name}") for patch in top.patches[k]),
                ],
            )
            for k in channels
        ]
        headings = ["", "maximizing image", "top patches", *[""] * (top.patches.shape[1] - 1)]
        field = "×".join(map(str, layer.receptive_field)) if layer.receptive_field else "all"
        blocks.append(Block(f"{layer.name}, receptive field {field} pixels", images=ImageTable(headings, rows)))
    intro = (
        "The first image of each row started gray and was optimized to maximize the activation of the filter "
        "(activation maximization). The others are the patches of test images that activate the filter most, as large "
        "as its receptive field. Deeper layers have larger receptive fields and respond to more than edges."
    )
    figures = {
        "patches.png": plot.activating_patches(top, f"top-activating patches of {layer.name}")
    }  # of the deepest layer
    return Section("feature-visualization", "Feature visualization", [intro], blocks, figures)
