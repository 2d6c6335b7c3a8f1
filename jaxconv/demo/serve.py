"""The server: on this machine only, and nothing is asked of a network."""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from types import ModuleType

import numpy as np

from jaxconv.demo.answer import Programs, answer
from jaxconv.errors import InputError

HOST = "127.0.0.1"


def serve(programs: Programs, port: int = 7860, *, browser: bool = False, ready: Callable[[str], None] = print) -> None:
    """Serve the page of a run until Ctrl-C.

    Args:
        programs: of the run.
        port: of 127.0.0.1.
        browser: open it in a browser.
        ready: called with the page's address, when it can be opened.

    Raises:
        InputError: gradio is not installed; the port is busy, or none.
        KeyboardInterrupt: Ctrl-C, after the server has stopped.
    """
    check_port(port)
    with tempfile.TemporaryDirectory(prefix="jaxconv-demo-") as folder:
        # gradio reads these; without them it tells its makers that it was started, and keeps files in a folder for all.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder)
        # It looks at its own page once, which no proxy can show to it.
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = f"{direct},{HOST}" if direct else HOST
        gr = gradio()
        from jaxconv.demo.page import build, style

        warm_up(programs)
        page = build(programs)
        try:
            page.launch(
                server_name=HOST,
                server_port=port,
                inbrowser=browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=style(),
            )
            ready(f"http://{HOST}:{port}")
            while True:
                time.sleep(1)
        finally:
            page.close(verbose=False)


def warm_up(programs: Programs) -> None:
    """Compile what the first stroke needs, before there is one."""
    answer(programs, np.zeros(programs.image_shape, np.uint8), next(iter(programs.heat), None))


def gradio() -> ModuleType:
    """The library that makes the page.

    Raises:
        InputError: it is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise InputError('jaxconv demo needs gradio: pip install "jaxconv[demo]"') from None
    return gradio


def check_port(port: int) -> None:
    """Refuse a port that cannot be served.

    Raises:
        InputError: it is no port, or busy, or not for this user.
    """
    if not 1 <= port <= 65_535:
        raise InputError(f"demo: --port {port}: give a number from 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(
                f"demo: port {port} of {HOST} cannot be served ({error.strerror}): give another --port"
            ) from None
