"""The service `http`: what the manager and other core plugins use of HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING

from .current import CurrentASGI
from .dispatch import Apart, Dispatcher
from .exchange import Target, pull_response
from .frames import Part, part_in
from .messages.asgi import Scope, path_of
from .messages.problem import HTTPError
from .messages.response import Response
from .port import Adapter
from .refusals import REFUSED, Refusal
from .required import Required
from .route import Route, part_of
from .table import HANDSHAKE, Table

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["HTTP"]


class HTTP:
    """The service `http`.

    Attributes:
        asgi: The ASGI application in front of all plugins' routes.
        adapter: The adapter that compiles and serves.
        required: Which required plugins are down.
        response: The class `Response`, for core plugins, which do not import this package.
        pull: Returns the response of an ASGI application, for a core plugin whose handler is one.
        at_stop: Called once `serve` is to stop, to end streams that would last forever.
    """

    response = Response
    pull = staticmethod(pull_response)

    def __init__(
        self,
        kernel: Kernel,
        asgi: Dispatcher,
        adapter: Adapter,
        current: CurrentASGI,
        required: Required,
    ) -> None:
        self._kernel = kernel
        self.asgi = asgi
        self.adapter = adapter
        self.required = required
        self.at_stop: set[Callable[[], object]] = set()
        self._current = current

    @property
    def refused(self) -> tuple[Refusal, ...]:
        """The routes that are out of service because a hook on `route:create` refused them."""
        held = self._kernel.bus.registry.view(REFUSED) or {}
        return tuple(one for batch in held.values() for one in batch)

    def routes(self, plugin: str) -> list[str]:
        """Return the live routes of a plugin, as failures name them: `GET /x`.

        Args:
            plugin: The name of the plugin.
        """
        return [part_of(route) for route in self._routes(plugin)]

    def plugin_at(self, scope: Scope) -> str | None:
        """Return the name of the plugin whose route a request or WebSocket would get now.

        Args:
            scope: ASGI's scope, of the type `http` or `websocket`.
        """
        table: Table[Target] = self._kernel.bus.live.registry.view("route") or Table()
        method = HANDSHAKE if scope["type"] == "websocket" else scope["method"]
        target = table.match(method, path_of(scope)).value
        return None if target is None else target.route.plugin

    def set_apart(self, prefix: str, plugin: str) -> None:
        """Answer a core plugin's routes without the hooks and middleware of other plugins.

        They answer while a required plugin is down, too. Hooks on `route:load` and `route:create`
        do not get them if the plugin says `apart = True`.

        Args:
            prefix: How the paths of the routes begin.
            plugin: The name of the core plugin.
        """
        self.asgi.apart = Apart(prefix, plugin)

    def refuse(self, plugin: str, route: str | None, left: Callable[[], float]) -> None:
        """Let a route answer 503 with `Retry-After`, or all routes that a plugin has now.

        Those of a plugin as a whole answer so until `admit`, even after it was switched off.

        Args:
            plugin: The name of the plugin.
            route: The route, as `routes` names it; `None` for all of them.
            left: Returns the seconds until it is tried again.
        """
        routes, outages = self._routes(plugin), self.asgi.outages
        if route is None:
            outages.refuse_plugin(plugin, routes, left)
        for one in routes if route is not None else ():
            if part_of(one) == route:
                outages.refuse_route(one, left)

    def admit(self, plugin: str, route: str | None) -> None:
        """Undo `refuse`."""
        self.asgi.outages.admit(plugin, route)

    @staticmethod
    def part_in(frame: FrameType) -> Part | None:
        """Return the route or middleware that a frame of HTTP has called; see `frames`."""
        return part_in(frame)

    def _routes(self, plugin: str) -> list[Route]:
        table: Table[Target] = self._kernel.bus.registry.view("route") or Table()
        return [target.route for target in table if target.route.plugin == plugin]

    @staticmethod
    def refusal(
        status: int,
        detail: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        counts: bool = True,
    ) -> Exception:
        """Return an `HTTPError`, for core plugins, which do not import this package.

        Args:
            status: The status code, 400 to 599.
            detail: What to show the client.
            headers: Headers of the response.
            counts: `False` for a status from 500 that is no failure of the plugin.
        """
        return HTTPError(status, detail, headers=headers, counts=counts)

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        server: str = "uvicorn",
        listener: socket.socket | None = None,
        started: Callable[[str, int], None] | None = None,
        stop: asyncio.Event | None = None,
        drain_timeout: float = 30.0,
        access_log: bool = False,
        forwarded_allow_ips: Sequence[str] = (),
    ) -> None:
        """Serve the application until `stop` is set or the call is cancelled.

        It is served over a restart of the manager, too; meanwhile requests are answered with 503.
        Once `stop` is set, WebSockets are closed with 1012: their handlers may wait for anything.
        Arguments and errors are those of `Adapter.serve`.
        """
        stop = stop or asyncio.Event()
        ending = asyncio.ensure_future(self._end_sockets(stop))
        try:
            await self.adapter.serve(
                self._current,
                host,
                port,
                server=server,
                listener=listener,
                started=started,
                stop=stop,
                drain_timeout=drain_timeout,
                access_log=access_log,
                forwarded_allow_ips=forwarded_allow_ips,
            )
        finally:
            ending.cancel()
            await asyncio.wait([ending])

    async def _end_sockets(self, stop: asyncio.Event) -> None:
        await stop.wait()
        for end in tuple(self.at_stop):
            end()
        await self._current.close_sockets()
