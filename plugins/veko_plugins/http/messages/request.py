"""Request: what handlers, hooks and middleware work with.

A request is one object from its first hook to its last. It is in the scope under `REQUEST`, for
handlers of any framework. Its attributes are computed at their first use, so one that no code reads
costs its constructor only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final, NoReturn, TypeVar

import anyio.to_thread
import msgspec

from veko.errors import RouteError

from .asgi import Message, Receive, Scope
from .connection import Connection
from .forms import Fields, Upload, parse_form
from .problem import HTTPError

__all__ = ["LIMIT", "MAX_BODY", "Request"]

MAX_BODY: Final = 10 * 1024 * 1024
"""Bytes of a body that `Request.body` reads, unless the scope has another limit under `LIMIT`."""
LIMIT: Final = "veko.max_body"
"""The scope's key of the greatest length of a body, in bytes."""
_QUICK: Final = 64 * 1024
"""Bytes of a form that is parsed on the event loop (3 ms); a longer one is parsed in a thread."""
_REPLAYED: Final = "veko.replayed"
_Keeper = TypeVar("_Keeper", bound=Receive)


class Request(Connection):
    """An HTTP request. All hooks, middleware and the handler of one request share one object.

    Args:
        scope: The ASGI scope.
        receive: ASGI's receive.

    Attributes:
        method: The method in capitals.
        path: The decoded path, relative to where the application is mounted.
        path_params: The path parameters, converted.
        url: The full URL, with the host from the `Host` header.
        query: The query parameters. `query[name]` is the last value of a repeated name, and
            `query.getall(name)` are all.
        headers: The headers; names are case-insensitive.
        cookies: The cookies that the client sent.
        client: The address of the client; `None` if the server does not know it.
        route: The matching route; `None` if no route matches.
        state: A dictionary in which hooks and middleware pass on what they want.
        scope: The ASGI scope, for everything else.
        left: Whether the client is known to have disconnected: nothing counts as a failure then.
        refused: The error (413) that refused a body longer than allowed; `None` if none did. What
            fails because of it is the client's fault, and answered with it.
    """

    __slots__ = (
        "_body", "_form", "_passed", "_read", "_receive", "_room", "_server", "_waiting", "left",
        "refused",
    )  # fmt: skip

    _form: Fields[str | Upload]

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = self._server = receive  # middleware replaces the former
        self._body: bytes | None = None
        self._read = self._waiting = self.left = False
        self._room: int | None = None  # bytes that the server may still give; `None` at first
        self._passed = 0  # bytes that came through a middleware, which may decompress them
        self.refused: HTTPError | None = None

    @property
    def method(self) -> str:
        """The method in capitals."""
        return str(self.scope["method"])

    async def stream(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks as they arrive, once; or whole if `body` has read it.

        Raises:
            HTTPError: 413 if the body is longer than allowed (10 MiB unless configured), 400 if the
                client disconnected.
            RouteError: The body was streamed before.
        """
        if self._body is not None:
            yield self._body
            return
        self._check_unread()
        while not self._read:
            chunk = self._chunk_of(await self._next())
            if chunk:
                yield chunk

    def _check_unread(self) -> None:
        if self._read:
            raise RouteError(
                "the body was streamed before, and not kept",
                remedy="If several functions need it, use `await request.body()` in each.",
            )

    def _chunk_of(self, message: Message) -> bytes:
        if message["type"] == "http.disconnect":
            raise HTTPError(400, "the client disconnected before its body was read")
        self._read = not message.get("more_body", False)
        chunk: bytes = message.get("body", b"")
        return chunk

    async def body(self) -> bytes:
        """Return the whole body. It is read once and kept, so any number of callers get it.

        Raises:
            HTTPError: 413 if the body is longer than allowed (10 MiB unless configured), 400 if the
                client disconnected.
            RouteError: The body was streamed before.
        """
        if self._body is None:
            self._check_unread()
            chunks: list[bytes] = []
            while not self._read:
                chunks.append(self._chunk_of(await self._next()))
            self.keep(b"".join(chunks))
        return self._body or b""

    def keep(self, body: bytes) -> None:
        """Keep a body that a framework has read, for later callers of `body`."""
        self._body, self._read = body, True

    @property
    def kept(self) -> bytes | None:
        """The body if it was read and kept, else `None`."""
        return self._body

    @property
    def read(self) -> bool:
        """Whether all of the body has arrived, or there is none."""
        return self._read or not any(
            name in {b"content-length", b"transfer-encoding"} for name, _ in self.scope["headers"]
        )

    async def receive(self) -> Message:
        """ASGI's receive, for an endpoint; a body that was kept is sent once more."""
        if self._body is not None and not self.scope.get(_REPLAYED):
            self.scope[_REPLAYED] = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        message = await self._next()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._read = True
        return message

    @property
    def source(self) -> Receive:
        """The `receive` that a middleware may wrap."""
        return self.take if self._receive is self._server else self._receive

    def wrap(self, receive: Receive) -> None:
        """Receive through what a middleware passed on."""
        self._receive = self._server if receive == self.take else receive

    def unwrap(self) -> None:
        """Forget what middleware put around `receive`: it refers to this request, a circle."""
        self._receive = self._server

    async def _next(self) -> Message:
        if self._receive is self._server:
            return await self.take()
        message: Message = await self._receive()
        self._passed += len(message.get("body", b""))
        if self._passed > self.scope.get(LIMIT, MAX_BODY):
            self._refuse()
        return message

    async def take(self) -> Message:
        """Take a message from the server.

        Every reader of the body comes here: `stream`, a framework, a mounted application, a
        middleware. So the limit holds for all of them (`tests/faults/test_http_limits.py`).

        Raises:
            HTTPError: 413 if the body is longer than allowed.
        """
        room = self._room
        if room is None:
            room = self.scope.get(LIMIT, MAX_BODY)
            announced = self.headers.get("content-length", "")
            if announced.isdecimal() and int(announced) > room:
                room = -1
            self._room = room
        if room < 0:
            self._refuse()
        self._waiting = True
        try:
            message: Message = await self._server()
        finally:
            self._waiting = False
        if message["type"] == "http.disconnect":
            self.left = True
            return message
        self._room = room = room - len(message.get("body", b""))
        if room < 0:
            self._refuse()
        return message

    def _refuse(self) -> NoReturn:
        limit = self.scope.get(LIMIT, MAX_BODY)
        self.refused = HTTPError(413, f"the body is longer than {limit} bytes")
        raise self.refused

    def lend(self, receive: Receive, keeper: Callable[[Receive], _Keeper]) -> _Keeper | None:
        """Lend the server's `receive` to a keeper, which keeps the messages for this request.

        Args:
            receive: The server's receive.
            keeper: Makes the keeper.

        Returns:
            The keeper; `None` if something waits for a message just now.
        """
        if self._waiting or self._server is not receive:
            return None
        made = keeper(receive)
        if self._receive is receive:
            self._receive = made
        self._server = made
        return made

    async def json(self) -> Any:
        """Return the body, decoded from JSON.

        Raises:
            HTTPError: 400 if the body is not valid JSON; and as `body` does.
        """
        try:
            return msgspec.json.decode(await self.body())
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPError(400, f"the body is not valid JSON: {error}") from None
        except RecursionError:
            raise HTTPError(400, "the body is JSON nested too deeply") from None

    async def form(self) -> Fields[str | Upload]:
        """Return the body, decoded as a URL-encoded or multipart form.

        Returns:
            The fields: `str`, or `Upload` for a file.

        Raises:
            HTTPError: 415 if the body is not a form, 400 if the form is malformed; and as `body`
                does.
        """
        if not hasattr(self, "_form"):
            kind, body = self.headers.get("content-type", ""), await self.body()
            if len(body) <= _QUICK:
                self._form = parse_form(kind, body)
            else:  # it may take seconds
                self._form = await anyio.to_thread.run_sync(parse_form, kind, body)
        return self._form

    @property
    def label(self) -> str:
        """The method and path, as log records name the request."""
        return f"{self.method} {self.path}"

    def __repr__(self) -> str:
        return f"<Request {self.method} {self.path}>"
