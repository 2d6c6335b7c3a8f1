"""Figures of kernels, attribution heatmaps and top-activating patches."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError, named_errors
from jaxconv.explain import kernel_change, kernel_channel_images, kernel_images
from jaxconv.plot import rgb
from jaxconv.plot.figures import literal
from jaxconv.plot.images import image_grid, panel_grid, show_row

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
    """Plot the filters of a kernel as images.

    A filter of a first layer, with 1 or 3 input channels, is one gray or color image with 0 at mid-gray. A filter of a
    deeper layer is a row, one image per input channel: positive weights red, negative blue.

    Args:
        kernel: ``(kh, kw, C, O)``.
        title: figure title; the number of filters is appended.
        before: kernel before training, for a first layer only: each of its filters is shown above the trained one,
            with their cosine similarity.
        per: scale of the colors: each ``"filter"``, or the whole ``"layer"``.
        most: maximum number of filters; an eighth of it for a deeper layer.
        channels: maximum number of input channels, for a deeper layer.

    Raises:
        InputError: if the kernel is not ``(kh, kw, C, O)``, or ``before`` has another shape or is of a deeper layer.

    Lecture rows 002-05, 003-23.

    >>> kernel = np.random.default_rng(0).normal(size=(3, 3, 16, 20))
    >>> kernels(kernel, title="conv2").get_suptitle()
    'conv2: 8 of 20 filters, 8 of 16 input channels'
    """
    if np.ndim(kernel) == 4 and np.shape(kernel)[2] in (1, 3):
        return _plot_first_layer(kernel, title, before, per, most)
    if before is not None:
        raise InputError(f"before must be None unless kernel has 1 or 3 input channels, got kernel {np.shape(kernel)}")
    filters = np.asarray(kernel_channel_images(kernel, per=per))
    num_filters, num_channels = max(1, most // 8), min(channels, filters.shape[1])
    images = [_frame(rgb.diverging(plane, 1.0)) for planes in filters[:num_filters] for plane in planes[:num_channels]]
    labels = [f"{o}, ch {c}" for o in range(len(filters[:num_filters])) for c in range(num_channels)]
    summary = _count_label(len(filters), num_filters, "filters")
    if num_channels < filters.shape[1]:
        summary += f", {num_channels} of {filters.shape[1]} input channels"
    heading = f"{title}: {summary}" if title else summary
    return image_grid(images, labels, columns=num_channels, size=0.9, title=heading)


def _plot_first_layer(kernel: Any, title: str, before: Any, per: str, most: int) -> "Figure":
    after = [_frame(rgb.to_rgb(image)) for image in np.asarray(kernel_images(kernel, normalize_by=per))]
    summary = _count_label(len(after), most, "filters")
    heading = f"{title}: {summary}" if title else summary
    displayed = range(min(most, len(after)))
    if before is None:
        images = [after[o] for o in displayed]
        return image_grid(images, [str(o) for o in displayed], columns=COLUMNS, size=0.7, title=heading)
    cosines = np.asarray(kernel_change(before, kernel).cosine)
    untrained = [_frame(rgb.to_rgb(image)) for image in np.asarray(kernel_images(before, normalize_by=per))]
    tiles: list[Any] = []
    labels: list[str] = []
    for start in displayed[::COLUMNS]:  # a row of untrained filters, then the trained ones below it
        row = displayed[start : start + COLUMNS]
        gap = min(COLUMNS, len(displayed)) - len(row)
        tiles += [*(untrained[o] for o in row), *[None] * gap, *(after[o] for o in row), *[None] * gap]
        labels += [*map(str, row), *[""] * gap, *(f"cos {cosines[o]:.2f}" for o in row), *[""] * gap]
    heading += ", before (top) and after (bottom) training"
    return image_grid(tiles, labels, columns=COLUMNS, size=0.7, title=heading)


def _frame(image: np.ndarray) -> np.ndarray:
    """Enlarge an image and frame it in gray, so that white pixels stand out from the white page."""
    scale = max(1, 48 // max(image.shape[:2]))
    return np.pad(image.repeat(scale, 0).repeat(scale, 1), ((1, 1), (1, 1), (0, 0)), constant_values=128)


def _count_label(count: int, most: int, noun: str) -> str:
    return f"{most} of {count} {noun}" if count > most else f"{count} {noun}"


@named_errors
def attributions(images: Any, heats: Mapping[str, Any], titles: Sequence[str] = (), *, size: float = 1.2) -> "Figure":
    """Plot attribution heatmaps: one row per image, with the image and one overlay per method.

    Args:
        images: ``(N, H, W, C)``, uint8 or floats in [0, 1].
        heats: by method, ``(N, H, W)`` non-negative heatmaps; each is scaled by its own maximum.
        titles: labels of the rows; may be fewer than the rows, or none.
        size: width and height of one panel in inches.

    Raises:
        InputError: if there is no image, or a heatmap differs in size from the images.

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
                "use explain.to_heatmap and explain.upsample_map"
            )
    panels, figure = panel_grid(len(images), 1 + len(heats), size)
    for axes, name in zip(panels[0], ("image", *heats), strict=True):
        axes.set_title(literal(name.replace("_", " ")), fontsize=8)
    for n, row in enumerate(panels):
        overlays = [rgb.overlay(images[n], np.asarray(heatmap)[n]) for heatmap in heats.values()]
        show_row(row, [rgb.to_rgb(images[n]), *overlays], titles[n] if n < len(titles) else "")
    return figure


def activating_patches(
    patches_by_filter: "ActivatingPatches", title: str = "", *, names: Sequence[str] = (), size: float = 0.9
) -> "Figure":
    """Plot the top-activating patches, one row per filter, strongest on the left, labeled with the activation.

    Args:
        patches_by_filter: result of :func:`jaxconv.explain.top_activating_patches`.
        title: figure title.
        names: labels of the rows; by default the filter indices.
        size: width and height of one panel in inches.

    >>> from jaxconv.explain import ActivatingPatches
    >>> patches, index, position = np.zeros((2, 1, 3, 3, 1)), np.zeros((2, 1)), np.zeros((2, 1, 2))
    >>> patches_by_filter = ActivatingPatches(patches, index, position, np.array([[2.5], [1.0]]))
    >>> figure = activating_patches(patches_by_filter)
    >>> [axes.get_ylabel() for axes in figure.axes], [axes.get_xlabel() for axes in figure.axes]
    (['0', '1'], ['2.5', '1'])
    """
    num_filters, num_patches = patches_by_filter.activation.shape
    panels, figure = panel_grid(num_filters, num_patches, size, below=0.2)
    for k, row in enumerate(panels):
        show_row(
            row, [rgb.to_rgb(patch) for patch in patches_by_filter.patches[k]], names[k] if k < len(names) else str(k)
        )
        for axes, activation in zip(row, patches_by_filter.activation[k], strict=True):
            axes.set_xlabel(f"{activation:.3g}", fontsize=7, labelpad=2)
    figure.suptitle(literal(title), fontsize=10)
    return figure
