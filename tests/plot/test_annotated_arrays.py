"""Numbers in cells: each where its array has it, frames around the right cells."""

import numpy as np
import pytest

from jaxconv import InputError, plot


def test_every_number_stands_where_the_array_has_it():
    """Rows go down and columns go right, as they do on the picture below the text."""
    array = np.array([[1.0, -2.0, 3.0], [4.0, 5.5, 1234.5]])
    [axes] = plot.annotated_arrays({"x": array}).axes
    written = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1", (1, 0): "-2", (2, 0): "3", (0, 1): "4", (1, 1): "5.5", (2, 1): "1.23e+03"}
    assert axes.images[0].get_array().shape == (2, 3, 3)


def test_red_is_above_0_and_blue_below():
    [axes] = plot.annotated_arrays({"x": np.array([[2.0, 0.0, -2.0]])}).axes
    (red, white, blue) = axes.images[0].get_array()[0].astype(int)
    assert red[0] > red[2] + 40 and blue[2] > blue[0] + 40 and min(white) > 240


def test_a_frame_is_around_its_cells_and_no_others():
    figure = plot.annotated_arrays({"x": np.eye(4, 5), "y": np.eye(2)}, {"x": ((1, 4), (2, 5))})
    framed, plain = figure.axes
    [box] = framed.patches
    assert box.get_bbox().extents.tolist() == [1.5, 0.5, 4.5, 3.5] and not plain.patches


def test_the_panels_have_the_arrays_shapes_and_names():
    figure = plot.annotated_arrays({"image": np.zeros((2, 6)), "kernel": np.ones((3, 1))}, title="both")
    figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["image", "kernel"] and figure.get_suptitle() == "both"
    wide, narrow = (axes.get_window_extent() for axes in figure.axes)
    assert wide.width / wide.height == pytest.approx(3) and narrow.height / narrow.width == pytest.approx(3)
    assert wide.width / 6 == pytest.approx(narrow.width, rel=0.25)  # cells are about as large everywhere


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "not none"),
        ({"x": np.zeros((2, 3, 1))}, r"not x \(2, 3, 1\)"),
        ({"x": np.zeros((2, 21))}, r"at most 20 cells a side are wanted, not x \(2, 21\)"),
        ({"x": np.zeros((0, 2))}, r"not x \(0, 2\)"),
    ],
)
def test_what_cannot_be_read_is_refused(arrays, said):
    with pytest.raises(InputError, match=said):
        plot.annotated_arrays(arrays)


def test_a_frame_of_nothing_is_refused():
    with pytest.raises(InputError, match="a frame for 'z', but there are x, y"):
        plot.annotated_arrays({"x": np.eye(2), "y": np.eye(2)}, {"z": ((0, 1), (0, 1))})


def test_no_number_at_all_is_no_warning():
    [axes] = plot.annotated_arrays({"x": np.array([[np.nan, np.inf]])}).axes
    assert [text.get_text() for text in axes.texts] == ["nan", "inf"]
