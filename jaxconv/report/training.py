"""What the run folder tells already: how training went, and what the network takes for what."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot import pixels
from jaxconv.report import charts
from jaxconv.report.images import tile
from jaxconv.report.page import Block, Section, Table

MOST_MISTAKES = 32


def read_result(folder: Path) -> dict[str, Any]:
    """A run's result.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        raise InputError(
            f"{folder} has no result.json: its training did not end; jaxconv train --resume {folder} goes on with it"
        ) from None
    except ValueError as error:
        raise InputError(f"{folder / 'result.json'} is damaged: {error}") from None
    if not isinstance(result, dict) or "test_accuracy" not in result:
        raise InputError(f"{folder / 'result.json'} is damaged: it has no test_accuracy")
    return result


def read_history(folder: Path) -> list[dict[str, Any]]:
    """A run's records, one an epoch."""
    try:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'metrics.jsonl'} cannot be read: {error}") from None


def curves_section(history: Sequence[dict[str, Any]], best_epoch: int) -> Section:
    """Loss and accuracy by epoch."""
    drawn = [(f"{name} by epoch", charts.curves(history, best_epoch, name)) for name in ("loss", "accuracy")]
    lead = "Training is measured while the parameters change, and with dropout; so at first it may look the worse one."
    return Section("curves", "How training went", [lead], [Block(charts=drawn)])


def mistakes_section(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, report: dict[str, Any], classes: Sequence[str]
) -> Section:
    """What was taken for what, and the surest mistakes."""
    said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(said != labels)
    shown = wrong[np.argsort(-sure[wrong], kind="stable")][:MOST_MISTAKES]
    tiles = [
        tile(
            pixels.picture(images[i]),
            f"test image {i}: {classes[labels[i]]}, taken for {classes[said[i]]}",
            f"{classes[labels[i]]} → {classes[said[i]]}\n{sure[i]:.0%} sure",
        )
        for i in shown
    ]
    right = f"{len(labels) - len(wrong):,} of {len(labels):,} test images are right."
    which = f"The {len(shown)} surest mistakes" if len(wrong) > len(shown) else "All of its mistakes, the surest first"
    per_class = [
        (row["class"], f"{row['precision']:.4f}", f"{row['recall']:.4f}", f"{row['f1']:.4f}", f"{row['support']:,}")
        for row in report["per_class"]
    ]
    return Section(
        "mistakes",
        "What it gets wrong",
        [f"{right} Each row of the table is a true class; its colour is the share of that class."],
        [
            Block(charts=[("confusion matrix", charts.confusion(report["confusion"], classes))]),
            Block(f"{which}: true class → what it said", tiles=tiles) if tiles else Block(text="There is none."),
            Block("By class", table=Table(("class", "precision", "recall", "F1", "images"), per_class)),
        ],
    )
