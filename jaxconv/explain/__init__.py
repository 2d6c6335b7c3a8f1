"""What a network is and does, as functions of it: of the model, its params and state, and images."""

from jaxconv.explain.arithmetic import Arithmetic, arithmetic
from jaxconv.explain.distortions import DISTORTIONS, Distortion, distorted
from jaxconv.explain.features import feature_maps, layer_names
from jaxconv.explain.fields import field_of
from jaxconv.explain.geometry import coverage_map, equivariance_error
from jaxconv.explain.robustness import robustness
from jaxconv.explain.scores import strongest
from jaxconv.explain.summary import Row, Summary, summarize
from jaxconv.explain.summary_table import write_summary
from jaxconv.explain.translation import Shifted, translation_test

__all__ = [
    "DISTORTIONS",
    "Arithmetic",
    "Distortion",
    "Row",
    "Shifted",
    "Summary",
    "arithmetic",
    "coverage_map",
    "distorted",
    "equivariance_error",
    "feature_maps",
    "field_of",
    "layer_names",
    "robustness",
    "strongest",
    "summarize",
    "translation_test",
    "write_summary",
]
