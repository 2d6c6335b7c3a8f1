"""What a page is about: a run, the test images, and those of them that are looked at one by one."""

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
    """Images that are looked at one by one: the first test image of each class, and the files that were given."""

    images: np.ndarray  # (N, H, W, C) uint8
    labels: np.ndarray  # (N,): the class that is asked about: the true one, or of a file the likeliest
    names: list[str]
    said: list[str]


class ReportContext(NamedTuple):
    """A run with all that its page is made of."""

    run: TrainedRun  # of one network
    result: dict[str, Any]
    history: list[dict[str, Any]]
    summary: Summary
    images: np.ndarray  # the test images
    labels: np.ndarray
    probabilities: np.ndarray  # what the network says of them
    examples: Examples
    layer: str | None  # that Grad-CAM was asked of
    notes: list[str]

    @property
    def classes(self) -> list[str]:
        return self.run.config["class_names"]

    @property
    def convolutions(self) -> list[LayerSummary]:
        """The convolutions of images, from the first to the last."""
        return [row for row in self.summary.rows if row.facts.kernel_use == "slide" and len(row.shape) == 3]

    @property
    def network(self) -> tuple[Layer, Any, Any]:
        """Model, params and state."""
        return self.run.model, self.run.params, self.run.state


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """No more than so many of the items, evenly from the first to the last.

    >>> spread("abcdefg", 3), spread("ab", 3)
    (['a', 'd', 'g'], ['a', 'b'])
    """
    places = np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)
    return [items[i] for i in places]


def load_context(
    folder: Path, *, files: Sequence[Path] = (), invert: bool = False, layer: str | None = None
) -> ReportContext:
    """All that is needed, read and checked, before anything takes long.

    Args:
        folder: the run's.
        files: pictures to look at too.
        invert: swap dark and bright in these.
        layer: whose feature maps Grad-CAM weighs.

    Raises:
        InputError: no run, or one whose training did not end; a layer that the network has not; a file that is no
            picture; data that are not there, or have other classes now.
    """
    run = load_run(folder)
    run.check_classifies()
    result = read_result(Path(folder))
    history = read_history(run.folder, result["epochs_run"])
    notes = []
    if (seeds := run.config.get("num_seeds", 1)) > 1:
        notes.append(f"This run trained {seeds} networks; the page looks at the first, of seed {run.config['seed']}.")
    run = run.first_member()
    input_shape = tuple(run.config["input_shape"])
    if layer is not None:
        _check_layer(run, layer)
    pictures, resized = _read_files(run, files, invert)
    (images, labels), changed = run.test_data()
    if changed:
        notes.append(f"{CHANGED}.")
    probabilities = run.predict(images)
    examples = _examples(run, images, labels, probabilities, pictures, files)
    if len(run.config["class_names"]) > MOST_EXAMPLES:
        notes.append(f"Of the {len(run.config['classes'])} classes the first {MOST_EXAMPLES} are looked at one by one.")
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
        notes + resized,
    )


def _check_layer(run: TrainedRun, layer: str) -> None:
    image = jax.ShapeDtypeStruct((1, *run.config["input_shape"]), np.float32)
    with error_context("explain --layer"):
        check_layer(run.model, layer)
        jax.eval_shape(lambda x: grad_cam(run.model, run.params, run.state, x, layer=layer), image)


def _read_files(run: TrainedRun, files: Sequence[Path], invert: bool) -> tuple[np.ndarray, list[str]]:
    """Pictures as the network takes them, and a note for each that was resized."""
    shape, input_shape = tuple(run.config["image_shape"]), tuple(run.config["input_shape"])
    read, notes = [np.zeros((0, *shape), np.uint8)], []
    for path in map(Path, files):
        read.append(data.read_image(path, shape)[None])
        height, width, _ = read_image_shape(path)
        if (height, width) != shape[:2]:
            notes.append(f"{path.name} is {height}×{width}; the network was shown it as {shape[0]}×{shape[1]}.")
    pictures = np.concatenate(read)
    return data.upscale_and_pad(255 - pictures if invert else pictures, input_shape[:2]), notes


def _examples(
    run: TrainedRun,
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    pictures: np.ndarray,
    files: Sequence[Path],
) -> Examples:
    classes = run.config["class_names"]
    there = [np.flatnonzero(labels == c) for c in range(len(classes))]
    first = [int(found[0]) for found in there if found.size][:MOST_EXAMPLES]
    shown = np.concatenate([images[first], pictures])
    of_shown = np.concatenate([probabilities[first], *([run.predict(pictures)] if len(pictures) else [])])
    best, sure = of_shown.argmax(axis=1), of_shown.max(axis=1)
    asked = np.concatenate([labels[first], best[len(first) :]])
    names = [str(classes[labels[i]]) for i in first] + [Path(path).name for path in files]
    return Examples(shown, asked, names, [f"{classes[b]} {s:.0%}" for b, s in zip(best, sure, strict=True)])
