"""What a network is and does, as functions of it: of the model, its params and state, and images."""

from jaxconv.explain.arithmetic import Arithmetic, arithmetic
from jaxconv.explain.features import feature_maps, layer_names
from jaxconv.explain.fields import field_of
from jaxconv.explain.scores import strongest
from jaxconv.explain.summary import Row, Summary, summarize
from jaxconv.explain.summary_table import write_summary

__all__ = [
    "Arithmetic",
    "Row",
    "Summary",
    "arithmetic",
    "feature_maps",
    "field_of",
    "layer_names",
    "strongest",
    "summarize",
    "write_summary",
]
