"""Local web server of the page: bound to 127.0.0.1, protected by a token, without access to the internet."""

import os
import secrets
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType

import numpy as np

from jaxconv.demo.access_control import Access, App
from jaxconv.demo.prediction import Predictor, predict
from jaxconv.errors import InputError, named_errors

HOST = "127.0.0.1"
MAX_CONNECTIONS = 100  # at a time; a tab opens about eight


def serve(
    programs: Predictor, port: int = 7860, *, open_browser: bool = False, ready: Callable[[str], None] = print
) -> None:
    """Serve the page of a run until Ctrl-C.

    Only a browser that opened the address passed to ``ready`` is served: the address includes a token, which is new at
    each start (:class:`~jaxconv.demo.access_control.Access`). The page's files are deleted on Ctrl-C, SIGTERM, or when
    the terminal is closed.

    Args:
        programs: compiled functions of the run.
        port: port on 127.0.0.1.
        open_browser: open the page in a browser.
        ready: called with the page's address once it can be opened.

    Raises:
        InputError: if gradio is not installed, or the port is invalid or in use.
        KeyboardInterrupt: on Ctrl-C, after the server has stopped.
    """
    check_gradio()
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/?token={token}"
    with (
        listener(port) as listening,
        cleaned_up_on_signals(),
        tempfile.TemporaryDirectory(prefix="jaxconv-demo-") as folder,
    ):
        # gradio reads these variables. By default it reports usage to its makers, writes files to a folder shared by
        # all users, and logs the last 10,000 requests, copying the log into a table at each request.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=folder)
        os.environ.update(GRADIO_ANALYTICS_MAX_EVENTS="100", GRADIO_ANALYTICS_CACHE_FREQUENCY="1000000000")
        from jaxconv.demo.page import application, build

        warm_up(programs)
        page = build(programs)
        with running(Access(application(page), port, token), listening, before_stopping=page.close):
            ready(address)
            if open_browser:
                webbrowser.open(address)
            while True:
                time.sleep(1)


@contextmanager
def running(app: App, listening: socket.socket, before_stopping: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Run an ASGI application in a thread; the main thread stays free to receive signals.

    Args:
        app: application to serve.
        listening: bound socket.
        before_stopping: called first on exit.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",  # independent of the installed packages, and with a limit on headers
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        yield
    finally:
        before_stopping()
        server.should_exit = True
        thread.join(timeout=2)  # the connections of a page that is still open end with this process


@contextmanager
def cleaned_up_on_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGINT, SIGTERM or SIGHUP, so that its cleanup code runs.

    Afterwards SIGTERM and SIGHUP are delivered again to their previous handlers. Signals during cleanup are ignored.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    previous_handlers = {}
    if threading.current_thread() is threading.main_thread():  # Python delivers signals to the main thread only
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                previous_handlers[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
        if received and received[0] != signal.SIGINT:
            signal.raise_signal(received[0])


def warm_up(predictor: Predictor) -> None:
    """Compile the functions of the first stroke in advance."""
    predict(predictor, np.zeros(predictor.image_shape, np.uint8), next(iter(predictor.attributions), None))


def check_gradio() -> None:
    """Check that gradio is installed, without importing it, because the import creates a folder.

    Raises:
        InputError: if gradio is not installed.
    """
    if find_spec("gradio") is None:
        raise InputError('jaxconv demo needs gradio: pip install "jaxconv[demo]"')


def check_port(port: int) -> None:
    """Check that the port can be served.

    Raises:
        InputError: if the port is invalid, in use, or not permitted.
    """
    listener(port).close()


@named_errors(name="demo")
def listener(port: int) -> socket.socket:
    """Return a socket bound to the port on 127.0.0.1.

    Raises:
        InputError: if the port is invalid, in use, or not permitted.
    """
    if not 1 <= port <= 65_535:
        raise InputError(f"--port must be from 1 to 65535, got {port}")
    listening = socket.socket()
    try:
        if os.name == "posix":  # on Windows this option would share the port with another server
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} of {HOST} cannot be served ({error.strerror}): give another --port") from None
    return listening
