"""What a network looked at, and what its filters look for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot import rgb
from jaxconv.plot.images import fill, panels_of
from jaxconv.plot.words import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jaxconv.explain import Patches


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
        raise InputError(f"attributions: images {images.shape} should be at least one, (N, H, W, C)")
    for name, heat in heats.items():
        if np.shape(heat) != images.shape[:3]:
            raise InputError(
                f"attributions: heat of {name} {np.shape(heat)} should be {images.shape[:3]}, as the images are: "
                "explain.to_heat and explain.enlarge_map make it so"
            )
    panels, figure = panels_of(len(images), 1 + len(heats), size)
    for axes, name in zip(panels[0], ("image", *heats), strict=True):
        axes.set_title(literal(name.replace("_", " ")), fontsize=8)
    for n, row in enumerate(panels):
        shown = [rgb.picture(images[n]), *(rgb.overlay(images[n], np.asarray(h)[n]) for h in heats.values())]
        fill(row, shown, titles[n] if n < len(titles) else "")
    return figure


def patches(found: "Patches", title: str = "", *, names: Sequence[str] = (), size: float = 0.9) -> "Figure":
    """A row for each filter: what excited it most, the strongest on the left, with its answer.

    Args:
        found: what :func:`jaxconv.explain.nearest_patches` found.
        title: above all.
        names: of the rows; by default their numbers.
        size: of one picture, in inches.

    >>> from jaxconv.explain import Patches
    >>> two = Patches(np.zeros((2, 1, 3, 3, 1)), np.zeros((2, 1)), np.zeros((2, 1, 2)), np.array([[2.5], [1.0]]))
    >>> figure = patches(two)
    >>> [axes.get_ylabel() for axes in figure.axes], [axes.get_xlabel() for axes in figure.axes]
    (['0', '1'], ['2.5', '1'])
    """
    filters, count = found.activation.shape
    panels, figure = panels_of(filters, count, size, below=0.2)
    for k, row in enumerate(panels):
        fill(row, [rgb.picture(patch) for patch in found.patches[k]], names[k] if k < len(names) else str(k))
        for axes, activation in zip(row, found.activation[k], strict=True):
            axes.set_xlabel(f"{activation:.3g}", fontsize=7, labelpad=2)
    figure.suptitle(literal(title), fontsize=10)
    return figure
