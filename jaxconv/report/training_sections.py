"""Sections on training: loss and accuracy by epoch, the confusion matrix and misclassified images."""

import numpy as np

from jaxconv import train
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import ReportContext
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, Section, Table

MOST_MISTAKES = 32


def curves_section(context: ReportContext) -> Section:
    """Plot loss and accuracy by epoch."""
    history, best = context.history, context.result["best_epoch"]
    if isinstance(best, list):  # of several seeds, the report shows the first
        history, best = [record["per_seed"][0] for record in history], best[0]
    charts = [(f"{name} by epoch", figures.curves(history, best, name)) for name in ("loss", "accuracy")]
    intro = (
        "Training values are measured while the parameters change, and with dropout; in early epochs they may be worse "
        "than the validation values."
    )
    return Section("curves", "Training curves", [intro], [Block(charts=charts)])


def mistakes_section(context: ReportContext) -> Section:
    """Show the confusion matrix, the most confident errors, and precision and recall of each class."""
    images, labels, probabilities = context.images, context.labels, context.probabilities
    class_names = context.class_names
    report = train.classification_report(probabilities, labels, class_names)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    selected = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    tiles = [
        tile(
            rgb.to_rgb(images[i]),
            f"test image {i}: true class {class_names[labels[i]]}, predicted {class_names[predicted[i]]}",
            f"{class_names[labels[i]]} → {class_names[predicted[i]]}\n{confidence[i]:.0%}",
        )
        for i in selected
    ]
    accuracy = f"{len(labels) - len(wrong):,} of {len(labels):,} test images are classified correctly."
    if len(wrong) > len(selected):
        heading = f"The {len(selected)} most confident errors"
    else:
        heading = "All errors, most confident first"
    per_class = [
        (row["class"], *(_format_score(row[name]) for name in ("precision", "recall", "f1")), f"{row['support']:,}")
        for row in report["per_class"]
    ]
    return Section(
        "mistakes",
        "Misclassified images",
        [f"{accuracy} Each row of the confusion matrix is a true class; the color is the fraction of that class."],
        [
            Block(charts=[("confusion matrix", figures.confusion(report["confusion_matrix"], class_names))]),
            Block(f"{heading}: true class → predicted class", tiles=tiles) if tiles else Block(text="No errors."),
            Block("Per class", table=Table(("class", "precision", "recall", "F1", "images"), per_class)),
        ],
    )


def _format_score(value: float | None) -> str:
    """Format with four decimals; the precision of a class that was never predicted is undefined."""
    return "–" if value is None else f"{value:.4f}"
