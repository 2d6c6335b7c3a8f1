"""Admission to a server on this machine: only the browser that opened the address which was printed.

Any web page can have the browser that shows it send requests to 127.0.0.1. :class:`Access` is an ASGI application that
refuses them, and with them whatever is too large or too slow, before they come to the application behind it.
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

NAMES = ("127.0.0.1", "localhost", "[::1]")  # of this machine
LARGEST = 10 * 2**20  # bytes of a request's body
LONGEST = 120.0  # seconds until a body has come
# What is served may show and ask for what this server has, and nothing else; and no other page may show it.
GUARDS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'none'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
# A page that goes on to the served one. A redirect would not do: after a link on another site, in a web mail or a
# notebook, no SameSite=Strict cookie goes with it.
WELCOME = '<!doctype html><meta http-equiv="refresh" content="0; url=/"><a href="/">The page</a>'


class _Refusal(Exception):
    """A request that is not passed on: a status and a sentence for whoever sent it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Access:
    """An ASGI application that passes on what comes from the served page, and answers everything else itself.

    - Host is this machine's name with the port served, or 421: a foreign name may lead here (DNS rebinding).
    - Origin, if given, is that address, and Sec-Fetch-Site names no other site, or 403. A link to the page may be
      anywhere.
    - The token is in the cookie, or 403. ``/?token=…`` sets that cookie (SameSite=Strict, HttpOnly).
    - The body has at most ``largest`` bytes, or 413, by Content-Length or as counted; it comes in two minutes, or 408.
      It is read here to its end, so that a slow client occupies nothing behind.

    Args:
        app: the ASGI application behind. It is given no websockets.
        port: the port that is served.
        token: the secret in the printed address; it has characters that an address and a cookie may have.
        largest: bytes of a body.
    """

    def __init__(self, app: App, port: int, token: str, largest: int = LARGEST) -> None:
        self.app, self.port, self.token, self.largest = app, port, token, largest
        self.hosts = {f"{name}:{port}" for name in NAMES} | (set(NAMES) if port == 80 else set())
        self.cookie = f"jaxconv-{port}"  # cookies are kept by host, whatever the port: two pages, two names

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        try:
            self._check_address(scope)
            if scope["path"] == "/" and self._is_token(parse_qs(scope["query_string"]).get(b"token", [b""])[0]):
                cookie = f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                return await _answer(send, 200, WELCOME, "text/html", (b"set-cookie", cookie.encode()))
            if not any(self._is_token(value) for value in _cookies(scope, self.cookie.encode())):
                raise _Refusal(403, "Open the page by the address that was printed at its start, with the token in it.")
            body = await self._body(scope, receive)
        except _Refusal as refusal:
            return await _answer(send, refusal.status, f"{refusal}\n", "text/plain", (b"connection", b"close"))
        except ConnectionResetError:  # whoever sent it is gone
            return None

        async def replayed() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = {"type": "http.request", "body": body, "more_body": False}, None
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *GUARDS]}
            await send(message)

        return await self.app(scope, replayed, guarded)

    def _check_address(self, scope: Message) -> None:
        """Refuse a request to another name than ours, or from another page than ours."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            raise _Refusal(421, f"This server answers at http://{NAMES[0]}:{self.port} only.")
        link = scope["method"] in ("GET", "HEAD") and _values(scope, b"sec-fetch-dest") == ["document"]
        elsewhere = not link and not {"same-origin", "none"}.issuperset(_values(scope, b"sec-fetch-site"))
        if elsewhere or not {f"http://{hosts[0].lower()}"}.issuperset(_values(scope, b"origin")):
            raise _Refusal(403, "This server answers its own page only, and the request comes from another.")

    def _is_token(self, value: bytes) -> bool:
        return secrets.compare_digest(value, self.token.encode())

    async def _body(self, scope: Message, receive: Receive) -> bytes | None:
        """The whole body.

        Raises:
            ConnectionResetError: the client went away.
        """
        too_large = _Refusal(413, f"A request has at most {self.largest:,} bytes.")
        if any(int(length) > self.largest for length in _values(scope, b"content-length")):
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(LONGEST):
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
            raise _Refusal(408, f"A request has to come in {LONGEST:.0f} seconds.") from None


def _values(scope: Message, name: bytes) -> list[str]:
    """All values of a header."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _cookies(scope: Message, name: bytes) -> list[bytes]:
    """All values of a cookie. The standard library's parser gives up at a cookie of another server that it dislikes."""
    lines = b";".join(value for key, value in scope["headers"] if key == b"cookie")
    pairs = (pair.strip().partition(b"=") for pair in lines.split(b";"))
    return [value for key, _, value in pairs if key == name]


async def _answer(send: Send, status: int, text: str, kind: str, header: tuple[bytes, bytes]) -> None:
    body = text.encode()
    headers = [
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        header,
        *GUARDS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
