"""What depth does to gradients, and to learning."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxconv.errors import InputError
from jaxconv.plot.diagnostics import norms_line
from jaxconv.plot.figures import literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradients_and_losses(
    norms: Mapping[str, Sequence[Mapping[str, Any]]],
    losses: Mapping[str, Sequence[Sequence[float]]],
    *,
    title: str = "",
) -> "Figure":
    """The gradient of each layer before training, and the loss while training: a colour a network, a line a seed.

    Args:
        norms: for each network and seed what :func:`jaxconv.explain.gradient_norms` returns. What is 0 or not finite
            has no place on the scale, and is left out.
        losses: for each of these networks and each seed the training loss, epoch by epoch.
        title: above both.

    Raises:
        InputError: no network, or not the same ones in both.

    Lecture row 003-22.

    >>> norms = {"plain": [{"conv1": 1e-6, "conv2": 1e-3}], "residual": [{"conv1": 0.1, "conv2": 0.2}]}
    >>> figure = gradients_and_losses(norms, {"plain": [[2.3, 2.0]], "residual": [[2.3, 1.0]]})
    >>> [axes.lines[1].get_ydata().tolist() for axes in figure.axes]
    [[0.1, 0.2], [2.3, 1.0]]
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not norms or set(norms) != set(losses) or not all(norms.values()):
        raise InputError("gradients_and_losses: the same networks are wanted in both, at least one, each with a seed")
    figure = Figure(figsize=(8.6, 3.9), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    handles = []
    for k, (name, seeds) in enumerate(norms.items()):
        for layers in seeds:
            line = norms_line(left, layers, color=f"C{k}", lw=1.3, label=literal(name))
        for loss in losses[name]:
            right.plot(np.arange(1, len(loss) + 1), loss, "o-", ms=3, lw=1.3, color=f"C{k}")
        handles.append(line)
    left.set(yscale="log", xlabel="layer, from the image to the logits", ylabel="‖d loss / d kernel‖ before training")
    right.set(xlabel="epoch", ylabel="training loss")
    right.set_ylim(0, 1.05 * max(max(loss) for seeds in losses.values() for loss in seeds))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(literal(title), fontsize=10)
    return figure
