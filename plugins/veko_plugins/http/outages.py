"""Outages: the routes that a breaker has switched off, which answer 503 with `Retry-After`.

They are laid over the routing table: a route that is off is replaced there, and the routes of a
plugin that is off, which have left the table, are put back. So a path that is off is never answered
by a less specific route of another plugin, and never with 404.

Cost: nothing while no route is off; then a comparison for each request, and for each change of the
table a copy of the branches that lead to the routes that are off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .exchange import Target
from .messages.problem import HTTPError
from .messages.response import Response
from .route import SOCKET, Route, part_of
from .sockets.open_sockets import OpenSockets, SocketTarget
from .table import HANDSHAKE, Table, Taken

__all__ = ["Outages", "Seconds"]

Seconds = Callable[[], float]
"""Returns how many seconds are left until something is tried again."""
_LONGEST: Final = 86_400
"""The greatest `Retry-After`, in seconds."""


class Outages:
    """The routes that are off.

    Args:
        answer: Returns the response of an error.

    Attributes:
        any: Whether a route is off.
    """

    def __init__(self, answer: Callable[[BaseException], Response]) -> None:
        self.any = False
        self._answer = answer
        self._routes: dict[tuple[str, str], tuple[Route, Seconds]] = {}
        self._plugins: dict[str, tuple[tuple[Route, ...], Seconds]] = {}
        self._below: Table[Target] | None = None
        self._above: Table[Target] | None = None

    def refuse_route(self, route: Route, left: Seconds) -> None:
        """Switch one route off.

        Args:
            route: The route.
            left: Returns the seconds until it is tried again.
        """
        self._routes[route.plugin, part_of(route)] = route, left
        self._changed()

    def refuse_plugin(self, plugin: str, routes: Iterable[Route], left: Seconds) -> None:
        """Switch all routes of a plugin off; they stay off when the plugin has left the table.

        Args:
            plugin: The name of the plugin.
            routes: Its routes.
            left: Returns the seconds until it is tried again.
        """
        self._plugins[plugin] = tuple(routes), left
        self._changed()

    def admit(self, plugin: str, part: str | None = None) -> None:
        """Switch a route on again, or all that is off of a plugin as a whole.

        Args:
            plugin: The name of the plugin.
            part: The route, as `part_of` names it; `None` for the plugin.
        """
        if part is None:
            self._plugins.pop(plugin, None)
        else:
            self._routes.pop((plugin, part), None)
        self._changed()

    def over(self, table: Table[Target]) -> Table[Target]:
        """Return a routing table in which the routes that are off answer 503."""
        if not self.any:
            return table
        if self._above is None or self._below is not table:
            self._below, self._above = table, self._laid(table)
        return self._above

    def _changed(self) -> None:
        self.any = bool(self._routes or self._plugins)
        self._below = self._above = None

    def _laid(self, table: Table[Target]) -> Table[Target]:
        off = list(self._routes.values())
        off += [(route, left) for routes, left in self._plugins.values() for route in routes]
        for route, left in off:
            method = HANDSHAKE if route.method == SOCKET else route.method
            row = method, route.path, self._target(route, left)
            try:
                table = table.changed(add=[row])
            except Taken as error:
                there: Target = error.value  # type: ignore[assignment]
                if there.route.plugin == route.plugin:
                    table = table.changed(remove=[row[:2]], add=[row])
        return table

    def _target(self, route: Route, left: Seconds) -> Target:
        # Without the handler and the middlewares: they may be of a generation that is unloaded.
        bare = Route(route.method, route.path, _nothing, (), route.plugin)
        target = Target(bare, _Refusing(self._answer, left))
        return SocketTarget(target, OpenSockets()) if route.method == SOCKET else target


class _Refusing:
    """The endpoint of a route that is off."""

    __slots__ = ("_left", "_respond")

    def __init__(self, respond: Callable[[BaseException], Response], left: Seconds) -> None:
        self._respond = respond
        self._left = left

    async def answer(self, request: Any, /) -> Response:
        """Answer with 503."""
        seconds = math.ceil(min(_LONGEST, max(1.0, self._left())))
        headers: Mapping[str, str] = {"retry-after": str(seconds)}
        detail = "It failed too often and is switched off for a while."
        return self._respond(HTTPError(503, detail, headers=headers))


def _nothing() -> None:
    """Stand for the handler of a route that is off; never called."""
