"""The HTTP port: all that the core plugin `routes` needs of an adapter.

An adapter compiles a plugin's routes into endpoints while they are staged, so that a bad route
fails the load and not a request. Matching, hooks, middleware and errors are not an endpoint's
business: it answers a request, or is an ASGI application that sends messages, and raises errors
(`HTTPError` for the client's). An application finds the request under `REQUEST` in its scope.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from veko import Context
from veko.errors import NotFoundError, OptionError

from .._lib.entry_points import find_entry_points
from .messages.asgi import ASGI
from .messages.request import Request
from .messages.response import Response
from .route import Route

__all__ = [
    "GROUP", "Adapter", "Answering", "CallNext", "Endpoint", "Fragment", "Starting", "find_adapter",
]  # fmt: skip

GROUP = "veko.adapters"
"""The entry point group of adapters."""

CallNext: TypeAlias = Callable[[Request], Awaitable[Response]]
"""An async function from a request to its response: what middleware calls."""


class Answering(Protocol):
    """An endpoint that returns its response: the faster kind, above all inside middleware.

    An endpoint without `answer` pushes ASGI messages; inside middleware it costs a task of its own.
    """

    async def answer(self, request: Request, /) -> Response:
        """Answer a request.

        Args:
            request: The request.

        Raises:
            HTTPError: The request is at fault.
        """
        ...


Endpoint: TypeAlias = Answering | ASGI
"""The compiled form of a route: returns a response, or is an ASGI application."""


class Fragment(msgspec.Struct):
    """A part of an OpenAPI 3.1 document.

    Attributes:
        paths: Operations by path, then by method in small letters.
        components: Components by section (`"schemas"`, `"responses"`, …), then by name.
    """

    paths: dict[str, dict[str, Any]] = {}
    components: dict[str, dict[str, Any]] = {}


@runtime_checkable
class Adapter(Protocol):
    """A web framework behind the port. One object serves all plugins of an application.

    Attributes:
        name: The name under which it is registered.
    """

    name: str

    def compile(self, context: Context, routes: Sequence[Route]) -> Sequence[Endpoint]:
        """Compile routes.

        Args:
            context: The context of the plugin that has the routes.
            routes: The routes as they will be live.

        Returns:
            One endpoint for each route, in order.

        Raises:
            RouteError: A handler cannot be served; the message names the route and the cause.
        """
        ...

    def expand(self, plugin: str, path: str, handler: object) -> Sequence[Route]:
        """Return the routes of one of the framework's own handlers.

        Args:
            plugin: The name of the plugin that registers it.
            path: The path below which its routes lie.
            handler: A route handler, controller, router, ... of the framework.

        Raises:
            RouteError: The framework has no such handlers.
        """
        ...

    def describe(self, context: Context, routes: Sequence[Route]) -> Fragment:
        """Describe routes as a fragment of an OpenAPI 3.1 document.

        Called in a thread, when the document is requested. Plain handlers are described alike by
        every adapter; a framework's own handlers describe themselves. OpenAPI has no WebSockets.

        Args:
            context: The context of the plugin that has the routes.
            routes: All its live routes.
        """
        ...

    async def serve(
        self,
        app: ASGI,
        host: str,
        port: int,
        *,
        server: str = "uvicorn",
        listener: socket.socket | None = None,
        started: Callable[[str, int], None] | None = None,
        stop: asyncio.Event | None = None,
        drain_timeout: float = 30.0,
        lifespan: bool = False,
        access_log: bool = False,
        forwarded_allow_ips: Sequence[str] = (),
    ) -> None:
        """Serve until `stop` is set, then let the running requests finish.

        Cancelling the call stops it the same way. Handling signals is up to the caller.

        Args:
            app: The application.
            host: The address to listen on.
            port: The port; 0 takes a free one.
            server: `uvicorn` or `granian`.
            listener: A listening socket, used instead of host and port; it is closed at the end.
            started: Called with host and port once connections are accepted.
            stop: Ends the serving when it is set.
            drain_timeout: Seconds that running requests may take to finish.
            lifespan: Whether to speak ASGI's lifespan protocol with the application.
            access_log: Whether the server logs each request (`uvicorn.access`,
                `granian.access`).
            forwarded_allow_ips: Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
                trusted: addresses, networks, or `*`.

        Raises:
            OptionError: Listening on the address fails, or the server is unknown or not installed.
        """
        ...


@runtime_checkable
class Starting(Protocol):
    """An adapter whose routes may need something that runs as long as their plugin is loaded."""

    async def start(self, context: Context, routes: Sequence[Route]) -> None:
        """Start what routes need before they go live, such as the lifespans of applications.

        May be called more than once for a route.

        Args:
            context: The context of the plugin that has the routes; what is entered there is left
                when the plugin unloads.
            routes: The routes that the plugin adds.

        Raises:
            RouteError: It failed to start; the plugin does not load.
        """
        ...


def find_adapter(name: str) -> Adapter:
    """Return a new adapter of the kind registered under a name.

    Args:
        name: `asgi`, `litestar`, `starlette`, or an entry point of the group `veko.adapters`.

    Raises:
        NotFoundError: No installed distribution registers that name.
        OptionError: The adapter needs a distribution that is not installed, or is not an adapter.
    """
    known = {entry.name: entry for entry in find_entry_points(GROUP)}
    if name not in known:
        raise NotFoundError(
            f"there is no HTTP adapter {name!r}",
            remedy=f"Known adapters: {', '.join(sorted(known)) or 'none'}.",
        )
    try:
        made = known[name].load()()
    except ImportError as error:
        raise OptionError(
            f"the HTTP adapter {name!r} needs {error.name or error}",
            remedy=f"pip install 'veko[{name}]', or choose the adapter 'asgi', which needs no "
            "framework."
            if name in ("litestar", "starlette")
            else f"pip install 'veko[{name}]'.",
        ) from error
    if not isinstance(made, Adapter):
        raise OptionError(
            f"{made!r} is not an HTTP adapter", remedy="See veko_plugins.http.Adapter."
        )
    return made
