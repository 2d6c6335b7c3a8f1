"""The picture of networks on several tasks, read back from its artists."""

import pytest

from common import plots
from jaxconv import InputError

RESULTS = {"text": {"dense": [0.5, 0.75], "conv": [1.0, 0.9]}, "video": {"alone": [0.25]}, "sound": {"a": [0.1, 0.3]}}


def test_bars_have_a_panel_a_task_a_bar_a_network_and_a_dot_a_training():
    figure = plots.grouped_bars(RESULTS, chance={"text": 0.5, "video": 0.25})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == list(RESULTS)
    for axes, (task, found) in zip(shown, RESULTS.items()):
        assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([sum(v) / len(v) for v in found.values()])
        dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
        assert [list(each) for each in dots] == list(found.values())
        guessing = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"]
        assert guessing == {"text": [0.5], "video": [0.25], "sound": []}[task]
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first is on top
    assert [text.get_text() for text in shown[0].texts] == ["62.5 %", "95.0 %"]


@pytest.mark.parametrize("nothing", [{}, {"text": {"dense": []}}])
def test_bars_of_nothing_are_refused(nothing):
    with pytest.raises(InputError, match="grouped_bars: results must have at least one task"):
        plots.grouped_bars(nothing)
