"""Figures of kernels, of attributions, and of the patches that excite a filter."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain import kernel_change, kernel_channel_images, kernel_images
from jaxconv.plot import rgb
from jaxconv.plot.images import image_grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.explain import ActivatingPatches

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxconv.plot.figures import literal
from jaxconv.plot.images import fill, panels_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.explain import ActivatingPatches


COLUMNS = 16


@named_errors
def kernels(
    kernel: Any,
    *,
    title: str = "",
    before: Any = None,
    per: str = "filter",
    most: int = 64,
    channels: int = 8,
) -> "Figure":
    """The filters of a kernel, each a picture: of a first layer in grey or in colour, with 0 in the middle of it.

    A filter of a deeper layer is a row, with a picture for each of the first few channels of its input: red above 0,
    blue below.

    Args:
        kernel: ``(kh, kw, C, O)``.
        title: above all; how many are left out is said there too.
        before: the kernel before it was trained: each filter of it is shown above its own, with the cosine
            between the two; of a first layer only.
        per: the scale of each ``"filter"``, or one for the whole ``"layer"``.
        most: of the filters, show no more; of a deeper layer, an eighth as many.
        channels: of the input of a deeper layer, show no more.

    Raises:
        InputError: no such kernel, or a ``before`` of another shape or of a deeper layer.

    Lecture rows 002-05, 003-23.

    >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 20))
    >>> kernels(kernel, title="conv2").get_suptitle()
    'conv2: 8 of 20 filters, 8 of the 16 channels each sees'
    """
    if np.ndim(kernel) == 4 and np.shape(kernel)[2] in (1, 3):
        return _first(kernel, title, before, per, most)
    if before is not None:
        raise InputError(f"before and after are shown of a first layer only, not of {np.shape(kernel)}")
    shown = np.asarray(kernel_channel_images(kernel, per=per))
    count, inputs = max(1, most // 8), min(channels, shown.shape[1])
    pictures = [_framed(rgb.diverging(each, 1.0)) for row in shown[:count] for each in row[:inputs]]
    names = [f"{o}, of {c}" for o in range(len(shown[:count])) for c in range(inputs)]
    said = _of(len(shown), count, "filters")
    if inputs < shown.shape[1]:
        said += f", {inputs} of the {shown.shape[1]} channels each sees"
    return image_grid(pictures, names, columns=inputs, size=0.9, title=f"{title}: {said}" if title else said)


def _first(kernel: Any, title: str, before: Any, per: str, most: int) -> "Figure":
    after = [_framed(rgb.to_rgb(image)) for image in np.asarray(kernel_images(kernel, normalize_by=per))]
    said = _of(len(after), most, "filters")
    heading = f"{title}: {said}" if title else said
    shown = range(min(most, len(after)))
    if before is None:
        return image_grid([after[o] for o in shown], [str(o) for o in shown], columns=COLUMNS, size=0.7, title=heading)
    cosines = np.asarray(kernel_change(before, kernel).cosine)
    first = [_framed(rgb.to_rgb(image)) for image in np.asarray(kernel_images(before, normalize_by=per))]
    pictures: list[Any] = []
    names: list[str] = []
    for start in shown[::COLUMNS]:  # a row before training, and below it one after
        row = shown[start : start + COLUMNS]
        gap = min(COLUMNS, len(shown)) - len(row)
        pictures += [*(first[o] for o in row), *[None] * gap, *(after[o] for o in row), *[None] * gap]
        names += [*map(str, row), *[""] * gap, *(f"cos {cosines[o]:.2f}" for o in row), *[""] * gap]
    return image_grid(
        pictures, names, columns=COLUMNS, size=0.7, title=f"{heading}, before training and below it after"
    )


def _framed(picture: np.ndarray) -> np.ndarray:
    """Large enough for a thin frame, without which what is white would be lost on the page."""
    times = max(1, 48 // max(picture.shape[:2]))
    return np.pad(picture.repeat(times, 0).repeat(times, 1), ((1, 1), (1, 1), (0, 0)), constant_values=128)


def _of(count: int, most: int, what: str) -> str:
    return f"{most} of {count} {what}" if count > most else f"{count} {what}"


@named_errors
def attributions(images: Any, heats: Mapping[str, Any], titles: Sequence[str] = (), *, size: float = 1.2) -> "Figure":
    """A row for each image: the image, and on it the heat of each method, bright where it is largest.

    Args:
        images: ``(N, H, W, C)``, bytes or floats from 0 to 1.
        heats: of each method, by its name, ``(N, H, W)`` and not negative. Each is bright by its own largest value.
        titles: of the rows; fewer, or none, will do.
        size: of one picture, in inches.

    Raises:
        InputError: no image, or heat of another size than the images.

    >>> figure = attributions(np.zeros((2, 4, 4, 1), np.uint8), {"saliency": np.ones((2, 4, 4))}, ["a", "b"])
    >>> [axes.get_title() for axes in figure.axes], [axes.get_ylabel() for axes in figure.axes]
    (['image', 'saliency', '', ''], ['a', '', 'b', ''])
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise InputError(f"images {images.shape} should be at least one, (N, H, W, C)")
    for name, heat in heats.items():
        if np.shape(heat) != images.shape[:3]:
            raise InputError(
                f"heat of {name} {np.shape(heat)} should be {images.shape[:3]}, as the images are: "
                "explain.to_heatmap and explain.upsample_map make it so"
            )
    panels, figure = panels_of(len(images), 1 + len(heats), size)
    for axes, name in zip(panels[0], ("image", *heats), strict=True):
        axes.set_title(literal(name.replace("_", " ")), fontsize=8)
    for n, row in enumerate(panels):
        shown = [rgb.to_rgb(images[n]), *(rgb.overlay(images[n], np.asarray(h)[n]) for h in heats.values())]
        fill(row, shown, titles[n] if n < len(titles) else "")
    return figure


def activating_patches(
    found: "ActivatingPatches", title: str = "", *, names: Sequence[str] = (), size: float = 0.9
) -> "Figure":
    """A row for each filter: what excited it most, the strongest on the left, with its answer.

    Args:
        found: what :func:`jaxconv.explain.top_activating_patches` found.
        title: above all.
        names: of the rows; by default their numbers.
        size: of one picture, in inches.

    >>> from jaxconv.explain import ActivatingPatches
    >>> patches, index, position = np.zeros((2, 1, 3, 3, 1)), np.zeros((2, 1)), np.zeros((2, 1, 2))
    >>> two = ActivatingPatches(patches, index, position, np.array([[2.5], [1.0]]))
    >>> figure = activating_patches(two)
    >>> [axes.get_ylabel() for axes in figure.axes], [axes.get_xlabel() for axes in figure.axes]
    (['0', '1'], ['2.5', '1'])
    """
    filters, count = found.activation.shape
    panels, figure = panels_of(filters, count, size, below=0.2)
    for k, row in enumerate(panels):
        fill(row, [rgb.to_rgb(patch) for patch in found.patches[k]], names[k] if k < len(names) else str(k))
        for axes, activation in zip(row, found.activation[k], strict=True):
            axes.set_xlabel(f"{activation:.3g}", fontsize=7, labelpad=2)
    figure.suptitle(literal(title), fontsize=10)
    return figure
