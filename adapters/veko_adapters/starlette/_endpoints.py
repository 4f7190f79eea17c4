"""Endpoints: plain handlers that may return Starlette's responses, and applications.

An application runs inside its own middleware. Only its handler of unhandled errors is left out, so
that these errors reach our dispatcher, which counts them and answers with problems.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, Final

import msgspec

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.types import ASGIApp
from starlette.websockets import WebSocket as StarletteWebSocket
from starlette.websockets import WebSocketDisconnect
from veko_plugins.http import (
    REQUEST,
    ASGISend,
    Fault,
    HTTPError,
    Receive,
    Request,
    Response,
    Scope,
    SocketClosed,
    WebSocket,
    problem,
    pull_response,
)

from .._mounted import Mounted
from .._undecodable import refusal

__all__ = ["SharedRequest", "StarletteMounted", "StarlettePlain", "shared_socket"]

_DECODERS: Final = (
    StarletteRequest.json, StarletteRequest._get_form, StarletteWebSocket.receive_json,
)  # fmt: skip
"""The functions of Starlette's that decode what a client sent, and let its errors pass."""


class SharedRequest(StarletteRequest):
    """Starlette's request, which shares the body with ours."""

    @classmethod
    def of(cls, request: Request) -> SharedRequest:
        """Return Starlette's request for one of ours."""
        return cls(request.scope, request.receive)

    async def body(self) -> bytes:
        ours: Request = self.scope[REQUEST]
        self._body = body = await ours.body()
        return body

    async def stream(self) -> AsyncGenerator[bytes, None]:
        ours: Request = self.scope[REQUEST]
        async for chunk in ours.stream():
            yield chunk
        yield b""


def shared_socket(socket: WebSocket) -> StarletteWebSocket:
    """Return Starlette's WebSocket for one of ours; its messages pass the hooks."""
    return StarletteWebSocket(socket.scope, socket.asgi_receive, socket.asgi_send)


class StarlettePlain:
    """The endpoint of a plain handler.

    Attributes:
        answer: Answers a request.
    """

    __slots__ = ("answer",)

    def __init__(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        async def answer(request: Any, /) -> Response:
            try:
                found = await call(request)
            except (HTTPException, MultiPartException) as error:
                raise as_http_error(error) from error
            except WebSocketDisconnect as error:
                raise _closed(request, error) from None
            except (ValueError, LookupError, RecursionError) as error:
                refused = refusal(error, *_DECODERS)
                if refused is error:
                    raise
                raise refused from error
            if isinstance(found, StarletteResponse):
                return await _whole(found, request)
            return Response.of(found)

        self.answer: Callable[[Any], Coroutine[Any, Any, Response]] = answer


async def _whole(answer: StarletteResponse, request: Any) -> Response:
    """Return our response for Starlette's; only streams and background work need a task."""
    if type(answer).__call__ is StarletteResponse.__call__ and answer.background is None:
        return Response.received(answer.status_code, answer.raw_headers, bytes(answer.body))
    app: Any = answer
    return await pull_response(app, request.scope, request.receive)


class StarletteMounted(Mounted):
    """An application of Starlette's or FastAPI's, as the handler and endpoint of its routes.

    Args:
        app: The application.
        above: See `Mounted`.

    Attributes:
        source: The application as it was registered.
        translates: Whether it answers invalid requests with problems.
    """

    def __init__(self, app: Starlette, above: int | None = None) -> None:
        twin = _with_problems(app)
        super().__init__(twin, above)
        self.source = app
        fastapi: Any = sys.modules.get("fastapi.exceptions")
        invalid = fastapi and fastapi.RequestValidationError
        self.translates = twin.exception_handlers.get(invalid) is _answer_error

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Let the application answer."""
        try:
            await super().__call__(scope, receive, send)
        except WebSocketDisconnect as error:
            raise _closed(scope[REQUEST], error) from None
        except (ValueError, LookupError, RecursionError) as error:
            refused = refusal(error, *_DECODERS)
            if refused is error:
                raise
            raise refused from error


def _closed(socket: WebSocket, error: WebSocketDisconnect) -> SocketClosed:
    return SocketClosed(socket.code or error.code, socket.reason)


class _As:
    """Runs the twin's middleware stack under the identity of the original application."""

    def __init__(self, app: ASGIApp, known_as: Starlette) -> None:
        self.app = app
        self._known_as = known_as

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["app"] = self._known_as
        await self.app(scope, receive, send)


def _with_problems(app: Starlette) -> Any:
    """Return a twin of an application that answers errors without a handler with problems."""
    twin = copy.copy(app)
    handlers = dict(app.exception_handlers)
    fastapi: Any = sys.modules.get("fastapi.exceptions")
    theirs: Any = sys.modules.get("fastapi.exception_handlers")
    if handlers.get(HTTPException) in (None, getattr(theirs, "http_exception_handler", None)):
        handlers[HTTPException] = _answer_error
    if fastapi is not None:
        invalid, given = fastapi.RequestValidationError, theirs.request_validation_exception_handler
        if handlers.get(invalid) in (None, given):
            handlers[invalid] = _answer_error
    twin.exception_handlers = handlers
    stack: Any = twin.build_middleware_stack()
    if isinstance(stack, ServerErrorMiddleware) and stack.handler is None and not stack.debug:
        stack = stack.app
    twin.middleware_stack = _As(stack, app)
    return twin


async def _answer_error(connection: Any, error: Exception) -> StarletteResponse:
    """Answer an error with its problem; errors of the server go to the dispatcher.

    Raises:
        HTTPError: The error has a status of 500 or above.
    """
    del connection
    status = getattr(error, "status_code", 422)
    if status < 400:
        raised: Any = error
        return StarletteResponse(raised.detail or None, status, raised.headers)
    translated = as_http_error(error)
    if status >= 500:
        raise translated from error
    made = problem(translated)
    answer = StarletteResponse(made.body, translated.status)
    answer.raw_headers = [*made.start()["headers"]]
    return answer


def as_http_error(error: Exception) -> HTTPError:
    """Return an error of Starlette's or FastAPI's as an `HTTPError`."""
    if isinstance(error, HTTPException):
        detail: object = error.detail
        text = detail if isinstance(detail, str) else _as_text(detail)
        return HTTPError(error.status_code, text, headers=error.headers or {})
    if isinstance(error, MultiPartException):
        return HTTPError(400, error.message)
    invalid: Any = error
    faults = [_fault(fault) for fault in invalid.errors()]
    return HTTPError(422, "the request does not fit", errors=faults)


def _fault(fault: Any) -> Fault:
    location, *path = fault.get("loc") or ("",)
    return Fault.at(str(fault.get("msg", "")), str(location), path)


def _as_text(detail: object) -> str:
    try:
        return msgspec.json.encode(detail).decode()
    except (TypeError, ValueError):
        return str(detail)
