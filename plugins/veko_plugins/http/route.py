"""Route: what a plugin registers, hooks may change, and an adapter compiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["SOCKET", "Route"]

SOCKET: Final = "WEBSOCKET"
"""The method of a WebSocket's route."""


class Route(msgspec.Struct, frozen=True):
    """A route as it goes live; `msgspec.structs.replace` makes another one of it.

    Attributes:
        method: The method in capitals; `WEBSOCKET` for a WebSocket.
        path: The path, parameters as `{name}` or `{name:converter}`.
        handler: What answers it.
        middlewares: What stands around the handler, the outermost first.
        plugin: The name of the plugin that has it.
    """

    method: str
    path: str
    handler: Callable[..., Any]
    middlewares: tuple[Callable[..., Any], ...] = ()
    plugin: str = ""
