"""The runtime: what every part of the life cycle stands on.

The bus, the root that tasks run under, the plugins that are known and who of them needs whom, the
limits of time. `Kernel` is this with the verbs that change it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from .._bus.bus import Bus
from .._bus.pins import Pin
from .._bus.posts import Posts
from .._bus.registry import Registry
from ..errors import DependencyError, StateError
from .generation import Generation, PluginRecord
from .scope import Root

__all__ = ["Runtime"]


class Runtime:
    """The parts of a kernel, and looking at them."""

    def __init__(
        self,
        app: Any,
        *,
        timeout: float,
        drain_timeout: float,
        hook_timeout: float | None,
        enable_hooks: bool,
    ) -> None:
        self.app = app
        self.timeout = timeout
        self.drain_timeout = drain_timeout
        self.hook_timeout = hook_timeout
        self.enable_hooks = enable_hooks
        self.bus = Bus()
        self.root: Root
        self._records: dict[str, PluginRecord] = {}
        self._posts = Posts(self.bus)

    @property
    def registry(self) -> Registry:
        """What is live: in a pin, the registry that is pinned."""
        return self.bus.pinned().registry

    def pin(self) -> Pin:
        """Keep one registry for all that is awaited inside `with kernel.pin() as registry`."""
        return self.bus.pin()

    def get(self, name: str) -> PluginRecord | None:
        """Return what is known of a plugin: loaded, or why not; `None` if it is not here."""
        return self._records.get(name)

    def records(self) -> tuple[PluginRecord, ...]:
        """Return all known plugins, in order of arrival."""
        return tuple(sorted(self._records.values(), key=lambda record: record.rank))

    def forget(self, record: PluginRecord) -> None:
        """Drop the record of a plugin that is unloaded: it would keep the plugin's module."""
        self._records.pop(record.name, None)

    # -- who needs whom: what is named in `dependencies`, and whose services were used

    def dependents(self, name: str, *, off: bool = False) -> list[PluginRecord]:
        """Return the active plugins that need one, the last to arrive first; also those `off`."""
        return [
            r
            for r in reversed(self.records())
            if (r.active or (off and r.loaded)) and name in r.needs()
        ]

    def from_the_top(
        self, record: PluginRecord, seen: list[PluginRecord], *, off: bool = False
    ) -> Iterator[PluginRecord]:
        """Give the active plugins that need one, and those `off`, those that nobody needs first.

        Plugins may use each other's services in a circle: each comes once.
        """
        for dependent in self.dependents(record.name, off=off):
            if dependent not in seen:
                seen.append(dependent)
                yield from self.from_the_top(dependent, seen, off=off)
                yield dependent

    def refuse_if_needed(
        self, record: PluginRecord, verb: str, leaving: Collection[PluginRecord]
    ) -> None:
        """Refuse what active plugins that are not leaving would not survive.

        Raises:
            DependencyError: Some need it; the message names them.
        """
        users = sorted(r.name for r in self.dependents(record.name) if r not in leaving)
        if users:
            names = ", ".join(users)
            raise DependencyError(
                f"cannot {verb} it: {names} need it",
                plugin=record.name,
                remedy=f"Do it to {names} first, or give cascade=True.",
            )

    @property
    def waiting(self) -> int:
        """How many posted emissions wait."""
        return self._posts.waiting

    def post(self, event: str, *args: Any) -> None:
        """Emit from where nothing can be awaited: soon, in order, in a task of the kernel.

        Past 10,000 that wait, the oldest are dropped, and the log says how many.
        """
        self._posts.add(event, *args)

    def check_open(self) -> None:
        """Raise unless the kernel runs.

        Raises:
            StateError: It is not entered yet, or left already.
        """
        if not hasattr(self, "root") or self.root.closed:
            what = "closed" if hasattr(self, "root") else "not open yet"
            raise StateError(f"the kernel is {what}", remedy="Use it inside `async with Kernel()`.")

    def check_not_closing(self) -> None:
        """Raise unless plugins may still come.

        Raises:
            StateError: The kernel is closing, or does not run.
        """
        self.check_open()
        if self.root.closing:
            raise StateError("the kernel is closing", remedy="Do it before, or in its next run.")

    async def failed(self, generation: Generation, fn: object, error: BaseException) -> None:
        """Report a failure of a plugin's own task."""
        name = getattr(fn, "__qualname__", str(fn))
        await self.bus.report(error, owner=generation, handler=name)

    async def fault(
        self, error: BaseException, *, plugin: str | None = None, origin: Any = None
    ) -> None:
        """Report that a plugin's code failed outside a hook: in a route handler, say.

        Args:
            error: What it raised.
            plugin: The plugin's name.
            origin: What was being worked on.
        """
        record = self._records.get(plugin) if plugin is not None else None
        owner = record.current if record is not None and record.current else plugin
        await self.bus.report(error, owner=owner, subject=origin)
