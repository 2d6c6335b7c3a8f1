"""What the run folder tells already: how training went, and what the network takes for what."""

import numpy as np

from jaxconv import train
from jaxconv.plot import rgb
from jaxconv.report import figures
from jaxconv.report.context import ReportContext
from jaxconv.report.figures import tile
from jaxconv.report.page import Block, Section, Table

MOST_MISTAKES = 32


def curves_section(subject: ReportContext) -> Section:
    """Loss and accuracy by epoch."""
    history, best = subject.history, subject.result["best_epoch"]
    if isinstance(best, list):  # of several networks the page looks at the first
        history, best = [record["per_seed"][0] for record in history], best[0]
    drawn = [(f"{name} by epoch", figures.curves(history, best, name)) for name in ("loss", "accuracy")]
    lead = "Training is measured while the parameters change, and with dropout; so at first it may look the worse one."
    return Section("curves", "How training went", [lead], [Block(charts=drawn)])


def mistakes_section(subject: ReportContext) -> Section:
    """What was taken for what, and the surest mistakes."""
    images, labels, probabilities, classes = subject.images, subject.labels, subject.probabilities, subject.classes
    report = train.classification_report(probabilities, labels, classes)
    said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(said != labels)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    tiles = [
        tile(
            rgb.to_rgb(images[i]),
            f"test image {i}: {classes[labels[i]]}, taken for {classes[said[i]]}",
            f"{classes[labels[i]]} → {classes[said[i]]}\n{sure[i]:.0%} sure",
        )
        for i in shown
    ]
    right = f"{len(labels) - len(wrong):,} of {len(labels):,} test images are right."
    which = f"The {len(shown)} surest mistakes" if len(wrong) > len(shown) else "All of its mistakes, the surest first"
    per_class = [
        (row["class"], *(_share(row[name]) for name in ("precision", "recall", "f1")), f"{row['support']:,}")
        for row in report["per_class"]
    ]
    return Section(
        "mistakes",
        "What it gets wrong",
        [f"{right} Each row of the table is a true class; its colour is the share of that class."],
        [
            Block(charts=[("confusion matrix", figures.confusion(report["confusion_matrix"], classes))]),
            Block(f"{which}: true class → what it said", tiles=tiles) if tiles else Block(text="There is none."),
            Block("By class", table=Table(("class", "precision", "recall", "F1", "images"), per_class)),
        ],
    )


def _share(value: float | None) -> str:
    """Four places; a class that was never said has no precision."""
    return "–" if value is None else f"{value:.4f}"
