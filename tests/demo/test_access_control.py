"""The live page answers the browser that opened it, on this machine, and nobody else; and it ends without a trace."""

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
from jaxconv.demo.access_control import LARGEST, Access
from jaxconv.demo.canvas import preprocess_upload, read_canvas
from jaxconv.demo.server import cleaned_up_on_signals, listener, running

TOKEN = "s3cret-of_this-start"


async def echo(scope, receive, send):
    """What is behind: it says how much it was sent, and whether the sender is still there."""
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    message = await receive()
    assert message["type"] == "http.request" and not message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-behind", b"yes")]})
    await send({"type": "http.response.body", "body": f"{scope['method']} {len(message['body'])}".encode()})


@pytest.fixture(scope="module")
def port():
    pytest.importorskip("uvicorn", reason="the demo extra is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    with listener(number) as listening, running(Access(echo, number, TOKEN), listening):
        yield number


def ask(port, method="GET", path="/", token=TOKEN, **headers):
    """Status and text of a request with a cookie."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if token is not None:
        headers.setdefault("Cookie", f"theme=dark; jaxconv-{port}={token}")
    with requests.Session() as session:
        session.trust_env = False
        reply = session.request(method, f"http://127.0.0.1:{port}{path}", headers=headers, timeout=20)
    return reply.status_code, reply.text


def send(port, *parts, token=TOKEN, path="/", headers=""):
    """A connection on which a POST was begun."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: jaxconv-{port}={token}\r\n{headers}\r\n"
    connection.sendall(head.encode() + b"".join(parts))
    return connection


def status(connection):
    """The status of the answer on a connection."""
    return int(connection.makefile("rb").readline().split()[1])


def test_the_right_host_origin_and_token_are_let_through(port):
    assert ask(port) == (200, "GET 0")
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert ask(port, "POST", Host=f"{name}:{port}", Origin=f"http://{name.lower()}:{port}")[0] == 200
    assert ask(port, "POST", Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="empty")[0] == 200
    assert ask(port, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:{other}", "127.0.0.1", "127.1:{port}"]
)
def test_a_foreign_host_is_refused(port, host):
    code, text = ask(port, Host=host.format(port=port, other=port + 1))
    assert (code, text) == (421, f"This server answers at http://127.0.0.1:{port} only.\n")


def test_a_request_without_a_host_is_refused(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"GET / HTTP/1.0\r\nCookie: jaxconv-{port}={TOKEN}\r\n\r\n".encode())
        assert status(connection) == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:{other}"},  # the same site for a cookie
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},  # not the host that it asks
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Dest": "iframe"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_from_another_page_is_refused(port, method, headers):
    code, text = ask(port, method, **{k: v.format(port=port, other=port + 1) for k, v in headers.items()})
    assert code == 403 and text == "This server answers its own page only, and the request comes from another.\n"


def test_another_page_cannot_post_by_pretending_to_be_a_link(port):
    assert ask(port, "POST", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 403


def test_without_the_token_nothing_is_answered(port):
    told = "Open the page by the address that was printed at its start, with the token in it.\n"
    for path in ("/", "/config", "/?token=", "/?token=wrong", f"/config?token={TOKEN}", f"/?x={TOKEN}"):
        assert ask(port, path=path, token=None) == (403, told)
    for cookie in ("", "wrong", TOKEN[:-1], TOKEN + "x"):
        assert ask(port, "POST", token=cookie) == (403, told)
    assert ask(port, Cookie=f"jaxconv-{port + 1}={TOKEN}") == (403, told)  # of another port's page


def test_the_printed_address_gives_the_cookie_and_goes_on_to_the_page(port):
    with requests.Session() as session:
        session.trust_env = False
        reply = session.get(f"http://127.0.0.1:{port}/?token={TOKEN}", timeout=20)
        assert reply.status_code == 200 and 'content="0; url=/"' in reply.text and "x-behind" not in reply.headers
        assert reply.headers["set-cookie"] == f"jaxconv-{port}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
        reply = session.get(f"http://127.0.0.1:{port}/", timeout=20)
        assert reply.text == "GET 0" and reply.headers["x-behind"] == "yes"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert ask(port, path=f"/?token={TOKEN}", token=None, Host="evil.example")[0] == 421


def test_a_cookie_of_another_server_does_not_hide_ours(port):
    assert ask(port, Cookie=f'bad="; a=[1,{{}}]; =; {{x; jaxconv-{port}={TOKEN}')[0] == 200


def test_a_body_of_10_mb_is_taken_and_one_more_byte_is_refused_before_it_is_sent(port):
    with send(port, b"x" * LARGEST, headers=f"Content-Length: {LARGEST}\r\nConnection: close\r\n") as connection:
        assert f"POST {LARGEST}".encode() in connection.makefile("rb").read()
    with send(port, headers=f"Content-Length: {LARGEST + 1}\r\n") as connection:  # and nothing of it
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b"A request has at most 10,485,760 bytes.\n")


def test_a_body_without_a_length_is_counted(port):
    chunk = b"100000\r\n" + b"x" * 2**20 + b"\r\n"
    chunked = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
    with send(port, *[chunk] * 10, b"0\r\n\r\n", headers=chunked) as connection:
        assert f"POST {LARGEST}".encode() in connection.makefile("rb").read()
    with send(port, *[chunk] * 10, b"1\r\nx\r\n", headers=chunked) as connection:  # it does not end
        assert status(connection) == 413


def test_a_slow_sender_blocks_nobody_and_is_told_in_the_end(port, monkeypatch):
    monkeypatch.setattr(access_control, "LONGEST", 1.0)
    slow = [send(port, b"12", headers="Content-Length: 5\r\n") for _ in range(20)]
    began = time.monotonic()
    assert ask(port, "POST")[0] == 200 and time.monotonic() - began < 0.9
    for connection in slow:
        with connection:
            assert status(connection) == 408


def test_a_sender_who_goes_away_leaves_nothing(port):
    send(port, b"12", headers="Content-Length: 5\r\n").close()
    assert ask(port)[0] == 200


def test_a_websocket_is_refused(port):
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
    with send(port, headers=f"Content-Length: 0\r\n{upgrade}") as connection:
        assert status(connection) != 101


# Pictures that are larger than they look


def png(width, height):
    """A black PNG in few bytes."""
    written = io.BytesIO()
    Image.new("1", (width, height)).save(written, "PNG")
    return written.getvalue()


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [2_001, 13_000, 20_000])
def test_a_huge_canvas_is_not_decoded(side):
    address = "data:image/png;base64," + base64.b64encode(png(side, side)).decode()
    began = time.process_time()
    with pytest.raises(
        InputError,
        match=r"^the canvas: the image data (has [\d,×]+ pixels; the limit is |cannot be read as an image: .* bomb)",
    ):
        read_canvas(address)
    assert time.process_time() - began < 1
    assert read_canvas("data:image/png;base64," + base64.b64encode(png(2_000, 1_000)).decode()).shape == (
        1000,
        2000,
        4,
    )


@pytest.mark.parametrize("address", ["x", "data:,", "data:,AAAA", "data:,ä", "data:,A", "data:," + "A" * 99])
def test_what_is_no_picture_is_told(address):
    with pytest.raises(InputError, match=r"^the canvas: .+"):
        read_canvas(address)


def test_a_damaged_canvas_and_another_kind_of_picture_are_told():
    written = io.BytesIO()
    Image.new("RGB", (8, 8)).save(written, "EPS")  # Pillow would start Ghostscript
    for content in (png(300, 300)[:60], written.getvalue()):
        with pytest.raises(InputError, match=r"^the canvas: the image data "):
            read_canvas("data:image/png;base64," + base64.b64encode(content).decode())


@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_huge_upload_is_not_decoded(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png(13_000, 13_000))
    began = time.process_time()
    with pytest.raises(
        InputError, match=r"^huge.png has 13,000×13,000 pixels; the limit is 89,478,485: save it smaller"
    ):
        preprocess_upload(path, (8, 8, 1))
    assert time.process_time() - began < 1


# Its end


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_signal_ends_what_is_inside_once_and_then_the_process():
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
            os.kill(os.getpid(), number)  # pressed twice
            print("cleaned up", end=" ", flush=True)
    print("went on", flush=True)
except KeyboardInterrupt:
    os._exit(2)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert ended.stdout == "cleaned up 15\ncleaned up 1\ncleaned up -2\n", ended.stderr


def test_handlers_are_as_before_and_none_is_set_in_a_thread():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []

    def look():
        with cleaned_up_on_signals():
            inside.append([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    look()
    assert inside[0] == before != inside[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# All of it


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The real page: its process, its address, and the folder in which it makes its own."""
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    run, temporary = tmp_path_factory.mktemp("runs") / "mlp", tmp_path_factory.mktemp("temporary")
    train = ["train", "--dataset", "digits", "--model", "mlp", "--epochs", "1"]
    assert cli.main([*train, "--run-dir", str(run)]) == 0
    server, address = started(run, TMPDIR=str(temporary), GRADIO_SHARE="True", GRADIO_NUM_WORKERS="2")
    yield server, address, temporary
    server.kill()
    server.communicate()


def opened(address):
    session = requests.Session()
    session.trust_env = False
    session.get(address, timeout=60).raise_for_status()
    return session, address.partition("/?")[0]


def test_the_page_answers_its_own_browser_only(served):
    session, home = opened(served[1])
    with session:
        said = draw(session, home, 1, "tab", canvas())
        assert said["success"] and 'data-drawn="1"></p>' in str(said["output"]["data"])
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


def test_an_upload_is_limited_and_a_slow_one_blocks_nobody(served):
    session, home = opened(served[1])
    port, token = int(home.rpartition(":")[2]), served[1].partition("token=")[2]
    path = "/gradio_api/upload"
    with session:
        files = {"files": ("a.png", png(8, 8))}
        [kept] = session.post(home + path, files=files, timeout=60).json()
        assert kept.startswith(str(served[2]))
        with send(port, token=token, path=path, headers=f"Content-Length: {LARGEST + 1}\r\n") as connection:
            assert status(connection) == 413
        with send(port, b"--x", token=token, path=path, headers=f"Content-Length: {LARGEST}\r\n"):
            assert draw(session, home, 3, "tab", canvas())["success"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_sigterm_leaves_no_folder(served):  # the last test of the fixture, for it ends the server
    server, _, temporary = served
    assert [path.name[:13] for path in temporary.iterdir() if path.name.startswith("jaxconv")] == ["jaxconv-demo-"]
    server.terminate()
    assert server.wait(timeout=60) == -signal.SIGTERM
    assert [path.name for path in temporary.iterdir() if "demo" in path.name or "gradio" in path.name] == []
