"""A connection to the other side: calls both ways, notes, functions as handles, cancellation.

The same class serves the host and a Python worker. A call costs its caller no task.

Promise: whatever the other side sends, the loop sees no exception and memory is bounded (see
`wire`, `handles`, `answers`). What breaks the protocol ends the connection with a `ProtocolError`
that says what it was.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from . import messages
from .answers import Answers, parent_of
from .errors import ConnectionLost, GoneError, Overloaded, ProtocolError, RemoteError, Violation
from .framing import Frames, frame
from .handles import Exports, Imports, Lent
from .messages import PROTOCOL, Call, Cancel, Drop, Fail, Hello, Message, Note, Ok, Ping, Pong
from .packing import JSON_LIMIT, LIMIT, Packer
from .pings import Pings
from .values import Kinds, Reader, failure_of
from .wire import Wire

__all__ = ["Connection"]

_MOST_CALLS: Final = 10_000
"""Calls that may wait for an answer."""
_numbers: Final = itertools.count(1)


class _Waiting:
    """A call that waits for its answer, and the context for the calls that are made in it.

    When its caller has been cancelled, both are `None`, and its id stays taken until the answer.
    """

    __slots__ = ("context", "future")

    def __init__(self, future: asyncio.Future[Any], context: contextvars.Context) -> None:
        self.future: asyncio.Future[Any] | None = future
        self.context: contextvars.Context | None = context


class Connection:
    """A connection to the other side.

    Args:
        sock: A connected stream socket, which the connection then owns.
        methods: What the other side may call, by name: functions or coroutine functions.
        notes: What the other side may call without an answer, by name.
        limit: The most bytes that one of its frames may have.
        json_limit: The most bytes of JSON among them.
        kinds: Kinds of values beyond those of the protocol.
        lost: Is called once, when the connection has ended: with the reason, or with `None` if
            `close` was called.
        failed: Is called with the name of a note, and the error that its function raised.
        other: What the other side is called in messages: `the worker of shop`.

    Attributes:
        peer: What the other side said in its hello.
        watched: Whether somebody sees to it that the other side answers.
        watch: Is called when a call is made while `watched` is false.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        methods: Mapping[str, Callable[..., Any]],
        notes: Mapping[str, Callable[..., Any]],
        limit: int = LIMIT,
        json_limit: int = JSON_LIMIT,
        kinds: Kinds | None = None,
        lost: Callable[[Exception | None], None] | None = None,
        failed: Callable[[str, Exception], None] | None = None,
        other: str = "the other side",
    ) -> None:
        self._sock: socket.socket | None = sock
        self._kinds = kinds or Kinds()
        self._lost = lost
        self._other = other
        self._frames = Frames(limit, json_limit)
        self._number = next(_numbers)
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(self._frames, self)
        self._context = contextvars.copy_context()
        self._imports = Imports(self, self._released)
        self._exports = Exports(self._imports)
        self._packer = Packer(self._exports, self._imports, self._kinds)
        self._answers = Answers(
            self._number,
            methods=methods,
            notes=notes,
            exports=self._exports,
            context=self._context_of,
            succeed=self._succeed,
            fail=self._fail,
            failed=failed,
            broke=self.broke,
        )
        self._hello: asyncio.Future[dict[str, Any]] | None = self._loop.create_future()
        self._waiting: dict[int, _Waiting] = {}
        self._next_id = 1
        self._pings = Pings(self._wire.write)
        self.reason: ConnectionLost | None = None
        self.peer: dict[str, Any] = {}
        self.watched = True
        self.watch: Callable[[], None] | None = None

    # -- opening and ending

    async def open(
        self, hello: Mapping[str, Any], *, timeout: float, host: bool = True
    ) -> dict[str, Any]:
        """Greet the other side and wait for its greeting.

        Args:
            hello: What to tell it; the version of the protocol, the limits and, by the host, the
                nonce are added.
            timeout: Seconds.
            host: Whether this is the host's end.

        Returns:
            What the other side said.

        Raises:
            TimeoutError: It said nothing in time.
            ProtocolError: It speaks another version, or something else.
            ConnectionLost: It is gone.
        """
        frames, sock, hears = self._frames, self._sock, self._hello
        if sock is None or hears is None:
            raise self._again()
        facts: dict[str, Any] = {"protocol": PROTOCOL, "limit": frames.limit}
        facts |= {"json_limit": frames.json_limit, **hello}
        if host:
            facts["nonce"] = self._packer.nonce = secrets.token_hex(16)
        self._sock = None
        try:
            await self._wire.connect(sock)
            self._wire.write(frame(msgspec.json.encode(("hello", facts))))
            async with asyncio.timeout(timeout):
                return await hears
        except BaseException as error:
            lost = error if isinstance(error, ConnectionLost) else None
            self._end(lost or ConnectionLost(f"{self._other} did not say hello in {timeout:g} s"))
            raise

    async def close(self) -> None:
        """End the connection; what was written before still goes out if it is read at once.

        Calls under way raise `ConnectionLost`; what the other side called is cancelled.
        """
        opened = self._sock is None
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        if self.reason is None:
            self._wire.flush()
        tasks = self._end(None, at_once=False)
        if tasks:
            await asyncio.wait(tasks)
        if opened:
            if self._wire.waiting:
                self._wire.close(at_once=True)
            await asyncio.shield(self._wire.closed)

    @property
    def closed(self) -> bool:
        """Whether it has ended or is about to; `reason` says why."""
        return self.reason is not None

    @property
    def calls(self) -> int:
        """How many calls wait for an answer."""
        return len(self._waiting)

    @property
    def current(self) -> int:
        """The other side's call in which the caller runs, for `context_of` there; 0 if in none."""
        return parent_of(self._number)

    def context_of(self, id: object) -> contextvars.Context:
        """Return a copy of the context in which a call of ours was made.

        Args:
            id: Its id, as the other side says; that of no call stands for the connection's own.
        """
        return self._context_of(id if isinstance(id, int) else 0).copy()

    @property
    def unread(self) -> int:
        """How many bytes the other side has not taken yet."""
        return self._wire.waiting

    def heard(self) -> bool:
        """Return whether anything has arrived since this was last asked."""
        heard, self._wire.heard = self._wire.heard, False
        return heard

    def broke(self, violation: Violation) -> None:
        """Hear that the other side broke the protocol (called by the wire)."""
        self._end(ProtocolError(f"{self._other} {violation}"))

    def gone(self) -> None:
        """Hear that the socket is closed (called by the wire)."""
        self._end(ConnectionLost(f"{self._other} is gone"))

    def _end(
        self, reason: ConnectionLost | None, *, at_once: bool = True
    ) -> list[asyncio.Task[None]]:
        """End all that waits or runs; return the tasks that were cancelled."""
        if self.reason is None:
            self.reason = reason or ConnectionLost(f"the connection to {self._other} was closed")
            self._wire.close(at_once=at_once)
            calls = [call.future for call in self._waiting.values()]
            for future in (self._hello, *calls):
                if future is not None and not future.done():
                    future.set_exception(self._again())
                    future.exception()  # who waited may have gone: then nobody asks for it
            self._pings.end(self._again)
            self._waiting.clear()
            self._exports.clear()
            if self._lost is not None:
                lost, self._lost = self._lost, None
                lost(reason)
        return self._answers.end()

    def _again(self) -> ConnectionLost:
        """Return the reason, as an error with a traceback of its own."""
        reason = self.reason or ConnectionLost(f"the connection to {self._other} is not open")
        return type(reason)(reason.message)

    # -- calling

    async def call(self, target: str | int, *args: Any) -> Any:
        """Call a method of the other side, or one of its functions.

        Cancelling it tells the other side that nobody waits any more.

        Args:
            target: The method's name, or the function's handle.
            args: Values that can cross; see `values`.

        Raises:
            RemoteError: It raised.
            TypeError: An argument cannot cross.
            ValueError: The arguments are larger than the other side takes.
            Overloaded: Too many calls are under way.
            ConnectionLost: The other side is gone.
        """
        while self._wire.room is not None:
            await asyncio.shield(self._wire.room)
        if not self.watched and self.watch is not None:
            self.watch()
        if len(self._waiting) >= _MOST_CALLS:
            raise Overloaded(f"{_MOST_CALLS} calls wait for an answer of {self._other}")
        number = self._next_id
        self._send(("call", number, target, args, parent_of(self._number)))
        self._next_id = number + 1
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[number] = waiting = _Waiting(future, contextvars.copy_context())
        try:
            return await future
        except asyncio.CancelledError:
            if number in self._waiting:
                waiting.future = waiting.context = None
                self._wire.write(frame(b'["cancel",%d]' % number))
            raise

    def note(self, target: str | int, *args: Any) -> None:
        """Call a note of the other side, or one of its functions, without waiting for an answer.

        Raises:
            TypeError: An argument cannot cross.
            ValueError: The arguments are larger than the other side takes.
            Overloaded: The other side does not read what it was sent.
            ConnectionLost: The other side is gone.
        """
        if self._wire.full:
            raise Overloaded(f"{self._other} does not read what it was sent")
        self._send(("note", target, args))

    def lend(self, target: Callable[..., Any], name: str = "") -> Lent:
        """Return a function or iterator that can be sent, and withdrawn from the other side.

        Other functions stay until the other side has collected them, which may take it long.
        """
        return Lent(self._exports, target, name)

    async def ping(self, timeout: float) -> float:
        """Return the seconds in which the other side answers a ping.

        Raises:
            TimeoutError: It did not answer in time.
            ConnectionLost: It is gone.
        """
        if self.reason is not None:
            raise self._again()
        return await self._pings.wait(timeout)

    def poke(self) -> None:
        """Ping the other side without waiting; `heard` says whether anything came back."""
        self._pings.send()

    def abort(self, why: str) -> None:
        """End the connection at once: calls under way raise `ConnectionLost` with this message."""
        self._end(ConnectionLost(why))

    def _send(self, message: tuple[Any, ...]) -> None:
        if self.reason is not None or self._hello is not None:
            raise self._again()
        self._wire.write(self._packer.pack(message))

    def _released(self) -> None:
        """See to it that collected functions are dropped; called from any thread."""
        if self.reason is None:
            try:
                self._loop.call_soon_threadsafe(self._drop)
            except RuntimeError:  # the loop is closed
                pass

    def _drop(self) -> None:
        dropped = self._imports.take_dropped()
        if dropped and self.reason is None:
            self._wire.write(frame(msgspec.json.encode(("drop", dropped))))

    # -- receiving

    def received(self, buffer: bytearray, start: int, end: int, last: int) -> None:
        """Take a frame (called by the wire)."""
        message, reader = self._packer.unpack(buffer, start, end, last)
        if self._hello is not None:
            self._greeted(self._hello, message)
            return
        try:
            self._take(message, reader)
        except RecursionError:
            raise Violation("sent a message that is nested too deeply") from None

    def _take(self, message: Message, reader: Reader | None) -> None:
        kind = type(message)
        answers = self._answers
        if isinstance(message, Ok):
            value = message.value if reader is None else _read(reader, message.value)
            if (future := self._answered(message.id)) is not None:
                if isinstance(value, GoneError):
                    future.set_exception(value)
                else:
                    future.set_result(value)
        elif isinstance(message, Call):
            args = message.args if reader is None else _read(reader, message.args)
            answers.call(message.id, message.target, args, message.parent)
        elif isinstance(message, Note):
            args = message.args if reader is None else _read(reader, message.args)
            answers.note(message.target, args)
        elif isinstance(message, Fail):
            if (future := self._answered(message.id)) is not None:
                future.set_exception(RemoteError(message.error))
        elif isinstance(message, Cancel):
            answers.cancel(message.id)
        elif isinstance(message, Drop):
            for handle, times in message.handles:
                self._exports.drop(handle, times)
        elif isinstance(message, Ping):
            self._wire.write(frame(b'["pong",%d]' % message.number))
        elif isinstance(message, Pong):
            self._pings.answered(message.number)
        else:
            raise Violation(f"sent {kind.__name__.lower()!r} twice")

    def _greeted(self, hello: asyncio.Future[dict[str, Any]], message: Message) -> None:
        if not isinstance(message, Hello):
            name = type(message).__name__.lower()
            raise Violation(f"sent {name!r} before it said hello")
        facts = message.facts
        if facts.get("protocol") != PROTOCOL:
            theirs = str(facts.get("protocol"))[:40]
            raise Violation(f"speaks protocol {theirs}, this Veko speaks protocol {PROTOCOL}")
        if not self._packer.nonce:
            nonce = facts.get("nonce")
            if not isinstance(nonce, str) or not nonce.isalnum():
                raise Violation("sent no nonce in its hello")
            self._packer.nonce = nonce
        for name in ("limit", "json_limit"):
            if isinstance(size := facts.get(name), int) and size > 0:
                setattr(self._packer, name, size)
        self._hello, self.peer = None, facts
        if not hello.done():
            hello.set_result(facts)

    def _answered(self, number: int) -> asyncio.Future[Any] | None:
        """Return what waits for the answer of a call; `None` if its caller was cancelled."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            raise Violation(f"answered the call {number}, which does not wait for an answer")
        future = waiting.future
        return None if future is None or future.done() else future

    # -- answering

    def _context_of(self, number: int) -> contextvars.Context:
        waiting = self._waiting.get(number) if number else None
        context = waiting.context if waiting is not None else None
        return self._context if context is None else context

    def _succeed(self, number: int, value: Any) -> None:
        try:
            self._send(("ok", number, value))
        except ConnectionLost:
            pass
        except Exception as error:
            self._fail(number, error)

    def _fail(self, number: int, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = RemoteError(messages.Failure("Cancelled", "the call was cancelled"))
        failure = (self._kinds.failure or failure_of)(error)
        try:
            self._send(("fail", number, msgspec.to_builtins(failure)))
        except ConnectionLost:
            pass


def _read(reader: Reader, value: Any) -> Any:
    try:
        return reader.read(value)
    except GoneError as error:
        return error
