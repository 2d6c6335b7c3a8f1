"""Figures have room for what is on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import plot
from jaxconv.testing import compare


@pytest.mark.parametrize("titles", [[], ["a", "b", "c"]])
@pytest.mark.parametrize("shape", [(8, 8, 3), (4, 12, 3), (12, 4, 3)])
def test_a_grid_is_as_high_as_its_pictures(shape, titles):
    """Rows of wide pictures are not far apart, and those without titles are not flat."""
    figure = plot.image_grid([np.zeros(shape, np.uint8)] * 3, titles, columns=2, size=2.0)
    width, height = figure.get_size_inches()
    assert width == 4 and height == pytest.approx(2 * (2 * shape[0] / shape[1] + 0.18 * bool(titles)))


def test_a_grid_of_gaps_has_room_too():
    width, height = plot.image_grid([None, None], size=2.0).get_size_inches()
    assert width == 4 and height == 2


def test_the_errors_of_every_panel_are_within_the_axes():
    """The panels share an axis: the second, in half precision, has errors a million times those of the first."""
    x = jnp.linspace(0.5, 1.5, 7)
    found = {name: compare(jnp.tanh, tanh, x.astype(name)) for name in ("float32", "bfloat16")}
    figure = plot.implementation_errors(found)
    assert found["bfloat16"].rows[-1].max_rel_error > 100 * found["float32"].rows[-1].max_rel_error > 0
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert all(low < line.get_xdata()[0] < high for line in axes.lines) and low == 5e-18
    assert not any(axes.get_legend() for axes in figure.axes)  # it would cover points
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["f", "g"]


def tanh(x):
    return 2 * jax.nn.sigmoid(2 * x) - 1
