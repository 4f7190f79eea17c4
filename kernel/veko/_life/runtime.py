"""The runtime: what every part of the life cycle stands on.

It holds the bus, the root that tasks run under, the known plugins and their dependencies, and the
time limits. `Kernel` is this with the verbs that change it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from .._bus.arguments import check_seconds, name_of_event
from .._bus.bus import Bus
from .._bus.limits import CLOSING_GRACE
from .._bus.pins import Pin
from .._bus.posts import Posts
from .._bus.registry import Registry
from .._bus.threads import check_thread, this_thread
from ..errors import DependencyError, LoadError, StateError
from .generation import Generation, PluginRecord
from .plugin import requirement_name
from .root import Root
from .states import State

__all__ = ["Runtime"]


class Runtime:
    """The parts of a kernel, and what can be asked of them."""

    def __init__(
        self,
        app: Any,
        *,
        timeout: float,
        drain_timeout: float,
        hook_timeout: float | None,
        enable_hooks: bool,
    ) -> None:
        check_seconds("timeout", timeout)
        check_seconds("drain_timeout", drain_timeout, zero=True)
        if hook_timeout is not None:
            check_seconds("hook_timeout", hook_timeout)
        self.app = app
        self.timeout = timeout
        self.drain_timeout = drain_timeout
        self.hook_timeout = hook_timeout
        self.enable_hooks = enable_hooks
        self.closing_by: float | None = None
        self.absent: dict[str, str] = {}
        self.bus = Bus()
        self.root: Root
        self._records: dict[str, PluginRecord] = {}
        self._needing: dict[str, dict[str, None]] = {}
        self._posts = Posts(self.bus)

    @property
    def registry(self) -> Registry:
        """The live registry; inside a pin, the pinned one."""
        return self.bus.pinned().registry

    def pin(self) -> Pin:
        """Keep one registry for everything awaited inside `with kernel.pin() as registry`."""
        return self.bus.pin()

    def pin_live(self) -> Pin:
        """Return a pin of what is live, even inside another pin."""
        return self.bus.pin_live()

    def left(self, seconds: float) -> float:
        """Return a time limit, or half of what is left until `closing_by` if that is less.

        So each step has a bound of its own, and there is time for those that follow, however many
        of them hang.
        """
        if self.closing_by is None:
            return seconds
        return max(0.0, min(seconds, (self.closing_by - time.monotonic()) / 2))

    @property
    def grace(self) -> float:
        """Seconds for which a call that has been cancelled may swallow that."""
        return self.left(CLOSING_GRACE)

    def get(self, name: str) -> PluginRecord | None:
        """Return a plugin's record, loaded or failed; `None` if no plugin of that name is known."""
        return self._records.get(name)

    def records(self) -> tuple[PluginRecord, ...]:
        """Return all known plugins, in order of arrival."""
        return tuple(sorted(self._records.values(), key=lambda record: record.rank))

    def forget(self, record: PluginRecord) -> None:
        """Drop the record of an unloaded plugin: it would keep the plugin's module alive."""
        self._records.pop(record.name, None)
        for name in record.needed:
            self._needing[name].pop(record.name, None)
            if not self._needing[name]:
                del self._needing[name]
        record.needed.clear()

    def _forget_all(self) -> None:
        self._records.clear()
        self._needing.clear()

    # -- dependencies between plugins: those that are declared, and the use of services

    def note_need(self, record: PluginRecord, *names: str) -> None:
        """Note that a plugin may need others: only those so noted are asked what they need.

        Each change of a plugin asks which others need it, so most must not be looked at.

        Args:
            record: The plugin.
            names: Those that it needs besides those that it declares.
        """
        for name in (*map(requirement_name, record.plugin.manifest.dependencies), *names):
            if name not in record.needed:
                record.needed.add(name)
                self._needing.setdefault(name, {})[record.name] = None

    def needs(self, record: PluginRecord) -> Collection[str]:
        """Return the names of the plugins that one declares to need, or was seen to need."""
        declared = record.plugin.manifest.dependencies
        uses = record.current.uses if record.current is not None else None
        if not declared and not uses:
            return ()
        names = [requirement_name(r) for r in declared]
        return names + [provider for provider, _ in uses.values()] if uses else names

    def uses(self, record: PluginRecord) -> Collection[str]:
        """Return the names of the plugins whose services one has used."""
        uses = record.current.uses if record.current is not None else None
        return [provider for provider, _ in uses.values()] if uses else ()

    def require(self, record: PluginRecord, names: Iterable[str]) -> None:
        """Raise unless the plugins that one needs are active.

        Args:
            record: The plugin that needs them.
            names: Their names.

        Raises:
            DependencyError: One of them is not.
        """
        for name in names:
            needed = self.get(name)
            if needed is None or not needed.active:
                state = needed.state if needed else "not loaded"
                raise DependencyError(
                    f"it needs the plugin {name!r}, which is {state}",
                    plugin=record.name,
                    path=record.source,
                    remedy=f"{'Switch' if needed and needed.loaded else 'Load'} {name} "
                    f"{'on ' if needed and needed.loaded else ''}first, or remove it from "
                    "`dependencies`.",
                )

    def dependents(
        self, name: str, *, off: bool = False, users: bool = False
    ) -> list[PluginRecord]:
        """Return the active plugins that need one, the last to arrive first.

        Args:
            name: The name of the plugin that is needed.
            off: Include plugins that are switched off.
            users: Leave out those that declare that they need it, but use none of its services.
        """
        needs = self.uses if users else self.needs
        noted = (self._records.get(one) for one in self._needing.get(name, ()))
        found = [
            r
            for r in noted
            if r is not None
            and (r.state is State.ACTIVE or (off and r.current is not None))
            and name in needs(r)
        ]
        return sorted(found, key=lambda record: record.rank, reverse=True)

    def from_the_top(
        self,
        record: PluginRecord,
        seen: list[PluginRecord],
        *,
        off: bool = False,
        users: bool = False,
    ) -> Iterator[PluginRecord]:
        """Yield the active plugins that need one, directly or not; each before those it needs.

        Plugins may use each other's services in a circle; each is yielded once.

        Args:
            record: The plugin that is needed.
            seen: The plugins not to yield; those that are yielded are added.
            off: Include plugins that are switched off.
            users: See `dependents`.
        """
        for dependent in self.dependents(record.name, off=off, users=users):
            if dependent not in seen:
                seen.append(dependent)
                yield from self.from_the_top(dependent, seen, off=off, users=users)
                yield dependent

    def group_of(self, record: PluginRecord) -> list[PluginRecord]:
        """Return a plugin and all that need it, on or off; each after those that it needs."""
        return [record, *reversed(list(self.from_the_top(record, [record], off=True)))]

    def refuse_if_needed(
        self,
        record: PluginRecord,
        verb: str,
        leaving: Collection[PluginRecord],
        *,
        users: bool = False,
    ) -> None:
        """Raise if active plugins need one, other than those that are leaving with it.

        Args:
            record: The plugin that is needed.
            verb: What is to be done to it.
            leaving: The plugins that are leaving.
            users: See `dependents`.

        Raises:
            DependencyError: Some do; the message names them.
        """
        needing = self.dependents(record.name, users=users)
        names = ", ".join(sorted(r.name for r in needing if r not in leaving))
        if names:
            raise DependencyError(
                f"cannot {verb} it: {names} need it",
                plugin=record.name,
                remedy=f"First {verb} {names}, or pass cascade=True.",
            )

    def check_fresh(self, generations: Iterable[Generation]) -> None:
        """Raise if a service that generations have used is no longer live.

        Raises:
            LoadError: The provider was replaced, switched off or unloaded since.
        """
        for generation in generations:
            for service, (name, used) in generation.uses.items():
                if name not in generation.group and not getattr(used(), "live", False):
                    raise LoadError(
                        f"it holds the service {service!r} of {name}, which was replaced or "
                        "has left since",
                        plugin=generation.name,
                        path=generation.plugin.source,
                        remedy="Load it again, or reload it.",
                    )

    @property
    def waiting(self) -> int:
        """The number of posted emissions that wait."""
        return self._posts.waiting

    def post(self, event: str, *args: Any) -> None:
        """Emit from where nothing can be awaited: soon, in order, in a task of the kernel.

        At most 10,000 wait; beyond that the oldest are dropped and the log reports how many.
        """
        self._posts.add(event if type(event) is str else name_of_event(event), *args)

    async def emit_posted(self) -> None:
        """Accept no more posts, and wait in bounded time until those that wait were emitted."""
        await self._posts.close(self.left(self.timeout))

    def check_open(self) -> None:
        """Raise unless the kernel runs.

        Raises:
            StateError: It was not entered yet, or has been left, or runs in another thread.
        """
        if this_thread() != self.bus.thread:
            check_thread(self.bus.thread)
        if not hasattr(self, "root") or self.root.closed:
            what = "closed" if hasattr(self, "root") else "not open yet"
            raise StateError(f"the kernel is {what}", remedy="Use it inside `async with Kernel()`.")

    def check_not_closing(self) -> None:
        """Raise unless plugins may still be loaded.

        Raises:
            StateError: The kernel is closing, or does not run.
        """
        self.check_open()
        if self.root.closing:
            raise StateError("the kernel is closing", remedy="Load plugins while it runs.")

    async def failed(self, generation: Generation, fn: object, error: BaseException) -> None:
        """Report a failure of a plugin's own task."""
        name = getattr(fn, "__qualname__", str(fn))
        await self.bus.report(error, owner=generation, handler=name)

    async def fault(
        self,
        error: BaseException,
        *,
        plugin: str | None = None,
        origin: Any = None,
        part: str | None = None,
        counted: bool = True,
        handler: str | None = None,
    ) -> None:
        """Report that a plugin's code failed outside a hook, in a route handler for instance.

        Args:
            error: What it raised.
            plugin: The plugin's name.
            origin: What was being worked on, such as the request.
            part: The part of the plugin that it counts against, such as a route; see `Origin`.
            counted: Whether it counts as a failure; not what followed when a client left, say.
            handler: The name of what failed; by default that of the function in the traceback.
        """
        record = self._records.get(plugin) if plugin is not None else None
        owner = record.current if record is not None and record.current else plugin
        await self.bus.report(
            error, owner=owner, handler=handler, subject=origin, part=part, counted=counted
        )
