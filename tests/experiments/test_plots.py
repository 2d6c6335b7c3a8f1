"""Bars of networks by task, read back from the artists of the figure."""

import pytest

from common import plots
from jaxconv import InputError

RESULTS = {"text": {"dense": [0.5, 0.75], "conv": [1.0, 0.9]}, "video": {"alone": [0.25]}, "sound": {"a": [0.1, 0.3]}}


def test_grouped_bars_panels_bars_and_dots():
    figure = plots.grouped_bars(RESULTS, chance={"text": 0.5, "video": 0.25})
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == list(RESULTS)
    for axes, (task, networks) in zip(panels, RESULTS.items()):
        assert [label.get_text() for label in axes.get_yticklabels()] == list(networks)
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([sum(v) / len(v) for v in networks.values()])
        dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        assert [list(values) for values in dots] == list(networks.values())
        guessing = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert guessing == {"text": [0.5], "video": [0.25], "sound": []}[task]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first network is on top
    assert [text.get_text() for text in panels[0].texts] == ["62.5 %", "95.0 %"]


@pytest.mark.parametrize("results", [{}, {"text": {"dense": []}}])
def test_grouped_bars_empty_results_raise(results):
    with pytest.raises(InputError, match="grouped_bars: results must have at least one task"):
        plots.grouped_bars(results)
