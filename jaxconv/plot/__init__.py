"""Figures. Each function returns one matplotlib ``Figure`` and changes no global state.

In a notebook the figure is displayed after ``%matplotlib inline``; in a script,
``figure.savefig("training_curves.png")``. ``rgb`` converts arrays to colors, for these figures and for HTML pages.
"""

from jaxconv.plot import rgb
from jaxconv.plot.comparison import implementation_errors, relative_times, step_times
from jaxconv.plot.diagnostics import correlation_matrix, histograms, norms_by_layer
from jaxconv.plot.features import activating_patches, attributions, kernels
from jaxconv.plot.figures import literal, save, save_figure
from jaxconv.plot.images import annotated_arrays, image_grid, image_rows
from jaxconv.plot.spatial import accuracy_vs_severity, accuracy_vs_shift, coverage, receptive_field
from jaxconv.plot.training import confusion_matrix, misclassified, training_curves

__all__ = [
    "accuracy_vs_severity",
    "accuracy_vs_shift",
    "activating_patches",
    "annotated_arrays",
    "attributions",
    "confusion_matrix",
    "correlation_matrix",
    "coverage",
    "histograms",
    "image_grid",
    "image_rows",
    "implementation_errors",
    "kernels",
    "literal",
    "misclassified",
    "norms_by_layer",
    "receptive_field",
    "relative_times",
    "rgb",
    "save",
    "save_figure",
    "step_times",
    "training_curves",
]
