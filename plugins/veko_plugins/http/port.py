"""The HTTP port: what an adapter is to the routes plugin, and nothing more.

An adapter turns a plugin's routes into endpoints while they are staged, so that a bad route fails
the load and not a request. Matching, hooks, middleware and errors are not an endpoint's business:
it answers a request, or sends ASGI messages as the application that it is, and raises what goes
wrong (`HTTPError` for the client's faults). An application finds the request under `REQUEST` in
its scope.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

from veko import Context
from veko.errors import NotFoundError, OptionError

from .messages.asgi import ASGI
from .messages.request import Request
from .messages.response import Response
from .route import Route

__all__ = [
    "GROUP", "Adapter", "Answering", "CallNext", "Endpoint", "Fragment", "Starting", "find_adapter",
]  # fmt: skip

GROUP = "veko.adapters"
"""The entry point group in which adapters are found."""

CallNext: TypeAlias = Callable[[Request], Awaitable[Response]]
"""An async function from a request to its response: what middleware calls."""


class Answering(Protocol):
    """An endpoint that returns its response: the fast way, and the better one behind middleware.

    An endpoint without `answer` pushes ASGI messages; behind middleware it runs in a task of its
    own.
    """

    async def answer(self, request: Request, /) -> Response:
        """Answer a request.

        Raises:
            HTTPError: The client's fault.
        """
        ...


Endpoint: TypeAlias = Answering | ASGI
"""What answers a route."""


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
    """A web framework behind the port. One object serves all plugins of an application."""

    name: str

    def compile(self, context: Context, routes: Sequence[Route]) -> Sequence[Endpoint]:
        """Make one endpoint a route, in order.

        Args:
            context: The context of the plugin whose routes they are.
            routes: The routes as they will be live.

        Raises:
            RouteError: A handler cannot be served as it is; it names the route and why.
        """
        ...

    def expand(self, plugin: str, path: str, handler: object) -> Sequence[Route]:
        """Take a handler of the framework's own apart into routes.

        Args:
            plugin: Whose it is.
            path: Where to put it.
            handler: A route handler, controller, router, ... of the framework.

        Raises:
            RouteError: The framework does not know such a thing.
        """
        ...

    def describe(self, context: Context, routes: Sequence[Route]) -> Fragment:
        """Turn routes into a fragment of an OpenAPI 3.1 document.

        It is called in a thread, when somebody asks for the document. What plain handlers want and
        answer is the same in every adapter (`veko_adapters._openapi`); a framework's own describe
        themselves. WebSockets have no place in it.

        Args:
            context: The context of the plugin whose routes they are.
            routes: All its routes, as they are live.
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
        """Serve until told to stop, then let the requests under way finish.

        Cancelling the call stops it the same way. Signals are the caller's.

        Args:
            app: The application.
            host: The address to listen on.
            port: The port; 0 takes a free one.
            server: `uvicorn` or `granian`.
            listener: A socket that listens already, instead of host and port; it is closed.
            started: Called with host and port when connections are accepted.
            stop: Ends the serving when it is set.
            drain_timeout: Seconds that requests under way may take to finish.
            lifespan: Whether to speak ASGI's lifespan protocol to the application.
            access_log: Whether the server logs a line a request (`uvicorn.access`,
                `granian.access`).
            forwarded_allow_ips: Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
                believed: addresses, networks, or `*`.

        Raises:
            OptionError: The address cannot be listened on; the server is unknown or not installed.
        """
        ...


@runtime_checkable
class Starting(Protocol):
    """An adapter whose routes may need something that runs for as long as their plugin lives."""

    async def start(self, context: Context, routes: Sequence[Route]) -> None:
        """Start what routes need before they go live: the lifespans of applications, say.

        It may be called more than once for a route.

        Args:
            context: The context of the plugin whose routes they are; what is entered there is
                left when the plugin unloads.
            routes: The routes that a plugin adds.

        Raises:
            RouteError: It could not be started; the plugin does not load.
        """
        ...


def find_adapter(name: str) -> Adapter:
    """Make the adapter that is registered under a name.

    Raises:
        NotFoundError: No distribution has it.
        OptionError: It needs a distribution that is not installed.
    """
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in known:
        raise NotFoundError(
            f"there is no HTTP adapter {name!r}",
            remedy=f"Known are {', '.join(sorted(known)) or 'none'}.",
        )
    try:
        made = known[name].load()()
    except ImportError as error:
        raise OptionError(
            f"the HTTP adapter {name!r} needs {error.name or error}",
            remedy=f"pip install 'veko[{name}]'.",
        ) from error
    if not isinstance(made, Adapter):
        raise OptionError(f"{made!r} is no HTTP adapter", remedy="See veko_plugins.http.Adapter.")
    return made
