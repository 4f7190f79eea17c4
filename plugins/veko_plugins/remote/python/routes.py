"""Routes of other plugins, as hooks on `route:create` get them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...http import Route

__all__ = ["make_route"]


def make_route(crossed: Mapping[str, Any]) -> Route:
    """Return the route that arrived; its functions are the host's.

    Raises:
        ValueError: It is not valid.
    """
    handler, middlewares = crossed.get("handler"), crossed.get("middlewares") or ()
    if not callable(handler) or not all(callable(fn) for fn in middlewares):
        raise ValueError("the functions of a route are not functions")
    return Route(
        str(crossed.get("method")),
        str(crossed.get("path")),
        handler,
        tuple(middlewares),
        str(crossed.get("plugin") or ""),
        crossed.get("sync_to_thread") is not False,
    )
