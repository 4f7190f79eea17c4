"""ASGI's types, and the keys under which Veko keeps its own things in a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

__all__ = [
    "ASGI", "EXCHANGE", "REQUEST", "ROUTE", "SLICE", "ASGISend", "Message", "Receive", "Scope",
    "path_of",
]  # fmt: skip

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
ASGISend: TypeAlias = Callable[[Message], Awaitable[None]]
ASGI: TypeAlias = Callable[[Scope, Receive, ASGISend], Awaitable[None]]

REQUEST: Final = "veko.request"
"""The key of the request, or of the WebSocket."""
EXCHANGE: Final = "veko.exchange"
"""The key of the request's `Exchange`, or of the WebSocket's `SocketExchange`."""
ROUTE: Final = "veko.route"
"""The key of the route that answers; its value is `None` if there is no such route."""

SLICE: Final = 0.01
"""Seconds for which code that sends without ever waiting may hold the loop."""


def path_of(scope: Scope) -> str:
    """Return the decoded path below the application's mount."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("/", ""):
        return path[len(root) :] or "/"
    return path
