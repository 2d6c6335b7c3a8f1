"""The arithmetic of sliding windows: integers in, integers out.

No array of any framework is touched, so all of it is known before a network runs.
"""

from jaxconv.shapes.receptive_fields import PlacedView, View, coverage, receptive_field, tap_pixels
from jaxconv.shapes.windows import (
    PADDINGS,
    Padding,
    ResolvedWindow,
    Sizes,
    Window,
    countable,
    is_int,
    output_size,
    padding_per_dimension,
    per_dimension,
    resolve,
    resolve_padding,
    span,
)

__all__ = [
    "PADDINGS",
    "Padding",
    "PlacedView",
    "ResolvedWindow",
    "Sizes",
    "View",
    "Window",
    "countable",
    "coverage",
    "is_int",
    "output_size",
    "padding_per_dimension",
    "per_dimension",
    "receptive_field",
    "resolve",
    "resolve_padding",
    "span",
    "tap_pixels",
]
