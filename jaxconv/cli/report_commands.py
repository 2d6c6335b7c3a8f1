"""``jaxconv explain``, the page of a run, and ``jaxconv demo``, its live page."""

import dataclasses
import time
from pathlib import Path

import tyro

from jaxconv.demo import Predictor, serve
from jaxconv.demo.server import check_gradio, check_port
from jaxconv.report import write_report
from jaxconv.runs import load_run
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
    output_dir: Path | None = None
    """The folder to write to; by default the folder explain in the run's."""


def explain(options: Explain) -> None:
    began = time.perf_counter()
    report = write_report(
        options.run, images=options.images, invert=options.invert, layer=options.layer, output_dir=options.output_dir
    )
    tell(*report.notes)
    size = report.page.stat().st_size / 1e6
    names = ", ".join(path.name for path in report.pictures)
    tell(f"in {time.perf_counter() - began:.0f} s, a page of {size:.1f} MB; open it in a browser")
    tell(f"saved in {report.page}" + (f"; beside it {names}" if names else ""))


@dataclasses.dataclass(frozen=True)
class Demo:
    """Draw, or upload an image, and see what a trained network makes of it, in a browser on this machine."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    port: int = 7860
    """Of 127.0.0.1, which no other machine can reach."""
    open_browser: bool = False
    """Open the page in a browser."""


def run_demo(options: Demo) -> None:
    """Serve it until Ctrl-C."""
    check_port(options.port)  # first, for what is loaded takes seconds
    check_gradio()
    programs = Predictor(load_run(options.run))
    serve(programs, options.port, open_browser=options.open_browser, ready=_tell)


def _tell(address: str) -> None:
    tell(f"the page is at {address}", "Ctrl-C stops it")
