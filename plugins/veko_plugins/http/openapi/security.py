"""Guarded routes in OpenAPI: the security schemes that their middlewares name.

A middleware that guards has an attribute `security`: security schemes (OpenAPI 3.1) by name, of
which a request needs one.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..._lib.route_paths import parse_path
from ..port import Fragment
from ..route import Route

__all__ = ["secure"]


def secure(fragment: Fragment, routes: Iterable[Route]) -> None:
    """Add to a fragment what its routes' middlewares require.

    Args:
        fragment: The description of the routes.
        routes: The routes.
    """
    for route in routes:
        schemes: dict[str, object] = {}
        for middleware in route.middlewares:
            schemes |= getattr(middleware, "security", None) or {}
        operations = fragment.paths.get(_path_of(route), {}) if schemes else {}
        operation = operations.get(route.method.lower())
        if operation is None:
            continue
        operation["security"] = [{name: []} for name in schemes]
        fragment.components.setdefault("securitySchemes", {}).update(schemes)


def _path_of(route: Route) -> str:
    """Return a route's path as OpenAPI writes it."""
    segments = parse_path(route.path)
    return "/" + "/".join(f"{{{s.text}}}" if s.converter else s.text for s in segments)
