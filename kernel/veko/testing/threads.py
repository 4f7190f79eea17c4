"""Threads in a simulation: what runs in one runs in a task; starting one is refused."""

from __future__ import annotations

import _thread
import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from .loop import SimulatedLoop

__all__ = ["executor_methods", "simulated", "thread_functions"]


def simulated() -> SimulatedLoop | None:
    """Return the simulated loop that runs in this thread, if there is one."""
    loop = asyncio._get_running_loop()
    return loop if isinstance(loop, SimulatedLoop) else None


def thread_functions() -> Iterator[tuple[Any, Any]]:
    """Each function that is replaced, and by which."""
    yield anyio.to_thread.run_sync, _to_thread(anyio.to_thread.run_sync)
    yield anyio.from_thread.run_sync, _from_thread_sync(anyio.from_thread.run_sync)
    yield anyio.from_thread.run, _from_thread(anyio.from_thread.run)
    for name in ("start_new_thread", "start_joinable_thread"):  # Python 3.11 does not audit them
        if hasattr(_thread, name):
            yield getattr(_thread, name), _start_thread(getattr(_thread, name))


def executor_methods() -> Iterator[tuple[type, str, Any]]:
    """Each method of thread pools that is replaced, and by which."""
    yield ThreadPoolExecutor, "submit", _submit(ThreadPoolExecutor.submit)
    yield ThreadPoolExecutor, "shutdown", _shutdown(ThreadPoolExecutor.shutdown)


def _to_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    async def run_sync(
        func: Callable[..., Any],
        *args: Any,
        abandon_on_cancel: bool = False,
        cancellable: bool | None = None,
        limiter: anyio.CapacityLimiter | None = None,
    ) -> Any:
        loop = simulated()
        if loop is None:
            options = {} if cancellable is None else {"cancellable": cancellable}
            return await real(
                func, *args, abandon_on_cancel=abandon_on_cancel, limiter=limiter, **options
            )
        abandon = abandon_on_cancel if cancellable is None else cancellable
        await anyio.lowlevel.checkpoint()
        async with limiter or anyio.to_thread.current_default_thread_limiter():
            with anyio.CancelScope(shield=not abandon):
                call = contextvars.copy_context().run
                name = getattr(func, "__qualname__", type(func).__name__)
                task = loop.create_task(loop.executed(call, (func, *args)), name=f"thread: {name}")
                return await task

    return run_sync


def _from_thread_sync(real: Callable[..., Any]) -> Callable[..., Any]:
    def run_sync(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        # What a simulated thread asks for runs at once: the "thread" is a task of the loop.
        return real(func, *args, **options) if simulated() is None else func(*args)

    return run_sync


def _from_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    def run(func: Callable[..., Any], *args: Any, **options: Any) -> Any:
        loop = simulated()
        if loop is None:
            return real(func, *args, **options)
        raise loop.refuse(
            "anyio.from_thread.run()",
            "A simulated thread is a task that cannot wait. Make the function async instead.",
        )

    return run


def _start_thread(real: Callable[..., Any]) -> Callable[..., Any]:
    def start(*args: Any, **options: Any) -> Any:
        loop = simulated()
        if loop is not None:
            raise loop.refuse("threading.Thread.start()")
        return real(*args, **options)

    return start


class _Call(Future[Any]):
    """A call in a thread pool; code that blocks until it is done runs it, and those before it."""

    def __init__(self, calls: deque[tuple[_Call, Callable[[], Any]]]) -> None:
        super().__init__()
        self._calls = calls

    def result(self, timeout: float | None = None) -> Any:
        self._run_up_to_this()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._run_up_to_this()
        return super().exception(timeout)

    def _run_up_to_this(self) -> None:
        while not self.done() and self._calls:
            _run_next(self._calls)


_Calls = deque[tuple[_Call, Callable[[], Any]]]
_waiting: WeakKeyDictionary[ThreadPoolExecutor, _Calls] = WeakKeyDictionary()


def _run_next(calls: _Calls) -> None:
    if not calls:
        return
    call, run = calls.popleft()
    if call.set_running_or_notify_cancel():
        try:
            answer = run()
        except BaseException as error:
            call.set_exception(error)
        else:
            call.set_result(answer)


def _submit(real: Callable[..., Any]) -> Callable[..., Any]:
    def submit(
        self: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **options: Any
    ) -> Future[Any]:
        loop = simulated()
        if loop is None:
            answer: Future[Any] = real(self, fn, *args, **options)
            return answer
        calls = _waiting.setdefault(self, deque())
        call = _Call(calls)
        calls.append((call, lambda: fn(*args, **options)))
        name = getattr(fn, "__qualname__", type(fn).__name__)
        loop.create_task(loop.executed(_run_next, (calls,)), name=f"pool: {name}")
        return call

    return submit


def _shutdown(real: Callable[..., Any]) -> Callable[..., Any]:
    def shutdown(self: ThreadPoolExecutor, *args: Any, **options: Any) -> None:
        calls = _waiting.pop(self, None)
        while calls and simulated() is not None:
            _run_next(calls)
        real(self, *args, **options)

    return shutdown
