"""Pictures show what they say: the figures are asked, not the pixels."""

import numpy as np

from jaxconv import plot


def test_mistakes_come_surest_first_and_right_answers_not_at_all():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7], [0.01, 0.99]])
    labels = np.array([1, 1, 1, 0, 0])  # the third is right
    shown = [axes for axes in plot.mistakes(images, labels, probabilities, "ab").axes if axes.images]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in shown] == [4, 0, 3, 1]
    assert shown[0].get_title() == "a\n→ b 99%" and shown[1].get_title() == "b\n→ a 90%"
    few = plot.mistakes(images, labels, probabilities, "ab", most=2)
    assert sum(bool(axes.images) for axes in few.axes) == 2
    assert few.get_suptitle() == "4 of 5 wrong, the 2 surest: true class → what the network said"
    assert plot.mistakes(images[2:3], labels[2:3], probabilities[2:3], "ab").get_suptitle() == "no mistake on 1 images"


def test_curves_show_the_history_and_what_was_kept():
    history = [
        {"epoch": 1, "loss": 0.9, "accuracy": 0.5, "val_loss": 0.8, "val_accuracy": 0.6},
        {"epoch": 2, "loss": 0.3, "accuracy": 0.9, "val_loss": 0.4, "val_accuracy": 0.8},
        {"epoch": 3, "loss": 0.1, "accuracy": 1.0, "val_loss": 0.5, "val_accuracy": 0.7},
    ]
    loss, accuracy = plot.curves(history, best_epoch=2).axes
    assert [line.get_ydata().tolist() for line in loss.lines[:2]] == [[0.9, 0.3, 0.1], [0.8, 0.4, 0.5]]
    assert [line.get_ydata().tolist() for line in accuracy.lines[:2]] == [[0.5, 0.9, 1.0], [0.6, 0.8, 0.7]]
    assert [line.get_label() for line in accuracy.lines] == ["training", "validation", "kept: 0.8000"]
