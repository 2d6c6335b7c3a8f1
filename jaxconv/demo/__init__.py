"""The live page of a run: draw, or upload an image, and see what its network makes of it."""

from jaxconv.demo.canvas import Manner, centred, drawn, manner_of, uploaded
from jaxconv.demo.prediction import Answer, Programs, answer
from jaxconv.demo.server import serve

__all__ = ["Answer", "Manner", "Programs", "answer", "centred", "drawn", "manner_of", "serve", "uploaded"]
