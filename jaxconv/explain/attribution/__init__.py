"""Attribution methods (saliency, Grad-CAM, occlusion, …) and feature visualization."""

from jaxconv.explain.attribution.cam import class_activation_map, grad_cam
from jaxconv.explain.attribution.feature_visualization import (
    ActivatingPatches,
    maximize_activation,
    top_activating_patches,
)
from jaxconv.explain.attribution.gradient_methods import (
    IntegratedGradients,
    deconvnet,
    guided_backprop,
    input_x_gradient,
    integrated_gradients,
    saliency,
    smoothgrad,
)
from jaxconv.explain.attribution.perturbation import OcclusionResult, occlusion
from jaxconv.explain.attribution.registry import ATTRIBUTION_METHODS, applicable_methods, to_heatmap, upsample_map
from jaxconv.explain.attribution.sanity_checks import RandomizedLayer, model_randomization_test

__all__ = [
    "ATTRIBUTION_METHODS",
    "ActivatingPatches",
    "IntegratedGradients",
    "OcclusionResult",
    "RandomizedLayer",
    "applicable_methods",
    "class_activation_map",
    "deconvnet",
    "grad_cam",
    "guided_backprop",
    "input_x_gradient",
    "integrated_gradients",
    "maximize_activation",
    "model_randomization_test",
    "occlusion",
    "saliency",
    "smoothgrad",
    "to_heatmap",
    "top_activating_patches",
    "upsample_map",
]
