"""``jaxconv explain``: a page about a run."""

import dataclasses
import time
from pathlib import Path

import tyro

from jaxconv.report import explain_run
from jaxconv.utils.terminal import tell


@dataclasses.dataclass(frozen=True)
class Explain:
    """Write a page that shows what a trained network computed, learned and looked at.

    The page is one file, which opens from the disk, on a phone too, and asks nothing of a network: curves, mistakes,
    filters, feature maps, what speaks for each class (occlusion, Grad-CAM and their kin), the health of every layer,
    receptive fields, what it makes of images that are moved, turned or in noise, and the sum behind one pixel. The
    same pictures are saved as PNG files beside it.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    images: tuple[Path, ...] = ()
    """png or jpg files to look at too; they are resized, and made grey if the data set's images are."""
    invert: bool = False
    """Swap dark and bright in these: for dark ink on white paper, which MNIST shows the other way round."""
    layer: str | None = None
    """Whose feature maps Grad-CAM weighs, conv2; by default the last one's that has places."""
    out: Path | None = None
    """The folder to write to; by default the folder explain in the run's."""


def explain(options: Explain) -> None:
    began = time.perf_counter()
    report = explain_run(
        options.run, images=options.images, invert=options.invert, layer=options.layer, out=options.out
    )
    tell(*report.notes)
    size = report.page.stat().st_size / 1e6
    names = ", ".join(path.name for path in report.pictures)
    tell(f"in {time.perf_counter() - began:.0f} s, a page of {size:.1f} MB; open it in a browser")
    tell(f"saved in {report.page}" + (f"; beside it {names}" if names else ""))
