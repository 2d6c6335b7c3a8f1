"""Sections on the model: its summary, one output as a sum, its kernels and its feature maps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import plot, runtime, train
from jaxconv.explain import arithmetic, colorfulness, feature_maps, kernel_change, kernel_channel_images, kernel_images
from jaxconv.explain.intermediates import check_images
from jaxconv.explain.summary import COLUMNS
from jaxconv.layers import Layer
from jaxconv.layers.traversal import get_subtree, intercept, kernels_by_layer, named_layers
from jaxconv.plot import rgb
from jaxconv.report.context import ReportContext, evenly_spaced
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, Details, ImageTable, Section, Table
from jaxconv.shapes import Window


def network_section(context: ReportContext) -> Section:
    """Build the table of :func:`jaxconv.explain.summarize`."""
    summary = context.summary
    rows = [[column.cell(summary, row) for column in COLUMNS] for row in summary.rows]
    rows.append([column.total(summary) for column in COLUMNS])
    intro = (
        "The receptive field is the size of the region that one output depends on, in pixels of the image; the stride "
        "is the distance of the regions of neighboring outputs. “dense params” counts the weights of a fully connected "
        "layer between the same shapes."
    )
    table = Table([column.heading for column in COLUMNS], rows)
    return Section("network", "Model summary", [intro], [Block(table=table)])


class _ConvolutionCall(NamedTuple):
    """A convolution with its input and output in a forward pass."""

    path: str
    window: Window
    x: jax.Array
    y: jax.Array


def arithmetic_section(context: ReportContext) -> Section | None:
    """Write out the sum behind the largest output of the first convolution; None without a convolution."""
    (model, params, state), image = context.network, context.examples.images[0]
    call = _first_convolution(model, params, state, image)
    if call is None:
        return None
    index = tuple(int(i) for i in np.unravel_index(np.argmax(call.y), call.y.shape))
    layer_params = get_subtree(params, call.path) or params  # in a single-layer model the parameters have no prefix
    kernel = layer_params["kernel"]
    _, stride, padding, dilation = call.window
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": call.x.shape[-1] // kernel.shape[-2],
    }
    arrays = [call.x, kernel, *([layer_params["bias"]] if "bias" in layer_params else [])]
    steps = arithmetic("conv", *arrays, index=index, **options)
    output = float(call.y[index])
    if abs(steps.total - output) > 1e-3 * max(1.0, abs(output)):  # another kind of padding, or a flipped kernel
        return None
    intro = (
        f"The largest output of {call.path} for this image is at row {index[1]}, column {index[2]} of feature map "
        f"{index[3]}. It is the sum of each pixel in the window times its weight, plus the bias."
    )
    block = Block(tiles=[tile(rgb.to_rgb(image), "input image")], size="large", pre=str(steps))
    return Section("arithmetic", "Arithmetic of one output", [intro], [block])


def _first_convolution(model: Layer, params: Any, state: Any, image: np.ndarray) -> _ConvolutionCall | None:
    calls: list[_ConvolutionCall] = []

    def record(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if layer.facts.kernel_use == "slide" and layer.window is not None and x.ndim == 4 and not calls:
            calls.append(_ConvolutionCall(path, layer.window, x, y))
        return y

    intercept(model, params, state, check_images(image[None]), record)
    return calls[0] if calls else None


MOST_FILTERS, MOST_DEEPER, MOST_KERNEL_CHANNELS = 64, 8, 12


def filters_section(context: ReportContext) -> Section | None:
    """Draw the filters of the first layer as images, and some of the last convolution channel by channel."""
    (model, params, _), input_shape = context.network, context.summary.input_shape
    if not context.convolutions:
        return None
    key, _ = train.split_seed(context.run.config["seed"])
    init = jax.jit(model.init, static_argnums=1, compiler_options=runtime.fast_compile_options())
    kernels, untrained = kernels_by_layer(model, params), kernels_by_layer(model, init(key, input_shape)[0])
    first, *deeper = (row.name for row in context.convolutions)
    blocks, figures = [], {}
    kernel, before = np.asarray(kernels[first]), np.asarray(untrained[first])
    if kernel.shape[2] in (1, 3):
        blocks += _first_layer_blocks(first, kernel, before)
        figures["filters.png"] = plot.kernels(kernel, before=before, title=f"{first}, before and after training")
    if deeper:
        blocks.append(_deeper_layer_block(deeper[-1], np.asarray(kernels[deeper[-1]])))
    intro = (
        "Gray is zero, brighter is positive and darker negative, each filter on its own scale. A filter responds most "
        "to patches that resemble it. “cos” is the cosine similarity of a filter before and after training: 1 if "
        "training did not change its direction."
    )
    return Section("filters", "Filters", [intro], blocks, figures)


def _first_layer_blocks(name: str, kernel: np.ndarray, before: np.ndarray) -> list[Block]:
    cosines = np.asarray(kernel_change(before, kernel).cosine)
    captions = [f"{k}: cos {cosine:.2f}" for k, cosine in enumerate(cosines)]
    text = ""
    if kernel.shape[2] == 3:
        color_fractions = np.asarray(colorfulness(kernel))
        pairs = zip(captions, color_fractions, strict=True)
        captions = [f"{caption}\n{fraction:.0%} color" for caption, fraction in pairs]
        text = (
            f"{int((color_fractions > 0.5).sum())} of {len(color_fractions)} filters respond more to color than to "
            "brightness."
        )
    trained, untrained = (np.asarray(kernel_images(array))[:MOST_FILTERS] for array in (kernel, before))
    selection = "" if len(captions) <= MOST_FILTERS else f", first {MOST_FILTERS} of {len(captions)}"
    return [
        Block(
            f"{name} after training{selection}",
            text,
            tiles=[tile(rgb.to_rgb(image), f"filter {k}", captions[k]) for k, image in enumerate(trained)],
            size="filters",
        ),
        Block(
            f"{name} before training",
            tiles=[tile(rgb.to_rgb(image), f"filter {k} before training", f"{k}") for k, image in enumerate(untrained)],
            size="filters",
        ),
    ]


def _deeper_layer_block(name: str, kernel: np.ndarray) -> Block:
    filters = np.asarray(kernel_channel_images(kernel))[:MOST_DEEPER, :MOST_KERNEL_CHANNELS]
    rows = [
        (f"filter {k}", [tile(rgb.diverging(image, 1.0), f"filter {k}, channel {c}") for c, image in enumerate(images)])
        for k, images in enumerate(filters)
    ]
    headings = ["", *(f"channel {c}" for c in range(filters.shape[1]))]
    text = (
        f"A filter of {name} has one image per input channel: positive weights red, negative blue. Shown: "
        f"{filters.shape[0]} of {kernel.shape[3]} filters, {filters.shape[1]} of {kernel.shape[2]} channels."
    )
    return Block(name, text, images=ImageTable(headings, rows))


MOST_LAYERS, MOST_CHANNELS = 14, 64


def shown_layers(model: Layer) -> tuple[str, ...]:
    """Select the layers to show: those that change their input, evenly spaced in a deep network."""
    layers = named_layers(model)
    selected = [name for name, layer in layers.items() if not layer.facts.identity_at_inference]
    if len(selected) > MOST_LAYERS:  # in a deep network, prefer the outputs of blocks to the layers inside them
        selected = [name for name in selected if "/" not in name]
    return tuple(evenly_spaced(selected, MOST_LAYERS))


def features_section(context: ReportContext) -> Section:
    """Draw the feature maps of each example, one collapsible block per image."""
    (model, params, state), (images, _, names, predictions) = context.network, context.examples
    layers = shown_layers(model)
    maps = jax.device_get(jax.jit(lambda x: feature_maps(model, params, state, x, layers=layers))(images))
    details = []
    for i, (name, prediction) in enumerate(zip(names, predictions, strict=True)):
        tiles = []
        for layer in layers:
            y = maps[layer][i]
            tiles.append((heading(layer, y.shape), tile(rgb.feature_maps(y, MOST_CHANNELS), f"{layer} of {name}")))
        details.append(Details(f"{name} → {prediction}", tile(rgb.to_rgb(images[i]), name), tiles))
    intro = (
        "One small image per channel; bright is a large output. For a layer with signed outputs, positive is red and "
        "negative blue. All channels of a layer have the same scale, so a dark map has small outputs for this image."
    )
    return Section("features", "Feature maps", [intro], [Block(details=details)])


def heading(layer: str, shape: tuple[int, ...]) -> str:
    """Format the heading of a layer's feature maps: name, shape, and the number of maps if not all are shown."""
    size = "×".join(map(str, shape))
    hidden = shape[-1] - MOST_CHANNELS
    return f"{layer} ({size})" + (f", first {MOST_CHANNELS} maps" if hidden > 0 and len(shape) > 1 else "")
