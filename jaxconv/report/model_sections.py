"""The network itself: its table, and the sum behind one of its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv.explain import arithmetic
from jaxconv.explain.intermediates import check_images
from jaxconv.explain.summary_table import COLUMNS
from jaxconv.layers import Layer
from jaxconv.layers.traversal import part_of, walk
from jaxconv.plot import rgb
from jaxconv.report.context import Subject
from jaxconv.report.images import tile
from jaxconv.report.page import Block, Section, Table
from jaxconv.shapes import Window


def network_section(subject: Subject) -> Section:
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


def arithmetic_section(subject: Subject) -> Section | None:
    """The sum behind the largest number that the first convolution makes of an image, if there is a convolution."""
    (model, params, state), image = subject.network, subject.examples.images[0]
    used = _first_convolution(model, params, state, image)
    if used is None:
        return None
    at = tuple(int(i) for i in np.unravel_index(np.argmax(used.y), used.y.shape))
    of = part_of(params, used.path) or params  # of a model of one layer they have no name
    kernel = of["kernel"]
    _, stride, padding, dilation = used.window
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": used.x.shape[-1] // kernel.shape[-2],
    }
    arrays = [used.x, kernel, *([of["bias"]] if "bias" in of else [])]
    found = arithmetic("conv", *arrays, at=at, **options)
    made = float(used.y[at])
    if abs(found.total - made) > 1e-3 * max(1.0, abs(made)):  # it pads in another way, or flips its kernel
        return None
    lead = (
        f"The largest number that {used.path} makes of this image stands at row {at[1]}, column {at[2]} of feature map "
        f"{at[3]}. It is a sum: each pixel that the filter sees, times the weight that lies over it, and the bias."
    )
    block = Block(tiles=[tile(rgb.picture(image), "the image")], size="large", pre=str(found))
    return Section("arithmetic", "The arithmetic of one pixel", [lead], [block])


def _first_convolution(model: Layer, params: Any, state: Any, image: np.ndarray) -> _Used | None:
    met: list[_Used] = []

    def look(path: str, layer: Layer, x: jax.Array, apply: Callable[[jax.Array], jax.Array]) -> jax.Array:
        y = apply(x)
        if layer.kind == "conv" and layer.window is not None and x.ndim == 4 and not met:
            met.append(_Used(path, layer.window, x, y))
        return y

    walk(model, params, state, check_images("arithmetic", image[None]), look)
    return met[0] if met else None
