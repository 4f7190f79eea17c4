"""Middlewares of workers: what lies behind one is called back at the host.

A middleware of a Python worker wraps WebSockets too. One of a script has Express's `res`, which a
socket lacks, so it is passed by there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from veko.errors import RouteError

from ..http import Request, Response, WebSocket
from .protocol import RemoteFunction
from .python.errors import state_of
from .python.failures import failure_of
from .requests import (
    change_request,
    current,
    request_value,
    response_of,
    response_value,
    state_value,
    take_state,
    unavailable,
)
from .sockets import socket_value
from .worker import WorkerLost

if TYPE_CHECKING:
    from .life import Life

__all__ = ["middleware_of"]


def middleware_of(life: Life, fn: RemoteFunction) -> Callable[..., Any]:
    """Return the middleware whose function is in a worker."""

    async def middleware(request: Any, call_next: Callable[[Any], Any]) -> Response:
        socket = isinstance(request, WebSocket)
        if socket and not life.is_python:
            passed: Response = await call_next(request)
            return passed
        behind = _Behind(life, request, call_next)
        if life.down:
            return await behind.without()
        lent = life.worker.connection.lend(behind, "next")
        token = current.set(request)
        try:
            value = socket_value(life, request) if socket else await request_value(request)
            answer = await life.call(fn, value, lent)
        except WorkerLost:
            return await behind.without()
        except Exception as error:
            take_state(request, state_of(error))
            if behind.passes(error):
                raise behind.error from None  # type: ignore[misc]
            raise
        finally:
            current.reset(token)
            lent.withdraw()
        if socket and answer is None:  # it was served
            return Response(status=101 if request.accepted else 403)
        if isinstance(answer, list) and len(answer) == 2 and answer[0] == "next":
            return await behind.gone_on(answer[1])
        if isinstance(answer, list) and len(answer) > 3 and answer[3]:
            take_state(request, answer[3])
        return response_of(answer)

    middleware.__name__ = middleware.__qualname__ = fn.name or "middleware"
    vars(middleware)["remote"] = fn
    return middleware


class _Behind:
    """What lies behind a middleware: `next`, as the worker calls it."""

    def __init__(self, life: Life, request: Any, call_next: Callable[[Any], Any]) -> None:
        self._life = life
        self._request = request
        self._next = call_next
        self.called = False
        self.error: Exception | None = None

    async def __call__(self, given: Any = None) -> Any:
        """Call what lies behind; the answer is its response as it crosses."""
        headers = None
        if isinstance(given, list) and len(given) == 2:  # a Python worker: state and headers
            given, headers = given
        changes: dict[str, Any] = {}
        if headers is not None:
            changes["headers"] = headers
        if isinstance(given, Mapping):
            if self._life.is_python and isinstance(self._request, Request):
                changes["state"] = given
            else:
                take_state(self._request, given)
        if changes:
            change_request(self._request, changes)
        self.called = True
        try:
            response = await self._next(self._request)
        except Exception as error:
            self.error = error
            raise
        value = response_value(response)
        if self._life.is_python:
            value["state"] = state_value(self._request)
        return value

    async def without(self) -> Response:
        """Answer without the middleware: its process is down."""
        if self.called or self._life.refuses(guards=True):
            raise unavailable(self._life.name)
        response: Response = await self._next(self._request)
        return response

    def passes(self, error: Exception) -> bool:
        """Return whether an error that came back is the one that `next` has raised."""
        before = self.error
        if before is None:
            return False
        was, now = failure_of(before), failure_of(error)
        return (was["type"], was["message"]) == (now["type"], now["message"])

    async def gone_on(self, effects: object) -> Response:
        """Call what lies behind for a middleware that has ended, and add its headers."""
        if not isinstance(effects, Mapping):
            raise RouteError("its process answered with something else than a response")
        take_state(self._request, effects.get("state"))
        response: Response = await self._next(self._request)
        for name, value in effects.get("headers") or ():
            if name.lower() == "set-cookie":
                response.headers.add(name, value)
            elif name not in response.headers:
                response.headers[name] = value
        finish = effects.get("finish")
        if isinstance(finish, RemoteFunction) and not self._life.down:
            finish.note({**response_value(response), "body": None})
        return response
