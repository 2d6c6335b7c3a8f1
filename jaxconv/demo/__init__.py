"""Interactive web page of a run: draw or upload an image, and inspect the network's prediction."""

from jaxconv.demo.canvas import InputStyle, center_by_mass, input_style_of, preprocess_drawing, preprocess_upload
from jaxconv.demo.prediction import Prediction, Predictor, predict
from jaxconv.demo.server import serve

__all__ = [
    "InputStyle",
    "Prediction",
    "Predictor",
    "center_by_mass",
    "input_style_of",
    "predict",
    "preprocess_drawing",
    "preprocess_upload",
    "serve",
]
