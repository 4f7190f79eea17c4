"""Middleware: functions that wrap handlers, composed once and called for every request.

`async def middleware(request, call_next)` awaits `call_next(request)` for a `Response` and returns
one. Nothing is buffered: a handler that streams returns a response whose `stream` is not read yet.

ASGI middleware of other frameworks and libraries works too. A class or factory that takes an
application and returns one (`GZipMiddleware`, a `partial` of it, Starlette's `Middleware(...)`,
Litestar's `DefineMiddleware`) is called once, when it is registered, so its state survives changes
elsewhere in the chain. It runs on the request's own scope. Its changes to the scope, `receive` and
`send` apply to everything inside it, and the request stays the same object.

Cost: ASGI middleware pushes its response where ours returns it, so each one in the chain costs a
task per request and a hand-over per chunk.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, cast

from veko.errors import RouteError
from veko.extend import Call

from .functions import may_be_awaited, name_of
from .messages.asgi import ASGI, EXCHANGE, REQUEST, ASGISend, Message, Receive, Scope
from .messages.request import Request
from .messages.response import Response
from .port import CallNext
from .sockets.websocket import WebSocket

if TYPE_CHECKING:
    from veko import Bus

    from .exchange import Exchange

__all__ = ["CALL_NEXT", "IN_MIDDLEWARE", "Middleware", "as_middleware", "compose"]

Middleware = Callable[[Request, CallNext], Any]

_COMPUTED = ("headers", "query", "cookies", "client")


def compose(middlewares: Iterable[tuple[Middleware, Any]], inner: CallNext, bus: Bus) -> CallNext:
    """Put middlewares around a handler, the first one outermost.

    Args:
        middlewares: Functions, each with its owner.
        inner: The handler that the last one calls.
        bus: The bus whose probes stand around each.

    Returns:
        The composed handler.
    """
    for middleware, owner in reversed(tuple(middlewares)):
        run = _around(middleware, getattr(owner, "name", owner), inner)
        inner = bus.enclose(Call("middleware", name_of(middleware), run, owner))
    return inner


def _around(middleware: Middleware, plugin: str, inner: CallNext) -> CallNext:
    async def call_next(request: Request) -> Response:
        exchange = request.scope[EXCHANGE]
        try:
            response = await inner(request)
        except BaseException as error:
            exchange.raised = error
            raise
        exchange.at = plugin
        return response

    async def run(request: Request) -> Response:
        exchange = request.scope[EXCHANGE]
        exchange.at = plugin
        try:
            answer = middleware(request, call_next)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is None:
                raise RouteError(
                    f"the middleware {name_of(middleware)} returned None",
                    plugin=plugin,
                    remedy="Return the response: `return await call_next(request)`.",
                )
            return Response.of(answer)
        except BaseException as error:
            # An error that it only let pass is counted against the code that raised it; its own,
            # even one that it raised in place of another, against its plugin. Held by
            # test_an_error_that_a_middleware_lets_pass_is_not_its_own.
            if error is not exchange.raised:
                exchange.at = plugin
            raise
        finally:
            if exchange.raised is not None:  # a circle: the error's traceback has this frame
                exchange.raised = None

    return run


def _code_of(name: str) -> CodeType:
    codes = [one for one in _around.__code__.co_consts if isinstance(one, CodeType)]
    return next(one for one in codes if one.co_name == name)


CALL_NEXT: Final = _code_of("call_next")
"""The code of the frame in which a middleware waits for what it wraps."""
IN_MIDDLEWARE: Final = _code_of("run")
"""The code of the frame that has called a middleware; its `plugin` is the name of the plugin."""


def as_middleware(fn: Any, plugin: str) -> Middleware:
    """Return a middleware as `async def (request, call_next)`.

    Args:
        fn: Such a function, or an ASGI middleware: a class, a callable that takes an application
            alone, or Starlette's `Middleware`. For a `partial`, the function inside decides.
        plugin: The name of its plugin.

    Raises:
        RouteError: It is neither, it is a plain `def`, or it raised when it was called with the
            application.
    """
    made: Any = getattr(fn, "cls", None)
    if isinstance(made, type) and not callable(fn):  # starlette.middleware.Middleware
        return _adapted(lambda app: made(app, *fn.args, **fn.kwargs), name_of(made), plugin)
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    if inspect.isclass(inner) or (_takes(fn, 1) and not _takes(fn, 2)):
        return _adapted(fn, name_of(inner), plugin)
    if _takes(fn, 2) and not may_be_awaited(fn):
        raise RouteError(
            f"the middleware {name_of(fn)} is not `async def`",
            plugin=plugin,
            remedy="Write `async def middleware(request, call_next)`: it runs on the event loop, "
            "and must await call_next(request).",
        )
    if _takes(fn, 2):
        return fn  # type: ignore[no-any-return]
    raise RouteError(
        f"{name_of(fn)} is not a middleware",
        plugin=plugin,
        remedy="Use `async def middleware(request, call_next)`, or an ASGI middleware.",
    )


def _takes(fn: Any, count: int) -> bool:
    try:
        inspect.signature(fn).bind(*(None,) * count)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return count == 2
    return True


def _adapted(factory: Callable[[ASGI], Any], name: str, plugin: str) -> Middleware:
    following = f"veko.next.{id(factory)}"

    async def app(scope: Scope, receive: Receive, send: ASGISend) -> None:
        if scope["type"] == "websocket":
            socket: WebSocket = scope[REQUEST]
            socket.follow(scope, receive, send)
            await scope[following](socket)
            return
        request: Request = scope[REQUEST]
        _follow(request, scope, receive)
        response: Response = await scope[following](request)
        exchange: Exchange = scope[EXCHANGE]
        if response.stream is not None and response is exchange.made:
            response.stream = _of_handler(response.stream, exchange)
        await response(scope, receive, send)

    try:
        made = factory(app)
    except Exception as error:
        raise RouteError(
            f"the ASGI middleware {name} raised {type(error).__name__}: {error}",
            plugin=plugin,
            remedy="It is called with the application alone; bind options with functools.partial.",
        ) from error
    if not callable(made):
        raise RouteError(
            f"the ASGI middleware {name} returned {made!r}, which is not an application",
            plugin=plugin,
            remedy="Use `async def middleware(request, call_next)`, or an ASGI middleware.",
        )

    async def run(request: Request, call_next: CallNext) -> Response:
        scope = request.scope
        scope[following] = call_next
        if scope["type"] == "websocket":
            socket: WebSocket = scope[REQUEST]
            await socket.through(cast("ASGI", made))
            return Response(status=101 if socket.accepted else 403)
        response: Response = await scope[EXCHANGE].pipe(made, scope, _source(request))
        return response

    run.__qualname__ = name
    return run


async def _of_handler(stream: Any, exchange: Exchange) -> AsyncIterator[Any]:
    """Pass a handler's stream on; what it raises counts against the handler's route."""
    try:
        async for chunk in stream:
            yield chunk
    except BaseException:
        if exchange.target is not None:
            exchange.at = exchange.target.route
        raise
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


def _source(request: Request) -> Receive:
    """Return a `receive` that a middleware may wrap; a body that was kept comes first."""
    raw, kept = request.source, request.kept
    if kept is None:
        return raw
    replayed = False

    async def replay() -> Message:
        nonlocal replayed
        if replayed:
            return await raw()
        replayed = True
        return {"type": "http.request", "body": kept, "more_body": False}

    return replay


def _follow(request: Request, scope: Scope, receive: Receive) -> None:
    """Give the request the scope and the `receive` that a middleware passed on."""
    if scope is not request.scope:
        request.scope = scope
        for name in _COMPUTED:
            try:
                delattr(request, name)
            except AttributeError:  # it was never computed
                pass
    if request.kept is None:
        request.wrap(receive)
