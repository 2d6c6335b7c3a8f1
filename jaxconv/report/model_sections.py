"""Sections on the network: its table, one output element as a sum, its kernels and its feature maps."""

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
from jaxconv.report.context import ReportContext, spread
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, Details, Pictures, Section, Table
from jaxconv.shapes import Window


def network_section(subject: ReportContext) -> Section:
    """The table of :func:`jaxconv.explain.summarize`."""
    summary = subject.summary
    rows = [[column.cell(summary, row) for column in COLUMNS] for row in summary.rows]
    rows.append([column.total(summary) for column in COLUMNS])
    lead = (
        "What a layer sees is its receptive field, in pixels of the image; its jump is how far apart neighbours look. "
        "“If dense” is how many weights a fully connected layer between the same numbers would have."
    )
    table = Table([column.heading for column in COLUMNS], rows)
    return Section("network", "The network", [lead], [Block(table=table)])


class _Used(NamedTuple):
    """A convolution as a network uses it."""

    path: str
    window: Window
    x: jax.Array
    y: jax.Array


def arithmetic_section(subject: ReportContext) -> Section | None:
    """The sum behind the largest number that the first convolution makes of an image, if there is a convolution."""
    (model, params, state), image = subject.network, subject.examples.images[0]
    used = _first_convolution(model, params, state, image)
    if used is None:
        return None
    at = tuple(int(i) for i in np.unravel_index(np.argmax(used.y), used.y.shape))
    of = get_subtree(params, used.path) or params  # of a model of one layer they have no name
    kernel = of["kernel"]
    _, stride, padding, dilation = used.window
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": used.x.shape[-1] // kernel.shape[-2],
    }
    arrays = [used.x, kernel, *([of["bias"]] if "bias" in of else [])]
    found = arithmetic("conv", *arrays, index=at, **options)
    made = float(used.y[at])
    if abs(found.total - made) > 1e-3 * max(1.0, abs(made)):  # it pads in another way, or flips its kernel
        return None
    lead = (
        f"The largest number that {used.path} makes of this image stands at row {at[1]}, column {at[2]} of feature map "
        f"{at[3]}. It is a sum: each pixel that the filter sees, times the weight that lies over it, and the bias."
    )
    block = Block(tiles=[tile(rgb.to_rgb(image), "the image")], size="large", pre=str(found))
    return Section("arithmetic", "The arithmetic of one pixel", [lead], [block])


def _first_convolution(model: Layer, params: Any, state: Any, image: np.ndarray) -> _Used | None:
    met: list[_Used] = []

    def look(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if layer.facts.kernel_use == "slide" and layer.window is not None and x.ndim == 4 and not met:
            met.append(_Used(path, layer.window, x, y))
        return y

    intercept(model, params, state, check_images(image[None]), look)
    return met[0] if met else None


MOST_FILTERS, MOST_DEEPER, MOST_KERNEL_CHANNELS = 64, 8, 12


def filters_section(subject: ReportContext) -> Section | None:
    """The first layer's filters as images, and some of a deeper one's channel by channel."""
    (model, params, _), input_shape = subject.network, subject.summary.input_shape
    if not subject.convolutions:
        return None
    init, _ = train.split_seed(subject.run.config["seed"])
    start = jax.jit(model.init, static_argnums=1, compiler_options=runtime.fast_compile_options())(init, input_shape)[0]
    kernels, untrained = kernels_by_layer(model, params), kernels_by_layer(model, start)
    first, *deeper = (row.name for row in subject.convolutions)
    blocks, figures = [], {}
    kernel, before = np.asarray(kernels[first]), np.asarray(untrained[first])
    if kernel.shape[2] in (1, 3):
        blocks += _first(first, kernel, before)
        figures["filters.png"] = plot.kernels(kernel, before=before, title=f"{first}, before and after training")
    if deeper:
        blocks.append(_deeper(deeper[-1], np.asarray(kernels[deeper[-1]])))
    lead = (
        "Grey is zero, bright is above and dark below it: a filter answers to what looks like it. Each has a scale of "
        "its own. The cosine tells how much of what chance began with is left: 1 is all of it, 0 nothing."
    )
    return Section("filters", "Filters", [lead], blocks, figures)


def _first(name: str, kernel: np.ndarray, before: np.ndarray) -> list[Block]:
    left = np.asarray(kernel_change(before, kernel).cosine)
    captions = [f"{k}: cos {cosine:.2f}" for k, cosine in enumerate(left)]
    text = ""
    if kernel.shape[2] == 3:
        colour = np.asarray(colorfulness(kernel))
        captions = [f"{caption}\n{share:.0%} colour" for caption, share in zip(captions, colour, strict=True)]
        text = f"Of {len(colour)} filters {int((colour > 0.5).sum())} look at colour more than at brightness."
    trained, random = (np.asarray(kernel_images(each))[:MOST_FILTERS] for each in (kernel, before))
    which = "" if len(captions) <= MOST_FILTERS else f", the first {MOST_FILTERS} of {len(captions)}"
    return [
        Block(
            f"{name} after training{which}",
            text,
            tiles=[tile(rgb.to_rgb(image), f"filter {k}", captions[k]) for k, image in enumerate(trained)],
            size="filters",
        ),
        Block(
            "The same before it",
            tiles=[tile(rgb.to_rgb(image), f"filter {k} before training", f"{k}") for k, image in enumerate(random)],
            size="filters",
        ),
    ]


def _deeper(name: str, kernel: np.ndarray) -> Block:
    shown = np.asarray(kernel_channel_images(kernel))[:MOST_DEEPER, :MOST_KERNEL_CHANNELS]
    rows = [
        (f"filter {k}", [tile(rgb.diverging(each, 1.0), f"filter {k}, channel {c}") for c, each in enumerate(row)])
        for k, row in enumerate(shown)
    ]
    headings = ["", *(f"channel {c}" for c in range(shown.shape[1]))]
    text = (
        f"A filter of {name} has a picture for each of the {kernel.shape[2]} channels that it sees: red where it wants "
        f"them bright, blue where dark. Here are {shown.shape[0]} of {kernel.shape[3]} filters and {shown.shape[1]} "
        "channels."
    )
    return Block(name, text, pictures=Pictures(headings, rows))


MOST_LAYERS, MOST_CHANNELS = 14, 64


def shown_layers(model: Layer) -> tuple[str, ...]:
    """The layers whose outputs are worth a look; of a deep network some, from the first to the last."""
    layers = named_layers(model)
    seen = [name for name, layer in layers.items() if not layer.facts.identity_at_inference]
    if len(seen) > MOST_LAYERS:  # the sums of its blocks tell more than what is within them
        seen = [name for name in seen if "/" not in name]
    return tuple(spread(seen, MOST_LAYERS))


def features_section(subject: ReportContext) -> Section:
    """The feature maps of each image, to be opened one image at a time."""
    (model, params, state), (images, _, names, said) = subject.network, subject.examples
    layers = shown_layers(model)
    maps = jax.device_get(jax.jit(lambda x: feature_maps(model, params, state, x, layers=layers))(images))
    folded = []
    for i, (name, answer) in enumerate(zip(names, said, strict=True)):
        shown = []
        for layer in layers:
            y = maps[layer][i]
            shown.append((heading(layer, y.shape), tile(rgb.feature_maps(y, MOST_CHANNELS), f"{layer} of {name}")))
        folded.append(Details(f"{name} → {answer}", tile(rgb.to_rgb(images[i]), name), shown))
    lead = (
        "One small picture for each filter: bright is where it answers. Where a layer's numbers have both signs, red "
        "is above zero and blue below. All of a layer share one scale: a filter that stays dark has little to say here."
    )
    return Section("features", "Feature maps", [lead], [Block(folded=folded)])


def heading(layer: str, shape: tuple[int, ...]) -> str:
    """What stands above a layer's feature maps: its name, its shape, and how many are left out."""
    size = "×".join(map(str, shape))
    hidden = shape[-1] - MOST_CHANNELS
    return f"{layer} ({size})" + (f", the first {MOST_CHANNELS} maps" if hidden > 0 and len(shape) > 1 else "")
