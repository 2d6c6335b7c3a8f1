"""What a network is and does, as functions of it: of the model, its params and state, and images."""

from jaxconv.explain.attribution import (
    METHODS,
    Integrated,
    Occlusion,
    Patches,
    Randomized,
    class_activation_map,
    deconvnet,
    enlarge_map,
    grad_cam,
    gradient_x_input,
    guided_backprop,
    integrated_gradients,
    maximize_activation,
    methods_of,
    nearest_patches,
    occlusion,
    randomization_test,
    saliency,
    smooth_grad,
    to_heat,
)
from jaxconv.explain.channel_statistics import (
    Activity,
    DeadFilter,
    activity,
    dead_filters,
    feature_correlation,
    saturation,
)
from jaxconv.explain.corruptions import DISTORTIONS, Distortion, distorted
from jaxconv.explain.diagnostics import Health, HealthRow, health
from jaxconv.explain.equivariance import Shifted, both_ways, mean_shifted, translation_test
from jaxconv.explain.geometry import coverage_map, equivariance_error
from jaxconv.explain.histograms import Histogram, histograms
from jaxconv.explain.intermediates import feature_maps, layer_names
from jaxconv.explain.moments import Correlation
from jaxconv.explain.norms import gradient_norms, update_norms
from jaxconv.explain.receptive_fields import field_of
from jaxconv.explain.robustness import robustness
from jaxconv.explain.scores import strongest
from jaxconv.explain.step_by_step.registry import arithmetic
from jaxconv.explain.step_by_step.terms import Arithmetic
from jaxconv.explain.style import Styled, gram, style_transfer
from jaxconv.explain.summary import Row, Summary, summarize
from jaxconv.explain.summary_table import write_summary
from jaxconv.explain.weights import Change, change, channel_images, colourfulness, filter_images

__all__ = [
    "DISTORTIONS",
    "METHODS",
    "Activity",
    "Arithmetic",
    "Change",
    "Correlation",
    "DeadFilter",
    "Distortion",
    "Health",
    "HealthRow",
    "Histogram",
    "Integrated",
    "Occlusion",
    "Patches",
    "Randomized",
    "Row",
    "Shifted",
    "Styled",
    "Summary",
    "activity",
    "arithmetic",
    "both_ways",
    "change",
    "channel_images",
    "class_activation_map",
    "colourfulness",
    "coverage_map",
    "dead_filters",
    "deconvnet",
    "distorted",
    "enlarge_map",
    "equivariance_error",
    "feature_correlation",
    "feature_maps",
    "field_of",
    "filter_images",
    "grad_cam",
    "gradient_norms",
    "gradient_x_input",
    "gram",
    "guided_backprop",
    "health",
    "histograms",
    "integrated_gradients",
    "layer_names",
    "maximize_activation",
    "mean_shifted",
    "methods_of",
    "nearest_patches",
    "occlusion",
    "randomization_test",
    "robustness",
    "saliency",
    "saturation",
    "smooth_grad",
    "strongest",
    "style_transfer",
    "summarize",
    "to_heat",
    "translation_test",
    "update_norms",
    "write_summary",
]
