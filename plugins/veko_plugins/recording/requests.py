"""Requests and WebSockets on the tape: what the client sent, and what it got.

The dispatcher is wrapped, so that everything a request causes is recorded inside it. Bodies and
messages are kept up to a limit, as the server and the application exchange them.

Cost: some 5 µs a request. Secrets are masked when a file is written.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec

from .._lib.masking import MASK, masked_text, sounds_secret
from .entries import Request, Socket
from .tape import CURRENT, Tape, note_entry
from .values import LIMIT, Form, mask

__all__ = ["around_requests", "around_sockets"]

Scope = MutableMapping[str, Any]
Serve = Callable[[Scope, Any, Any], Awaitable[Any]]
_MOST_MESSAGES: Final = 1_000
_SECRET_HEADERS: Final = ("authorization", "proxy-authorization", "cookie", "set-cookie")


class _Exchange:
    """A request or a WebSocket, from its beginning.

    Attributes:
        got: The bytes of the body, or the messages, that were read.
        sent: The bytes of the answer, or the messages.
        size: How many bytes both have.
        status: The status of the answer; the code that closed a WebSocket.
        kind: The media type of the answer.
    """

    __slots__ = (
        "at", "got", "kind", "number", "parent", "scope", "sent", "size", "status", "truncated",
    )  # fmt: skip

    def __init__(self, number: int, parent: int | None, scope: Scope) -> None:
        self.number = number
        self.parent = parent
        self.at = time.time_ns()
        self.scope = (  # what is needed: a server keeps the scope for as long as the connection
            scope["type"],
            scope.get("method", "GET"),
            scope.get("raw_path") or scope["path"].encode(),
            scope.get("query_string", b""),
            scope["headers"],
            scope.get("subprotocols", ()),
        )
        self.got: list[Any] = []
        self.sent: list[Any] = []
        self.size = 0
        self.status: int | None = None
        self.kind = ""
        self.truncated = False

    def __len__(self) -> int:
        """How many bytes it holds."""
        return self.size

    def keep(self, into: list[Any], part: Any) -> None:
        """Keep a part of a body, or a message, as long as there is room."""
        if part and self.size + len(part) <= LIMIT and len(into) < _MOST_MESSAGES:
            into.append(part)
            self.size += len(part)
        elif part:
            self.truncated = True

    def written(self) -> Request | Socket:
        """Return the entry, with secrets masked."""
        kind, method, path, query, raw_headers, subprotocols = self.scope
        masked: list[str] = []
        headers: list[tuple[str, str]] = []
        given = ""
        for raw_name, raw_value in raw_headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name in _SECRET_HEADERS or sounds_secret(name):
                masked.append(f"the header {name}")
                value = MASK
            elif name == "content-type":
                given = value
            headers.append((name, masked_text(value)))
        url = path.decode("latin-1")
        if query:
            url = f"{url}?{_masked_query(query.decode('latin-1'), masked)}"
        if kind == "websocket":
            return Socket(
                self.number, self.parent, self.at, url, headers, list(subprotocols),
                [_message(one) for one in self.got], [_message(one) for one in self.sent],
                self.status, masked,
            )  # fmt: skip
        body = b"".join(self.got)
        return Request(
            self.number, self.parent, self.at, method, url, headers,
            _body(body, given, masked, whole=not self.truncated) if body else None,
            self.status or 0, self.kind, _body(b"".join(self.sent), self.kind, [], whole=True),
            masked,
        )  # fmt: skip


def _masked_query(query: str, masked: list[str]) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    secret = [name for name, _ in pairs if sounds_secret(name)]
    if not secret:
        return query
    masked += [f"the parameter {name}" for name in secret]
    return urlencode([(name, MASK if name in secret else value) for name, value in pairs])


def _body(body: bytes, kind: str, masked: list[str], *, whole: bool) -> Form:
    """Return the form of a body, without secrets."""
    if not whole:
        return {"$opaque": f"a body of more than {LIMIT} bytes"}
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return mask_bytes(body)
    kind = kind.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return _masked_query(text, masked)
    if kind.startswith("multipart/") and sounds_secret(text):
        masked.append("the form")
        return {"$opaque": "a form with a secret"}
    if kind == "application/json" or kind.endswith("+json"):
        try:
            value = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return masked_text(text)
        hidden = mask(value)
        if hidden != value:
            masked.append("a part of the body")
            return msgspec.json.encode(hidden).decode()
        return text
    return masked_text(text)


def mask_bytes(body: bytes) -> Form:
    """Return the form of bytes that are no text."""
    import base64

    return {"$bytes": base64.b64encode(body).decode("ascii")}


def _message(message: str | bytes) -> Form:
    if isinstance(message, bytes):
        return mask_bytes(message)
    try:
        value = msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return masked_text(message)
    hidden = mask(value)
    return msgspec.json.encode(hidden).decode() if hidden != value else message


def around_requests(tape: Tape, serve: Serve) -> Serve:
    """Return a function that answers HTTP requests, and records each."""

    @functools.wraps(serve)
    async def recorded(scope: Scope, receive: Any, send: Any) -> Any:
        outer = CURRENT.get()
        entry = _Exchange(tape.number(), outer, scope)

        async def receive_recorded() -> Any:
            message = await receive()
            entry.keep(entry.got, message.get("body"))
            return message

        async def send_recorded(message: Any) -> None:
            if message["type"] == "http.response.start":
                entry.status = message["status"]
                for name, value in message.get("headers", ()):
                    if name == b"content-type":
                        entry.kind = value.decode("latin-1")
            else:
                body = message.get("body")
                if body and not entry.truncated:
                    entry.keep(entry.sent, bytes(body))
            await send(message)

        tape.add(entry, entry)
        CURRENT.set(entry.number)
        try:
            return await serve(scope, receive_recorded, send_recorded)
        except BaseException as error:
            note_entry(error, entry.number)
            raise
        finally:
            CURRENT.set(outer)

    return recorded


def around_sockets(tape: Tape, serve: Serve) -> Serve:
    """Return a function that serves WebSockets, and records each."""

    async def recorded(scope: Scope, receive: Any, send: Any) -> Any:
        outer = CURRENT.get()
        entry = _Exchange(tape.number(), outer, scope)

        async def receive_recorded() -> Any:
            message = await receive()
            if message["type"] == "websocket.receive":
                text = message.get("text")
                entry.keep(entry.got, text if text is not None else message.get("bytes"))
            return message

        async def send_recorded(message: Any) -> None:
            kind = message["type"]
            if kind == "websocket.send":
                text = message.get("text")
                entry.keep(entry.sent, text if text is not None else message.get("bytes"))
            elif kind == "websocket.close":
                entry.status = message.get("code", 1000)
            elif kind == "websocket.http.response.start":
                entry.status = message["status"]
            await send(message)

        tape.add(entry, entry)
        CURRENT.set(entry.number)
        try:
            return await serve(scope, receive_recorded, send_recorded)
        finally:
            CURRENT.set(outer)

    return recorded
