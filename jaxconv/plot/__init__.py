"""The only room that draws. Each function makes one matplotlib figure and touches no global state.

In a notebook the figure shows itself after ``%matplotlib inline``; in a script, ``figure.savefig("curves.png")``.
``pixels`` makes colours of arrays, for these figures and for pages.
"""

from jaxconv.plot import pixels
from jaxconv.plot.attribution import attributions, patches
from jaxconv.plot.bars import bars
from jaxconv.plot.contests import errors, ratios, step_times
from jaxconv.plot.depth import gradients_and_losses
from jaxconv.plot.epochs import against_epochs
from jaxconv.plot.filters import filters
from jaxconv.plot.geometry import against_shift, coverage, receptive_field, robustness
from jaxconv.plot.grids import grid, rows
from jaxconv.plot.health import correlation, histograms, norms
from jaxconv.plot.members import against_members
from jaxconv.plot.numbers import numbers
from jaxconv.plot.samples import against_samples
from jaxconv.plot.save import save, save_figure
from jaxconv.plot.training import confusion, curves, mistakes
from jaxconv.plot.words import literal

__all__ = [
    "against_epochs",
    "against_members",
    "against_samples",
    "against_shift",
    "attributions",
    "bars",
    "confusion",
    "correlation",
    "coverage",
    "curves",
    "errors",
    "filters",
    "gradients_and_losses",
    "grid",
    "histograms",
    "literal",
    "mistakes",
    "norms",
    "numbers",
    "patches",
    "pixels",
    "ratios",
    "receptive_field",
    "robustness",
    "rows",
    "save",
    "save_figure",
    "step_times",
]
