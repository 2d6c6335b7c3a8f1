"""Downloads, proven against a real HTTP server on this machine that misbehaves in every way it can."""

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
    """The first folder of the path says how to behave."""

    def do_GET(self):
        how = self.path.split("/")[1]
        self.server.asked.append(how)
        if how == "404":
            self.send_error(404)
            return
        if how == "silent":
            self.server.stopping.wait(60)
            return
        if how == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not self.server.stopping.is_set():
                    self.wfile.write(CONTENT)
            return
        body = {"wrong": CONTENT[::-1], "html": b"<!doctype html>sorry"}.get(how, CONTENT)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if how == "cut":
            self.wfile.write(body[:40_000])
        elif how == "slow":
            for byte in body[:600]:  # for half a minute, if one lets it
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
    monkeypatch.setattr(download, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(download, "READ_SECONDS", 1.0)
    monkeypatch.setattr(download, "PATIENCE_SECONDS", 1.0)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.stopping = [], threading.Event()
    server.handle_error = lambda *_: None  # a client that hangs up is what we are here for
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.stopping.set()
    server.shutdown()
    thread.join()
    server.server_close()


def source(server, *ways):
    return Source("toy", tuple(f"http://127.0.0.1:{server.server_port}/{way}/" for way in ways), {"toy.gz": FILE})


def leftovers(tmp_path):
    return [path.name for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("bad", ["404", "cut", "slow", "silent", "wrong", "html"])
def test_a_bad_mirror_is_given_up_for_a_good_one(server, tmp_path, bad):
    started = time.monotonic()
    path = ensure_file(source(server, bad, "good"), "toy.gz")
    assert time.monotonic() - started < 20  # no waiting for the slow mirror, nor for the silent one
    assert path == tmp_path / "data" / "toy" / "toy.gz" and path.read_bytes() == CONTENT
    assert server.asked == [bad, "good"]
    assert leftovers(tmp_path) == ["toy.gz"]
    assert ensure_file(source(server, "404"), "toy.gz") == path and server.asked == [bad, "good"]  # not asked again


def test_when_every_mirror_fails_each_is_named_with_its_reason(server, tmp_path):
    ways = ("404", "cut", "slow", "silent", "wrong")
    with pytest.raises(InputError) as caught:
        ensure_file(source(server, *ways), "toy.gz")
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
    assert "\n" not in message and leftovers(tmp_path) == []


def test_no_network_is_said_at_once(server, tmp_path):
    closed = source(server, "good")._replace(mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(InputError, match=r"could not be downloaded.*no connection.*Check the network"):
        ensure_file(closed, "toy.gz")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:5000], r"toy\.gz is cut short: 5,000 of 102,400 bytes: delete it"),
        (CONTENT[:-1] + b"x", r"toy\.gz is corrupted: its sha256 is [0-9a-f]{12}…, not "),
        (b"<html>403 Forbidden</html>", r"toy\.gz is a web page, not data"),
        (b"", r"toy\.gz is cut short: 0 of 102,400 bytes"),
    ],
)
def test_a_damaged_file_is_named_and_never_replaced_silently(server, tmp_path, content, message):
    path = tmp_path / "data" / "toy" / "toy.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        ensure_file(source(server, "good"), "toy.gz")
    assert path.read_bytes() == content and server.asked == []


def test_the_cache_folder_is_looked_into_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    path = tmp_path / "cache" / "jaxconv" / "toy" / "toy.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert ensure_file(source(server, "404"), "toy.gz") == path
    monkeypatch.delenv("JAXCONV_DATA")
    assert download.search_dirs("toy") == [path.parent]


def test_a_user_without_a_home_needs_no_cache(tmp_path, monkeypatch):
    """As in a container that is run under a number that it knows no user by."""
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


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("JAXCONV_DATA", str(tmp_path / "file"))
    with pytest.raises(
        InputError, match=r"file/toy/toy\.gz cannot be written: .*set JAXCONV_DATA to a folder that can"
    ):
        ensure_file(source(server, "good"), "toy.gz")


def test_a_process_killed_in_mid_download_leaves_no_file_that_looks_whole(server, tmp_path):
    program = f"""
from jaxconv.data import download
download.PATIENCE_SECONDS = 60
source = download.Source("toy", {source(server, "slow").mirrors!r}, {{"toy.gz": download.File{tuple(FILE)!r}}})
download.ensure_file(source, "toy.gz")
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ, stderr=subprocess.DEVNULL)
    folder = tmp_path / "data" / "toy"
    try:
        deadline = time.monotonic() + 60
        while not (folder.is_dir() and list(folder.iterdir())):  # the temporary file: the download has begun
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (folder / "toy.gz").exists()
    assert ensure_file(source(server, "good"), "toy.gz").read_bytes() == CONTENT


def test_a_symbolic_link_in_the_place_of_a_download_is_not_followed(server, tmp_path):
    place = tmp_path / "data" / "toy" / "toy.gz"
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")  # which is not there, so the file is not
    assert ensure_file(source(server, "good"), "toy.gz").read_bytes() == CONTENT
    assert not place.is_symlink() and not (tmp_path / "elsewhere").exists()


def test_a_mirror_that_sends_without_end_is_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE_SECONDS", 60.0)
    with pytest.raises(InputError, match=r"/endless/ \(more than the official 102,400 bytes\)"):
        ensure_file(source(server, "endless"), "toy.gz")
    assert leftovers(tmp_path) == []
