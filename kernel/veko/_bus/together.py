"""Handlers that run side by side: a task for each, none of which outlives the emission.

On asyncio they are its own tasks: anyio's group costs four times `asyncio.TaskGroup`, this one as
much as that. On trio they are a nursery's.

Each gets a task at once, though most handlers never suspend and could run in the caller's up to
there: `asyncio.timeout` and anyio's scopes belong to the task in which they are opened, so one that
a handler opens before it suspends could not be left in another task. Held by
test_handlers_side_by_side_have_scopes_of_their_own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final

import anyio
import anyio.abc

from .limits import on_asyncio

__all__ = ["together"]

AGAIN: Final = 0.01
"""Seconds after which a task that still runs after its cancellation is cancelled once more."""


def together() -> _Tasks | anyio.abc.TaskGroup:
    """Return a group of tasks: `async with together() as group: group.start_soon(function)`.

    All have ended when it is left. If one fails, the others are cancelled, and what was raised is
    raised as a group of exceptions; if the caller is cancelled, so are they, and the caller gets
    its cancellation.
    """
    loop = on_asyncio()
    if loop is None or asyncio.current_task() is None:  # trio, which may be a guest on asyncio
        return anyio.create_task_group()
    return _Tasks(loop)


class _Tasks:
    """Tasks of asyncio that end before the `async with` does.

    Args:
        loop: The loop that runs.
    """

    __slots__ = ("_ending", "_errors", "_loop", "_running", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._waiting: asyncio.Future[None] | None = None
        self._ending = False

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], /, *args: Any) -> None:
        """Start a task, unless one of them has failed already."""
        if not self._ending:
            task = self._loop.create_task(function(*args))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        running = self._running
        running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._errors.append(error)
            self._cancel()
        if self._ending or not running:
            waiting = self._waiting
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _cancel(self) -> None:
        self._ending = True
        for task in self._running:
            if not _is_shielded(task):
                task.cancel()

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self._running and not self._ending:
            self._waiting = self._loop.create_future()
            try:
                await self._waiting
            except BaseException as raised:  # the caller is cancelled, or closed
                error = raised
        if error is None and not self._ending:
            return
        try:
            await self._end(error)
        finally:
            del error, self._errors  # an error's traceback leads here: a cycle

    async def _end(self, error: BaseException | None) -> None:
        """Cancel the tasks, wait until they have ended, and raise what must be raised.

        Args:
            error: What was raised outside of the tasks.
        """
        self._cancel()
        if isinstance(error, GeneratorExit):  # closed: nothing can be awaited any more
            raise error
        cancellation: BaseException | None = None
        if isinstance(error, asyncio.CancelledError):
            cancellation = error
        elif error is not None:
            self._errors.append(error)
        # The shield is against a scope of the caller that is cancelled, and would end this wait
        # each turn of the loop. `task.cancel()` of the caller still does: the last one counts,
        # since a scope ignores its own cancellation and must not take that one for its own.
        with anyio.CancelScope(shield=True):
            while self._running:
                try:
                    await asyncio.wait(self._running, timeout=AGAIN)
                except asyncio.CancelledError as again:
                    cancellation = again
                # A scope cancels what is in it until it ends, so one that ignores a cancellation
                # (a bad habit, and a common one) gets the next.
                self._cancel()
        errors = self._errors
        try:
            # Failures have been reported; a cancellation that is not passed on is lost.
            if cancellation is not None and all(isinstance(one, Exception) for one in errors):
                raise cancellation
            if errors:
                raise BaseExceptionGroup("handlers side by side have failed", errors) from None
        finally:
            del error, errors, cancellation


def _is_shielded(task: asyncio.Task[None]) -> bool:
    """Tell whether a task is inside a scope of anyio that shields it from cancellation.

    A scope would see to that itself, had the task been started in it: at a price that each task
    would pay, where this is asked of those that are cancelled only. anyio has no public way to ask:
    should a version of it name this otherwise, shields do not hold here, and all else does.
    Held by test_handlers_side_by_side_clean_up_behind_a_shield.
    """
    backend = sys.modules.get("anyio._backends._asyncio")
    state = getattr(backend, "_task_states", {}).get(task)
    scope = None if state is None else state.cancel_scope
    while scope is not None:
        if scope.shield:
            return True
        scope = scope._parent_scope
    return False
