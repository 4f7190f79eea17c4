"""The adapter without a framework."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from veko import Context
from veko.errors import RouteError
from veko_plugins.http import ASGI, Endpoint, Fragment, Merger, Response, Route

from .. import _openapi
from .._binding import bind
from .._mounted import Mounted, is_asgi, mount, start
from .._parameters import read
from .._plain import Plain
from .._serve import serve

__all__ = ["ASGIAdapter"]


class ASGIAdapter:
    """The HTTP port without a framework."""

    name = "asgi"

    def compile(self, context: Context, routes: Sequence[Route]) -> Sequence[Endpoint]:
        """Compile routes; see `veko_plugins.http.Adapter.compile`."""
        endpoints: list[Any] = [
            route.handler
            if isinstance(route.handler, Mounted)
            else Plain(bind(route, read(route, context), context, Response.of))
            for route in routes
        ]
        return endpoints

    def expand(self, plugin: str, path: str, handler: object) -> Sequence[Route]:
        """Mount an ASGI application under a path; see `veko_plugins.http.Adapter.expand`."""
        if not is_asgi(handler):
            raise RouteError(
                f"{handler!r} is not an ASGI application",
                plugin=plugin,
                remedy="Use the adapter of its framework, or add_route() for a plain handler.",
            )
        return mount(plugin, path, Mounted(cast("ASGI", handler)))

    def describe(self, context: Context, routes: Sequence[Route]) -> Fragment:
        """Describe routes; see `veko_plugins.http.Adapter.describe`."""
        merger = Merger()
        merger.add(_openapi.describe(routes, partial(read, context=context)), "plain")
        merger.add(_openapi.mounted(routes), "mounted")
        return merger.whole

    serve = staticmethod(serve)
    start = staticmethod(start)
