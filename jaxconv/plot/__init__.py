"""The only room that draws. Each function makes one matplotlib figure and touches no global state.

In a notebook the figure shows itself after ``%matplotlib inline``; in a script, ``figure.savefig("curves.png")``.
``rgb`` makes colours of arrays, for these figures and for pages.
"""

from jaxconv.plot import rgb
from jaxconv.plot.comparison import errors, ratios, step_times
from jaxconv.plot.diagnostics import correlation, histograms, norms
from jaxconv.plot.features import attributions, filters, patches
from jaxconv.plot.figures import literal, save, save_figure
from jaxconv.plot.images import grid, numbers, rows
from jaxconv.plot.spatial import against_shift, coverage, receptive_field, robustness
from jaxconv.plot.training import confusion, curves, mistakes

__all__ = [
    "against_shift",
    "attributions",
    "confusion",
    "correlation",
    "coverage",
    "curves",
    "errors",
    "filters",
    "grid",
    "histograms",
    "literal",
    "mistakes",
    "norms",
    "numbers",
    "patches",
    "ratios",
    "receptive_field",
    "rgb",
    "robustness",
    "rows",
    "save",
    "save_figure",
    "step_times",
]
