"""The dispatcher: the ASGI application in front of the routes of all plugins.

A request pins the registry that it began with and is matched in that registry's table: its hooks,
middleware and endpoint see the same snapshot, whatever is loaded meanwhile. Without hooks and
middleware, each of its steps costs a dictionary lookup.

Promise: every request gets an answer. An error is counted against the plugin whose code raised it,
goes to `request:error` and `error:handle`, and becomes a problem response (RFC 9457) that reveals
no internals unless `dev_mode` is on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from veko import Bus
from veko.errors import counts
from veko.extend import unheard

from .events import Signals
from .exchange import Exchange, Target, failed
from .messages.asgi import EXCHANGE, REQUEST, ROUTE, ASGISend, Receive, Scope, path_of
from .messages.problem import PROBLEM_JSON, RETRY, HTTPError, describe, refusal_of
from .messages.request import Request
from .messages.response import Response
from .outages import Outages
from .port import CallNext
from .required import DOWN, out_of_service
from .sockets.dispatch import SocketDispatcher
from .table import HANDSHAKE, Table

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["Apart", "Dispatcher", "answer_unmatched", "lifespan", "problem"]


def problem(error: BaseException, *, dev_mode: bool = False) -> Response:
    """Return the problem response of an error.

    Args:
        error: The error.
        dev_mode: Whether the response shows the error's text and traceback.
    """
    body = describe(error, dev_mode=dev_mode)
    headers = error.headers if isinstance(error, HTTPError) else None
    response = Response(msgspec.json.encode(body), body.status, headers)
    response.headers["content-type"] = PROBLEM_JSON
    return response


def answer_unmatched(method: str, allowed: frozenset[str]) -> Response:
    """Return the answer where no route matches: 404, 405, 426, or the methods for OPTIONS."""
    if not allowed:
        return problem(HTTPError(404))
    if HANDSHAKE in allowed:
        headers = {"upgrade": "websocket", "connection": "upgrade"}
        return problem(HTTPError(426, "only a WebSocket is served here", headers=headers))
    headers = {"allow": ", ".join(sorted(allowed))}
    if method == "OPTIONS":
        return Response(status=204, headers=headers)
    return problem(HTTPError(405, headers=headers))


async def lifespan(
    receive: Receive,
    send: ASGISend,
    startup: Callable[[], Awaitable[None]],
    shutdown: Callable[[], Awaitable[None]],
) -> None:
    """Speak ASGI's lifespan protocol.

    Args:
        receive: ASGI's receive.
        send: ASGI's send.
        startup: Called when the server starts.
        shutdown: Called when the server stops.

    Raises:
        Exception: What `startup` or `shutdown` raised, after the server was informed.
    """
    for step, work in (("startup", startup), ("shutdown", shutdown)):
        await receive()
        try:
            await work()
        except Exception as error:
            await send({"type": f"lifespan.{step}.failed", "message": str(error)})
            raise
        await send({"type": f"lifespan.{step}.complete"})


class Apart(NamedTuple):
    """Routes that the hooks and middleware of the application's plugins do not stand around.

    They answer while a required plugin is down, too: an operator must get in where a guard of the
    application refuses everybody (`tests/plugins/admin/test_admin_apart.py`).

    Attributes:
        prefix: How their paths begin.
        plugin: The core plugin that has them; others' routes below the prefix are not apart.
    """

    prefix: str
    plugin: str


STATUS: Final = "veko.status"
"""The scope's key of the status that was sent before a response broke off."""
_NO_ROUTES: Table[Target] = Table()
_NO_METHODS: Final[frozenset[str]] = frozenset()


async def _nothing() -> None:
    return


class Dispatcher:
    """The ASGI application.

    Args:
        kernel: The kernel whose plugins it serves.
        dev_mode: Whether problem responses show errors and tracebacks.

    Attributes:
        dev_mode: Whether problem responses show errors and tracebacks.
        under_way: How many requests have begun and not ended.
        outages: The routes that the breaker has off.
        apart: The routes that the application's plugins do not stand around, if there are any.
        startup: Called when the server starts, if it speaks the lifespan protocol.
        shutdown: Called when the server stops, if it speaks the lifespan protocol.
        answer: Answers an HTTP request and returns the response that was sent, or `None`; tracing
            wraps it. If it raises, the status that was sent before is in the scope under `STATUS`.
        converse: Serves a WebSocket; a recorder wraps it.
    """

    def __init__(self, kernel: Kernel, *, dev_mode: bool = False) -> None:
        self.dev_mode = dev_mode
        self.under_way = 0
        self.apart: Apart | None = None
        self.startup: Callable[[], Awaitable[None]] = _nothing
        self.shutdown: Callable[[], Awaitable[None]] = _nothing
        self.answer: Callable[[Scope, Receive, ASGISend], Awaitable[Response | None]] = self._http
        self._kernel = kernel
        self._pin_live = kernel.bus.pin_live
        self._signals = Signals(kernel.bus)
        self._silent = Signals(Bus())  # nobody subscribes there
        respond = partial(problem, dev_mode=dev_mode)
        self.outages = Outages(respond)
        self._sockets = SocketDispatcher(kernel, respond, self.outages.over)
        self.converse: Callable[[Scope, Receive, ASGISend], Awaitable[None]] = self._sockets

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Answer a request, or speak another of ASGI's protocols."""
        kind = scope["type"]
        if kind == "http":
            self.under_way += 1
            try:
                if self.apart is not None and self._is_apart(self.apart, scope):
                    await self._http(scope, receive, send, apart=True)
                else:
                    await self.answer(scope, receive, send)
            finally:
                self.under_way -= 1
                # A server keeps the scope as long as the client keeps its connection, and the route
                # would keep its plugin's old generation.
                scope.pop(ROUTE, None)
        elif kind == "lifespan":
            await lifespan(receive, send, self.startup, self.shutdown)
        elif kind == "websocket":
            await self.converse(scope, receive, send)

    async def close_sockets(self) -> None:
        """Close every WebSocket with 1012 and wait until the handlers have ended."""
        await self._sockets.end()

    def _is_apart(self, apart: Apart, scope: Scope) -> bool:
        path = path_of(scope)
        if not path.startswith(apart.prefix):
            return False
        table: Table[Target] = self._kernel.bus.live.registry.view("route") or _NO_ROUTES
        target, _, _ = table.match(scope["method"], path)
        return target is not None and target.route.plugin == apart.plugin

    async def _http(
        self, scope: Scope, receive: Receive, send: ASGISend, apart: bool = False
    ) -> Response | None:
        # One long function: here a call costs as much as the work that it would do.
        pin, signals = self._pin_live(), self._silent if apart else self._signals
        with pin as registry:
            table: Table[Target] | None = registry.view("route")
            around: CallNext | None = None if apart else registry.view("middleware")
            if table is None:
                table = _NO_ROUTES
            down = None if apart else registry.view(DOWN)
            if down:
                table, around = _NO_ROUTES, None
            elif self.outages.any:
                table = self.outages.over(table)
            path = path_of(scope) if scope.get("root_path") else scope["path"]
            target = table.known.get((scope["method"], path))
            if target is not None:
                scope["path_params"], allowed = {}, _NO_METHODS
            else:
                target, scope["path_params"], allowed = table.match(scope["method"], path)
            request = Request(scope, receive)
            exchange = Exchange(signals, request, target, receive, send, pin.release)
            scope[REQUEST], scope[EXCHANGE] = request, exchange
            abort = True
            try:
                if target is None:
                    scope[ROUTE] = None
                    unmatched = answer_unmatched(scope["method"], allowed)
                    if down:
                        unmatched = problem(out_of_service())
                    if around is not None:
                        exchange.unmatched = unmatched
                        unmatched = await around(request)
                    await exchange.send(unmatched)
                else:
                    scope[ROUTE] = target.route
                    pin.owner = target.route.plugin
                    answer: Request | Response = request
                    if signals.request_start.func is not unheard:
                        try:
                            answer = await signals.request_start(request)
                        except HTTPError as refusal:  # it is no failure, whatever its status
                            answer = problem(refusal, dev_mode=self.dev_mode)
                        except Exception as error:
                            answer = await self._refused(request, error)
                        if answer is not request:
                            answer = self._adopt(exchange, answer)
                    if isinstance(answer, Response):
                        await exchange.finish(answer)
                    else:
                        run = around or target.answer
                        if run is not None:
                            await exchange.finish(await run(answer))
                        else:
                            await exchange.run()
                abort = False
            except BaseException as error:
                if not failed(error):
                    _keep_status(exchange, scope)
                    raise
                abort = False
                if pin.cut:  # its generation was replaced and `drain_timeout` has passed
                    error = HTTPError(503, "The plugin was replaced meanwhile.", headers=RETRY)
                await self._failed(exchange, error)
            finally:
                if exchange.pipes:
                    await self._close(exchange, abort=abort)
                # The request refers to the scope: a circle that only the collector would break.
                del scope[REQUEST], scope[EXCHANGE]
                if exchange.request.scope is not scope:
                    _forget(exchange.request.scope)
            if target is not None and signals.request_end.func is not unheard:
                await signals.request_end(exchange.request, exchange.response)
            return exchange.response

    def _adopt(
        self, exchange: Exchange, answer: Request | Response | HTTPError
    ) -> Request | Response:
        """Continue with what the hooks returned: a response, a refusal or another request."""
        if isinstance(answer, HTTPError):
            return problem(answer, dev_mode=self.dev_mode)
        if not isinstance(answer, Response):
            scope, before = answer.scope, exchange.request.scope
            if scope is not before:
                for key in (EXCHANGE, ROUTE, "path_params"):
                    scope.setdefault(key, before[key])
            scope[REQUEST] = answer
            exchange.request = answer
        return answer

    async def _refused(self, request: Request, error: Exception) -> Response:
        """Answer a request that a hook on `request:start` refuses because it failed.

        The bus has reported the error, and counted it against the hook's plugin: the one that has
        the route is not at fault.
        """
        answer: object = error
        if not request.left:
            answer = await self._signals.request_error(error, request)
        if isinstance(answer, Response):
            return answer
        shown = answer if isinstance(answer, BaseException) else error
        return problem(refusal_of(shown), dev_mode=self.dev_mode)

    async def _close(self, exchange: Exchange, *, abort: bool) -> None:
        try:
            await exchange.close(abort=abort)
        except Exception as error:
            await self._fault(exchange, error)

    async def _fault(self, exchange: Exchange, error: BaseException) -> None:
        plugin, part = exchange.blame()
        request = exchange.request
        counted = not request.left and request.refused is None
        await self._kernel.fault(error, plugin=plugin, origin=request, part=part, counted=counted)

    async def _failed(self, exchange: Exchange, error: BaseException) -> None:
        """Report an error and answer it, as far as an answer is still possible."""
        request, response, signals = exchange.request, exchange.response, exchange.signals
        if exchange.sent:
            await self._fault(exchange, error)
            return
        if exchange.begun:
            # Too late for another answer. Raising makes the server cut the connection, so that the
            # client does not take half a response for a whole one.
            if not request.left and request.refused is None:
                await self._fault(exchange, error)
            await signals.response_error(response, request)
            if not request.left:
                if exchange.target is not None:
                    await signals.request_end(request, response)
                if not isinstance(error, Exception):  # a server would stop at a SystemExit
                    error = RuntimeError(f"the response broke off: {type(error).__name__}")
                _keep_status(exchange, request.scope)
                raise error
            return
        if request.refused is not None and counts(error):
            error = request.refused  # whatever a framework made of it
        answer: object = error
        if counts(error):
            if request.left:  # whatever a handler raises then, nobody waits for the answer
                answer = HTTPError(400, "the client disconnected")
            else:
                answer = await signals.request_error(error, request)
            await self._fault(exchange, error)
        elif isinstance(error, BaseExceptionGroup):
            answer = _first_of(error)
        if not isinstance(answer, Response):
            shown = answer if isinstance(answer, BaseException) else error
            answer = problem(shown, dev_mode=self.dev_mode)
        try:
            await exchange.finish(answer)
        except Exception as failure:
            if exchange.has_begun():
                await self._failed(exchange, failure)
            else:
                await self._fault(exchange, failure)
                await exchange.send(problem(failure, dev_mode=self.dev_mode))


def _first_of(error: BaseException) -> BaseException:
    """Return the first error of a group, of a group in it, and so on."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _keep_status(exchange: Exchange, scope: Scope) -> None:
    if exchange.begun and exchange.response is not None:
        scope[STATUS] = exchange.response.status


def _forget(scope: Scope) -> None:
    for key in (REQUEST, EXCHANGE):
        scope.pop(key, None)
