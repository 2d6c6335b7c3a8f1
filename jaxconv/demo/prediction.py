"""What the page shows of an image, as arrays: what the network says, what it computes on the way, where it looks."""

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
    """What is shown of one image.

    Attributes:
        probabilities: by class.
        maps: for each layer a title and its feature maps, pixels ``(h, w, 4)``.
        seen: the image as the network gets it, ``(H, W, 3)``.
        attribution: where the class that is likeliest comes from, over the image, ``(H, W, 3)``; None without a method.
    """

    probabilities: dict[str, float]
    maps: list[tuple[str, np.ndarray]]
    seen: np.ndarray
    attribution: np.ndarray | None


class Predictor:
    """A run's network as compiled programs: one for what it computes, one for each method that is asked for.

    Of a run of several seeds it is the first network.

    Args:
        run: from :func:`jaxconv.runs.load_run`.
    """

    def __init__(self, run: TrainedRun) -> None:
        run.check_classifies()
        self.run, self.seeds = run.first_member(), run.config.get("num_seeds", 1)
        self.params, self.state = jax.device_put((self.run.params, self.run.state))
        self.classes = [str(name) for name in run.config["class_names"]]
        self.image_shape, self.input_shape = tuple(run.config["image_shape"]), tuple(run.config["input_shape"])
        self.layers = shown_layers(run.model)
        options = runtime.compiler_options()
        self.look = jax.jit(self._look, compiler_options=options)
        try:
            methods = applicable_methods(run.model, self.input_shape)
        except InputError:  # it has one class, say, so that there is nothing to ask about
            methods = {}
        self.heat = {
            name: jax.jit(functools.partial(self._heat, method), compiler_options=options)
            for name, method in methods.items()
        }

    def _look(self, params: Any, state: Any, image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        maps = feature_maps(self.run.model, params, state, image, layers=self.layers)
        logits = self.run.model.apply(params, state, to_float(image))[0]  # which is compiled with the above into one
        return jax.nn.softmax(logits)[0], {name: y[0] for name, y in maps.items()}

    def _heat(self, method: Any, params: Any, state: Any, image: jax.Array, label: jax.Array) -> jax.Array:
        return method(self.run.model, params, state, image, label)[0]


@named_errors
def predict(programs: Predictor, image: np.ndarray, method: str | None = None) -> Prediction:
    """What the network makes of one image.

    Args:
        programs: of a run.
        image: ``(H, W, C)`` uint8, of the data set's size; it is made larger as in training.
        method: the attribution; by default none.

    Raises:
        InputError: a method that is unknown or that this network is not made for; an image of another size.
    """
    if image.shape != programs.image_shape or image.dtype != np.uint8:
        raise InputError(f"an image {image.shape} of {image.dtype} is none of {programs.image_shape} of uint8")
    if method is not None:
        checks.one_of("method", method, programs.heat)
    images = upscale_and_pad(image[None], programs.input_shape[:2])
    probabilities, maps = jax.device_get(programs.look(programs.params, programs.state, images))
    attribution = None
    if method is not None:
        label = np.int32(probabilities.argmax())
        attribution = rgb.overlay(images[0], programs.heat[method](programs.params, programs.state, images, label))
    return Prediction(
        dict(zip(programs.classes, probabilities.tolist(), strict=True)),
        [(heading(name, maps[name].shape), rgb.feature_maps(maps[name], MOST_CHANNELS)) for name in programs.layers],
        rgb.to_rgb(images[0]),
        attribution,
    )
