"""Data of a report: a run, the test images, and the examples that are analyzed one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxconv import data
from jaxconv.data.images import read_image_shape
from jaxconv.errors import error_context
from jaxconv.explain import LayerSummary, Summary, grad_cam, summarize
from jaxconv.explain.intermediates import check_layer
from jaxconv.layers import Layer
from jaxconv.runs import CHANGED, TrainedRun, load_run, read_history, read_result

MOST_EXAMPLES = 10
Item = TypeVar("Item")


class Examples(NamedTuple):
    """Images that are analyzed one by one: the first test image of each class, and the given files."""

    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,): target class of the attributions: the true class, or for a file the predicted one
    names: list[str]  # class name, or file name
    predictions: list[str]  # predicted class and its probability, such as "cat 98%"


class ReportContext(NamedTuple):
    """A run with everything that its report is built from."""

    run: TrainedRun  # a single network
    result: dict[str, Any]
    history: list[dict[str, Any]]
    summary: Summary
    images: np.ndarray  # the test images
    labels: np.ndarray
    probabilities: np.ndarray  # predicted, of the test images
    examples: Examples
    layer: str | None  # of Grad-CAM; None for the default
    notes: list[str]

    @property
    def class_names(self) -> list[str]:
        return self.run.config["class_names"]

    @property
    def convolutions(self) -> list[LayerSummary]:
        """The convolutions with spatial output, from the first to the last."""
        return [row for row in self.summary.rows if row.facts.kernel_use == "slide" and len(row.shape) == 3]

    @property
    def network(self) -> tuple[Layer, Any, Any]:
        """Model, params and state."""
        return self.run.model, self.run.params, self.run.state


def evenly_spaced(items: Sequence[Item], most: int) -> list[Item]:
    """Select at most ``most`` of the items, evenly spaced, first and last included.

    >>> evenly_spaced("abcdefg", 3), evenly_spaced("ab", 3)
    (['a', 'd', 'g'], ['a', 'b'])
    """
    indices = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[i] for i in indices]


def load_context(
    folder: Path, *, files: Sequence[Path] = (), invert: bool = False, layer: str | None = None
) -> ReportContext:
    """Read and check everything that the report needs, before any slow computation.

    Args:
        folder: run folder.
        files: further image files to analyze.
        invert: swap dark and bright in these files.
        layer: layer of Grad-CAM.

    Raises:
        InputError: if there is no finished run, the layer is unknown, a file is not an image, or the dataset is missing
            or has other classes than in training.
    """
    run = load_run(folder)
    run.check_classifies()
    result = read_result(Path(folder))
    history = read_history(run.folder, result["epochs_run"])
    notes = []
    if (seeds := run.config.get("num_seeds", 1)) > 1:
        notes.append(f"This run trained {seeds} networks; the report shows the first, seed {run.config['seed']}.")
    run = run.first_member()
    input_shape = tuple(run.config["input_shape"])
    if layer is not None:
        _check_layer(run, layer)
    file_images, resize_notes = _read_files(run, files, invert)
    (images, labels), changed = run.test_data()
    if changed:
        notes.append(f"{CHANGED}.")
    probabilities = run.predict(images)
    examples = _select_examples(run, images, labels, probabilities, file_images, files)
    if len(run.config["class_names"]) > MOST_EXAMPLES:
        notes.append(f"Only the first {MOST_EXAMPLES} of {len(run.config['classes'])} classes have an example image.")
    return ReportContext(
        run,
        result,
        history,
        summarize(run.model, input_shape),
        images,
        labels,
        probabilities,
        examples,
        layer,
        notes + resize_notes,
    )


def _check_layer(run: TrainedRun, layer: str) -> None:
    image = jax.ShapeDtypeStruct((1, *run.config["input_shape"]), np.float32)
    with error_context("explain --layer"):
        check_layer(run.model, layer)
        jax.eval_shape(lambda x: grad_cam(run.model, run.params, run.state, x, layer=layer), image)


def _read_files(run: TrainedRun, files: Sequence[Path], invert: bool) -> tuple[np.ndarray, list[str]]:
    """Read image files at the input size of the network, with a note for each resized file."""
    shape, input_shape = tuple(run.config["image_shape"]), tuple(run.config["input_shape"])
    arrays, notes = [np.zeros((0, *shape), np.uint8)], []
    for path in map(Path, files):
        arrays.append(data.read_image(path, shape)[None])
        height, width, _ = read_image_shape(path)
        if (height, width) != shape[:2]:
            notes.append(f"{path.name} was resized from {height}×{width} to {shape[0]}×{shape[1]}.")
    images = np.concatenate(arrays)
    return data.upscale_and_pad(255 - images if invert else images, input_shape[:2]), notes


def _select_examples(
    run: TrainedRun,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    file_images: np.ndarray,
    files: Sequence[Path],
) -> Examples:
    class_names = run.config["class_names"]
    indices_by_class = [np.flatnonzero(labels == c) for c in range(len(class_names))]
    first = [int(indices[0]) for indices in indices_by_class if indices.size][:MOST_EXAMPLES]
    selected = np.concatenate([images[first], file_images])
    file_probabilities = [run.predict(file_images)] if len(file_images) else []
    selected_probabilities = np.concatenate([probabilities[first], *file_probabilities])
    predicted, confidence = selected_probabilities.argmax(axis=1), selected_probabilities.max(axis=1)
    targets = np.concatenate([labels[first], predicted[len(first) :]])
    names = [str(class_names[labels[i]]) for i in first] + [Path(path).name for path in files]
    predictions = [f"{class_names[k]} {p:.0%}" for k, p in zip(predicted, confidence, strict=True)]
    return Examples(selected, targets, names, predictions)
