"""The server: on this machine only, for whoever has its address, and nothing is asked of a network."""

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
CONNECTIONS = 100  # at a time; a tab has about eight


def serve(
    programs: Predictor, port: int = 7860, *, open_browser: bool = False, ready: Callable[[str], None] = print
) -> None:
    """Serve the page of a run until Ctrl-C.

    Only a browser that opened the address given to ``ready`` is answered: it has a token, which is new at each start
    (:class:`~jaxconv.demo.access_control.Access`). What the page keeps on the disk is removed at the end, be it by
    Ctrl-C, by SIGTERM or because the terminal was closed.

    Args:
        programs: of the run.
        port: of 127.0.0.1.
        open_browser: open it in a browser.
        ready: called with the page's address, when it can be opened.

    Raises:
        InputError: gradio is not installed; the port is busy, or none.
        KeyboardInterrupt: Ctrl-C, after the server has stopped.
    """
    check_gradio()
    token = secrets.token_urlsafe(24)
    address = f"http://{HOST}:{port}/?token={token}"
    with (
        listener(port) as listening,
        cleaned_up_on_signals(),
        tempfile.TemporaryDirectory(prefix="jaxconv-demo-") as folder,
    ):
        # gradio reads these. Without them it tells its makers that it was started, keeps files in a folder for all, and
        # keeps notes on the last 10,000 requests, which it puts into a table at each.
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
    """An ASGI application served by a thread, for signals come to the main one.

    Args:
        app: the application.
        listening: a socket that is bound.
        before_stopping: called first when it ends.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        http="h11",  # the same whatever else is installed, and with a limit on headers
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
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
        thread.join(timeout=2)  # of a page that is still open, the connections end with this process


@contextmanager
def cleaned_up_on_signals() -> Iterator[None]:
    """Let what is inside end as Ctrl-C ends it, by KeyboardInterrupt, when it is told to stop in another way too.

    Afterwards SIGTERM and SIGHUP do what they would have done. While it ends, further signals change nothing.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():  # no signal is delivered anywhere else
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received and received[0] != signal.SIGINT:
            signal.raise_signal(received[0])


def warm_up(programs: Predictor) -> None:
    """Compile what the first stroke needs, before there is one."""
    predict(programs, np.zeros(programs.image_shape, np.uint8), next(iter(programs.heat), None))


def check_gradio() -> None:
    """Refuse to go on without the library that makes the page. It is not imported: that would make it a folder.

    Raises:
        InputError: it is not installed.
    """
    if find_spec("gradio") is None:
        raise InputError('jaxconv demo needs gradio: pip install "jaxconv[demo]"')


def check_port(port: int) -> None:
    """Refuse a port that cannot be served.

    Raises:
        InputError: it is no port, or busy, or not for this user.
    """
    listener(port).close()


@named_errors(name="demo")
def listener(port: int) -> socket.socket:
    """A socket of 127.0.0.1 that has the port.

    Raises:
        InputError: it is no port, or busy, or not for this user.
    """
    if not 1 <= port <= 65_535:
        raise InputError(f"--port {port}: give a number from 1 to 65535")
    listening = socket.socket()
    try:
        if os.name == "posix":  # elsewhere it would take the port from another server
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise InputError(f"port {port} of {HOST} cannot be served ({error.strerror}): give another --port") from None
    return listening
