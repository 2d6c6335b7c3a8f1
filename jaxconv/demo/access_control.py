"""Access control of a local server: only the browser that opened the printed address is served.

Any web page can make the browser that displays it send requests to 127.0.0.1. :class:`Access` is ASGI middleware
that rejects such requests, and bodies that are too large or too slow, before they reach the application.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

HOST_NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine
MAX_BODY_BYTES = 10 * 2**20
BODY_TIMEOUT = 120.0  # seconds until a request body must be complete
# The served page may load and request only what this server provides, and no other page may embed it.
SECURITY_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
# A page that forwards to the served one. An HTTP redirect would fail: after a link on another site, such as a web mail
# or a notebook, the browser sends no SameSite=Strict cookie with it.
FORWARDING_PAGE = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><a href="/">Open the page</a>'


class _RequestRejected(Exception):
    """A request that is not passed on: HTTP status, and a message for the client."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Access:
    """ASGI middleware that passes on requests of the served page and rejects all others.

    - Host must be a name of this machine with the served port, else 421: a foreign name may resolve to this machine
      (DNS rebinding).
    - Origin, if present, must equal the host, and Sec-Fetch-Site must not name another site, else 403. Links to the
      page are allowed from anywhere.
    - The cookie must hold the token, else 403. ``/?token=…`` sets that cookie (SameSite=Strict, HttpOnly).
    - The body must have at most ``largest`` bytes, by Content-Length or as counted, else 413; it must arrive within two
      minutes, else 408. It is read to its end here, so that a slow client does not block the application.

    Args:
        app: the protected ASGI application. It receives no websockets.
        port: port of the server.
        token: secret in the printed address, of characters that are valid in URLs and cookies.
        largest: maximum size of a body in bytes.
    """

    def __init__(self, app: App, port: int, token: str, largest: int = MAX_BODY_BYTES) -> None:
        self.app, self.port, self.token, self.largest = app, port, token, largest
        self.hosts = {f"{name}:{port}" for name in HOST_NAMES} | (set(HOST_NAMES) if port == 80 else set())
        self.cookie = f"jaxconv-{port}"  # browsers share cookies between ports of a host, so the name has the port

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Process one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        try:
            self._check_origin(scope)
            if scope["path"] == "/" and self._is_token(parse_qs(scope["query_string"]).get(b"token", [b""])[0]):
                cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                return await _respond(send, 200, FORWARDING_PAGE, "text/html", (b"set-cookie", cookie.encode()))
            if not any(self._is_token(value) for value in _cookies(scope, self.cookie.encode())):
                raise _RequestRejected(403, "Open the printed address, which includes the token.")
            body = await self._read_body(scope, receive)
        except _RequestRejected as error:
            return await _respond(send, error.status, f"{error}\n", "text/plain", (b"connection", b"close"))
        except ConnectionResetError:  # the client has disconnected
            return None

        async def receive_buffered() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *SECURITY_HEADERS]}
            await send(message)

        return await self.app(scope, receive_buffered, send_secured)

    def _check_origin(self, scope: Message) -> None:
        """Reject a request to a foreign host name, or from another site."""
        hosts = _header_values(scope, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise _RequestRejected(421, f"This server answers at http://{HOST_NAMES[0]}:{self.port} only.")
        is_link = scope["method"] in ("GET", "HEAD") and _header_values(scope, b"sec-fetch-dest") == ["document"]
        sites = _header_values(scope, b"sec-fetch-site")
        cross_site = not is_link and not {"same-origin", "none"}.issuperset(sites)
        if cross_site or not {f"http://{hosts[0].lower()}"}.issuperset(_header_values(scope, b"origin")):
            raise _RequestRejected(403, "Requests from other pages are rejected.")

    def _is_token(self, value: bytes) -> bool:
        return secrets.compare_digest(value, self.token.encode())

    async def _read_body(self, scope: Message, receive: Receive) -> bytes | None:
        """Read the request body to its end.

        Raises:
            ConnectionResetError: if the client disconnects.
        """
        too_large = _RequestRejected(413, f"A request must have at most {self.largest:,} bytes.")
        if any(int(length) > self.largest for length in _header_values(scope, b"content-length")):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionResetError
                    body += message.get("body", b"")
                    if len(body) > self.largest:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise _RequestRejected(408, f"A request must arrive within {BODY_TIMEOUT:.0f} seconds.") from None


def _header_values(scope: Message, name: bytes) -> list[str]:
    """Return all values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _cookies(scope: Message, name: bytes) -> list[bytes]:
    """Return all values of a cookie. ``http.cookies`` is not used: it stops at a malformed cookie of another server."""
    cookies = b";".join(value for key, value in scope["headers"] if key == b"cookie")
    pairs = (pair.strip().partition(b"=") for pair in cookies.split(b";"))
    return [value for key, _, value in pairs if key == name]


async def _respond(send: Send, status: int, text: str, content_type: str, header: tuple[bytes, bytes]) -> None:
    body = text.encode()
    headers = [
        (b"content-type", f"{content_type}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        header,
        *SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
