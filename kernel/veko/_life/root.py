"""The root: the task group that a kernel's tasks run in, held from entering it to leaving it."""

from __future__ import annotations

import contextvars
import inspect
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from .._bus.limits import CLOSING_GRACE, driven, is_cancellation, stray_cancellation
from .._bus.threads import check_thread, this_thread
from ..errors import LoadTimeout, StateError

__all__ = ["Root", "hold_root"]

_log: Final = logging.getLogger("veko")


class Root:
    """The kernel's root: the tasks in it may outlive their starter."""

    def __init__(self, group: TaskGroup) -> None:
        self._group = group
        self._context = contextvars.copy_context()
        self._calls: set[anyio.CancelScope] = set()
        self._runs: set[anyio.CancelScope] = set()
        self.thread = this_thread()
        self.closing = self.closed = False

    def check_thread(self) -> None:
        """Raise in any thread but the one that the kernel was entered in.

        Raises:
            StateError: This is another one.
        """
        check_thread(self.thread)

    def begin_to_close(self) -> None:
        """Cancel what runs for callers whose end would cancel it: a `load()` that hangs, say."""
        self.closing = True
        for scope in self._runs:
            scope.cancel()

    def close(self) -> None:
        """Refuse whatever begins from now on, and cancel the calls in the tasks of callers."""
        self.closed = True
        for scope in self._calls:
            scope.cancel()

    async def call(
        self,
        function: Callable[[], Any],
        seconds: float,
        step: str,
        plugin: str,
        grace: float = CLOSING_GRACE,
    ) -> Any:
        """Call a plugin's function, `def` or `async def`, within a time limit.

        Args:
            function: The function.
            seconds: The time limit.
            step: The function's name.
            plugin: The plugin's name.
            grace: Seconds after that for which it may swallow its cancellation.

        Raises:
            LoadTimeout: It did not end in time.
            StateError: The kernel closed meanwhile.
        """
        answer = function()
        if not inspect.iscoroutine(answer):
            return answer
        with anyio.move_on_after(seconds) as scope:
            self._calls.add(scope)
            try:
                return await driven(answer, grace)
            finally:
                self._calls.discard(scope)
        if self.closed:
            raise StateError(f"the kernel closed before {step}() ended", plugin=plugin)
        raise LoadTimeout(
            f"{step}() did not end within {seconds:g} s",
            step=step,
            plugin=plugin,
            remedy="Move long work to context.spawn(), or raise the kernel's timeout.",
        )

    def start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Start a task with the context that the kernel was entered with."""
        # Not with the caller's: a task that outlives its caller would keep the caller's context
        # alive, and with it pins, spans and requests (test_tasks_have_a_clean_context).
        start: Callable[..., object] = self._group.start_soon
        self._context.copy().run(start, _kept_in, function, *args)

    async def run(
        self, function: Callable[..., Awaitable[Any]], *args: Any, cancel: bool = False
    ) -> Any:
        """Run a function in a task of the root and return what it returns.

        Operations run here and not in the caller's task: a plugin may ask for its own unloading,
        which cancels its tasks and calls (test_a_plugin_asks_for_its_own_unloading_from_a_task).

        Args:
            function: The function.
            args: Its arguments.
            cancel: Whether it is cancelled with its caller; otherwise it runs to its end.

        Raises:
            StateError: The kernel closed meanwhile.
        """
        if self.closed:
            raise StateError("the kernel is closed", remedy="Use it inside `async with Kernel()`.")
        done = anyio.Event()
        scope = anyio.CancelScope()
        if cancel:
            self._runs.add(scope)
        answer: list[Any] = []
        failure: list[BaseException] = []

        async def work() -> None:
            try:
                with scope:
                    answer.append(await function(*args))
            except BaseException as error:
                if is_cancellation(error):
                    raise
                failure.append(error)
            finally:
                self._runs.discard(scope)
                done.set()

        self.start(work)
        try:
            await done.wait()
        except BaseException:
            if cancel:
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await done.wait()
            raise
        if failure:
            raise failure.pop()
        if not answer:
            raise StateError("the kernel closed before this was done")
        return answer[0]

    async def finish(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a function in a task of the root, to its end, however often this task is cancelled.

        For taking back what a step has left: a shield does not keep a task from `task.cancel()`.

        Raises:
            BaseException: The cancellation, once the function has ended, or what it raised.
        """
        if self.closed:  # its tasks are being cancelled
            with anyio.CancelScope(shield=True):
                await function(*args)
            return
        done = anyio.Event()
        raised: list[BaseException] = []

        async def work() -> None:
            try:
                await function(*args)
            except BaseException as error:
                if is_cancellation(error):
                    raise
                raised.append(error)
            finally:
                done.set()

        self.start(work)
        with anyio.CancelScope(shield=True):
            while not done.is_set():
                try:
                    await done.wait()
                except BaseException as error:
                    raised.append(error)
        if raised:
            raise raised.pop()


async def _kept_in(function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
    """Run a task of the root. What it raises ends no other task: there is one root for all.

    Nor does `task.cancel()`: a task that ends by it would cancel the whole group
    (test_a_kernel_ends_though_all_its_tasks_were_cancelled_natively).
    """
    try:
        await function(*args)
    except BaseException as error:
        if is_cancellation(error):
            if stray_cancellation():
                return
            raise
        _log.error("a task of the kernel failed", exc_info=error)


async def hold_root(
    closing: anyio.Event,
    begin: Callable[[Root], object],
    host_has_ended: Callable[[], bool],
    *,
    task_status: TaskStatus[None],
) -> None:
    """Hold a root.

    Args:
        closing: Ends it.
        begin: Called with the root.
        host_has_ended: Tells whether the task that is to set `closing` has ended.
        task_status: Told when the root is there.
    """
    # Shielded: when the host's task is cancelled, plugins are still unloaded in order, each with
    # its own time limits; without it the cancellation would end their tasks all at once, before
    # unload() has run (test_leaving_under_cancellation_still_unloads_in_order).
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            begin(Root(group))
            task_status.started()
            while not closing.is_set():
                try:
                    await closing.wait()
                except anyio.get_cancelled_exc_class():
                    # A shield keeps out scopes, but not code that cancels all tasks: a plugin, or
                    # `asyncio.run` before it ends. The plugins are to be unloaded all the same if
                    # the host is still there to leave the kernel
                    # (test_a_kernel_ends_though_all_its_tasks_were_cancelled_natively).
                    if host_has_ended() or not stray_cancellation():
                        raise
            group.cancel_scope.cancel()
