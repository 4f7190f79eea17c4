"""The core plugin `routes`: it adds the verbs, the kinds and the events of HTTP.

The registry keeps every plugin's raw routes as they were registered; `acceptance` makes the live
ones of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection

import msgspec

from veko import Context, Handle, Plugin
from veko.errors import RefusedError
from veko.extend import Kind

from .._lib.route_paths import parse_path
from .acceptance import Acceptance, accept_middleware
from .credits import credited
from .current import CurrentASGI
from .dispatch import Dispatcher
from .events import EVENTS, ROUTE_CREATE, ROUTE_LOAD, ROUTE_REFUSE
from .port import Adapter, find_adapter
from .required import Required
from .route import Route, part_of
from .service import HTTP
from .sockets.events import EVENTS as SOCKET_EVENTS
from .threads import Threads
from .verbs import add_middleware, add_route, add_websocket

__all__ = ["Routes"]


class Routes(Plugin):
    """The core plugin `routes`.

    Args:
        adapter: The HTTP adapter, or the name under which it is registered.
        dev_mode: Whether problem responses show errors and tracebacks.
        threads: How many `def` route handlers run at once.
        required: The plugins without which every request is refused, beside those whose manifests
            say so.

    Raises:
        NotFoundError: No adapter has that name.
        OptionError: The adapter needs a distribution that is not installed.
    """

    name = "routes"
    version = "2.0.0"
    description = "The routing table, middleware, and the HTTP port that adapters implement."
    core = True

    def __init__(
        self,
        adapter: Adapter | str = "litestar",
        *,
        dev_mode: bool = False,
        threads: int = 40,
        required: Collection[str] = (),
    ) -> None:
        self._adapter = find_adapter(adapter) if isinstance(adapter, str) else adapter
        self._dev_mode = dev_mode
        self._required = required
        self._acceptance = Acceptance(self._adapter, Threads(threads))

    def load(self, context: Context) -> None:
        """Declare the events, add the kinds and the verbs, and provide the service `http`."""
        for event in (*EVENTS, *SOCKET_EVENTS):
            context.declare(event)
        retested = (ROUTE_LOAD.name, ROUTE_CREATE.name)
        context.add_kind(Kind("route", False, self._acceptance.accept, retested, pinned=False))
        bus = context.kernel.bus
        context.add_kind(Kind("middleware", accept=functools.partial(accept_middleware, bus)))
        context.intercept(credited)
        context.attach("add_route", add_route)
        context.attach("add_routes", self._add_routes)
        context.attach("add_websocket", add_websocket)
        context.attach("add_middleware", add_middleware)
        asgi = Dispatcher(context.kernel, dev_mode=self._dev_mode)
        required = Required(self._required)
        required.load(context)
        report = functools.partial(self._report_refusal, context=context)
        context.hook(ROUTE_REFUSE, report, observe=True)
        current = CurrentASGI(context.kernel)
        context.provide("http", HTTP(context.kernel, asgi, self._adapter, current, required))

    def _add_routes(self, context: Context) -> Callable[..., list[Handle]]:
        """Return `context.add_routes(*handlers, path="/")`, for the framework's own handlers."""

        def add_routes(*handlers: object, path: str = "/") -> list[Handle]:
            parse_path(path)
            found = (
                route
                for handler in handlers
                for route in self._adapter.expand(context.name, path, handler)
            )
            # The framework decides where its own handlers run.
            own = [msgspec.structs.replace(route, sync_to_thread=False) for route in found]
            return [context.register("route", (r.method, r.path), r) for r in own]

        return add_routes

    @staticmethod
    async def _report_refusal(route: Route, error: Exception, *, context: Context) -> None:
        """Report that a live route is out of service; that counts against no plugin's code."""
        fault = RefusedError(
            f"the route {part_of(route)} is out of service and answers 404: {error}",
            plugin=route.plugin,
            event=ROUTE_CREATE.name,
            remedy="It comes back when the hook lets it in, or leaves.",
        )
        fault.__cause__ = error
        await context.kernel.bus.report(
            fault, owner=route.plugin, event=ROUTE_CREATE.name, handler=part_of(route)
        )
