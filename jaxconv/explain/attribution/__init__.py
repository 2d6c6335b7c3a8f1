"""What in an image made a network answer as it did, and what its filters look for."""

from jaxconv.explain.attribution.cam import class_activation_map, grad_cam
from jaxconv.explain.attribution.feature_visualization import Patches, maximize_activation, nearest_patches
from jaxconv.explain.attribution.gradient_methods import (
    Integrated,
    deconvnet,
    gradient_x_input,
    guided_backprop,
    integrated_gradients,
    saliency,
    smooth_grad,
)
from jaxconv.explain.attribution.perturbation import Occlusion, occlusion
from jaxconv.explain.attribution.registry import METHODS, enlarge_map, methods_of, to_heat
from jaxconv.explain.attribution.sanity_checks import Randomized, randomization_test

__all__ = [
    "METHODS",
    "Integrated",
    "Occlusion",
    "Patches",
    "Randomized",
    "class_activation_map",
    "deconvnet",
    "enlarge_map",
    "grad_cam",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "maximize_activation",
    "methods_of",
    "nearest_patches",
    "occlusion",
    "randomization_test",
    "saliency",
    "smooth_grad",
    "to_heat",
]
