"""Content of the figures of diagnostics and of kernels."""

import numpy as np
import pytest

from common import plots
from jaxconv import InputError, explain, plot


def test_correlation_matrix_title_excludes_constant_channels(rng):
    matrix = np.corrcoef(rng.normal(size=(4, 9)))
    matrix[2] = matrix[:, 2] = np.nan
    axes = plot.correlation_matrix(matrix, title="conv1").axes[0]
    mean = np.mean([abs(matrix[i, j]) for i in (0, 1, 3) for j in (0, 1, 3) if i != j])
    assert axes.get_title() == f"conv1: mean |ρ| {mean:.2f}, 1 constant (gray)"
    np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), matrix)
    assert axes.images[0].get_clim() == (-1, 1)
    assert plot.correlation_matrix([[np.nan]]).axes[0].get_title() == "fewer than two channels vary, 1 constant (gray)"


def test_norms_by_layer_draws_ordered_log_lines():
    axes = plot.norms_by_layer(
        {"plain": {"conv1": 1e-6, "conv10": 0.0, "conv2": 1}, "res": {"conv1": 2}}, title="t"
    ).axes[0]
    assert axes.get_yscale() == "log" and axes.get_title() == "t"
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1e-6, np.nan, 1])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [2])
    assert [line.get_label() for line in axes.lines] == ["plain", "res"]
    labeled = plot.norms_by_layer({"a": {"conv1": 1, "dense1": 2}}).axes[0]
    assert [label.get_text() for label in labeled.get_xticklabels()] == ["conv1", "dense1"]


def test_histograms_draws_one_panel_per_array(rng):
    arrays = {"conv1": {"kernel": rng.normal(size=30), "bias": np.array([1.0, np.inf, np.nan])}}
    histograms = explain.histograms(arrays)
    panels = plot.histograms(histograms, title="weights").axes
    assert [axes.get_title() for axes in panels] == ["conv1/kernel", "conv1/bias\n1 NaN, 1 infinite"]
    np.testing.assert_array_equal(panels[0].patches[0].get_data().values, histograms["conv1/kernel"].counts)


@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_first_layer_shows_filters_in_order(rng, channels):  # row 002-05
    kernel = rng.normal(size=(3, 2, channels, 5)).astype(np.float32)
    figure = plot.kernels(kernel, title="conv1", most=4)
    figure.draw_without_rendering()
    assert figure.get_suptitle() == "conv1: 4 of 5 filters"
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(images) == 4 and [axes.get_title() for axes in figure.axes] == list("0123")
    for o, image in enumerate(images):  # pixel (2, 1) of the filter, in the lower right, inside the frame
        expected = 127.5 + 127.5 * kernel[2, 1, :, o] / np.abs(kernel[..., o]).max()
        np.testing.assert_allclose(image[-2, -2], np.broadcast_to(expected, 3), atol=1)


def test_kernels_stacks_filters_before_and_after_training(rng):
    before = rng.normal(size=(3, 3, 1, 18)).astype(np.float32)
    after = before.copy()
    after[..., 17] *= -1
    axes = plot.kernels(after, before=before).axes
    titles = [panel.get_title() for panel in axes]
    assert titles[:16] == [str(o) for o in range(16)] and titles[16:32] == ["cos 1.00"] * 16
    assert titles[32:35] == ["16", "17", ""] and titles[48:50] == ["cos 1.00", "cos -1.00"]
    first, last = (axes[i].images[0].get_array()[1:-1, 1:-1].astype(int) for i in (33, 49))
    assert (np.abs(first + last - 255) <= 1).all()


def test_kernels_deeper_layer_shows_rows_of_channels(rng):
    kernel = rng.normal(size=(3, 3, 4, 10)).astype(np.float32)
    figure = plot.kernels(kernel, channels=2, most=24)
    assert figure.get_suptitle() == "3 of 10 filters, 2 of 4 input channels"
    assert [axes.get_title() for axes in figure.axes] == [f"{o}, ch {c}" for o in range(3) for c in range(2)]
    expected = plot.rgb.diverging(kernel[:, :, 1, 2] / np.abs(kernel[..., 2]).max(), 1.0)
    np.testing.assert_array_equal(figure.axes[5].images[0].get_array()[1:-1:16, 1:-1:16], expected)


@pytest.mark.parametrize(
    ("message", "call"),
    [
        (
            r"correlation_matrix: matrix must be \(C, C\), got \(2, 3\)",
            lambda: plot.correlation_matrix(np.ones((2, 3))),
        ),
        (r"norms_by_layer: networks must have a value for at least one layer", lambda: plot.norms_by_layer({"a": {}})),
        (r"histograms: histograms_by_name must have at least one histogram", lambda: plot.histograms({})),
        (
            r"kernels: before must be None unless kernel has 1 or 3 input channels, got kernel \(3, 3, 2, 4\)",
            lambda: plot.kernels(np.ones((3, 3, 2, 4)), before=1),
        ),
        (
            r"kernel_change: before and after must have the same shape, got",
            lambda: plot.kernels(np.ones((3, 3, 1, 4)), before=np.ones((3, 3, 1, 2))),
        ),
        (
            r"kernel_channel_images: kernel must be nonempty floats \(kh, kw, C, O\), got float32\(3, 3\)",
            lambda: plot.kernels(np.ones((3, 3), np.float32)),
        ),
    ],
)
def test_plot_invalid_arguments_raise(message, call):
    with pytest.raises(InputError, match=message):
        call()


def test_gradients_and_losses_draws_one_line_per_seed():  # row 003-22
    norms = {"plain": [{"a": 1e-6, "b": 0.0, "c": 2}, {"a": 3, "b": 4, "c": np.inf}], "deep": [{"a": 5, "b": 6}]}
    losses = {"deep": [[2.5, 1.5]], "plain": [[2.0, 1.0, 0.5], [2.1, 1.1, 0.6]]}
    left, right = (figure := plots.gradients_and_losses(norms, losses, title="t")).axes
    np.testing.assert_array_equal([line.get_ydata() for line in left.lines[:2]], [[1e-6, np.nan, 2], [3, 4, np.nan]])
    assert left.lines[2].get_ydata().tolist() == [5, 6] and left.get_yscale() == "log"
    assert [list(line.get_ydata()) for line in right.lines] == [*losses["plain"], *losses["deep"]]
    assert [list(line.get_xdata()) for line in right.lines[1:]] == [[1, 2, 3], [1, 2]]
    for axes in (left, right):
        assert [line.get_color() for line in axes.lines] == ["C0", "C0", "C1"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["plain", "deep"]
    assert right.get_ylim()[1] > 2.5 and figure.get_suptitle() == "t"
    for wrong in [({}, {}), (norms, {"plain": [[1.0]]}), ({"plain": []}, {"plain": [[1.0]]})]:
        with pytest.raises(InputError, match="gradients_and_losses: norms and losses must have the same networks"):
            plots.gradients_and_losses(*wrong)
