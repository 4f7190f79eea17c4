"""The context: what a plugin works with.

The kernel gives it hooks, services, tasks, resources, configuration and the log. Everything else
is attached by other plugins: found in the registry at first use, after that by a dict lookup.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, Literal, TypeVar, cast, overload

import msgspec

from .._bus import arguments as _arguments
from .._bus.calls import Call
from .._bus.draft import Kind
from .._bus.events import Event, is_pattern
from .._bus.handles import Handle, Subscription
from .._bus.registrar import Registrar
from .._bus.registry import HOOK, KIND, PATTERN, Entry
from ..errors import VekoError
from .generation import Generation, PluginRecord
from .plugin import Manifest
from .scope import Task, repeat
from .services import why_missing

if TYPE_CHECKING:
    # From the package, not from its file: `Kernel` is the one name that is above this file.
    from typing_extensions import TypeVar as _TypeVar

    from .. import Kernel

    _Settings = _TypeVar("_Settings", default=Any)
else:  # defaults of type variables need Python 3.13, and typing_extensions is no dependency
    _Settings = TypeVar("_Settings")

__all__ = ["Context", "Level", "LogRecord"]

Level = Literal["debug", "info", "success", "warning", "error"]
_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_DEFAULT: Final[Any] = object()
SUCCESS: Final = 25
LEVELS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "success": SUCCESS,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
logging.addLevelName(SUCCESS, "SUCCESS")


class LogRecord(msgspec.Struct, frozen=True):
    """What a plugin logged; the payload of the event `log`.

    Attributes:
        type: `debug`, `info`, `success`, `warning` or `error`.
        message: The message.
        details: More about it, of any type.
        timestamp: When it was logged, in UTC.
        plugin: The name of the plugin.
        fields: What was given by keyword.
    """

    type: str
    message: str
    details: Any
    timestamp: datetime
    plugin: str
    fields: dict[str, Any] = {}


class Context(Registrar, Generic[_Settings]):
    """A plugin's view of the kernel. What it registers is removed when the plugin unloads.

    `Context[Settings]` types `config`; plain `Context` leaves it untyped. What other plugins attach
    is found as an attribute at run time. Type checkers know only the attributes that are declared:
    declare more in a subclass that is used for annotations, or get one with `attached(name)`.

    Attributes:
        name: The plugin's name.
        kernel: The kernel.
        app: The object that the kernel was made for.
    """

    def __init__(self, generation: Generation, kernel: Kernel) -> None:
        self._generation = generation
        self._attached: dict[Hashable, tuple[int, Entry, Any]] = {}
        self.name: str = generation.name
        self.kernel = kernel
        self.app: Any = kernel.app

    @property
    def config(self) -> _Settings:
        """The plugin's present configuration."""
        config: _Settings = self._generation.config
        return config

    @property
    def plugin(self) -> PluginRecord:
        """The plugin's own record."""
        return self._generation.record

    @property
    def manifest(self) -> Manifest:
        """The manifest of this generation, which may not be live yet."""
        return self._generation.manifest

    # -- staged: live together when load() has returned

    @overload
    def hook(
        self,
        event: Event[_T],
        fn: Callable[[], object] | Callable[Concatenate[_T, ...], object],
        priority: float = ...,
        timeout: float | None = ...,
        observe: bool = ...,
    ) -> Subscription: ...
    @overload
    def hook(
        self,
        event: str,
        fn: Callable[..., Any],
        priority: float = ...,
        timeout: float | None = ...,
        observe: bool = ...,
    ) -> Subscription: ...
    @overload
    def hook(
        self,
        event: str | Event[Any],
        fn: None = None,
        priority: float = ...,
        timeout: float | None = ...,
        observe: bool = ...,
    ) -> Callable[[_F], _F]: ...
    def hook(
        self,
        event: str | Event[Any],
        fn: Callable[..., Any] | None = None,
        priority: float = 10,
        timeout: float | None = _DEFAULT,
        observe: bool = False,
    ) -> Any:
        """Subscribe a handler; also as a decorator, `@context.hook("app:start")`.

        Args:
            event: The event's name, a pattern, or the declared event.
            fn: The handler, `def` or `async def`.
            priority: The higher runs first; equal ones in order of arrival.
            timeout: Seconds that an async handler may take, `None` for no limit; the kernel's
                `hook_timeout` (5) if left out.
            observe: Whether the handler only looks. What it returns is ignored, and its failure
                costs nobody else anything. At an event that fails closed (`request:start`) the
                failure of any other handler refuses what the event is about.

        Returns:
            The subscription, or, without `fn`, a decorator.

        Raises:
            VekoError: The name, the handler or the time limit is not valid.
            TransactionError: This generation of the plugin has ended.
            StateError: Another thread than this one runs the kernel.
        """
        event = _arguments.name_of_event(event)
        if fn is None:
            return functools.partial(self._decorate, event, priority, timeout, observe)
        owner = self._generation
        limit = self.kernel.hook_timeout if timeout is _DEFAULT else timeout
        subscription = Subscription(
            event, fn, priority=priority, owner=owner, timeout=limit, observe=observe
        )
        if self.kernel.enable_hooks or owner.plugin.core:
            kind = PATTERN if is_pattern(event) else HOOK
            owner.register(kind, event, subscription, priority)
            if owner.live and not owner.plugin.manifest.declares(event):
                self.log("warning", f"it hooks {event!r}, which is not in its `hooks`")
        return subscription

    def _decorate(
        self, event: str, priority: float, timeout: float | None, observe: bool, fn: Any
    ) -> Any:
        self.hook(event, fn, priority, timeout, observe)
        return fn

    def remove_hook(self, event: str | Event[Any], fn: Callable[..., Any]) -> bool:
        """Remove the plugin's subscriptions of a handler to an event.

        Args:
            event: The event's name, a pattern, or the declared event.
            fn: The handler.

        Returns:
            Whether there was one.
        """
        self.kernel.root.check_thread()
        name = event if isinstance(event, str) else _arguments.name_of_event(event)
        found = [
            handle
            for handle in self._generation.handles.values()
            if isinstance(handle, Subscription) and (handle.event, handle.handler) == (name, fn)
        ]
        for handle in found:
            handle.cancel()
        return bool(found)

    def provide(self, name: str, value: object) -> Handle:
        """Offer a service under a name that is not taken."""
        if type(name) is not str:
            _arguments.check_text("the name of a service", name)
        return self._generation.register("service", name, value)

    def attach(self, name: str, factory: Callable[[Context], Any]) -> Handle:
        """Give every plugin's context an attribute, made by `factory(context)` at first use.

        Raises:
            VekoError: Contexts have an attribute of that name already.
        """
        _arguments.check_text("the name of what is attached", name)
        _arguments.check_callable("factory", factory)
        if name.startswith("_") or hasattr(Context, name) or name in ("name", "kernel", "app"):
            raise VekoError(
                f"context.{name} is the kernel's own",
                plugin=self.name,
                remedy="Attach under another name.",
            )
        return self._generation.register("attach", name, factory)

    def add_kind(self, kind: Kind) -> Handle:
        """Add a kind of entry to the registry."""
        if not isinstance(kind, Kind):
            raise VekoError(f"{kind!r} is not a kind", remedy="Pass a veko.extend.Kind.")
        return self.register(KIND, kind.name, kind)

    def register(self, kind: str, key: Hashable, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of any kind; see `Registrar.register`."""
        return self._generation.register(kind, key, value, priority)

    def spawn(self, fn: Callable[..., Any], *args: Any) -> Task:
        """Run a function as a task, from when the plugin goes live until it unloads.

        A failure is reported. A task that was cut off when the plugin was switched off is started
        again from the beginning when the plugin is switched on. In a reload tasks start before the
        swap if the old ones provided a service that a user of it needs in its `load()`.

        Returns:
            The task; `cancel()` ends it.
        """
        _arguments.check_callable("fn", fn)
        counted = self.kernel.bus.enclose(Call.of_task(fn, self._generation))
        return self._spawn(functools.partial(counted, *args), fn)

    def every(self, seconds: float, fn: Callable[[], Any]) -> Task:
        """Call a function at an interval while the plugin is live.

        Args:
            seconds: The interval, in seconds.
            fn: The function, `def` or `async def`. A failure is reported, and it is called again.

        Returns:
            The task; `cancel()` ends it.

        Raises:
            VekoError: `seconds` is not above 0.
        """
        _arguments.check_seconds("seconds", seconds)
        _arguments.check_callable("fn", fn)
        counted = self.kernel.bus.enclose(Call.of_task(fn, self._generation))
        failed = functools.partial(self.kernel.failed, self._generation, fn)
        return self._spawn(functools.partial(repeat, seconds, counted, failed), fn)

    def _spawn(self, run: Callable[[], Any], fn: Callable[..., Any]) -> Task:
        generation, kernel = self._generation, self.kernel
        generation.check_open()
        report = functools.partial(kernel.failed, generation, fn)
        task = Task(kernel.root, run, report, generation, live=generation.runs)
        generation.scope.add(task)
        if generation.runs:
            task.start()
        return task

    # -- immediate

    async def enter(self, manager: AbstractAsyncContextManager[_T]) -> _T:
        """Enter an async context manager; it is left when the plugin unloads or fails to load.

        It is entered and left in a task of its own.

        Raises:
            TransactionError: This generation of the plugin has ended.
            Exception: What entering it raised.
        """
        _arguments.check_context_manager("manager", manager)
        self._generation.check_open()
        failed = functools.partial(self.kernel.failed, self._generation, manager)
        value: _T = await self._generation.scope.enter(manager, failed)
        return value

    def emit(self, event: str, *args: Any) -> Awaitable[Any]:
        """Emit the plugin's own event `plugin:<name>:<event>`."""
        return self.kernel.bus.emit(f"plugin:{self.name}:{event}", *args)

    @overload
    def use(self, service: str) -> Any: ...
    @overload
    def use(self, service: type[_T]) -> _T: ...
    def use(self, service: str | type[Any]) -> Any:
        """Return a service. Using it makes this plugin depend on the plugin that provides it.

        Args:
            service: The service's name, or the type of the only service that is an instance of it.

        Raises:
            ServiceError: No plugin provides it, or the one that does is switched off, or several
                services are of that type.
        """
        return self.kernel.services.use(service, by=self._generation)

    @overload
    async def when(self, service: str) -> Any: ...
    @overload
    async def when(self, service: type[_T]) -> _T: ...
    async def when(self, service: str | type[Any]) -> Any:
        """Wait until a service is provided, and return it; see `use`.

        Raises:
            ServiceError: Several services are of that type.
        """
        return await self.kernel.services.when(service, by=self._generation)

    def get_plugin(self, name: str) -> PluginRecord | None:
        """Return a loaded plugin of the application, or `None`."""
        _arguments.check_text("the name of a plugin", name)
        record = self.kernel.get(name)
        if record is None or not record.loaded or record.core:
            return None
        return self._generation.sees(record)

    def list_plugins(self) -> list[PluginRecord]:
        """Return the loaded plugins of the application, in order of arrival."""
        sees = self._generation.sees
        return [sees(r) for r in self.kernel.records() if r.loaded and not r.core]

    async def update_config(self, changes: dict[str, Any]) -> _Settings:
        """Merge changes into the plugin's configuration.

        Returns:
            The new configuration.

        Raises:
            ConfigError: It was refused; the old one stays.
        """
        config: _Settings = await self.kernel._update_own_config(self._generation, changes)
        return config

    def log(self, level: Level, message: str, details: Any = None, **fields: Any) -> None:
        """Log: to the logger `veko.plugin.<name>`, and as the event `log`.

        Args:
            level: `debug`, `info`, `success`, `warning` or `error`.
            message: The message.
            details: More about it, of any type.
            fields: More about it, by name.

        Raises:
            VekoError: There is no such level.
        """
        number = LEVELS.get(cast("Level", str(level)))
        if number is None:
            raise VekoError(
                f"{level!r} is not a log level",
                plugin=self.name,
                remedy=f"Use one of {', '.join(LEVELS)}.",
            )
        record = LogRecord(level, message, details, datetime.now(UTC), self.name, fields)
        logger = logging.getLogger(f"veko.plugin.{self.name}")
        if logger.isEnabledFor(number):
            extra = {"plugin": self.name, "veko": record}
            logger.log(
                number, "%s", message if details is None else f"{message} {details}", extra=extra
            )
        self.kernel.post("log", record)

    def attached(self, name: str) -> Any:
        """Return what a plugin attaches to contexts under a name, as `context.<name>` does.

        Raises:
            AttributeError: No plugin that is loaded and switched on attaches it.
        """
        registry = self.kernel.registry  # the pinned one, in a pin
        known = self._attached.get(name)
        if known is not None and known[0] == registry.version:
            return known[2]
        hidden = name.startswith("_")
        entry = None if hidden else self._generation.visible(registry, "attach", name)
        if entry is None:
            raise AttributeError(why_missing(self, name), name=name, obj=self)
        value = known[2] if known is not None and known[1] is entry else entry.value(self)
        self._attached[name] = (registry.version, entry, value)
        return value

    if not TYPE_CHECKING:  # else every misspelled attribute would pass type checkers as `Any`
        __getattr__ = attached

    def _forget(self, names: Iterable[Hashable]) -> None:
        """Drop what plugins had attached that have left."""
        for name in names:
            self._attached.pop(name, None)

    def __dir__(self) -> list[str]:
        """Include what is attached, so that the error for a misspelled name suggests it."""
        attached = (str(key) for key in self.kernel.registry.keys("attach"))
        return [*super().__dir__(), *attached]

    def __repr__(self) -> str:
        return f"<Context of {self.name}>"


EVENTS: Final = (
    Event(
        "context:create", payload=Context, doc="A plugin's context was made. Argument: the context."
    ),
    Event("log", payload=LogRecord, doc="A plugin logged a record. Argument: the `LogRecord`."),
)
