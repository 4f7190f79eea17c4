"""Required plugins: while one of them is down, every request is refused with 503.

A plugin is required if its manifest says so, or the option `required` names it. Each generation of
it registers an entry, so whether it is up is part of the registry: the swap that takes its hooks
away also makes requests refused, and a request that is under way keeps what protects it. A plugin
that the option names is down until it is first loaded.

Cost: a lookup for each request; for other plugins nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from veko import Context, Origin, PluginRecord, State
from veko.extend import Draft, Kind

from .messages.problem import HTTPError

if TYPE_CHECKING:
    from veko import Kernel

__all__ = ["DOWN", "Required", "out_of_service"]

DOWN: Final = "required"
"""The view that holds the names of the required plugins that are down; also the kind of entry."""
_UP, _NO_LONGER, _ABSENT = "up", "no longer required", "absent"
_RETRY: Final = {"retry-after": "5"}
_CHANGES: Final = ("plugin:loaded", "plugin:unloaded", "plugin:activated", "plugin:deactivated")


class Required:
    """Which required plugins are down.

    Args:
        names: The plugins that the option `required` names.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        self._named = frozenset(names)
        self._known: set[str] = set()
        self._seen: set[str] = set()
        self._reported: frozenset[str] = frozenset()
        self._context: Context
        self._kernel: Kernel

    def load(self, context: Context) -> None:
        """Follow the plugins that are loaded from now on.

        Args:
            context: The context of the core plugin that refuses requests.
        """
        self._context, self._kernel = context, context.kernel
        context.add_kind(Kind(DOWN, accept=self._accept))
        for name in self._named:
            context.register(DOWN, name, _ABSENT)
        context.hook("context:create", self._mark, observe=True)
        context.hook("error:critical", self._failed, observe=True)
        for event in _CHANGES:
            context.hook(event, self._report, observe=True)

    def miss(self, names: Iterable[str]) -> None:
        """Note required plugins that were found and could not be loaded, not even in part."""
        for name in names:
            record = self._kernel.get(name)
            if record is None or not record.loaded:
                self._absent(name)
        self._report()

    def _mark(self, context: Context) -> None:
        """Register, for a generation that is about to load, that its plugin is required and up."""
        name = context.name
        if context.plugin.core:
            return
        if context.manifest.required or name in self._named:
            self._known.add(name)
            context.register(DOWN, name, _UP)
        elif name in self._known:
            context.register(DOWN, name, _NO_LONGER)

    @staticmethod
    async def _accept(draft: Draft) -> None:
        down: frozenset[str] = draft.before.view(DOWN) or frozenset()
        gone = {str(e.key) for e in draft.removed if e.kind == DOWN and e.value == _UP}
        values = {str(e.key): e.value for e in draft.added if e.kind == DOWN}
        up = {name for name, value in values.items() if value != _ABSENT}
        absent = {
            name
            for name, value in values.items()
            if value == _ABSENT and all(e.value != _UP for e in draft.after.all(DOWN, name))
        }
        draft.set_view(DOWN, (down | gone | absent) - up)

    def _failed(self, error: BaseException, origin: Origin) -> None:
        """Note a required plugin that failed to load while the application runs."""
        record = self._kernel.get(origin.plugin) if origin.plugin is not None else None
        if record is None or record.core or record.loaded or record.state is not State.FAILED:
            return
        if record.manifest.required or record.name in self._named:
            self._absent(record.name)
            self._report()

    def _absent(self, name: str) -> None:
        if name not in self._down():
            self._context.register(DOWN, name, _ABSENT)
        self._known.add(name)
        self._seen.add(name)

    def _down(self) -> frozenset[str]:
        return self._kernel.bus.registry.view(DOWN) or frozenset()

    def _report(self) -> None:
        """Log why requests are refused, and when they are served again; once each."""
        if self._kernel.root.closing:
            return
        registry = self._kernel.bus.live.registry
        down: frozenset[str] = registry.view(DOWN) or frozenset()
        self._seen |= {str(e.key) for e in registry.entries(DOWN) if e.value == _UP}
        down &= self._seen  # while the application starts, what was never up is merely not up yet
        for name in sorted(down - self._reported):
            why = _why(self._kernel.get(name))
            self._context.log(
                "error", f"requests are refused with 503: the required plugin {name} {why}"
            )
        if self._reported and not down:
            names = ", ".join(sorted(self._reported))
            self._context.log("info", f"requests are served again: {names} is up")
        self._reported = down


def out_of_service() -> HTTPError:
    """Return what refuses requests while a required plugin is down."""
    return HTTPError(503, "The service is not available at the moment.", headers=_RETRY)


def _why(record: PluginRecord | None) -> str:
    if record is None:
        return "is not loaded"
    if record.state is State.FAILED:
        return f"failed in {record.failed_step}: {record.error}"
    if record.state is State.INACTIVE:
        return "is switched off"
    return f"is {record.state}"
