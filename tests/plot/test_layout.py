"""Layout of the figures: sizes of the panels, and limits of the axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import plot
from jaxconv.testing import compare


@pytest.mark.parametrize("titles", [[], ["a", "b", "c"]])
@pytest.mark.parametrize("shape", [(8, 8, 3), (4, 12, 3), (12, 4, 3)])
def test_image_grid_height_matches_images(shape, titles):
    """Rows of wide images are not far apart, and images without titles are not squeezed."""
    figure = plot.image_grid([np.zeros(shape, np.uint8)] * 3, titles, columns=2, size=2.0)
    width, height = figure.get_size_inches()
    assert width == 4 and height == pytest.approx(2 * (2 * shape[0] / shape[1] + 0.18 * bool(titles)))


def test_image_grid_of_gaps_has_default_height():
    width, height = plot.image_grid([None, None], size=2.0).get_size_inches()
    assert width == 4 and height == 2


def test_implementation_errors_stay_within_shared_axis():
    """The panels share an axis: the second, in half precision, has errors a million times those of the first."""
    x = jnp.linspace(0.5, 1.5, 7)
    comparisons = {name: compare(jnp.tanh, tanh, x.astype(name)) for name in ("float32", "bfloat16")}
    figure = plot.implementation_errors(comparisons)
    bfloat16, float32 = (comparisons[name].rows[-1].max_rel_error for name in ("bfloat16", "float32"))
    assert bfloat16 > 100 * float32 > 0
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert all(low < line.get_xdata()[0] < high for line in axes.lines) and low == 5e-18
    assert not any(axes.get_legend() for axes in figure.axes)  # a legend inside the axes would cover points
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["f", "g"]


def tanh(x):
    return 2 * jax.nn.sigmoid(2 * x) - 1
