"""Prediction of one image as arrays: probabilities, feature maps and attribution."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxconv import checks, runtime
from jaxconv.data import upscale_and_pad
from jaxconv.errors import InputError, named_errors
from jaxconv.explain import applicable_methods, feature_maps
from jaxconv.plot import rgb
from jaxconv.report.model_sections import MOST_CHANNELS, heading, shown_layers
from jaxconv.runs.run_folder import TrainedRun
from jaxconv.train import to_float


class Prediction(NamedTuple):
    """Results for one image.

    Attributes:
        probabilities: probability by class name.
        maps: title and feature maps of each layer, as pixels ``(h, w, 4)``.
        seen: network input as pixels ``(H, W, 3)``.
        attribution: attribution of the most probable class over the image, ``(H, W, 3)``; None without a method.
    """

    probabilities: dict[str, float]
    maps: list[tuple[str, np.ndarray]]
    seen: np.ndarray
    attribution: np.ndarray | None


class Predictor:
    """Compiled functions of a run's network: the forward pass, and each attribution method on first use.

    A run of several seeds is represented by its first network.

    Args:
        run: trained run, from :func:`jaxconv.runs.load_run`.
    """

    def __init__(self, run: TrainedRun) -> None:
        run.check_classifies()
        self.run, self.seeds = run.first_member(), run.config.get("num_seeds", 1)
        self.params, self.state = jax.device_put((self.run.params, self.run.state))
        self.class_names = [str(name) for name in run.config["class_names"]]
        self.image_shape, self.input_shape = tuple(run.config["image_shape"]), tuple(run.config["input_shape"])
        self.layers = shown_layers(run.model)
        options = runtime.compiler_options()
        self.forward = jax.jit(self._forward, compiler_options=options)
        try:
            methods = applicable_methods(run.model, self.input_shape)
        except InputError:  # no method applies, for instance to a network with a single class
            methods = {}
        self.attributions = {
            name: jax.jit(functools.partial(self._attribution, method), compiler_options=options)
            for name, method in methods.items()
        }

    def _forward(self, params: Any, state: Any, image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        maps = feature_maps(self.run.model, params, state, image, layers=self.layers)
        logits = self.run.model.apply(params, state, to_float(image))[0]  # XLA merges this with the pass above
        return jax.nn.softmax(logits)[0], {name: y[0] for name, y in maps.items()}

    def _attribution(self, method: Any, params: Any, state: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        return method(self.run.model, params, state, image, label)[0]


@named_errors
def predict(programs: Predictor, image: np.ndarray, method: str | None = None) -> Prediction:
    """Predict one image.

    Args:
        programs: compiled functions of a run.
        image: ``(H, W, C)`` uint8, of the dataset's size; it is upscaled and padded as in training.
        method: attribution method; None for no attribution.

    Raises:
        InputError: if the method is unknown or does not apply to this network, or the image has another shape or dtype.
    """
    if image.shape != programs.image_shape or image.dtype != np.uint8:
        raise InputError(f"image must be {programs.image_shape} uint8, got {image.shape} {image.dtype}")
    if method is not None:
        checks.one_of("method", method, programs.attributions)
    images = upscale_and_pad(image[None], programs.input_shape[:2])
    probabilities, maps = jax.device_get(programs.forward(programs.params, programs.state, images))
    attribution = None
    if method is not None:
        label = np.int32(probabilities.argmax())
        heatmap = programs.attributions[method](programs.params, programs.state, images, label)
        attribution = rgb.overlay(images[0], heatmap)
    return Prediction(
        dict(zip(programs.class_names, probabilities.tolist(), strict=True)),
        [(heading(name, maps[name].shape), rgb.feature_maps(maps[name], MOST_CHANNELS)) for name in programs.layers],
        rgb.to_rgb(images[0]),
        attribution,
    )
