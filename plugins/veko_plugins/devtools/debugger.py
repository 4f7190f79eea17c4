"""Looking into a loaded plugin, and switching it, from a console or a test: `debug_plugin`.

Cost: nothing until a method is called. Nothing is cached, so each call says what is true now.
Promise: what is returned is for reading; secrets of configurations are masked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from veko import Event, Kernel, NotFoundError, PluginRecord, Subscription

from .._lib.masking import masked_text, masked_value
from .._lib.secret_fields import masked
from ..options import Options
from ..reports import PluginInfo, info_of

if TYPE_CHECKING:
    from .._lib.leaks import Leak

__all__ = ["EVENTS", "Host", "PluginDebugger", "PluginInspection"]

DEV_DEBUG: Final = Event(
    "dev:debug",
    PluginRecord,
    doc="`debug_plugin(name).breakpoint(message)` was reached. Arguments: the plugin, the message.",
)
EVENTS: Final = (DEV_DEBUG,)


class Host(Protocol):
    """What a debugger asks: the manager."""

    kernel: Kernel
    options: Options

    @property
    def metrics(self) -> Any:
        """See `PluginManager.metrics`."""
        ...

    async def reload_plugin(
        self, name: str, config: Mapping[str, Any] | None = None
    ) -> PluginRecord:
        """See `PluginManager.reload_plugin`."""
        ...

    async def toggle_plugin(
        self, name: str, active: bool | None = None, *, cascade: bool = False
    ) -> bool:
        """See `PluginManager.toggle_plugin`."""
        ...


class PluginInspection(msgspec.Struct, frozen=True):
    """A plugin as `debug_plugin(name).inspect()` shows it.

    Attributes:
        info: What `list_plugins()` says of it.
        generation: The number of the generation that runs, from 1.
        retiring: How many replaced generations still have running calls.
        registered: The names of what it registered, by kind: hooks by event, routes, services.
        uses: The provider of each service that it uses.
        needed_by: The plugins that need it.
        last_error: Its last failure; `None` if its code has not failed.
    """

    info: PluginInfo
    generation: int
    retiring: int
    registered: dict[str, tuple[str, ...]]
    uses: dict[str, str]
    needed_by: tuple[str, ...]
    last_error: str | None


class PluginDebugger:
    """Looks into one plugin, and switches it; made by `PluginManager.debug_plugin`.

    Args:
        host: The manager.
        name: The plugin's name; after a reload, the new generation is looked into.
        find_leaks: Finds what keeps ended generations of a plugin in memory.
    """

    def __init__(
        self, host: Host, name: str, find_leaks: Callable[[str], Awaitable[Sequence[Leak]]]
    ) -> None:
        self.name = name
        self._host = host
        self._find_leaks = find_leaks

    def inspect(self) -> PluginInspection:
        """Return the plugin's state, what it registered, what it uses and what needs it.

        Raises:
            NotFoundError: It is not loaded any more; so do all methods but `leaks`.
        """
        record, kernel = self._record(), self._host.kernel
        current = record.current
        registered: dict[str, list[str]] = {}
        for entry in current.entries if current is not None else ():
            registered.setdefault(entry.kind, []).append(_title(entry.key))
        last = record.last_error
        return PluginInspection(
            info=info_of(kernel, record),
            generation=record.generation,
            retiring=len(record.retiring),
            registered={kind: tuple(names) for kind, names in registered.items()},
            uses={service: by for service, (by, _) in current.uses.items()} if current else {},
            needed_by=tuple(sorted(one.name for one in kernel.dependents(self.name))),
            last_error=None if last is None else masked_text(last),
        )

    def config(self) -> Any:
        """Return its configuration as plain data, without secrets.

        Masked is what `config_schema` marks as secret, what is named like a secret, and passwords
        in URLs.
        """
        record = self._record()
        return masked_value(masked(record.config, record.manifest.config_schema))

    def metrics(self) -> Any:
        """Return its calls, latency and memory: a `PluginMetrics`.

        Raises:
            ServiceError: Nothing is measured; see `PluginManager.metrics`.
        """
        self._record()
        return self._host.metrics.get(self.name)

    def hooks(self) -> dict[str, tuple[Subscription, ...]]:
        """Return its subscriptions by event or pattern, the highest priority first."""
        current = self._record().current
        found: dict[str, list[Subscription]] = {}
        for entry in current.entries if current is not None else ():
            if isinstance(entry.value, Subscription):
                found.setdefault(str(entry.key), []).append(entry.value)
        return {
            event: tuple(sorted(hooks, key=lambda one: -one.priority))
            for event, hooks in found.items()
        }

    async def reload(self, config: Mapping[str, Any] | None = None) -> PluginRecord:
        """Reload it; see `PluginManager.reload_plugin`."""
        return await self._host.reload_plugin(self.name, config)

    async def toggle(self, active: bool | None = None, *, cascade: bool = False) -> bool:
        """Switch it on or off; see `PluginManager.toggle_plugin`."""
        self._record()
        return await self._host.toggle_plugin(self.name, active, cascade=cascade)

    async def leaks(self) -> list[Leak]:
        """Return what keeps ended generations of it in memory, with the path of references.

        The plugin may be unloaded meanwhile. It takes one garbage collection and some passes over
        all objects, during which the event loop waits.

        Raises:
            ServiceError: The core plugin `testing` is left out.
        """
        return list(await self._find_leaks(self.name))

    async def breakpoint(self, message: str = "") -> None:
        """Emit `dev:debug`; then, with `dev_mode`, stop in Python's debugger.

        The debugger is that of Python's `breakpoint()`, which `PYTHONBREAKPOINT` chooses. It is
        left out if nobody can use it: without `dev_mode`, and where neither a terminal is the
        standard input nor another debugger is set. The event loop stands still until it continues.

        Args:
            message: The second argument of the event.
        """
        record = self._record()
        await self._host.kernel.bus.emit(DEV_DEBUG.name, record, message)
        if self._host.options.dev_mode and _has_debugger():
            sys.breakpointhook()

    def _record(self) -> PluginRecord:
        record = self._host.kernel.get(self.name)
        if record is None or not record.loaded:
            raise NotFoundError(
                f"no plugin named {self.name!r} is loaded any more",
                plugin=self.name,
                remedy="Load it again; only leaks() needs no loaded plugin.",
            )
        return record

    def __repr__(self) -> str:
        return f"<PluginDebugger of {self.name}>"


def _title(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _has_debugger() -> bool:
    """Return whether a debugger is set, or Python's own could be used at a terminal."""
    is_set = sys.breakpointhook is not sys.__breakpointhook__
    return is_set or "PYTHONBREAKPOINT" in os.environ or sys.stdin.isatty()
