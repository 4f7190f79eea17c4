"""Requests and WebSockets to an ASGI application, in the same process and without a server."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import unquote, urlsplit

import anyio
import anyio.lowlevel
import msgspec

__all__ = ["Answer", "App", "Closed", "WebSocket", "request"]

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
_SECONDS: Final = 10.0
Headers = Mapping[str, str] | Iterable[tuple[str, str]]


class Answer(NamedTuple):
    """The answer to a request; the status is 0 if there was none."""

    status: int
    headers: dict[str, str]
    body: bytes


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    if isinstance(headers, Mapping):
        return [(str(name), str(value)) for name, value in headers.items()]
    return list(headers)


def _scope(kind: str, url: str, headers: Headers) -> Message:
    parts = urlsplit(url)
    pairs = _pairs(headers)
    given = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    if not any(name == b"host" for name, _ in given):
        given.insert(0, (b"host", (parts.netloc or "test").encode()))
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": parts.scheme or ("ws" if kind == "websocket" else "http"),
        "path": unquote(parts.path),
        "raw_path": parts.path.encode("ascii", "replace"),
        "query_string": parts.query.encode("ascii", "replace"),
        "root_path": "",
        "headers": given,
        "client": ("127.0.0.1", 50_000),
        "server": ("test", 80),
        "state": {},
        "extensions": {},
    }


async def request(
    app: App, method: str, url: str, body: bytes = b"", headers: Headers = ()
) -> Answer:
    """Send one request and return the complete answer.

    Args:
        app: The application.
        method: The method.
        url: The path, with a query perhaps.
        body: The body.
        headers: The headers.

    Raises:
        TimeoutError: There was no answer within 10 seconds.
    """
    given = _pairs(headers)
    if body and not any(name.lower() == "content-length" for name, _ in given):
        given.append(("content-length", str(len(body))))
    scope = _scope("http", url, given) | {"method": method}
    sent: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    done = anyio.Event()
    status, found, parts = 0, dict[str, str](), list[bytes]()

    async def receive() -> Message:
        if sent:
            return sent.pop()
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            for name, value in message.get("headers", ()):
                found[name.decode("latin-1").lower()] = value.decode("latin-1")
        elif message["type"] == "http.response.body":
            parts.append(bytes(message.get("body", b"")))
            if not message.get("more_body", False):
                done.set()

    with anyio.fail_after(_SECONDS):
        await app(scope, receive, send)
    return Answer(status, found, b"".join(parts))


class Closed(Exception):
    """The application has refused or closed a WebSocket.

    Attributes:
        code: The close code; 1006 if it ended without closing.
        reason: The reason that it gave.
        status: The HTTP status with which it refused the handshake, if it did so.
    """

    def __init__(self, code: int, reason: str = "", status: int | None = None) -> None:
        what = f"refused with {status}" if status is not None else f"closed with {code}"
        super().__init__(f"the WebSocket was {what}{f': {reason}' if reason else ''}")
        self.code = code
        self.reason = reason
        self.status = status


class WebSocket:
    """A WebSocket to an ASGI application: `async with client.websocket("/chat") as socket`.

    Entering connects; leaving closes it and waits until the application has seen that.

    Args:
        app: The application.
        url: The path, with a query perhaps.
        headers: The headers of the handshake.
        subprotocols: The subprotocols that are offered.
        timeout: Seconds that an answer may take.

    Attributes:
        subprotocol: The one that the application chose.

    Raises:
        Closed: The application refuses it.
    """

    def __init__(
        self,
        app: App,
        url: str,
        *,
        headers: Headers = (),
        subprotocols: Iterable[str] = (),
        timeout: float = _SECONDS,
    ) -> None:
        self._app = app
        self._scope = _scope("websocket", url, headers) | {"subprotocols": list(subprotocols)}
        self._timeout = timeout
        self.subprotocol: str | None = None
        self._closed: Closed | None = None

    async def __aenter__(self) -> Self:
        self._to_app, self._app_gets = anyio.create_memory_object_stream[Message](math.inf)
        self._app_sends, self._from_app = anyio.create_memory_object_stream[Message](math.inf)
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._run)
        try:
            self._to_app.send_nowait({"type": "websocket.connect"})
            first = await self._next()
            if first["type"] != "websocket.accept":
                raise AssertionError(f"expected the handshake, got {first['type']}")
        except BaseException:
            await self._leave()
            raise
        self.subprotocol = first.get("subprotocol")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
        await self._leave()

    async def _leave(self) -> None:
        with anyio.move_on_after(self._timeout):
            await self._ended.wait()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
        for stream in (self._to_app, self._app_gets, self._app_sends, self._from_app):
            stream.close()

    async def _run(self) -> None:
        self._ended = anyio.Event()
        try:
            await self._app(self._scope, self._app_gets.receive, self._app_sends.send)
        finally:
            self._ended.set()
            self._app_sends.close()

    async def _next(self) -> Message:
        if self._closed is not None:
            raise self._closed
        try:
            with anyio.fail_after(self._timeout):
                message = await self._from_app.receive()
        except anyio.EndOfStream:
            self._closed = Closed(1006)
            raise self._closed from None
        if message["type"] == "websocket.close":
            self._closed = Closed(message.get("code", 1000), message.get("reason") or "")
        elif message["type"] == "websocket.http.response.start":
            self._closed = Closed(1006, status=message["status"])
        if self._closed is not None:
            raise self._closed
        return message

    async def send(self, data: str | bytes) -> None:
        """Send a text or binary message."""
        key = "text" if isinstance(data, str) else "bytes"
        self._to_app.send_nowait({"type": "websocket.receive", key: data})
        await anyio.lowlevel.checkpoint()

    async def send_json(self, value: object) -> None:
        """Send a value as JSON, in a text message."""
        await self.send(msgspec.json.encode(value).decode())

    async def receive(self) -> str | bytes:
        """Wait for the next message.

        Raises:
            Closed: The application has closed it.
            TimeoutError: None came in time.
        """
        message = await self._next()
        text = message.get("text")
        return text if isinstance(text, str) else bytes(message["bytes"])

    async def receive_json(self) -> Any:
        """Wait for the next message, and decode it from JSON."""
        return msgspec.json.decode(await self.receive())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it; a second time does nothing."""
        if self._closed is None:
            self._closed = Closed(code, reason)
            with contextlib.suppress(anyio.BrokenResourceError):
                self._to_app.send_nowait(
                    {"type": "websocket.disconnect", "code": code, "reason": reason}
                )
