"""Content of the figures, read from the artists and not from the pixels."""

import itertools

import numpy as np
import pytest

from common import plots
from jaxconv import InputError, plot


def test_misclassified_orders_errors_by_confidence():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.01, 0.99]])
    labels = np.array([1, 1, 1, 0, 0])  # the third is right
    panels = [axes for axes in plot.misclassified(images, labels, probabilities, "ab").axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in panels] == [4, 0, 3, 1]
    assert panels[0].get_title() == "a\n→ b 99%" and panels[1].get_title() == "b\n→ a 90%"
    limited = plot.misclassified(images, labels, probabilities, "ab", most=2)
    assert sum(bool(axes.images) for axes in limited.axes) == 2
    assert limited.get_suptitle() == "4 of 5 wrong, 2 most confident: true class → predicted class"
    assert (
        plot.misclassified(images[2:3], labels[2:3], probabilities[2:3], "ab").get_suptitle() == "no errors on 1 images"
    )


@pytest.mark.parametrize(("channels", "shape"), [(1, ()), (2, ()), (3, (3,)), (4, (3,)), (5, (3,))])
@pytest.mark.parametrize("size", [(4, 6), (1, 6)])
def test_misclassified_accepts_any_number_of_channels(rng, channels, shape, size):
    image = rng.integers(0, 256, (1, *size, channels), np.uint8)
    figure = plot.misclassified(image, np.array([1]), np.array([[0.9, 0.1]]), "ab")
    figure.draw_without_rendering()
    [pixels] = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(pixels, image[0, ..., :3] if shape else image[0, ..., 0])


def test_training_curves_show_history_and_best_epoch():
    """Row 004-24: training and validation error, epoch by epoch."""
    history = [
        {"epoch": 1, "loss": 0.9, "accuracy": 0.5, "val_loss": 0.8, "val_accuracy": 0.6},
        {"epoch": 2, "loss": 0.3, "accuracy": 0.9, "val_loss": 0.4, "val_accuracy": 0.8},
        {"epoch": 3, "loss": 0.1, "accuracy": 1.0, "val_loss": 0.5, "val_accuracy": 0.7},
    ]
    loss, accuracy = plot.training_curves(history, best_epoch=2).axes
    assert [line.get_ydata().tolist() for line in loss.lines[:2]] == [[0.9, 0.3, 0.1], [0.8, 0.4, 0.5]]
    assert [line.get_ydata().tolist() for line in accuracy.lines[:2]] == [[0.5, 0.9, 1.0], [0.6, 0.8, 0.7]]
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation", "best: 0.8000"]


def cells(figure):
    return {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in figure.axes[0].texts}


def test_confusion_matrix_colors_rows_by_fraction(rng):
    counts = np.array([[900, 100, 0], [1, 8, 1], [0, 0, 0]])
    figure = plot.confusion_matrix(counts, ["cat", "dog", "gnu"], title="pets")
    axes, bar = figure.axes
    assert cells(figure) == {(0, 0): "900", (0, 1): "100", (1, 0): "1", (1, 1): "8", (1, 2): "1"}  # zeros are blank
    fractions = np.array([[0.9, 0.1, 0], [0.1, 0.8, 0.1], [0, 0, 0]])
    np.testing.assert_allclose(axes.images[0].get_array(), fractions)  # gnu has no images: no division by 0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "gnu"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.get_title() == "pets\n908 of 1,010 correct"
    assert plot.confusion_matrix(counts, "abc").axes[0].get_title() == "908 of 1,010 correct"
    assert bar.get_ylabel() == "fraction of the true class"


@pytest.mark.parametrize(
    ("names", "rotated"),
    [
        ([str(i) for i in range(10)], False),
        ("airplane automobile bird cat deer dog frog horse ship truck".split(), False),
        ([f"number {i}" for i in range(20)], True),
        ([f"class {i}" for i in range(100)], True),
        ([f"n{i:08}" for i in range(400)], True),
    ],
)
def test_confusion_matrix_labels_do_not_overlap(names, rotated):
    """Read from the drawn figure: the extent of every label, of every count, and of the title."""
    figure = plot.confusion_matrix(np.full((len(names),) * 2, 1234), names, title="a title")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert all(label.get_rotation() == 90 * rotated for label in axes.get_xticklabels())
    across = [label.get_window_extent() for label in axes.get_xticklabels()]
    down = [label.get_window_extent() for label in axes.get_yticklabels()]
    assert len(across) == len(down) >= min(len(names), 100)
    assert all(a.x1 <= b.x0 + 0.5 for a, b in itertools.pairwise(across))
    assert all(a.y0 >= b.y1 - 0.5 for a, b in itertools.pairwise(down))
    cell = axes.get_window_extent().width / len(names)
    assert len(axes.texts) == (len(names) ** 2 if len(names) <= 20 else 0)
    assert all(text.get_window_extent().width < cell for text in axes.texts)
    page = figure.bbox
    for box in (*across, *down, axes.title.get_window_extent(), axes.yaxis.label.get_window_extent()):
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1


def test_confusion_matrix_wrong_number_of_names_raises():
    message = r"^confusion_matrix: counts must be \(3, 3\) for 3 classes, got \(2, 2\)$"
    with pytest.raises(InputError, match=message):
        plot.confusion_matrix(np.ones((2, 2), int), "abc")


def records(errors, training):
    return [
        {"epoch": n, "val_accuracy": 1 - error, "accuracy": 1 - own}
        for n, (error, own) in enumerate(zip(errors, training, strict=True), start=1)
    ]


def test_metric_vs_epoch_draws_training_and_best_epoch():
    """Seeds stop at different epochs, and one has a training error of 0, which has no logarithm."""
    histories = {
        "cnn": [records([0.5, 0.25, 0.375], [0.5, 0.25, 0.0]), records([0.25, 0.125], [0.75, 0.001])],
        "dense": [records([0.75, 0.5], [0.5, 0.5])],
    }
    figure = plots.metric_vs_epoch(histories, kept={"cnn": [2, 1], "dense": [2]}, title="here")
    (axes,) = figure.axes
    solid = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [line.get_ydata().tolist() for line in solid] == [[0.5, 0.25, 0.375], [0.25, 0.125], [0.75, 0.5]]
    assert [line.get_xdata().tolist() for line in solid] == [[1, 2, 3], [1, 2], [1, 2]]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [float(line.get_ydata()[0]) for line in dashed] == [0.5, 0.75, 0.5]
    assert np.isnan(dashed[0].get_ydata()[-1])
    markers = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "o"]
    assert markers == [(2, 0.25), (1, 0.25), (2, 0.5)]
    colors = [line.get_color() for line in solid]
    assert colors[0] == colors[1] != colors[2] and [line.get_color() for line in dashed] == colors
    assert [text.get_text() for text in axes.get_legend().get_texts()] == "cnn dense validation training kept".split()
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] == pytest.approx(0.125 / 5)
    assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == "error" and figure.get_suptitle() == "here"
    figure.draw_without_rendering()

    (axes,) = plots.metric_vs_epoch(histories, training=False).axes
    assert len(axes.lines) == 3 and axes.get_ylabel() == "validation error"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["cnn", "dense"]


def test_metric_vs_epoch_without_network_raises():
    with pytest.raises(InputError, match=r"^metric_vs_epoch: there is no network to show$"):
        plots.metric_vs_epoch({})


def test_image_rows_shows_images_beside_names(rng):
    images = rng.random((3, 2, 4, 5, 1))
    figure = plot.image_rows(dict(zip("abc", images)), ["left", "right"], title="all")
    pixels = np.array([axes.images[0].get_array()[..., 0] for axes in figure.axes]).reshape(3, 2, 4, 5)
    np.testing.assert_array_equal(pixels, np.round(255 * images[..., 0]))
    assert [axes.get_ylabel() for axes in figure.axes] == ["a", "", "b", "", "c", ""]
    assert [axes.get_title() for axes in figure.axes] == ["left", "right", "", "", "", ""]
    assert figure.get_suptitle() == "all"


@pytest.mark.parametrize("named", [{}, {"a": []}, {"a": np.zeros((2, 4, 4, 1)), "b": np.zeros((1, 4, 4, 1))}])
def test_image_rows_of_unequal_lengths_raises(named):
    with pytest.raises(InputError, match="image_rows: named must have rows of equal length, at least 1, got lengths"):
        plot.image_rows(named)
