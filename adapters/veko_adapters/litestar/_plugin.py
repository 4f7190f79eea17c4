"""`VekoPlugin`: a manager inside an existing Litestar application.

Requests that match no route of the application go to the manager's plugins, through the
application's middleware, guards and CORS. A Litestar mount would take precedence over the
application's routes with parameters, and answer every path with its prefix. So the application's
routing is asked first, and an unknown path is sent to a handler of ours. Cost: a lookup, which
Litestar caches, for each request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, cast

from litestar import asgi
from litestar.di import Provide
from litestar.exceptions import HTTPException, NotFoundException
from litestar.plugins import InitPlugin
from litestar.utils import normalize_path
from veko.errors import OptionError
from veko_plugins import PluginManager

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.types import ASGIApp, Receive, Scope, Send

__all__ = ["VekoPlugin"]

_INSIDE: Final = "/_veko_plugins"
_PATHS: Final = "veko.paths"
_LITESTARS: Final = ("app", "litestar_app", "route_handler", "path_template", _PATHS)
_STATE: Final = "_ls_connection_state"


class VekoPlugin(InitPlugin):
    """Puts a manager into a Litestar application: `Litestar(..., plugins=[VekoPlugin(manager)])`.

    The manager starts before the application and stops after it, unless it already runs. If it
    fails to start, the application does not start either. The application becomes its `app` if it
    has none. Handlers of the application get the manager as the dependency `veko`, unless the
    application has a dependency of that name.

    Args:
        manager: The manager.
        path: The path below which the routes of its plugins lie. The application's own routes take
            precedence.

    Raises:
        OptionError: The path does not begin with a slash.
    """

    def __init__(self, manager: PluginManager, path: str = "/") -> None:
        if not path.startswith("/"):
            raise OptionError(
                f"the path {path!r} does not start with '/'", remedy=f"Use '/{path}'."
            )
        self.manager = manager
        self.path = path.rstrip("/")

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add the handler, the dependency and the lifespan."""
        manager = self.manager
        handler = asgi(_INSIDE, is_mount=True, copy_scope=True)
        app_config.route_handlers.append(handler(self._answer))
        app_config.lifespan.insert(0, self._lifespan)
        app_config.signature_namespace.setdefault("PluginManager", PluginManager)
        provide = Provide(lambda: manager, use_cache=True, sync_to_thread=False)
        app_config.dependencies = {"veko": provide, **(app_config.dependencies or {})}
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncGenerator[None, None]:
        manager = self.manager
        ours = manager.state in ("created", "stopped")
        before = app.asgi_handler
        if ours and manager.app is None:
            manager.app = manager.kernel.app = app
        if ours:
            await manager.start()
        try:
            app.asgi_handler = self._router(app, before)
            yield
        finally:
            app.asgi_handler = before
            if ours:
                await manager.stop()

    def _router(self, app: Litestar, before: ASGIApp) -> ASGIApp:
        async def route(scope: Scope, receive: Receive, send: Send) -> None:
            root, path = scope.get("root_path", ""), scope["path"]
            below = path.removeprefix(root)
            if self._is_below(below) and not _has(app, below, scope.get("method")):
                cast("dict[str, Any]", scope)[_PATHS] = root, path
                scope["path"] = f"{root}{_INSIDE}{below}"
            await before(scope, receive, send)

        return route

    def _is_below(self, path: str) -> bool:
        return not self.path or path == self.path or path.startswith(f"{self.path}/")

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        paths: tuple[str, str] | None = cast("dict[str, Any]", scope).get(_PATHS)
        if paths is None:  # a request for the handler's own path
            raise NotFoundException
        root, path = paths
        inner: dict[str, Any] = {k: v for k, v in scope.items() if k not in _LITESTARS}
        inner["root_path"], inner["path"] = root + self.path, path
        inner["state"] = {k: v for k, v in scope.get("state", {}).items() if k != _STATE}
        await self.manager.asgi(inner, cast("Any", receive), cast("Any", send))


def _has(app: Litestar, path: str, method: Any) -> bool:
    """Return whether the application has a route for a path, for this or other methods."""
    try:
        app.asgi_router.handle_routing(path=normalize_path(path), method=method)
    except NotFoundException:
        return False
    except HTTPException:
        return True
    return True
