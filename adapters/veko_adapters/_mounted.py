"""ASGI applications mounted under a path, which every adapter supports.

An application answers all usual methods and WebSockets at its path and below; more specific routes
take precedence. Nothing inside it is inspected. Its lifespan lasts from before its routes are live
until the plugin is unloaded. Cost: a copy of the scope for each request.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from veko import Context
from veko.errors import RouteError
from veko_plugins.http import ASGI, SOCKET, ASGISend, Receive, Route, Scope, path_of

__all__ = ["METHODS", "Mounted", "is_asgi", "lifespan", "mount", "start"]

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", SOCKET)
_REST: Final = "rest"
_OUTER: Final = frozenset(("app", "router", "route", "endpoint", "app_root_path"))
_LITESTAR: Final = "_ls_connection_state"
"""The state that a Litestar around us left; a Litestar inside would take it for its own."""


def is_asgi(handler: Any) -> bool:
    """Return whether an object can be called as an ASGI application."""
    if not callable(handler) or inspect.isclass(handler):
        return False
    call = handler if inspect.isroutine(handler) else type(handler).__call__
    try:
        wanted = inspect.signature(handler)
        wanted.bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return inspect.iscoroutinefunction(inspect.unwrap(call)) or [*wanted.parameters] == [
        "scope",
        "receive",
        "send",
    ]


class Mounted:
    """An application, as the handler and the endpoint of the routes that lead to it.

    Args:
        app: The application.
        above: The number of path segments above the application; by default all that are not in the
            route's rest.

    Attributes:
        app: The application.
        above: The number of segments above it; `None` if it was mounted as a whole.
        state: The state that its lifespan left for its requests.
    """

    def __init__(self, app: ASGI, above: int | None = None) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.above = above
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Let the application answer."""
        await self.app(self.inner(scope), receive, send)

    def inner(self, scope: Scope) -> dict[str, Any]:
        """Return the scope for the application."""
        root: str = scope.get("root_path", "").rstrip("/")
        path = path_of(scope)
        params = dict(scope["path_params"])
        rest: str = params.pop(_REST, "")
        if self.above is None:
            above = path.removesuffix(rest).rstrip("/") if rest else path.rstrip("/")
        else:
            above = "/".join(path.split("/")[: self.above + 1])
        inner = {key: value for key, value in scope.items() if key not in _OUTER}
        inner["path_params"] = params
        inner["root_path"] = root + above
        inner["path"] = root + path if len(path) > len(above) else f"{root}{above}/"
        state = scope.get("state") or {}
        left = {key: value for key, value in state.items() if key != _LITESTAR}
        inner["state"] = {**left, **self.state}
        return inner

    async def start(self, context: Context) -> None:
        """Start its lifespan, unless it runs; it ends when the plugin unloads.

        Args:
            context: The context of the plugin that has the routes.

        Raises:
            RouteError: It failed, or did not start within the time limit of a `load()`.
        """
        if self._started:
            return
        self._started = True
        try:
            async with asyncio.timeout(context.kernel.timeout):
                await context.enter(lifespan(self.app, self.state))
        except BaseException as error:
            self._started = False
            if not isinstance(error, Exception):
                raise
            raise RouteError(
                f"the application did not start: {type(error).__name__}: {error}",
                plugin=context.name,
                remedy="Fix its lifespan or startup handlers; their error is the cause.",
            ) from error


async def start(context: Context, routes: Sequence[Route]) -> None:
    """Start the applications that routes lead to; see `veko_plugins.http.Starting`."""
    for route in routes:
        if isinstance(route.handler, Mounted):
            await route.handler.start(context)


def mount(plugin: str, path: str, handler: Mounted) -> list[Route]:
    """Return the routes that lead to an application.

    Args:
        plugin: The name of the plugin.
        path: The path at which it is mounted.
        handler: The application.
    """
    below = f"{path.rstrip('/')}/{{{_REST}:path}}"
    return [
        Route(method, where, handler, plugin=plugin)
        for where in (path, below)
        for method in METHODS
    ]


@asynccontextmanager
async def lifespan(app: ASGI, state: dict[str, Any]) -> AsyncIterator[None]:
    """Run an application's lifespan; an application without one is left alone.

    Args:
        app: The application.
        state: Receives the state that the application leaves for its requests.

    Raises:
        RuntimeError: The application reports that its startup or shutdown failed.
    """
    requests: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    replies: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()

    async def send(message: MutableMapping[str, Any]) -> None:
        if not message["type"].startswith("lifespan."):  # it takes this for a request
            raise RuntimeError(f"expected a message of the lifespan, got {message['type']!r}")
        replies.put_nowait(message)

    async def run() -> None:
        version = {"version": "3.0", "spec_version": "2.0"}
        try:
            await app({"type": "lifespan", "asgi": version, "state": state}, requests.get, send)
        finally:
            replies.put_nowait({"type": "ended"})

    async def step(name: str) -> bool:
        requests.put_nowait({"type": f"lifespan.{name}"})
        message = await replies.get()
        if message["type"] == f"lifespan.{name}.failed":
            lines = str(message.get("message") or "").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"its {name} failed")
        return bool(message["type"] == f"lifespan.{name}.complete")

    task = asyncio.ensure_future(run())
    try:
        # An application without a lifespan raises or returns here, which servers accept.
        runs = await step("startup")
        yield
        if runs:
            await step("shutdown")
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
