"""What the network learned: the filters of its convolutions, before and after training."""

import jax
import numpy as np

from jaxconv import plot, runtime, train
from jaxconv.explain import change, channel_images, colourfulness, filter_images
from jaxconv.explain.owners import with_kernel
from jaxconv.plot import rgb
from jaxconv.report.context import Subject
from jaxconv.report.images import tile
from jaxconv.report.page import Block, Pictures, Section

MOST_FILTERS, MOST_DEEPER, MOST_KERNEL_CHANNELS = 64, 8, 12


def filters_section(subject: Subject) -> Section | None:
    """The first layer's filters as images, and some of a deeper one's channel by channel."""
    (model, params, _), in_shape = subject.network, subject.summary.in_shape
    if not subject.convolutions:
        return None
    init, _ = train.root_keys(subject.run.config["seed"])
    start = jax.jit(model.init, static_argnums=1, compiler_options=runtime.hasty_options())(init, in_shape)[0]
    kernels, untrained = with_kernel(model, params), with_kernel(model, start)
    first, *deeper = (row.name for row in subject.convolutions)
    blocks, figures = [], {}
    kernel, before = np.asarray(kernels[first]), np.asarray(untrained[first])
    if kernel.shape[2] in (1, 3):
        blocks += _first(first, kernel, before)
        figures["filters.png"] = plot.filters(kernel, before=before, title=f"{first}, before and after training")
    if deeper:
        blocks.append(_deeper(deeper[-1], np.asarray(kernels[deeper[-1]])))
    lead = (
        "Grey is zero, bright is above and dark below it: a filter answers to what looks like it. Each has a scale of "
        "its own. The cosine tells how much of what chance began with is left: 1 is all of it, 0 nothing."
    )
    return Section("filters", "Filters", [lead], blocks, figures)


def _first(name: str, kernel: np.ndarray, before: np.ndarray) -> list[Block]:
    left = np.asarray(change(before, kernel).cosine)
    captions = [f"{k}: cos {cosine:.2f}" for k, cosine in enumerate(left)]
    text = ""
    if kernel.shape[2] == 3:
        colour = np.asarray(colourfulness(kernel))
        captions = [f"{caption}\n{share:.0%} colour" for caption, share in zip(captions, colour, strict=True)]
        text = f"Of {len(colour)} filters {int((colour > 0.5).sum())} look at colour more than at brightness."
    trained, random = (np.asarray(filter_images(each))[:MOST_FILTERS] for each in (kernel, before))
    which = "" if len(captions) <= MOST_FILTERS else f", the first {MOST_FILTERS} of {len(captions)}"
    return [
        Block(
            f"{name} after training{which}",
            text,
            tiles=[tile(rgb.picture(image), f"filter {k}", captions[k]) for k, image in enumerate(trained)],
            size="filters",
        ),
        Block(
            "The same before it",
            tiles=[tile(rgb.picture(image), f"filter {k} before training", f"{k}") for k, image in enumerate(random)],
            size="filters",
        ),
    ]


def _deeper(name: str, kernel: np.ndarray) -> Block:
    shown = np.asarray(channel_images(kernel))[:MOST_DEEPER, :MOST_KERNEL_CHANNELS]
    rows = [
        (f"filter {k}", [tile(rgb.signed(each, 1.0), f"filter {k}, channel {c}") for c, each in enumerate(row)])
        for k, row in enumerate(shown)
    ]
    headings = ["", *(f"channel {c}" for c in range(shown.shape[1]))]
    text = (
        f"A filter of {name} has a picture for each of the {kernel.shape[2]} channels that it sees: red where it wants "
        f"them bright, blue where dark. Here are {shown.shape[0]} of {kernel.shape[3]} filters and {shown.shape[1]} "
        "channels."
    )
    return Block(name, text, pictures=Pictures(headings, rows))
