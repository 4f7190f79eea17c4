"""Threads for `def` route handlers: on the event loop, one that waits would hold up every request.

A handler runs with the context variables of its request, so its spans and its log records are the
request's. What it changes in them is not seen outside.

Cost: about 90 µs a request (`benchmarks/serving.py`: "veko asgi, def"). At most `limit` handlers
run at once; further requests wait for a thread.
Promise: a thread whose request was cut still counts until it ends, so there are never more than
`limit`. A thread cannot be stopped: when its request is cut, the log says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from .functions import is_async, name_of
from .route import SOCKET, Route

__all__ = ["IN_THREAD", "Threads"]

_log: Final = logging.getLogger("veko")


class Threads:
    """Runs the `def` handlers of all plugins.

    Args:
        limit: How many run at once.
    """

    def __init__(self, limit: int) -> None:
        self._limiter = anyio.CapacityLimiter(limit)
        # Calls are counted by the limiter above, which a cut request cannot release too early.
        self._uncounted = anyio.CapacityLimiter(float("inf"))

    def made(self, route: Route) -> Route:
        """Return a route for the adapter: with a handler that never blocks the loop, if it should.

        Args:
            route: The route as it is live.
        """
        if not route.sync_to_thread or route.method == SOCKET or is_async(route.handler):
            return route
        return msgspec.structs.replace(route, handler=self._threaded(route))

    def _threaded(self, route: Route) -> Callable[..., Any]:
        handler = route.handler

        @functools.wraps(handler)
        async def threaded(*args: Any, **named: Any) -> Any:
            call = _Call(self._limiter, route, functools.partial(handler, *args, **named))
            await self._limiter.acquire_on_behalf_of(call)
            try:
                answer = await anyio.to_thread.run_sync(call, limiter=self._uncounted)
            finally:
                if call.leave():
                    _log.warning(
                        "%s: the handler %s of %s %s still runs in its thread, which cannot be "
                        "stopped; its request was ended without it",
                        route.plugin,
                        name_of(handler),
                        route.method,
                        route.path,
                    )
            call.raise_error()
            return await answer if inspect.isawaitable(answer) else answer

        return threaded


class _Call:
    """One call in a thread; it holds its token of the limiter until the thread is done with it."""

    __slots__ = ("_call", "_error", "_limiter", "_loop", "ended", "route", "started", "waiting")

    def __init__(
        self, limiter: anyio.CapacityLimiter, route: Route, call: Callable[[], Any]
    ) -> None:
        self._limiter = limiter
        self.route = route
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._error: BaseException | None = None
        self.waiting = True
        self.started = self.ended = False

    def __call__(self) -> Any:
        """Call the handler, in the thread; a request that was cut before is not handled."""
        self.started = True
        try:
            return self._call() if self.waiting else None
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            if not self.waiting:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    self._loop.call_soon_threadsafe(self._release)

    def raise_error(self) -> None:
        """Raise what the handler raised, on the loop: its traceback has no frames of anyio."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame

    def leave(self) -> bool:
        """Stop waiting for it, on the loop; return whether its thread keeps running."""
        # The thread sets `started` before it reads `waiting`, so one of the two sides releases;
        # both may. Held by test_a_cut_request_keeps_its_thread_counted.
        self.waiting = False
        running = self.started and not self.ended
        if not running:
            self._release()
        return running

    def _release(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was released
            self._limiter.release_on_behalf_of(self)


IN_THREAD: Final = _Call.__call__.__code__
"""The code of the frame in a thread that has called a handler; its `self` has the `route`."""
