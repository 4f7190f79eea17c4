"""Endpoints: what answers a request after it was matched.

They call a route's own stack in its Litestar application directly, without Litestar's routing, and
translate Litestar's errors to `HTTPError`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final, cast

from litestar import Litestar, Router
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarWebSocket
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.response import Response as LitestarResponse
from litestar.response.base import ASGIResponse
from veko.errors import RouteError, VekoError
from veko_plugins.http import (
    REQUEST,
    ASGISend,
    Fault,
    HTTPError,
    Receive,
    Request,
    Response,
    Scope,
    scope_for,
)

from .._binding import settle
from .._undecodable import refusal
from ._plain import respond

__all__ = ["DECODERS", "Bound", "Direct", "Native", "SharedRequest", "Stack"]

_STATE: Final = "_ls_connection_state"
"""Litestar's own state of a connection. A Litestar around us has one that must not get in."""

DECODERS: Final = (LitestarRequest.json, LitestarRequest.form, LitestarWebSocket.receive_json)
"""The functions of Litestar's that decode what a client sent, and let its errors pass."""


class SharedRequest(LitestarRequest[Any, Any, Any]):
    """Litestar's request, which shares the body with ours."""

    async def body(self) -> bytes:
        ours: Request = self.scope[REQUEST]  # type: ignore[typeddict-item]
        if ours.kept is not None:
            self._body = self._connection_state.body = ours.kept
        body = await super().body()
        ours.keep(body)
        return body

    async def stream(self) -> AsyncGenerator[bytes, None]:
        ours: Request = self.scope[REQUEST]  # type: ignore[typeddict-item]
        if ours.kept is not None:
            self._body = self._connection_state.body = ours.kept
        async for chunk in super().stream():
            yield chunk


class Native:
    """One route of a route handler, controller or router of Litestar's.

    Args:
        source: The handler, controller or router.
        path: The path at which it was registered.
        template: Litestar's template of the route's path.
        method: The route's method, in Litestar's spelling.
        rest: The name of the parameter that takes the rest of the path, if there is one.
    """

    __slots__ = ("method", "path", "rest", "source", "template")

    def __init__(
        self, source: object, path: str, template: str, method: str, rest: str | None = None
    ) -> None:
        self.rest = rest
        self.source = source
        self.path = path
        self.template = template
        self.method = method

    def router(self) -> Router:
        """Return a new router that has only the source."""
        return Router(self.path, route_handlers=[cast("Any", self.source)])

    def __call__(self, *args: object, **arguments: object) -> object:
        """Refuse to be called: only Litestar can.

        Raises:
            RouteError: Always.
        """
        raise RouteError(
            f"{self.source!r} can be called by Litestar only",
            remedy="Keep the route's handler, or use the adapter 'litestar'.",
        )


class Direct:
    """The endpoint of a plain handler that our binder calls."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[Request], Awaitable[Any]]) -> None:
        self._call = call

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        answer = await self._call(request)
        if isinstance(answer, (LitestarResponse, ASGIResponse)):
            return await respond(answer, request.scope, request.receive)
        return Response.of(answer)


class Stack:
    """The endpoint of a Litestar route: its stack of middleware, without Litestar's routing."""

    __slots__ = ("_app", "_handler", "_rest", "_run", "_template")

    def connect(
        self,
        app: Litestar,
        run: Any,
        handler: BaseRouteHandler,
        template: str,
        rest: str | None = None,
    ) -> None:
        """Connect it to a route, once the application exists.

        Args:
            app: The application.
            run: The route's stack of middleware and handler, as an ASGI application.
            handler: The route handler.
            template: Litestar's template of the route's path.
            rest: The name of the parameter that takes the rest of the path, if there is one.
        """
        self._app, self._run, self._handler, self._template = app, run, handler, template
        self._rest = rest

    def _inner(self, scope: Scope) -> Any:
        """Return the scope as Litestar's routing would make it."""
        state = scope.get("state")
        inner = {
            **scope,
            "app": self._app,
            "litestar_app": self._app,
            "state": {k: v for k, v in state.items() if k != _STATE} if state else {},
            "route_handler": self._handler,
            "path_template": self._template,
        }
        if self._rest is not None:
            # Litestar's rest of a path begins with a slash, ours does not.
            params = scope["path_params"]
            inner["path_params"] = {**params, self._rest: f"/{params[self._rest]}"}
        return inner

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        inner = self._inner(scope)
        try:
            await self._run(inner, receive, send)
        except HTTPException as error:
            await self._answer(error, inner, receive, send)
        except VekoError:
            raise
        except Exception as error:
            refused = refusal(error, *DECODERS)
            if refused is not error:
                raise refused from error
            await self._answer(error, inner, receive, send)

    async def _answer(self, error: Exception, scope: Any, receive: Any, send: Any) -> None:
        """Answer by the plugin's own exception handlers, else raise the error, translated."""
        handlers = cast("dict[Any, Any]", self._handler.resolve_exception_handlers())
        found = handlers.get(getattr(error, "status_code", 500)) if handlers else None
        for kind in type(error).__mro__ if handlers else ():
            found = found or handlers.get(kind)
        if found is not None:
            request: Any = SharedRequest(scope, receive, send)
            response = await settle(found(request, error))
            await response.to_asgi_response(app=None, request=request)(scope, receive, send)
        elif isinstance(error, HTTPException):
            raise self._translate(error) from error
        else:
            raise error

    @staticmethod
    def _translate(error: HTTPException) -> HTTPError:
        extra = error.extra if isinstance(error.extra, list) else ()
        faults = [
            Fault(
                str(fault.get("message", "")),
                str(getattr(fault.get("source"), "value", fault.get("source")) or ""),
                str(fault.get("key", "")),
            )
            for fault in extra
            if isinstance(fault, dict)
        ]
        return HTTPError(error.status_code, error.detail, errors=faults, headers=error.headers)


class Bound(Stack):
    """The endpoint of a plain handler whose arguments Litestar converts."""

    __slots__ = ()

    async def answer(self, request: Request) -> Response:
        """Answer a request."""
        box = _Box()
        await self(scope_for(request), request.receive, box)
        assert box.response is not None
        return box.response


class _Box:
    """The `send` of a synthesised handler, which delivers a `Response`."""

    response: Response | None = None

    def deliver(self, response: Response) -> None:
        self.response = response

    async def __call__(self, message: Any) -> None:
        raise RouteError(f"expected a response, got the message {message['type']!r}")
