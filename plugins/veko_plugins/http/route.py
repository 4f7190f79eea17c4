"""Route: what a plugin registers, hooks may change, and an adapter compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["SOCKET", "Route", "part_of"]

SOCKET: Final = "WEBSOCKET"
"""The method of a WebSocket's route."""


class Route(msgspec.Struct, frozen=True):
    """A route. It is immutable; a hook returns a changed one by `msgspec.structs.replace`.

    Attributes:
        method: The HTTP method in capitals; `WEBSOCKET` for a WebSocket.
        path: The path, with parameters as `{name}` or `{name:converter}`; the converters are
            `str` (the default), `int`, `float`, `uuid` and `path`.
        handler: The function that answers, as it was registered.
        middlewares: The route's own middlewares, the outermost first.
        plugin: The name of the plugin that registered it.
        sync_to_thread: Whether a `def` handler runs in a thread; `False` for one that never waits,
            which then runs on the event loop. It means nothing to `async def` handlers.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    middlewares: tuple[Callable[..., Any], ...] = ()
    plugin: str = ""
    sync_to_thread: bool = True


def part_of(route: Route) -> str:
    """Return the name of a route as a part of its plugin: what its failures are counted against."""
    return f"{route.method} {route.path}"
