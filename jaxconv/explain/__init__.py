"""What a network is and does, as functions of it: of the model, its params and state, and images."""

from jaxconv.explain.arithmetic import Arithmetic, arithmetic
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
    "METHODS",
    "Arithmetic",
    "Distortion",
    "Integrated",
    "Occlusion",
    "Patches",
    "Randomized",
    "Row",
    "Shifted",
    "Summary",
    "arithmetic",
    "class_activation_map",
    "coverage_map",
    "deconvnet",
    "distorted",
    "enlarge_map",
    "equivariance_error",
    "feature_maps",
    "field_of",
    "grad_cam",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "layer_names",
    "maximize_activation",
    "methods_of",
    "nearest_patches",
    "occlusion",
    "randomization_test",
    "robustness",
    "saliency",
    "smooth_grad",
    "strongest",
    "summarize",
    "to_heat",
    "translation_test",
    "write_summary",
]
