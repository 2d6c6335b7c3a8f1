"""``jaxconv demo``: the live page of a run."""

import dataclasses
from pathlib import Path

import tyro

from jaxconv.demo import Programs, serve
from jaxconv.demo.server import check_gradio, check_port
from jaxconv.runs import load_run
from jaxconv.utils.terminal import tell


@dataclasses.dataclass(frozen=True)
class Demo:
    """Draw, or upload an image, and see what a trained network makes of it, in a browser on this machine."""

    run: tyro.conf.Positional[Path]
    """Run folder, as jaxconv train made it."""
    port: int = 7860
    """Of 127.0.0.1, which no other machine can reach."""
    browser: bool = False
    """Open the page in a browser."""


def run_demo(options: Demo) -> None:
    """Serve it until Ctrl-C."""
    check_port(options.port)  # first, for what is loaded takes seconds
    check_gradio()
    programs = Programs(load_run(options.run))
    serve(programs, options.port, browser=options.browser, ready=_tell)


def _tell(address: str) -> None:
    tell(f"the page is at {address}", "Ctrl-C stops it")
