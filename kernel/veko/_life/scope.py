"""Scopes: the tasks and resources of a generation of a plugin.

Each runs in a task of its own under the kernel's root, so a plugin can be taken down from any
task, in any order and in bounded time. A task costs one task, a resource one waiting task.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType
from typing import Any, Final

import anyio
import anyio.lowlevel

from .._bus.frames import called_owner
from .._bus.handles import Handle
from .._bus.limits import CLOSING_GRACE, driven, is_cancellation
from .._bus.local_variables import local_of
from .._bus.turns import Turns
from ..errors import LoadTimeout, StateError
from .root import Root

__all__ = ["Scope", "Task", "owner_in"]

AT_ONCE: Final = 100
_log: Final = logging.getLogger("veko")


class Task(Handle):
    """A task of a plugin: `cancel()` ends it. It starts when the plugin goes live."""

    __slots__ = ("_forget", "_function", "_report", "_root", "_scope", "ended", "owner")

    def __init__(
        self,
        root: Root,
        function: Callable[[], Awaitable[Any]],
        report: Callable[[BaseException], Awaitable[None]],
        owner: object,
        *,
        live: bool,
    ) -> None:
        super().__init__(self._end, None if live else owner)
        self.owner = owner
        self._root = root
        self._function = function
        self._scope: anyio.CancelScope | None = None
        self._report = report
        self._forget: Callable[[Task], object] = _nothing
        self.ended: anyio.Event | None = None

    def forget_by(self, forget: Callable[[Task], object]) -> None:
        """Set what is called with it once it has come to its end, or was cancelled for good."""
        self._forget = forget

    @property
    def finished(self) -> bool:
        """Whether it came to its own end, or was cancelled for good."""
        return self._undo is None

    def start(self) -> None:
        """Start it, or start it again from the beginning."""
        if self.finished or (self.ended is not None and not self.ended.is_set()):
            return
        self._scope, self.ended = anyio.CancelScope(), anyio.Event()
        self._root.start(self._run, self._scope, self.ended)

    async def _run(self, scope: anyio.CancelScope, ended: anyio.Event) -> None:
        try:
            with scope:
                await driven(_coroutine(self._function))
            if not scope.cancelled_caught:
                self._undo = None
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._undo = None
            await self._report(error)
        finally:
            ended.set()
            if self.finished:
                self._forget(self)

    def _end(self) -> None:
        self._root.check_thread()
        self.stop()
        if self.ended is None or self.ended.is_set():
            self._forget(self)

    def stop(self) -> None:
        """Cancel it so that it can be started again."""
        if self._scope is not None:
            self._scope.cancel()


def owner_in(frame: FrameType) -> object:
    """Return the owner whose handler or task a frame of Veko has called.

    Args:
        frame: A frame of a running call.

    Returns:
        The owner, whose `name` is the plugin's; `None` if the frame has called neither, or the
        handler is the application's own.
    """
    if frame.f_code is _TASK:
        task: Task = local_of(frame, "self")
        return task.owner
    return called_owner(frame)


_TASK: Final = Task._run.__code__


def _nothing(task: Task) -> None:
    """Do nothing: no scope has it."""


async def _coroutine(function: Callable[[], Any]) -> Any:
    answer = function()
    return await answer if inspect.isawaitable(answer) else answer


class _Resource:
    """An async context manager, held open by a task of its own.

    Cancel scopes must be left in the task that entered them, in reverse order. In one exit stack
    a resource that hangs at closing would be cancelled in the middle of the others' scopes, which
    corrupts them on both backends (test_resources_are_entered_and_left_from_any_task,
    test_a_resource_that_hangs_while_closing_is_cut_off).
    """

    def __init__(
        self, manager: AbstractAsyncContextManager[Any], report: Callable[[BaseException], Any]
    ) -> None:
        self._manager = manager
        self._report = report
        self._ready, self._close, self.ended = anyio.Event(), anyio.Event(), anyio.Event()
        self._scope = anyio.CancelScope()
        self._entered = False
        self._value: Any = None
        self._error: BaseException | None = None

    async def run(self) -> None:
        try:
            with self._scope:
                await driven(self._hold())
        except BaseException as error:
            if is_cancellation(error):
                raise
            self._error = error
            if self._entered and not self._close.is_set():  # it failed while the plugin runs
                await self._report(error)
        finally:
            self._ready.set()
            self.ended.set()

    async def _hold(self) -> None:
        async with self._manager as self._value:
            self._entered = True
            self._ready.set()
            await self._close.wait()

    async def opened(self) -> Any:
        try:
            await self._ready.wait()
        except BaseException:
            self._scope.cancel()
            raise
        if self._error is not None:
            raise self._error
        if not self._entered:
            raise StateError(f"{self._manager!r} was cancelled while it was entered")
        return self._value

    async def close(self, seconds: float) -> None:
        if self.ended.is_set():
            return
        # The deadline is set now, not at entering: it bounds the closing alone, however long the
        # resource was open (test_a_resource_that_hangs_while_closing_is_cut_off).
        self._scope.deadline = anyio.current_time() + seconds
        cut = self._scope.cancel_called
        self._close.set()
        await self.ended.wait()
        if self._scope.cancelled_caught and not cut:
            raise LoadTimeout(f"{self._manager!r} did not close within {seconds:g} s", step="close")
        if self._error is not None:
            raise self._error


class Scope:
    """What a generation holds open."""

    def __init__(self, root: Root) -> None:
        self._root = root
        # In order; a dict, so that a task that ends is dropped without looking at the others
        # (test_one_more_costs_as_much_however_many_there_are).
        self._items: dict[Task | _Resource, None] = {}
        self._starting: object = None

    @property
    def held(self) -> int:
        """How many tasks and resources it holds."""
        return len(self._items)

    def add(self, task: Task) -> None:
        """Own a task until it ends; it is not started here."""
        self._items[task] = None
        task.forget_by(self._drop)

    def _drop(self, task: Task) -> None:
        self._items.pop(task, None)

    async def enter(
        self, manager: AbstractAsyncContextManager[Any], report: Callable[[BaseException], Any]
    ) -> Any:
        """Enter an async context manager in a task of its own; returns what it yields.

        Args:
            manager: The context manager.
            report: Called with what it raises if it fails while it is open.

        Raises:
            Exception: What entering it raised.
        """
        resource = _Resource(manager, report)
        self._items[resource] = None
        self._root.start(resource.run)
        try:
            return await resource.opened()
        except BaseException:
            if resource.ended.is_set():  # otherwise close() waits for its end
                self._items.pop(resource, None)
            raise

    @property
    def tasks(self) -> list[Task]:
        """The tasks, in the order in which they were added."""
        return [item for item in self._items if isinstance(item, Task)]

    def start_tasks(self) -> None:
        """Start the tasks that have not finished: the first at once, thousands in slices."""
        tasks = self.tasks
        for task in tasks[:AT_ONCE]:
            task.start()
        self._starting = starting = object()
        if len(tasks) > AT_ONCE:
            self._root.start(self._start_others, tasks[AT_ONCE:], starting)

    async def _start_others(self, tasks: list[Task], starting: object) -> None:
        turns = Turns()
        for task in tasks:
            if turns.due:
                await turns.pause()
            if self._starting is not starting:  # they were stopped meanwhile
                return
            task.start()

    async def tasks_ended(self) -> None:
        """Wait until no task runs any more, those that tasks spawn meanwhile included."""
        while running := [t for t in self.tasks if t.ended is None or not t.ended.is_set()]:
            for task in running:
                if task.ended is not None:
                    await task.ended.wait()
                else:  # one of thousands, which start in slices
                    await anyio.lowlevel.checkpoint()

    async def stop_tasks(self, seconds: float, grace: float = CLOSING_GRACE) -> list[str]:
        """Cancel the tasks and wait until they end; returns a line for each that did not."""
        self._starting = None
        tasks = self.tasks
        if not tasks:
            return []
        turns = Turns()
        for task in reversed(tasks):
            task.stop()
            if turns.due:
                await turns.pause()
        with anyio.move_on_after(seconds + grace):
            for task in tasks:
                if task.ended is not None and not task.ended.is_set():
                    await task.ended.wait()
        return [
            f"a task did not end within {seconds:g} s of being cancelled"
            for task in tasks
            if task.ended is not None and not task.ended.is_set()
        ]

    async def close(self, seconds: float, grace: float = CLOSING_GRACE) -> list[BaseException]:
        """Close everything in reverse order; returns what was raised, and raises nothing."""
        faults: list[BaseException] = []
        late = await self.stop_tasks(seconds, grace)
        faults += [LoadTimeout(line, step="close") for line in late]
        while self._items:
            item, _ = self._items.popitem()
            if not isinstance(item, Task):
                try:
                    await item.close(seconds)
                except BaseException as error:
                    if is_cancellation(error):
                        raise
                    faults.append(error)
        return faults


async def repeat(seconds: float, function: Callable[[], Any], failed: Any) -> None:
    """Call a function at an interval, in seconds; failures are reported and it continues.

    Calls are timed from the start, so the duration of a call does not add up; calls that were
    missed are skipped.
    """
    begin = anyio.current_time()
    while True:
        now = anyio.current_time() - begin
        await anyio.sleep((math.floor(now / seconds) + 1) * seconds - now)
        try:
            answer = function()
            if inspect.isawaitable(answer):
                await answer
        except BaseException as error:
            if is_cancellation(error):
                raise
            await failed(error)
