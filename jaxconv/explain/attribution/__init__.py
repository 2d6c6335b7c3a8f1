"""What in an image made a network answer as it did, and what its filters look for."""

from jaxconv.explain.attribution.cam import class_activation_map, grad_cam
from jaxconv.explain.attribution.feature_visualization import maximize_activation
from jaxconv.explain.attribution.gradient_methods import gradient_x_input, saliency, smooth_grad
from jaxconv.explain.attribution.heat import enlarge_map, to_heat
from jaxconv.explain.attribution.patches import Patches, nearest_patches
from jaxconv.explain.attribution.path import Integrated, integrated_gradients
from jaxconv.explain.attribution.perturbation import Occlusion, occlusion
from jaxconv.explain.attribution.rectified import deconvnet, guided_backprop
from jaxconv.explain.attribution.registry import METHODS, methods_of
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
