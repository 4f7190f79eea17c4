"""What plugins were before a change, and how they become that again.

Undoing is one thing for all verbs: bring each plugin that was touched back to the state, the code,
the configuration and the override that it had. What undoing changes is kept in the same way, so it
can be undone, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from veko import PluginRecord, StateError

from .._saved.overrides import NOTHING, Override
from .._saved.plugins import Exactly
from .configs import changed_paths, given_of_record
from .documents import Plan, Step, Touched
from .listing import Lines, difference_of, lines_of
from .rows import plugin_service

if TYPE_CHECKING:
    from veko import Context

__all__ = ["Past", "Was"]


class Was(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin at one moment.

    Attributes:
        name: Its name.
        loaded: Whether it was loaded.
        active: Whether it was on.
        version: Its version.
        origin: What it was loaded from.
        given: Its configuration without the defaults, secrets included: it never leaves memory.
        code: What it ran on; `None` if it came from no file.
        generation: Which generation it was.
        override: What differed from the settings.
        lines: What it had registered.
    """

    name: str
    loaded: bool = False
    active: bool = False
    version: str = ""
    origin: Any = None
    given: dict[str, Any] = {}
    code: Any = None
    generation: int = 0
    override: Override = NOTHING
    lines: Lines = Lines()


class Past:
    """Takes note of what plugins are, and makes them that again.

    Args:
        context: The context of the core plugin `admin`.
    """

    def __init__(self, context: Context) -> None:
        self._kernel = context.kernel

    def of(self, names: Iterable[str], *, code: bool = False) -> tuple[Was, ...]:
        """Return what plugins are now, each after those that it needs.

        Args:
            names: Their names.
            code: Whether to keep what they run on.
        """
        order = {record.name: index for index, record in enumerate(self._in_order())}
        unique = sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))
        return tuple(self._of(name, code=code) for name in unique)

    def _in_order(self) -> list[PluginRecord]:
        """Return all plugins, each after those that it needs."""
        found: dict[str, PluginRecord] = {}

        def add(record: PluginRecord, above: frozenset[str]) -> None:
            for name in self._kernel.needs(record):
                needed = self._kernel.get(name)
                if needed is not None and name not in above and name not in found:
                    add(needed, above | {name})
            found[record.name] = record

        for record in self._kernel.records():
            if record.name not in found:
                add(record, frozenset({record.name}))
        return list(found.values())

    def _of(self, name: str, *, code: bool) -> Was:
        record = self._kernel.get(name)
        override = self._override(name)
        if record is None or not record.loaded:
            return Was(name=name, override=override)
        loading = self._loading()
        origin = loading.origin(name)
        return Was(
            name=name,
            loaded=True,
            active=record.active,
            version=record.version,
            origin=record.plugin if origin is None else origin,
            given=given_of_record(record),
            code=loading.snapshot(name) if code else None,
            generation=record.generation,
            override=override,
            lines=lines_of([record]),
        )

    def plan(self, past: Sequence[Was], target: str) -> Plan:
        """Return what making plugins again what they were would do."""
        touched: list[Touched] = []
        before, after = Lines(), Lines()
        changes: list[str] = []
        for was in past:
            record = self._kernel.get(was.name)
            loaded = record is not None and record.loaded
            now_active = record is not None and record.active
            if record is not None and now_active:
                before = before.union(lines_of([record]))
            if was.active:
                after = after.union(was.lines)
            if loaded and not was.loaded:
                touched.append(Touched(name=was.name, step="unload"))
                continue
            if was.loaded and not loaded:
                touched.append(Touched(name=was.name, step="load", version=was.version))
                continue
            if record is None or not was.loaded:
                continue
            if self._other_code(record, was):
                touched.append(Touched(name=was.name, step="reload", version=was.version))
            paths = changed_paths(given_of_record(record), was.given)
            if paths:
                touched.append(Touched(name=was.name, step="configure", version=was.version))
                changes += paths
            if was.active != now_active:
                step: Step = "activate" if was.active else "deactivate"
                touched.append(Touched(name=was.name, step=step, version=was.version))
        lines: dict[str, Any] = dict(difference_of(before, after))
        return Plan(
            verb="undo",
            target=target,
            plugins=tuple(touched),
            changes=tuple(changes),
            **lines,
        )

    async def restore(self, past: Sequence[Was]) -> None:
        """Make plugins again what they were.

        Args:
            past: What they were, each after those that it needs.

        Raises:
            VekoError: A step failed; those before it are done.
        """
        kernel, loading = self._kernel, self._loading()
        for was in reversed(past):
            record = kernel.get(was.name)
            if record is not None and record.loaded and not was.loaded:
                await kernel.unload(was.name)
        for was in past:
            record = kernel.get(was.name)
            if not was.loaded:
                continue
            if record is None or not record.loaded:
                await loading.load_plugin(was.origin, Exactly(was.given))
                continue
            if self._other_code(record, was):
                await self._go_back(record, was)
            if changed_paths(given_of_record(record), was.given):
                await kernel.update_config(was.name, was.given, exactly=True)
        for was in reversed(past):
            record = kernel.get(was.name)
            if record is not None and record.active and was.loaded and not was.active:
                await kernel.toggle(was.name, False)
        for was in past:
            record = kernel.get(was.name)
            if record is not None and record.loaded and was.active and not record.active:
                await kernel.toggle(was.name, True)
        overrides = self._overrides()
        for was in past:
            if overrides is not None:
                overrides.put(was.name, was.override)

    async def _go_back(self, record: PluginRecord, was: Was) -> None:
        generation = record.current
        assert generation is not None
        before, generation.given = generation.given, {}  # it would be merged under the former
        try:
            await self._loading().go_back(was.name, was.code)
        except BaseException:
            generation.given = before
            raise

    def _other_code(self, record: PluginRecord, was: Was) -> bool:
        """Return whether a plugin runs on other code than it did."""
        if was.code is None or record.generation == was.generation:
            return False
        return bool(self._loading().content(record.name) != was.code.content)

    def _override(self, name: str) -> Override:
        overrides = self._overrides()
        return NOTHING if overrides is None else overrides.of(name)

    def _overrides(self) -> Any:
        return getattr(plugin_service(self._kernel, "config"), "overrides", None)

    def _loading(self) -> Any:
        found = plugin_service(self._kernel, "loading")
        if found is None:
            raise StateError(
                "the core plugin 'loading' is left out", remedy="Take it out of `core`."
            )
        return found
