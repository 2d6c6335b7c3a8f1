"""The arithmetic of sliding windows: integers in, integers out.

No array of any framework is touched, so all of it is known before a network runs.
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
