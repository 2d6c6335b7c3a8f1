"""Downloads from a local HTTP server that simulates broken, slow and wrong mirrors."""

import contextlib
import hashlib
import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxconv import InputError
from jaxconv.data import download
from jaxconv.data.download import File, Source, ensure_file

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
FILE = File(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Handler(http.server.BaseHTTPRequestHandler):
    """Handler whose behavior is the first folder of the requested path."""

    def do_GET(self):
        behavior = self.path.split("/")[1]
        self.server.requests.append(behavior)
        if behavior == "404":
            self.send_error(404)
            return
        if behavior == "silent":
            self.server.stopping.wait(60)
            return
        if behavior == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not self.server.stopping.is_set():
                    self.wfile.write(CONTENT)
            return
        body = {"wrong": CONTENT[::-1], "html": b"<!doctype html>sorry"}.get(behavior, CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behavior == "cut":
            self.wfile.write(body[:40_000])
        elif behavior == "slow":
            for byte in body[:600]:  # 30 seconds, unless the client disconnects
                if self.server.stopping.wait(0.05):
                    return
                self.wfile.write(bytes([byte]))
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(download, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(download, "READ_TIMEOUT", 1.0)
    monkeypatch.setattr(download, "GRACE_SECONDS", 1.0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.stopping = [], threading.Event()
    server.handle_error = lambda *_: None  # clients that disconnect are expected
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


def source(server, *behaviors):
    mirrors = tuple(f"http://127.0.0.1:{server.server_port}/{behavior}/" for behavior in behaviors)
    return Source("toy", mirrors, {"toy.gz": FILE})


def files_in(tmp_path):
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("behavior", ["404", "cut", "slow", "silent", "wrong", "html"])
def test_ensure_file_falls_back_to_next_mirror(server, tmp_path, behavior):
    start = time.monotonic()
    path = ensure_file(source(server, behavior, "good"), "toy.gz")
    assert time.monotonic() - start < 20  # slow and silent mirrors time out
    assert path == tmp_path / "data" / "toy" / "toy.gz" and path.read_bytes() == CONTENT
    assert server.requests == [behavior, "good"]
    assert files_in(tmp_path) == ["toy.gz"]
    assert ensure_file(source(server, "404"), "toy.gz") == path
    assert server.requests == [behavior, "good"]  # no further request


def test_ensure_file_lists_reasons_of_all_mirrors(server, tmp_path):
    behaviors = ("404", "cut", "slow", "silent", "wrong")
    with pytest.raises(InputError) as caught:
        ensure_file(source(server, *behaviors), "toy.gz")
    message = str(caught.value)
    for reason in (
        "/404/ (HTTP 404)",
        "/cut/ (cut off after 40,000 of 102,400 bytes)",
        "/slow/ (too slow: ",
        "/silent/ (no answer in time)",
        "/wrong/ (not the official file: wrong sha256)",
        f"put the file into {tmp_path / 'data' / 'toy'} yourself",
    ):
        assert reason in message
    assert "\n" not in message and files_in(tmp_path) == []


def test_ensure_file_without_network_raises(server, tmp_path):
    closed = source(server, "good")._replace(mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(InputError, match=r"could not be downloaded.*no connection.*Check the network"):
        ensure_file(closed, "toy.gz")
    assert files_in(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:5000], r"toy\.gz is cut short: 5,000 of 102,400 bytes: delete it"),
        (CONTENT[:-1] + b"x", r"toy\.gz is corrupted: its sha256 is [0-9a-f]{12}…, not "),
        (b"<html>403 Forbidden</html>", r"toy\.gz is a web page, not data"),
        (b"", r"toy\.gz is cut short: 0 of 102,400 bytes"),
    ],
)
def test_ensure_file_damaged_local_file_raises(server, tmp_path, content, message):
    path = tmp_path / "data" / "toy" / "toy.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        ensure_file(source(server, "good"), "toy.gz")
    assert path.read_bytes() == content and server.requests == []


def test_ensure_file_searches_cache_folder(server, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    path = tmp_path / "cache" / "jaxconv" / "toy" / "toy.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert ensure_file(source(server, "404"), "toy.gz") == path
    monkeypatch.delenv("JAXCONV_DATA")
    assert download.search_dirs("toy") == [path.parent]


def test_search_dirs_without_home_folder(tmp_path, monkeypatch):
    """A container may run under a user id without a passwd entry."""
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path))
    assert download.search_dirs("toy") == [tmp_path / "toy"]
    monkeypatch.setenv("JAXCONV_DATA", "~/data")
    with pytest.raises(
        InputError, match=r"^JAXCONV_DATA is ~/data, but there is no such home folder: give it without ~$"
    ):
        download.search_dirs("toy")
    monkeypatch.delenv("JAXCONV_DATA")
    message = "^there is no home folder for the cache: set XDG_CACHE_HOME or HOME"
    with pytest.raises(InputError, match=f"{message}, or JAXCONV_DATA$"):
        download.search_dirs("toy")
    with pytest.raises(InputError, match=f"{message}$"):
        download.cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.search_dirs("toy") == [tmp_path / "jaxconv" / "toy"]


def test_ensure_file_unwritable_folder_raises(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"file/toy/toy\.gz cannot be written: .*set JAXCONV_DATA to a writable folder"
    ):
        ensure_file(source(server, "good"), "toy.gz")


def test_ensure_file_killed_process_leaves_no_complete_file(server, tmp_path):
    program = f"""
from jaxconv.data import download
download.GRACE_SECONDS = 60
source = download.Source("toy", {source(server, "slow").mirrors!r}, {{"toy.gz": download.File{tuple(FILE)!r}}})
download.ensure_file(source, "toy.gz")
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ, stderr=subprocess.DEVNULL)
    folder = tmp_path / "data" / "toy"
    try:
        deadline = time.monotonic() + 60
        while not (folder.is_dir() and list(folder.iterdir())):  # until the temporary file exists
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "toy.gz").exists()
    assert ensure_file(source(server, "good"), "toy.gz").read_bytes() == CONTENT


def test_ensure_file_does_not_follow_symlink(server, tmp_path):
    link = tmp_path / "data" / "toy" / "toy.gz"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere")  # a dangling link counts as a missing file
    assert ensure_file(source(server, "good"), "toy.gz").read_bytes() == CONTENT
    assert not link.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_ensure_file_stops_endless_mirror(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "GRACE_SECONDS", 60.0)
    with pytest.raises(InputError, match=r"/endless/ \(more than the official 102,400 bytes\)"):
        ensure_file(source(server, "endless"), "toy.gz")
    assert files_in(tmp_path) == []
