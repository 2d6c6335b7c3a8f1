"""Arithmetic of sliding windows on integers: output sizes, padding and receptive fields.

It uses no arrays of a framework, so every size is known before a network runs.
"""

from jaxconv.shapes.receptive_fields import (
    PositionedReceptiveField,
    ReceptiveField,
    coverage,
    receptive_field,
    tap_indices,
)
from jaxconv.shapes.windows import (
    PADDINGS,
    IntOrInts,
    Padding,
    ResolvedWindow,
    Window,
    canonicalize_padding,
    canonicalize_sizes,
    countable,
    dilated_size,
    is_int,
    output_size,
    resolve_padding,
    resolve_window,
)

__all__ = [
    "PADDINGS",
    "IntOrInts",
    "Padding",
    "PositionedReceptiveField",
    "ReceptiveField",
    "ResolvedWindow",
    "Window",
    "canonicalize_padding",
    "canonicalize_sizes",
    "countable",
    "coverage",
    "dilated_size",
    "is_int",
    "output_size",
    "receptive_field",
    "resolve_padding",
    "resolve_window",
    "tap_indices",
]
