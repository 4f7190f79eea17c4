"""The context as plugins of an application see it: the kernel's, and what core plugins attach.

`Plugin` is `veko.Plugin` with the decorators that these verbs make.

`Context` is for annotations only; the object is a `veko.Context`. To type what other plugins
attach, declare it in a subclass and annotate with that, or get it with `context.attached(name)`:

    class Context(veko_plugins.Context):
        schedule: Schedule
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, cast, overload

import veko
from veko import Handle, Subscription

from .storage import Namespace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Unpack

    from typing_extensions import TypeVar as _TypeVar

    from veko import Event

    from .cache import Cache
    from .database import Database
    from .transpile import TranspileFunction

    _Settings = _TypeVar("_Settings", default=Any)
else:  # see veko.Context
    _Settings = TypeVar("_Settings")

_F = TypeVar("_F", bound=Callable[..., Any])

__all__ = ["Context", "Plugin"]


class AddRoute(Protocol):
    def __call__(
        self,
        method: str,
        path: str,
        *handlers: Callable[..., Any],
        handler: Callable[..., Any] | None = None,
        sync_to_thread: bool = True,
    ) -> Handle:
        """Add a route: its middlewares, then its handler.

        A `def` handler runs in a thread; `sync_to_thread=False` runs it on the event loop, for one
        that never waits.
        """
        ...


class AddRoutes(Protocol):
    def __call__(self, *handlers: object, path: str = "/") -> list[Handle]:
        """Add handlers of the adapter's framework, or a whole ASGI application, under a path."""
        ...


class AddCommand(Protocol):
    def __call__(self, name: str, fn: Callable[..., Any], description: str = "") -> Handle:
        """Add a command; its options come from the function's signature."""
        ...


class AddWebSocket(Protocol):
    def __call__(
        self, path: str, *handlers: Callable[..., Any], handler: Callable[..., Any] | None = None
    ) -> Handle:
        """Add a WebSocket: its middlewares, then `async def handler(socket)`."""
        ...


class AddMiddleware(Protocol):
    def __call__(self, fn: Callable[..., Any], priority: float = 10) -> Handle:
        """Add a middleware: `async def mw(request, call_next)`."""
        ...


class AddTranspiler(Protocol):
    def __call__(
        self,
        suffix: str,
        fn: TranspileFunction,
        *,
        to: str = ".py",
        version: str = "",
        timeout: float | None = 30.0,
    ) -> Subscription:
        """Make files of a suffix plugins: `fn(text, path)` returns Python."""
        ...


class Context(veko.Context[_Settings]):
    """`veko.Context` with the verbs of the core plugins.

    Attributes:
        storage: The plugin's own durable namespace.
        cache: The plugin's own namespace of the cache, if the option `cache` is set.
        database: The database, in the plugin's name, if the option `database` is set.
        add_route: `add_route(method, path, *middlewares, handler, sync_to_thread=True)`.
        add_routes: `add_routes(*handlers, path="/")`.
        add_websocket: `add_websocket(path, *middlewares, handler)`.
        add_middleware: `add_middleware(fn, priority=10)`.
        add_command: `add_command(name, fn, description="")`.
        add_transpiler: `add_transpiler(suffix, fn, to=".py", version="", timeout=30)`.
    """

    storage: Namespace
    cache: Cache
    database: Database
    add_route: AddRoute
    add_routes: AddRoutes
    add_websocket: AddWebSocket
    add_middleware: AddMiddleware
    add_command: AddCommand
    add_transpiler: AddTranspiler

    def attach(self, name: str, factory: Callable[[Context], Any]) -> Handle:
        """See `veko.Context.attach`; the factory may use what core plugins attach."""
        return super().attach(name, cast("Any", factory))


if TYPE_CHECKING:

    class Fields(TypedDict, total=False):
        """The fields of `veko.Manifest` beside the name and the version."""

        description: str
        author: str
        license: str
        homepage: str
        repository: str
        dependencies: Sequence[str]
        peer_dependencies: Sequence[str]
        engines: Mapping[str, str]
        default_config: Mapping[str, Any]
        config_schema: Any
        hooks: Sequence[str] | None
        permissions: Sequence[str]
        type: str | None
        priority: float
        reload: str
        required: bool
        isolation: str
        on_crash: str | None
        activation: str

    class Plugin(veko.Plugin):
        """A plugin that is written with decorators: `plugin = Plugin("shop", "1.0.0")`.

        Args:
            name: The plugin's name.
            version: Its version.
            manifest: The other fields of `veko.Manifest`.
        """

        def __init__(self, name: str, version: str, **manifest: Unpack[Fields]) -> None: ...

        @property
        def context(self) -> Context[Any]:
            """The plugin's context, from its loading to its end."""
            ...

        @property
        def config(self) -> Any:
            """The plugin's present configuration."""
            ...

        def route(
            self,
            method: str,
            path: str,
            *middlewares: Callable[..., Any],
            sync_to_thread: bool = True,
        ) -> Callable[[_F], _F]:
            """Add a route; see `context.add_route`."""
            ...

        def websocket(self, path: str, *middlewares: Callable[..., Any]) -> Callable[[_F], _F]:
            """Add a WebSocket; see `context.add_websocket`."""
            ...

        @overload
        def middleware(self, fn: _F, /) -> _F: ...
        @overload
        def middleware(self, *, priority: float = 10) -> Callable[[_F], _F]: ...
        def middleware(self, *args: Any, **kwargs: Any) -> Any:
            """Add a middleware, with or without a priority; see `context.add_middleware`."""
            ...

        def command(self, name: str, description: str = "") -> Callable[[_F], _F]:
            """Add a command; see `context.add_command`."""
            ...

        def hook(
            self,
            event: str | Event[Any],
            priority: float = 10,
            timeout: float | None = ...,
            observe: bool = False,
        ) -> Callable[[_F], _F]:
            """Hook an event; see `context.hook`."""
            ...

        def every(self, seconds: float) -> Callable[[_F], _F]:
            """Call a function at an interval; see `context.every`."""
            ...

        @overload
        def spawn(self, fn: _F, /) -> _F: ...
        @overload
        def spawn(self) -> Callable[[_F], _F]: ...
        def spawn(self, *args: Any) -> Any:
            """Run a function as a task; see `context.spawn`."""
            ...

        def transpiler(
            self, suffix: str, *, to: str = ".py", version: str = "", timeout: float | None = 30.0
        ) -> Callable[[_F], _F]:
            """Make files of a suffix plugins; see `context.add_transpiler`."""
            ...

        def on_load(self, fn: _F) -> _F:
            """Run a function when the plugin loads, after the other decorators."""
            ...

        def on_unload(self, fn: _F) -> _F:
            """Run a function when the plugin unloads."""
            ...

        def on_activate(self, fn: _F) -> _F:
            """Run a function after loading, and each time the plugin is switched on."""
            ...

        def on_deactivate(self, fn: _F) -> _F:
            """Run a function each time the plugin is switched off, and before it unloads."""
            ...

        def on_export_state(self, fn: _F) -> _F:
            """Let a function return what the next version takes over in a reload."""
            ...

        def on_import_state(self, fn: _F) -> _F:
            """Let a function take over what the version before has exported."""
            ...

else:
    Plugin = veko.Plugin  # its decorators are found by name
