"""ASGI applications as they are, mounted under a path: what every adapter can do.

An application answers for all usual methods and for WebSockets, at its path and below; routes of
others that say more precisely what they want go before it. What it does inside is its own:
nothing of it is read, and it costs a copy of the scope. Its lifespan runs with the plugin's life,
from before its routes are live until it is unloaded.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Sequence
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
"""What an application around ours left, which one inside would take for its own."""


def is_asgi(handler: Any) -> bool:
    """Tell whether something can be called as an ASGI application."""
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
        above: How many segments of a path lie above the application; left out, all that the
            route's rest leaves.

    Attributes:
        app: The application.
        above: How many segments lie above it; `None` if it was mounted whole.
        state: What its lifespan left for its requests.
    """

    def __init__(self, app: ASGI, above: int | None = None) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self.above = above
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: ASGISend) -> None:
        """Let the application answer."""
        await self.app(self.inner(scope), receive, send)

    def inner(self, scope: Scope) -> dict[str, Any]:
        """Return a scope as the application sees it."""
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
        """Run its lifespan, if it does not run yet; it ends when the plugin unloads.

        Raises:
            RouteError: It failed, or did not start within the time that a `load()` has.
        """
        if self._begun:
            return
        self._begun = True
        try:
            async with asyncio.timeout(context.kernel.timeout):
                await context.enter(lifespan(self.app, self.state))
        except BaseException as error:
            self._begun = False
            if not isinstance(error, Exception):
                raise
            raise RouteError(
                f"the application did not start: {type(error).__name__}: {error}",
                plugin=context.name,
                remedy="Its lifespan, or what it does on startup, is the cause.",
            ) from error


async def start(context: Context, routes: Sequence[Route]) -> None:
    """Start the applications that routes lead to; see `veko_plugins.http.Starting`."""
    for route in routes:
        if isinstance(route.handler, Mounted):
            await route.handler.start(context)


def mount(plugin: str, path: str, handler: Mounted) -> list[Route]:
    """Return the routes that lead to an application.

    Args:
        plugin: Whose they are.
        path: Where to put it.
        handler: What stands for the application.
    """
    below = f"{path.rstrip('/')}/{{{_REST}:path}}"
    return [
        Route(method, where, handler, plugin=plugin)
        for where in (path, below)
        for method in METHODS
    ]


@asynccontextmanager
async def lifespan(app: ASGI, state: dict[str, Any]) -> AsyncIterator[None]:
    """Run an application's lifespan; one that has none is left alone.

    Args:
        app: The application.
        state: Takes what the application leaves for its requests.

    Raises:
        RuntimeError: The application says that it could not start, or stop.
    """
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(message: Any) -> None:
        told.put_nowait(message)

    async def run() -> None:
        version = {"version": "3.0", "spec_version": "2.0"}
        try:
            await app({"type": "lifespan", "asgi": version, "state": state}, asked.get, send)
        finally:
            told.put_nowait({"type": "ended"})

    async def step(name: str) -> bool:
        asked.put_nowait({"type": f"lifespan.{name}"})
        message = await told.get()
        if message["type"] == f"lifespan.{name}.failed":
            lines = str(message.get("message") or "").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"its {name} failed")
        return bool(message["type"] == f"lifespan.{name}.complete")

    task = asyncio.ensure_future(run())
    try:
        # An application that knows no lifespan raises, or returns; the servers leave it at that.
        runs = await step("startup")
        yield
        if runs:
            await step("shutdown")
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
