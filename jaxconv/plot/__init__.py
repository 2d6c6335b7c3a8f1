"""The only room that draws. Each function makes one matplotlib figure and touches no global state.

In a notebook the figure shows itself after ``%matplotlib inline``; in a script, ``figure.savefig("curves.png")``.
``pixels`` makes colours of arrays, for these figures and for pages.
"""

from jaxconv.plot import pixels
from jaxconv.plot.attribution import attributions, patches
from jaxconv.plot.contests import errors, ratios, step_times
from jaxconv.plot.filters import filters
from jaxconv.plot.geometry import against_shift, coverage, receptive_field, robustness
from jaxconv.plot.grids import grid
from jaxconv.plot.health import correlation, histograms, norms
from jaxconv.plot.samples import against_samples
from jaxconv.plot.training import confusion, curves, mistakes

__all__ = [
    "against_samples",
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
    "mistakes",
    "norms",
    "patches",
    "pixels",
    "ratios",
    "receptive_field",
    "robustness",
    "step_times",
]
