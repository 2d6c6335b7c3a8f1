"""``jaxconv explain`` writes the HTML report of a run; ``jaxconv demo`` serves its interactive page."""

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
    """Write an HTML report of a trained network.

    The report is one self-contained file that needs no server: training curves, misclassified images, filters,
    feature maps, attributions (occlusion, Grad-CAM and others), diagnostics of every layer, receptive fields,
    robustness to shift, rotation and noise, and the sum behind one output pixel. Its figures are saved as PNG files
    in the same folder.
    """

    run: tyro.conf.Positional[Path]
    """Run folder written by jaxconv train."""
    images: tuple[Path, ...] = ()
    """PNG or JPEG files to explain as well; resized to the input shape."""
    invert: bool = False
    """Invert --images: for dark strokes on white paper, unlike MNIST."""
    layer: str | None = None
    """Grad-CAM layer, such as conv2; by default the last spatial layer."""
    output_dir: Path | None = None
    """Output folder; by default explain/ in the run folder."""


def run_explain(options: Explain) -> None:
    """Write the report, and print its notes and files."""
    start_time = time.perf_counter()
    report = write_report(
        options.run, images=options.images, invert=options.invert, layer=options.layer, output_dir=options.output_dir
    )
    tell(*report.notes)
    size = report.page.stat().st_size / 1e6
    names = ", ".join(path.name for path in report.pictures)
    tell(f"HTML report: {size:.1f} MB, written in {time.perf_counter() - start_time:.0f} s; open it in a browser")
    tell(f"saved in {report.page}" + (f"; figures: {names}" if names else ""))


@dataclasses.dataclass(frozen=True)
class Demo:
    """Classify drawings and uploaded images in a local browser page."""

    run: tyro.conf.Positional[Path]
    """Run folder written by jaxconv train."""
    port: int = 7860
    """Port on 127.0.0.1, which other machines cannot reach."""
    open_browser: bool = False
    """Open the page in a browser."""


def run_demo(options: Demo) -> None:
    """Serve the page until Ctrl-C."""
    check_port(options.port)  # before the network is loaded, which takes seconds
    check_gradio()
    predictor = Predictor(load_run(options.run))
    serve(predictor, options.port, open_browser=options.open_browser, ready=_print_address)


def _print_address(address: str) -> None:
    tell(f"the page is at {address}", "Ctrl-C stops it")
