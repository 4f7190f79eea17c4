"""The context: what a plugin holds in its hand.

The kernel gives it hooks, services, tasks, resources, configuration and the log; everything else
is attached by other plugins and found through the registry, at first use, one dict lookup later.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from .._bus.bus import Registrar, hook_kind
from .._bus.events import Event
from .._bus.handles import Handle, Subscription
from .._bus.registry import KIND, Entry, Kind
from ..errors import VekoError
from .generation import Generation, PluginRecord
from .scope import Task, repeat

if TYPE_CHECKING:
    from .. import Kernel  # the face: the one name that stands above this file

__all__ = ["Context", "LogRecord"]

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")
_DEFAULT: Final[Any] = object()
SUCCESS: Final = 25
LEVELS: Final = {
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
        details: Anything more.
        timestamp: When, in UTC.
        plugin: Whose it is.
        fields: What was given by keyword.
    """

    type: str
    message: str
    details: Any
    timestamp: datetime
    plugin: str
    fields: dict[str, Any] = {}


class Context(Registrar):
    """A plugin's hold on the kernel. What it registers is its own and is gone when it unloads.

    Attributes:
        name: The plugin's name.
        kernel: The kernel.
        app: What the kernel was made for.
    """

    def __init__(self, generation: Generation, kernel: Kernel) -> None:
        self._generation = generation
        self._attached: dict[Hashable, tuple[int, Entry, Any]] = {}
        self.name: str = generation.name
        self.kernel = kernel
        self.app: Any = kernel.app

    @property
    def config(self) -> Any:
        """The plugin's configuration, as it is now."""
        return self._generation.config

    @property
    def plugin(self) -> PluginRecord:
        """The plugin's own record."""
        return self._generation.record

    # -- staged: live together when load() has returned

    @overload
    def hook(
        self, event: str, fn: Callable[..., Any], priority: float = 10, timeout: float | None = ...
    ) -> Subscription: ...
    @overload
    def hook(
        self, event: str, fn: None = None, priority: float = 10, timeout: float | None = ...
    ) -> Callable[[_F], _F]: ...
    def hook(
        self,
        event: str,
        fn: Callable[..., Any] | None = None,
        priority: float = 10,
        timeout: float | None = _DEFAULT,
    ) -> Any:
        """Subscribe a handler; also as a decorator, `@context.hook("app:start")`.

        Args:
            event: The event's name, or a pattern.
            fn: The handler.
            priority: The higher runs first.
            timeout: Seconds that an async handler may take, `None` for no limit; the kernel's
                `hook_timeout` (5) if left out.

        Returns:
            The subscription, or, without `fn`, a decorator.
        """
        if fn is None:
            return functools.partial(self._decorate, event, priority, timeout)
        owner, limit = (
            self._generation,
            self.kernel.hook_timeout if timeout is _DEFAULT else timeout,
        )
        subscription = Subscription(event, fn, priority=priority, owner=owner, timeout=limit)
        kind = hook_kind(event)
        if self.kernel.enable_hooks or owner.plugin.core:
            self.register(kind, event, subscription, priority=priority)
        return subscription

    def _decorate(self, event: str, priority: float, timeout: float | None, fn: Any) -> Any:
        self.hook(event, fn, priority, timeout)
        return fn

    def remove_hook(self, event: str, fn: Callable[..., Any]) -> bool:
        """Take away the plugin's subscriptions of a handler to an event; true if there was one."""
        found = [
            handle
            for handle in self._generation.handles.values()
            if isinstance(handle, Subscription) and (handle.event, handle.handler) == (event, fn)
        ]
        for handle in found:
            handle.cancel()
        return bool(found)

    def provide(self, name: str, value: object) -> Handle:
        """Offer a service under a name that nobody else has."""
        return self.register("service", name, value)

    def attach(self, name: str, factory: Callable[[Context], Any]) -> Handle:
        """Give every plugin's context a `.name`, made by `factory(context)` at first use.

        Raises:
            VekoError: The name is the kernel's own.
        """
        if name.startswith("_") or hasattr(Context, name) or name in ("name", "kernel", "app"):
            raise VekoError(
                f"context.{name} is the kernel's own",
                plugin=self.name,
                remedy="Attach under another name.",
            )
        return self.register("attach", name, factory)

    def add_kind(self, kind: Kind) -> Handle:
        """Give the registry a kind of entry that it did not have."""
        return self.register(KIND, kind.name, kind)

    def register(self, kind: str, key: Hashable, value: object, *, priority: float = 0) -> Handle:
        """Register an entry of any kind; see `Registrar.register`."""
        return self._generation.register(kind, key, value, priority)

    def spawn(self, fn: Callable[..., Any], *args: Any) -> Task:
        """Run a function as a task from when the plugin goes live until it unloads.

        A failure is reported. A task that has not ended when the plugin is switched off starts
        anew when it is switched on.
        """
        return self._spawn(functools.partial(fn, *args), fn)

    def every(self, seconds: float, fn: Callable[[], Any]) -> Task:
        """Call a function every so many seconds while the plugin is live.

        Raises:
            VekoError: `seconds` is not above 0.
        """
        if not seconds > 0:
            raise VekoError(f"every {seconds} s is never", plugin=self.name, remedy="Give seconds.")
        failed = functools.partial(self.kernel.failed, self._generation, fn)
        return self._spawn(functools.partial(repeat, seconds, fn, failed), fn)

    def _spawn(self, run: Callable[[], Any], fn: Callable[..., Any]) -> Task:
        generation = self._generation
        generation.check_open()
        report = functools.partial(self.kernel.failed, generation, fn)
        task = Task(self.kernel.root, run, report, None if generation.live else generation)
        generation.scope.add(task)
        if generation.live and not generation.open:
            task.start()
        return task

    # -- at once

    async def enter(self, manager: AbstractAsyncContextManager[_T]) -> _T:
        """Enter an async context manager; it is left when the plugin unloads or fails to load.

        It runs in a task of its own, so it may be left from anywhere, in any order.

        Raises:
            TransactionError: The plugin was unloaded.
            Exception: What entering it raised.
        """
        self._generation.check_open()
        failed = functools.partial(self.kernel.failed, self._generation, manager)
        value: _T = await self._generation.scope.enter(manager, failed)
        return value

    def emit(self, event: str, *args: Any) -> Awaitable[Any]:
        """Emit the plugin's own event `plugin:<name>:<event>`."""
        return self.kernel.bus.emit(f"plugin:{self.name}:{event}", *args)

    def use(self, name: str) -> Any:
        """Return a service; from then on this plugin depends on the one that provides it.

        Raises:
            ServiceError: Nobody provides it, or the plugin that does is switched off.
        """
        return self.kernel.use(name, by=self._generation)

    async def when(self, name: str) -> Any:
        """Wait until a service is there, and return it."""
        return await self.kernel.services.when(name, by=self._generation)

    def get_plugin(self, name: str) -> PluginRecord | None:
        """Return a loaded plugin of the application, or `None`."""
        record = self.kernel.get(name)
        new = self._generation.group.get(name)
        if record is not None and new is not None:  # in the reload that brings both
            record = copy.copy(record)
            record.plugin, record.current = new.plugin, new
        return record if record is not None and record.loaded and not record.core else None

    def list_plugins(self) -> list[PluginRecord]:
        """Return the loaded plugins of the application, in order of arrival."""
        return [r for r in self.kernel.records() if r.loaded and not r.core]

    async def update_config(self, changes: dict[str, Any]) -> Any:
        """Merge changes into the plugin's configuration.

        Returns:
            The new configuration.

        Raises:
            ConfigError: It was refused; the old one stays.
        """
        return await self.kernel.update_config(self.name, changes)

    def log(self, level: str, message: str, details: Any = None, **fields: Any) -> None:
        """Log: to the logger `veko.plugin.<name>`, and as the event `log`.

        Args:
            level: `debug`, `info`, `success`, `warning` or `error`.
            message: The message.
            details: Anything more.
            fields: More, by name.

        Raises:
            VekoError: There is no such level.
        """
        number = LEVELS.get(level)
        if number is None:
            raise VekoError(
                f"{level!r} is not a level", plugin=self.name, remedy=f"Use {', '.join(LEVELS)}."
            )
        record = LogRecord(level, message, details, datetime.now(UTC), self.name, fields)
        logger = logging.getLogger(f"veko.plugin.{self.name}")
        if logger.isEnabledFor(number):
            extra = {"plugin": self.name, "veko": record}
            logger.log(
                number, "%s", message if details is None else f"{message} {details}", extra=extra
            )
        self.kernel.post("log", record)

    def __getattr__(self, name: str) -> Any:
        version = self.kernel.registry.version  # the pinned one, in a pin
        known = self._attached.get(name)
        if known is not None and known[0] == version:
            return known[2]
        entry = (
            None
            if name.startswith("_")
            else self.kernel.services.find("attach", name, self._generation)
        )
        if entry is None:
            raise AttributeError(
                f"a context has no {name!r}: no plugin attaches it. Load the one that does first "
                f"(name it in `dependencies`)",
                name=name,
                obj=self,
            )
        value = known[2] if known is not None and known[1] is entry else entry.value(self)
        self._attached[name] = (version, entry, value)
        return value

    def _forget(self, names: Iterable[Hashable]) -> None:
        """Let go of what plugins had attached that are gone."""
        for name in names:
            self._attached.pop(name, None)

    def __dir__(self) -> list[str]:
        """Name what is attached, too, so that a misspelling gets a suggestion."""
        attached = (str(key) for key in self.kernel.registry.keys("attach"))
        return [*super().__dir__(), *attached]

    def __repr__(self) -> str:
        return f"<Context of {self.name}>"


EVENTS: Final = (
    Event("context:create", payload=Context, doc="A plugin's context was made. The context."),
    Event("log", payload=LogRecord, doc="A plugin logged something. The `LogRecord`."),
)
