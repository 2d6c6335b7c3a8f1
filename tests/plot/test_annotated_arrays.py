"""annotated_arrays: the position of the values, the colors, and the frames."""

import numpy as np
import pytest

from jaxconv import InputError, plot


def test_annotated_arrays_writes_values_at_their_cells():
    """Rows go down and columns go right, as in the image below the text."""
    array = np.array([[1.0, -2.0, 3.0], [4.0, 5.5, 1234.5]])
    [axes] = plot.annotated_arrays({"x": array}).axes
    written = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "1", (1, 0): "-2", (2, 0): "3", (0, 1): "4", (1, 1): "5.5", (2, 1): "1.23e+03"}
    assert axes.images[0].get_array().shape == (2, 3, 3)


def test_annotated_arrays_colors_positive_red_negative_blue():
    [axes] = plot.annotated_arrays({"x": np.array([[2.0, 0.0, -2.0]])}).axes
    (red, white, blue) = axes.images[0].get_array()[0].astype(int)
    assert red[0] > red[2] + 40 and blue[2] > blue[0] + 40 and min(white) > 240


def test_annotated_arrays_frame_outlines_given_cells():
    figure = plot.annotated_arrays({"x": np.eye(4, 5), "y": np.eye(2)}, {"x": ((1, 4), (2, 5))})
    framed, plain = figure.axes
    [box] = framed.patches
    assert box.get_bbox().extents.tolist() == [1.5, 0.5, 4.5, 3.5] and not plain.patches


def test_annotated_arrays_panels_have_array_shapes_and_names():
    figure = plot.annotated_arrays({"image": np.zeros((2, 6)), "kernel": np.ones((3, 1))}, title="both")
    figure.draw_without_rendering()
    assert [axes.get_title() for axes in figure.axes] == ["image", "kernel"] and figure.get_suptitle() == "both"
    wide, narrow = (axes.get_window_extent() for axes in figure.axes)
    assert wide.width / wide.height == pytest.approx(3) and narrow.height / narrow.width == pytest.approx(3)
    assert wide.width / 6 == pytest.approx(narrow.width, rel=0.25)  # cells of both panels are about equally large


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "cells a side, got none"),
        ({"x": np.zeros((2, 3, 1))}, r"got x \(2, 3, 1\)"),
        (
            {"x": np.zeros((2, 21))},
            r"^annotated_arrays: arrays must be \(H, W\) with 1 to 20 cells a side, got x \(2, 21\)$",
        ),
        ({"x": np.zeros((0, 2))}, r"got x \(0, 2\)"),
    ],
)
def test_annotated_arrays_invalid_arrays_raise(arrays, message):
    with pytest.raises(InputError, match=message):
        plot.annotated_arrays(arrays)


def test_annotated_arrays_frame_of_unknown_array_raises():
    with pytest.raises(InputError, match="annotated_arrays: frames must name arrays, one of x, y, got 'z'"):
        plot.annotated_arrays({"x": np.eye(2), "y": np.eye(2)}, {"z": ((0, 1), (0, 1))})


def test_annotated_arrays_without_finite_value_does_not_warn():
    [axes] = plot.annotated_arrays({"x": np.array([[np.nan, np.inf]])}).axes
    assert [text.get_text() for text in axes.texts] == ["nan", "inf"]
