"""Answers: what the other side calls here, in the order of arrival.

A function is called at once and costs no task; the coroutine of a coroutine function gets one. What
arrives before that task has taken its first step waits for its turn behind it, so calls and notes
begin in the order in which they were sent. Each runs in a context of its own: that of the call of
ours in which it was made, so that spans nest over the border.

Promise: at most `MOST` calls run at a time; more are answered with a failure.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from types import CoroutineType
from typing import Any, Final

from .errors import GoneError, Overloaded, Violation
from .handles import Exports

__all__ = ["MOST", "Answers", "parent_of"]

MOST: Final = 10_000
"""Calls that may run at a time."""

_log: Final = logging.getLogger("veko")


class _Link:
    """Says in which call of a connection some code runs."""

    __slots__ = ("connection", "id", "outer")

    def __init__(self, connection: int, id: int, outer: _Link | None) -> None:
        self.connection = connection
        self.id = id
        self.outer = outer


_answering: Final[contextvars.ContextVar[_Link | None]] = contextvars.ContextVar(
    "veko_answering", default=None
)


def parent_of(connection: int) -> int:
    """Return the id of the call of this connection's other side in which we are, or 0."""
    link = _answering.get()
    while link is not None and link.connection != connection:
        link = link.outer
    return 0 if link is None else link.id


class Answers:
    """Runs what the other side of a connection calls.

    Args:
        connection: The number of the connection.
        methods: What may be called, by name.
        notes: What may be called without an answer, by name.
        exports: What may be called, by handle.
        context: Finds the context of a call of ours, by its id; 0 is that of none.
        succeed: Sends what a call returned.
        fail: Sends what a call raised.
        failed: Hears of notes that raised.
        broke: Hears that the other side broke the protocol, if it is noticed outside of reading.
    """

    def __init__(
        self,
        connection: int,
        *,
        methods: Mapping[str, Callable[..., Any]],
        notes: Mapping[str, Callable[..., Any]],
        exports: Exports,
        context: Callable[[int], contextvars.Context],
        succeed: Callable[[int, Any], None],
        fail: Callable[[int, BaseException], None],
        failed: Callable[[str, Exception], None] | None,
        broke: Callable[[Violation], None],
    ) -> None:
        self._connection = connection
        self._methods = {"@next": self._next_items, **methods}
        self._notes = {"@stop": self._stop_iterator, **notes}
        self._exports = exports
        self._context = context
        self._succeed = succeed
        self._fail = fail
        self._failed = failed or _log_failure
        self._broke = broke
        self._loop = asyncio.get_running_loop()
        self._last = 0
        self._late = 0  # tasks that have not begun, and what waits behind them
        self._note = 0  # notes have negative ids of ours
        self._ended = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._unbegun: dict[int, CoroutineType[Any, Any, Any]] = {}  # whose tasks have not begun

    def call(self, id: int, target: str | int, args: list[Any] | Exception, parent: int) -> None:
        """Answer a call.

        Args:
            id: Its id.
            target: What is called.
            args: The arguments, or why there are none.
            parent: The call of ours in which it was made.

        Raises:
            Violation: The id was used before, or there never was such a target.
        """
        if id <= self._last:
            raise Violation(f"used the call id {id} after {self._last}")
        self._last = id
        if self._late:
            self._wait(self._begin_call, id, target, args, parent)
        else:
            self._begin_call(id, target, args, parent)

    def note(self, target: str | int, args: list[Any] | Exception) -> None:
        """Call something without an answer.

        Raises:
            Violation: There never was such a target, or too many notes are under way.
        """
        if self._late:
            self._wait(self._begin_note, target, args)
        else:
            self._begin_note(target, args)

    def cancel(self, id: int) -> None:
        """Cancel a call, unless it is answered.

        Raises:
            Violation: There was no such call.
        """
        if id > self._last:
            raise Violation(f"cancelled the call {id}, which it did not make")
        if self._late:
            self._wait(self._cancel, id)
        else:
            self._cancel(id)

    def end(self) -> list[asyncio.Task[None]]:
        """Cancel all that runs; return what is to be waited for."""
        self._ended = True
        current = _current_task()
        tasks = [task for task in self._tasks.values() if task is not current]
        for task in tasks:
            task.cancel()
        # A task that is cancelled before its first step does not touch what it was to await.
        for coroutine in self._unbegun.values():
            coroutine.close()
        self._unbegun.clear()
        return tasks

    # -- in order

    def _wait(self, begin: Callable[..., None], *args: Any) -> None:
        self._late += 1
        self._loop.call_soon(self._late_begin, begin, args)

    def _late_begin(self, begin: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._late -= 1
        if self._ended:
            return
        try:
            begin(*args)
        except Violation as error:
            self._broke(error)

    def _cancel(self, id: int) -> None:
        task = self._tasks.get(id)
        if task is not None:
            task.cancel()

    def _begin_call(
        self, id: int, target: str | int, args: list[Any] | Exception, parent: int
    ) -> None:
        context = self._context(parent).copy()
        try:
            if isinstance(args, Exception):
                raise args
            if len(self._tasks) >= MOST:
                raise Overloaded(f"{MOST} calls of this plugin are running")
            result = context.run(self._run, id, self._find(target, self._methods), args)
        except Violation:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._fail(id, error)
            return
        if type(result) is CoroutineType:
            self._late += 1
            self._unbegun[id] = result
            self._tasks[id] = self._loop.create_task(self._finish(id, result), context=context)
        else:
            self._succeed(id, result)

    def _run(self, id: int, function: Callable[..., Any], args: list[Any]) -> Any:
        _answering.set(_Link(self._connection, id, _answering.get()))
        return function(*args)

    async def _finish(self, id: int, result: CoroutineType[Any, Any, Any]) -> None:
        self._late -= 1
        self._unbegun.pop(id, None)
        try:
            value = await result
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if not self._ended:
                self._fail(id, error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            if not self._ended:
                self._succeed(id, value)
        finally:
            del self._tasks[id]

    def _begin_note(self, target: str | int, args: list[Any] | Exception) -> None:
        name = target if isinstance(target, str) else f"the function {target}"
        if len(self._tasks) >= MOST:
            raise Violation(f"sent notes while {MOST} of its calls and notes are running")
        context = self._context(0).copy()
        try:
            if isinstance(args, Exception):
                raise args
            result = context.run(self._find(target, self._notes), *args)
        except Violation:
            raise
        except Exception as error:
            self._failed(name, error)
            return
        if type(result) is CoroutineType:
            self._late += 1
            self._note -= 1
            self._unbegun[self._note] = result
            task = self._loop.create_task(
                self._finish_note(self._note, name, result), context=context
            )
            self._tasks[self._note] = task

    async def _finish_note(self, id: int, name: str, result: CoroutineType[Any, Any, Any]) -> None:
        self._late -= 1
        self._unbegun.pop(id, None)
        try:
            await result
        except Exception as error:
            self._failed(name, error)
        finally:
            del self._tasks[id]

    def _find(
        self, target: str | int, named: Mapping[str, Callable[..., Any]]
    ) -> Callable[..., Any]:
        if isinstance(target, int):
            found: Callable[..., Any] = self._exports.get(target)
            return found
        named_one = named.get(target)
        if named_one is None:
            raise Violation(f"called {target[:100]!r}, which does not exist")
        return named_one

    # -- iterators

    async def _next_items(self, handle: int, most: int) -> dict[str, Any]:
        """Return the next item of an iterator.

        One at a time: how long a second one would take cannot be known, and asking for it makes the
        iterator's owner run ahead.
        """
        iterator: AsyncIterator[Any] = self._iterator(handle)
        try:
            item = await anext(iterator)
        except StopAsyncIteration:
            self._exports.withdraw(handle)
            return {"items": [], "done": True}
        except BaseException:
            self._exports.withdraw(handle)
            raise
        return {"items": [item], "done": False}

    async def _stop_iterator(self, handle: int) -> None:
        try:
            iterator = self._iterator(handle)
        except GoneError:
            return
        self._exports.withdraw(handle)
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()

    def _iterator(self, handle: object) -> AsyncIterator[Any]:
        found = self._exports.get(handle) if isinstance(handle, int) else None
        if not isinstance(found, AsyncIterator):
            raise Violation("asked for the next items of what is no iterator")
        return found


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _log_failure(name: str, error: Exception) -> None:
    _log.error("The note %s of another process failed: %s", name, error, exc_info=error)
