"""Access control of the demo server: only the browser that opened the printed address is served; shutdown cleans up."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
from PIL import Image

from attack.page import canvas, draw, started
from jaxconv import InputError, cli
from jaxconv.demo import access_control
from jaxconv.demo.access_control import MAX_BODY_BYTES, Access
from jaxconv.demo.canvas import preprocess_upload, read_canvas
from jaxconv.demo.server import cleaned_up_on_signals, listener, running

TOKEN = "s3cret-of_this-start"


async def echo(scope, receive, send):
    """Protected application: responds with the method and the size of the body."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    message = await receive()
    assert message["type"] == "http.request" and not message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-application", b"yes")]})
    await send({"type": "http.response.body", "body": f"{scope['method']} {len(message['body'])}".encode()})


@pytest.fixture(scope="module")
def port():
    pytest.importorskip("uvicorn", reason="the demo extra is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    with listener(free_port) as listening, running(Access(echo, free_port, TOKEN), listening):
        yield free_port


def request(port, method="GET", path="/", token=TOKEN, **headers):
    """Return status and text of a request with the cookie."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        headers.setdefault("Cookie", f"theme=dark; jaxconv-{port}={token}")
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=20)
    return response.status_code, response.text


def open_post(port, *parts, token=TOKEN, path="/", headers=""):
    """Open a connection, and send the head and parts of the body of a POST request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: jaxconv-{port}={token}\r\n{headers}\r\n"
    connection.sendall(head.encode() + b"".join(parts))
    return connection


def status(connection):
    """Read the response status of a connection."""
    return int(connection.makefile("rb").readline().split()[1])


def test_access_valid_host_origin_and_token_pass(port):
    assert request(port) == (200, "GET 0")
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert request(port, "POST", Host=f"{name}:{port}", Origin=f"http://{name.lower()}:{port}")[0] == 200
    assert request(port, "POST", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="empty")[0] == 200
    assert request(port, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:{other}", "127.0.0.1", "127.1:{port}"]
)
def test_access_foreign_host_returns_421(port, host):
    code, text = request(port, Host=host.format(port=port, other=port + 1))
    assert (code, text) == (421, f"This server answers at http://127.0.0.1:{port} only.\n")


def test_access_missing_host_returns_421(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nCookie: jaxconv-{port}={TOKEN}\r\n\r\n".encode())
        assert status(connection) == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:{other}"},  # same-site for cookies
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},  # differs from the Host header
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "iframe"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_access_cross_origin_request_returns_403(port, method, headers):
    code, text = request(port, method, **{k: v.format(port=port, other=port + 1) for k, v in headers.items()})
    assert code == 403 and text == "Requests from other pages are rejected.\n"


def test_access_cross_site_post_as_document_returns_403(port):
    assert request(port, "POST", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 403


def test_access_without_token_returns_403(port):
    message = "Open the printed address, which includes the token.\n"
    for path in ("/", "/config", "/?token=", "/?token=wrong", f"/config?token={TOKEN}", f"/?x={TOKEN}"):
        assert request(port, path=path, token=None) == (403, message)
    for cookie in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        assert request(port, "POST", token=cookie) == (403, message)
    assert request(port, Cookie=f"jaxconv-{port + 1}={TOKEN}") == (403, message)  # cookie of another port's page


def test_access_printed_address_sets_cookie_and_forwards(port):
    with requests.Session() as session:
        session.trust_env = False
        response = session.get(f"http://127.0.0.1:{port}/?token={TOKEN}", timeout=20)
        assert response.status_code == 200 and 'content="0; url=/"' in response.text
        assert "x-application" not in response.headers
        assert response.headers["set-cookie"] == f"jaxconv-{port}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
        response = session.get(f"http://127.0.0.1:{port}/", timeout=20)
        assert response.text == "GET 0" and response.headers["x-application"] == "yes"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert request(port, path=f"/?token={TOKEN}", token=None, Host="evil.example")[0] == 421


def test_access_malformed_foreign_cookie_is_ignored(port):
    assert request(port, Cookie=f'bad="; a=[1,{{}}]; =; {{x; jaxconv-{port}={TOKEN}')[0] == 200


def test_access_body_above_10_mb_returns_413_by_length(port):
    headers = f"Content-Length: {MAX_BODY_BYTES}\r\nConnection: close\r\n"
    with open_post(port, b"x" * MAX_BODY_BYTES, headers=headers) as connection:
        assert f"POST {MAX_BODY_BYTES}".encode() in connection.makefile("rb").read()
    with open_post(port, headers=f"Content-Length: {MAX_BODY_BYTES + 1}\r\n") as connection:  # no byte of it is sent
        response = connection.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 413 ")
    assert response.endswith(b"A request must have at most 10,485,760 bytes.\n")


def test_access_chunked_body_above_10_mb_returns_413(port):
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
    with open_post(port, *[chunk] * 10, b"0\r\n\r\n", headers=chunked) as connection:
        assert f"POST {MAX_BODY_BYTES}".encode() in connection.makefile("rb").read()
    with open_post(port, *[chunk] * 10, b"1\r\nx\r\n", headers=chunked) as connection:  # without a last chunk
        assert status(connection) == 413


def test_access_slow_client_returns_408_without_blocking(port, monkeypatch):
    monkeypatch.setattr(access_control, "BODY_TIMEOUT", 1.0)
    slow = [open_post(port, b"12", headers="Content-Length: 5\r\n") for _ in range(20)]
    start_time = time.monotonic()
    assert request(port, "POST")[0] == 200 and time.monotonic() - start_time < 0.9
    for connection in slow:
        with connection:
            assert status(connection) == 408


def test_access_disconnected_client_is_ignored(port):
    open_post(port, b"12", headers="Content-Length: 5\r\n").close()
    assert request(port)[0] == 200


def test_access_websocket_is_rejected(port):
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    with open_post(port, headers=f"Content-Length: 0\r\n{upgrade}") as connection:
        assert status(connection) != 101


# Images with few bytes and many pixels


def png(width, height):
    """Encode a black image as a PNG of few bytes."""
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [2_001, 13_000, 20_000])
def test_read_canvas_huge_image_is_not_decoded(side):
    address = "data:image/png;base64," + base64.b64encode(png(side, side)).decode()
    start_time = time.process_time()
    with pytest.raises(
        InputError,
        match=r"^the canvas: the image data (has [\d,×]+ pixels; the limit is |cannot be read as an image: .* bomb)",
    ):
        read_canvas(address)
    assert time.process_time() - start_time < 1
    assert read_canvas("data:image/png;base64," + base64.b64encode(png(2_000, 1_000)).decode()).shape == (
        1000,
        2000,
        4,
    )


@pytest.mark.parametrize("address", ["x", "data:,", "data:,AAAA", "data:,ä", "data:,A", "data:," + "A" * 99])
def test_read_canvas_invalid_uri_raises(address):
    with pytest.raises(InputError, match=r"^the canvas: .+"):
        read_canvas(address)


def test_read_canvas_damaged_or_eps_image_raises():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "EPS")  # to decode EPS, Pillow would start Ghostscript
    for content in (png(300, 300)[:60], buffer.getvalue()):
        with pytest.raises(InputError, match=r"^the canvas: the image data "):
            read_canvas("data:image/png;base64," + base64.b64encode(content).decode())


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_preprocess_upload_huge_image_is_not_decoded(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png(13_000, 13_000))
    start_time = time.process_time()
    with pytest.raises(
        InputError, match=r"^huge.png has 13,000×13,000 pixels; the limit is 89,478,485: save it smaller"
    ):
        preprocess_upload(path, (8, 8, 1))
    assert time.process_time() - start_time < 1


# Shutdown


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_cleanup_runs_once_then_signal_ends_process():
    program = """
import os, signal
from jaxconv.demo.server import cleaned_up_on_signals
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)  # not ignored
    child = os.fork()
    if not child:
        break
    print(-os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    raise SystemExit
try:
    with cleaned_up_on_signals():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), number)  # a second signal during the cleanup
            print("cleaned up", end=" ", flush=True)
    print("went on", flush=True)
except KeyboardInterrupt:
    os._exit(2)
"""
    completed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert completed.stdout == "cleaned up 15\ncleaned up 1\ncleaned up -2\n", completed.stderr


def test_cleanup_restores_handlers_and_skips_threads():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []

    def record_handlers():
        with cleaned_up_on_signals():
            inside.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=record_handlers)
    thread.start()
    thread.join()
    record_handlers()
    assert inside[0] == before != inside[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# The running server


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Run the demo server; yield its process, its address, and its temporary folder."""
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    run, temporary = tmp_path_factory.mktemp("runs") / "mlp", tmp_path_factory.mktemp("temporary")
    train = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1"]
    assert cli.main([*train, "--run-dir", str(run)]) == 0
    server, address = started(run, TMPDIR=str(temporary), GRADIO_SHARE="True", GRADIO_NUM_WORKERS="2")
    yield server, address, temporary
    server.kill()
    server.communicate()


def open_session(address):
    session = requests.Session()
    session.trust_env = False
    session.get(address, timeout=60).raise_for_status()
    return session, address.partition("/?")[0]


def test_demo_serves_its_own_browser_only(served):
    session, home = open_session(served[1])
    with session:
        event = draw(session, home, 1, "tab", canvas())
        assert event["success"] and 'data-drawn="1"></p>' in str(event["output"]["data"])
        large = f"data:image/png;base64,{base64.b64encode(png(3_000, 3_000)).decode()}"
        assert "has 3,000×3,000 pixels" in str(draw(session, home, 2, "tab", large)["output"]["data"])
        join = f"{home}/gradio_api/queue/join"
        body = {"data": [None, None], "fn_index": 0, "session_hash": "tab"}
        for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert session.post(join, json=body, headers=headers, timeout=60).status_code in (403, 421)
        session.cookies.clear()
        assert session.post(join, json=body, timeout=60).status_code == 403
        upload = session.post(f"{home}/gradio_api/upload", files={"files": ("a.png", b"x")}, timeout=60)
        assert upload.status_code == 403


def test_demo_upload_limit_and_slow_upload(served):
    session, home = open_session(served[1])
    port, token = int(home.rpartition(":")[2]), served[1].partition("token=")[2]
    path = "/gradio_api/upload"
    with session:
        files = {"files": ("a.png", png(8, 8))}
        [saved_path] = session.post(home + path, files=files, timeout=60).json()
        assert saved_path.startswith(str(served[2]))
        with open_post(port, token=token, path=path, headers=f"Content-Length: {MAX_BODY_BYTES + 1}\r\n") as connection:
            assert status(connection) == 413
        with open_post(port, b"--x", token=token, path=path, headers=f"Content-Length: {MAX_BODY_BYTES}\r\n"):
            assert draw(session, home, 3, "tab", canvas())["success"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_demo_sigterm_removes_temporary_folder(served):  # last, because it stops the fixture's server
    server, _, temporary = served
    assert [path.name[:13] for path in temporary.iterdir() if path.name.startswith("jaxconv")] == ["jaxconv-demo-"]
    server.terminate()
    assert server.wait(timeout=60) == -signal.SIGTERM
    assert [path.name for path in temporary.iterdir() if "demo" in path.name or "gradio" in path.name] == []
