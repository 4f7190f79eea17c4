"""Request: what handlers, hooks and middleware hold in their hands.

There is one object for a request, from its first hook to its last; it lies in the scope under
`REQUEST`, for handlers of any framework. What is not looked at is not worked out, so that one
costs its constructor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import msgspec

from veko.errors import RouteError

from .asgi import Message, Receive, Scope
from .connection import Connection
from .forms import Fields, Upload, parse_form
from .problem import HTTPError

__all__ = ["LIMIT", "MAX_BODY", "Request"]

MAX_BODY: Final = 10 * 1024 * 1024
"""Bytes of a body that `Request.body` reads unless the scope says otherwise under `LIMIT`."""
LIMIT: Final = "veko.max_body"
_REPLAYED: Final = "veko.replayed"
_Keeper = TypeVar("_Keeper", bound=Receive)


class Request(Connection):
    """A request, worked out as far as it is looked at.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive.

    Attributes:
        scope: The ASGI scope, for what is not here.
        headers: The headers, whatever their case.
        query: The query parameters; where one comes twice, the last, `getall` gives all.
        cookies: The cookies.
        client: Host and port of the client, if the server knows them.
        path_params: The path parameters, converted.
        state: A dictionary for hooks and middleware to leave things in.
    """

    __slots__ = ("_body", "_form", "_read", "_receive", "_waiting")

    _form: Fields[str | Upload]
    _waiting: bool

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self._read = False

    @property
    def method(self) -> str:
        """The method in capitals."""
        return str(self.scope["method"])

    async def stream(self) -> AsyncIterator[bytes]:
        """Give the body in chunks as they come, once; or as a whole if it was read before.

        Raises:
            HTTPError: 413 if it is longer than allowed, 400 if the client went away.
            RouteError: It was streamed before.
        """
        if self._body is not None:
            yield self._body
            return
        if self._read:
            raise RouteError(
                "the body was read already, and not kept",
                remedy="Where several want it, let each `await request.body()`.",
            )
        limit = self.scope.get(LIMIT, MAX_BODY)
        if (announced := self.headers.get("content-length", "")).isdecimal():
            _check_length(int(announced), limit)
        size, more = 0, True
        while more:
            message = await self._wait()
            if message["type"] == "http.disconnect":
                raise HTTPError(400, "the client went away before its body was read")
            chunk = message.get("body", b"")
            more = message.get("more_body", False)
            self._read = not more
            size += len(chunk)
            _check_length(size, limit)
            if chunk:
                yield chunk

    async def body(self) -> bytes:
        """Read the whole body, once for all who ask."""
        if self._body is None:
            self.keep(b"".join([chunk async for chunk in self.stream()]))
        return self._body or b""

    def keep(self, body: bytes) -> None:
        """Keep a body that a framework read, for whoever asks next."""
        self._body, self._read = body, True

    @property
    def kept(self) -> bytes | None:
        """The body, if somebody has read and kept it."""
        return self._body

    @property
    def read(self) -> bool:
        """Whether no more of the body will come."""
        return self._read or not any(
            name in {b"content-length", b"transfer-encoding"} for name, _ in self.scope["headers"]
        )

    async def receive(self) -> Message:
        """ASGI's receive, for an endpoint: a body that was kept comes once more."""
        if self._body is not None and not self.scope.get(_REPLAYED):
            self.scope[_REPLAYED] = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        message = await self._wait()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._read = True
        return message

    async def _wait(self) -> Message:
        self._waiting = True
        try:
            message: Message = await self._receive()
            return message
        finally:
            self._waiting = False

    def lend(self, receive: Receive, keeper: Callable[[Receive], _Keeper]) -> _Keeper | None:
        """Let somebody listen at the server's `receive` who keeps what comes for this request.

        Returns:
            Who listens; `None` if the body is being read, or a middleware reads it.
        """
        if getattr(self, "_waiting", False) or self._receive is not receive:
            return None
        made = self._receive = keeper(receive)
        return made

    async def json(self) -> Any:
        """Decode the body as JSON.

        Raises:
            HTTPError: 400 if it is none.
        """
        try:
            return msgspec.json.decode(await self.body())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPError(400, f"the body is no JSON: {error}") from None
        except RecursionError:
            raise HTTPError(400, "the body is JSON nested too deeply") from None

    async def form(self) -> Fields[str | Upload]:
        """Decode the body as a form, URL-encoded or multipart.

        Raises:
            HTTPError: 415 if it is neither, 400 if it is malformed.
        """
        if not hasattr(self, "_form"):
            self._form = parse_form(self.headers.get("content-type", ""), await self.body())
        return self._form

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"


def _check_length(size: int, limit: int) -> None:
    if size > limit:
        raise HTTPError(413, f"the body is longer than {limit} bytes")
