"""What a worker registers: routes, middlewares, WebSockets, hooks, commands and services.

Each becomes a registration of the plugin's context like any other, with a function of the host in
front of the worker's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from veko import Context, Handle
from veko.errors import HookError, StateError

from ..http import HTTPError, Request, Route
from .arguments import Hooked
from .command_lines import command_of
from .middlewares import middleware_of
from .protocol import RemoteFunction, Violation
from .python.errors import state_of
from .python.kinds import Marked
from .requests import current, handler_of, take_state
from .services import offered
from .sockets import socket_handler_of
from .worker import WorkerLost

if TYPE_CHECKING:
    from .life import Life

__all__ = ["Registrations"]

_GUARDED: Final = frozenset(("route:create", "request:start", "websocket:connect"))
_REQUESTS: Final = ("request:", "response:")


class Registrations:
    """The registrations of one worker, by the numbers that it gives them.

    Args:
        life: The generation that the worker runs.
    """

    VERBS: Final = (
        "add_route", "add_middleware", "add_websocket", "hook", "add_command", "provide",
    )  # fmt: skip

    def __init__(self, life: Life) -> None:
        self._life = life
        self._handles: dict[int, Handle] = {}
        self._hooks: dict[int, tuple[str, RemoteFunction]] = {}

    @property
    def _context(self) -> Any:
        context = self._life.context
        if context is None:
            raise StateError("it is registered before load()", plugin=self._life.name)
        return context

    def _keep(self, rid: Any, handle: Handle) -> Handle:
        if type(rid) is not int or rid in self._handles:
            raise Violation(f"registered twice under the number {rid!r}")
        self._handles[rid] = handle
        return handle

    def add_route(
        self, rid: Any, method: Any, path: Any, fn: Any, options: Any = None, *_: Any
    ) -> Handle:
        """Register a route."""
        around = self._around(options)
        handler = handler_of(self._life, _function(fn))
        method, path = _text(method), _text(path)
        return self._keep(rid, self._context.add_route(method, path, *around, handler))

    def add_websocket(self, rid: Any, path: Any, fn: Any, options: Any = None, *_: Any) -> Handle:
        """Register a WebSocket."""
        around = self._around(options)
        handler = socket_handler_of(self._life, _function(fn))
        return self._keep(rid, self._context.add_websocket(_text(path), *around, handler))

    def add_middleware(self, rid: Any, fn: Any, priority: Any = 10, *_: Any) -> Handle:
        """Register a middleware."""
        middleware = middleware_of(self._life, _function(fn))
        return self._keep(rid, self._context.add_middleware(middleware, _number(priority)))

    def hook(self, rid: Any, event: Any, fn: Any, options: Any = None, *_: Any) -> Handle:
        """Register a hook."""
        event, fn = _text(event), _function(fn)
        given = options if isinstance(options, Mapping) else {}
        more: dict[str, Any] = {}
        if "timeout" in given:
            seconds = given["timeout"]
            more["timeout"] = None if seconds is None else _number(seconds)
        handler = self._hook_of(event, fn)
        handle = self._context.hook(
            event,
            handler,
            _number(given.get("priority", 10)),
            observe=given.get("observe") is True,
            **more,
        )
        self._hooks[rid] = event, fn
        return self._keep(rid, handle)

    def add_command(
        self, rid: Any, name: Any, fn: Any, description: Any = "", parameters: Any = None, *_: Any
    ) -> Handle:
        """Register a command."""
        command = command_of(self._life, _function(fn), parameters or [])
        text = description if isinstance(description, str) else ""
        return self._keep(rid, self._context.add_command(_text(name), command, text))

    def provide(self, rid: Any, name: Any, value: Any = None, *_: Any) -> Handle:
        """Register a service."""
        life, what = self._life, f"the service {_text(name)}"
        service = offered(what, value, life.call, python=life.is_python)
        return self._keep(rid, self._context.provide(name, service))

    def remove(self, rid: Any) -> None:
        """Remove a registration; one that has gone is no mistake."""
        handle = self._handles.pop(rid, None) if type(rid) is int else None
        self._hooks.pop(rid, None)
        if handle is not None:
            handle.cancel()

    def remove_hook(self, event: Any, fn: Any) -> bool:
        """Remove the hooks of a function; returns whether there was one."""
        found = [rid for rid, one in self._hooks.items() if one == (event, fn)]
        for rid in found:
            self.remove(rid)
        return bool(found)

    def _around(self, options: Any) -> list[Callable[..., Any]]:
        given = options.get("middlewares") if isinstance(options, Mapping) else None
        return [middleware_of(self._life, _function(one)) for one in given or ()]

    # -- hooks

    def _hook_of(self, event: str, fn: RemoteFunction) -> Callable[..., Any]:
        life = self._life
        if event == "route:create":
            return self._route_hook(fn)
        hooked = Hooked(life, event)
        context: Context = self._context
        closed = {one.name for one in context.kernel.bus.events if one.fails_closed}
        guards = event in closed or event in _GUARDED
        about_request = event.startswith(_REQUESTS)

        async def hook(*args: Any) -> Any:
            if life.down:
                return self._without(event, guards)
            request = args[0] if args and isinstance(args[0], Request) else None
            token = current.set(request) if request is not None else None
            try:
                answer = await life.call(fn, *await hooked.sent(args))
            except WorkerLost:
                return self._without(event, guards)
            except Exception as error:
                for one in args:
                    if isinstance(one, Request):
                        take_state(one, state_of(error))
                raise
            finally:
                if token is not None:
                    current.reset(token)
            value = hooked.received(answer, args)
            if about_request and value is not None and not _fits(args, value):
                return None
            return value

        hook.__name__ = hook.__qualname__ = fn.name or f"hook on {event}"
        return hook

    def _without(self, event: str, guards: bool) -> None:
        """Pass by or refuse: the worker is down."""
        if not self._life.refuses(guards):
            return
        from .life import unavailable

        raise unavailable(self._life.name)

    def _route_hook(self, fn: RemoteFunction) -> Callable[..., Any]:
        life = self._life

        async def hook(route: Route) -> Route | None:
            if life.down:
                self._without("route:create", True)
                return None
            handler = getattr(route.handler, "remote", None)
            own = isinstance(handler, RemoteFunction) and handler.connection is _connection(life)
            given = handler if own else _Handler(route)
            try:
                if life.is_python:
                    sent = Marked("route", self._route_value(route, given))
                    answer = await life.call(fn, sent)
                else:
                    answer = await life.call(fn, route.method, route.path, given)
            except WorkerLost:
                self._without("route:create", True)
                return None
            if not isinstance(answer, list) or len(answer) < 2:
                raise HookError("a hook on route:create answered with something else than a route")
            return self._route_of(answer[0], route, given)

        hook.__name__ = hook.__qualname__ = fn.name or "hook on route:create"
        return hook

    @staticmethod
    def _route_value(route: Route, handler: object) -> dict[str, Any]:
        return {
            "method": route.method,
            "path": route.path,
            "plugin": route.plugin,
            "sync_to_thread": route.sync_to_thread,
            "handler": handler,
            "middlewares": [_Middleware(one) for one in route.middlewares],
        }

    def _route_of(self, answer: Any, route: Route, given: object) -> Route | None:
        if answer is None:
            return None
        if isinstance(answer, Marked) and answer.kind == "route":
            facts = answer.value if isinstance(answer.value, Mapping) else {}
            method, path = facts.get("method"), facts.get("path")
            around, handler = facts.get("middlewares") or [], facts.get("handler")
            kept: tuple[Any, ...] = ()
        elif isinstance(answer, list) and len(answer) >= 3:
            method, path, *around, handler = answer
            kept = route.middlewares
        else:
            raise HookError("a hook on route:create answered with something else than a route")
        made = tuple(
            one.function
            if isinstance(one, _Middleware)
            else middleware_of(self._life, _function(one))
            for one in around
        )
        if handler is given or isinstance(handler, _Handler):
            behind = route.handler
        else:
            behind = handler_of(self._life, _function(handler))
        return msgspec.structs.replace(
            route,
            method=_text(method),
            path=_text(path),
            middlewares=(*made, *kept),
            handler=behind,
        )


class _Middleware:
    """A middleware of the host, which a worker can only give back."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    async def __call__(self, *args: Any) -> Any:
        raise StateError("a middleware of the host cannot be called from another process")


class _Handler:
    """The handler of a route at the host, as a hook on `route:create` gets it."""

    def __init__(self, route: Route) -> None:
        self._route = route

    async def __call__(self, *args: Any) -> Any:
        """Call it with the request that is being handled; answers as a handler does.

        Raises:
            StateError: Nothing is being handled, or it takes other arguments than the request.
        """
        from ..http import Request, Response
        from .requests import change_request, response_value

        request = current.get()
        if not isinstance(request, Request) or not hasattr(self._route.handler, "remote"):
            raise StateError(
                f"the handler of {self._route.method} {self._route.path} cannot be called from "
                "another process",
                remedy="Return it behind a middleware: [method, path, middleware, handler].",
            )
        if args and isinstance(args[0], Marked):
            change_request(request, args[0].value)
        response = Response.of(await self._route.handler(request))
        value = response_value(response)
        return [value["status"], value["headers"], value["body"], None]


def _connection(life: Life) -> object:
    return life.worker.connection


def _fits(args: tuple[Any, ...], value: Any) -> bool:
    """Return whether a hook's answer is one that an event about requests takes."""
    from ..http import Response

    return isinstance(value, Request | Response | HTTPError | BaseException)


def _function(value: Any) -> RemoteFunction:
    if not isinstance(value, RemoteFunction):
        raise Violation("registered something that is no function of its own")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Violation("registered something under a name that is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Violation(f"gave {value!r} for a number")
    return value
