"""Reload: a plugin, and those that need it, get their next generations in one swap, all or none.

The new ones are made in the order in which they need each other, and each sees what those before
it stage. In the swap the old ones hand over their state. If any step fails, nothing has happened.
Plugins whose manifest says `reload = "restart"`, and those that need them, are taken down first,
and are brought up again as they were if the new ones fail. Afterwards the old ones retire.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from types import ModuleType
from typing import Any, Final

from .._bus.limits import must_pass
from ..errors import DependencyError, LoadError, ManifestError, StateError, VekoError
from .config import as_config, configuring, merge_config
from .generation import Generation, PluginRecord
from .late import LateServices
from .locks import Afterwards, Operation, alone
from .member import Member
from .operations import Operations
from .plugin import Plugin, made_of, requirement_name
from .retirement import Retirement
from .states import State

__all__ = ["Dependents", "reload"]

ATTEMPTS: Final = 16
"""How often a reload begins again because others came to need the plugin."""

_Form = Plugin | type[Plugin] | Mapping[str, Any] | ModuleType
Dependents = Callable[[PluginRecord], Awaitable[_Form]] | Callable[[PluginRecord], _Form]


async def reload(
    operations: Operations,
    record: PluginRecord,
    plugin: Plugin,
    given: Any,
    dependents: Dependents | None,
    spare: frozenset[int],
) -> Retirement:
    """Replace a generation; see `Kernel.reload`.

    Returns:
        The retirement of what was replaced.
    """
    changed, outgrown = False, 0
    while True:
        group = operations.runtime.group_of(record)
        async with alone(operations.bus, "reload", *group) as afterwards:
            if record.current is None:
                raise StateError(
                    f"it is {record.state} and cannot be reloaded",
                    plugin=record.name,
                    remedy="Load it.",
                )
            if group != operations.runtime.group_of(record):
                # While this waited for the locks, others came to need it, or left
                # (test_who_comes_to_need_it_while_it_waits_reloads_too).
                continue
            members = [Member(one) for one in group]
            replacing = _Reload(operations, members, spare, afterwards)
            try:
                retirement = await replacing.run(plugin, given, dependents)
            except _Outgrown as error:
                outgrown += 1
                if outgrown < ATTEMPTS:
                    continue
                afterwards.report(record, error)
                raise
            before, changes = members[0].old.given, members[0].changes
            changed = merge_config(before, changes) != before
            break
    if changed and record.current is not None:
        await operations.bus.emit("config:change", record.config, record)
    return retirement


class _Outgrown(StateError):
    """Others came to need a plugin before the swap. The reload begins again, with them."""


class _Reload:
    """One reload, while the locks of its plugins are held.

    `_at` is the member whose step runs: errors that name no plugin are attributed to it.
    """

    def __init__(
        self,
        operations: Operations,
        members: Sequence[Member],
        spare: frozenset[int],
        afterwards: Afterwards,
    ) -> None:
        self._operations = operations
        self._root = operations.runtime.root
        self._commit = operations.transactions.commit
        self._late = LateServices(operations, members)
        self._members = members
        self._at = members[0]
        self._spare = spare
        self._afterwards = afterwards
        self._begin = time.perf_counter()

    async def run(self, plugin: Plugin, given: Any, dependents: Dependents | None) -> Retirement:
        """Do it, or leave everything as it was."""
        first, down = self._members[0], list[Member]()
        first.changes = as_config(given, first.record.name)
        try:
            first.plugin = plugin
            for member in self._members:
                self._at = member
                if member is not first and dependents is not None:
                    member.plugin = await _next(dependents, member.record)
                await self._operations.steps.ask("plugin:reload", member.record)
            down = self._exclusive()
            self._at = first
            if down:
                await self._take_down(down)
            before = await self._bring_up(self._members)
        except BaseException as error:
            if not must_pass(error) and not isinstance(error, _Outgrown):
                self._afterwards.report(self._blame(error), error)
            gone = [member for member in down if member.record.state is State.LOADING]
            if gone:
                await self._root.finish(self._bring_back, gone, error)
            if first.fault is not None and not must_pass(error):
                raise first.fault from error
            raise
        olds = [member.old for member in reversed(self._members)]
        retirement = Retirement(
            self._operations.runtime, self._operations.steps, olds, before, self._spare
        )
        retirement.start()
        for member in self._members:
            self._afterwards.announce(member.record, "plugin:loaded")
        return retirement

    def _blame(self, error: BaseException) -> PluginRecord:
        """Return the plugin that failed, and add to the error why that was reloaded."""
        first = self._members[0].record
        named = getattr(error, "plugin", None)
        at = next((m.record for m in self._members if m.record.name == named), self._at.record)
        at.locate(error)
        if at is not first:
            why = f"it was reloaded because it needs {first.name}, which was"
            if isinstance(error, VekoError):
                error.message += f"; {why}"
            else:
                error.add_note(f"{at.name}: {why}")
        return at

    def _exclusive(self) -> list[Member]:
        """Return the members that restart, and those that need them."""
        for member in self._members:
            manifests = member.old.plugin.manifest, member.plugin.manifest
            member.down = any(manifest.reload == "restart" for manifest in manifests)
        if not any(member.down for member in self._members):
            return []
        needs = self._operations.runtime.needs
        before, names = -1, set[str]()
        while before < len(names):  # again: one of a circle may need a later one
            before = len(names)
            for member in self._members:
                member.down = member.down or not names.isdisjoint(needs(member.record))
                names |= {member.record.name} if member.down else set()
        return [member for member in self._members if member.down]

    async def _take_down(self, down: Sequence[Member]) -> None:
        def leave() -> None:
            self._check_group()
            for member in down:
                self._at = member
                member.export()
            for member in down:
                member.old.live = False
                member.record.move(State.UNLOADING)

        before = await self._commit(
            down[0].old, remove=lambda: [e for m in down for e in m.old.entries], swapping=leave
        )
        olds = [member.old for member in reversed(down)]
        runtime, steps = self._operations.runtime, self._operations.steps
        retirement = Retirement(runtime, steps, olds, before, self._spare)
        await self._root.finish(self._inside, retirement.run)
        for member in down:
            member.record.move(State.UNLOADED)
            member.record.move(State.LOADING)

    async def _bring_up(self, members: Sequence[Member]) -> Any:
        """Make new generations and swap them in.

        Returns:
            The registry before the swap.
        """
        async with AsyncExitStack() as stack:
            # Nobody configures the old ones from here to the swap: the change would be lost
            # (test_a_change_of_configuration_waits_for_a_reload). While calls into those that
            # restart end, it is free: they may change it (test_a_call_may_configure_its_plugin).
            for member in members:
                await stack.enter_async_context(configuring(member.old))
            return await self._swap_in(members)

    async def _swap_in(self, members: Sequence[Member]) -> Any:
        operations, group = self._operations, dict[str, Generation]()
        names = {member.record.name for member in members}
        try:
            for member in members:
                self._at, record = member, member.record
                given = merge_config(member.old.given, member.changes)
                if member.active:
                    needed = map(requirement_name, member.plugin.manifest.dependencies)
                    others = [name for name in needed if name not in names]
                    operations.runtime.require(record, others)
                await self._late.wait_for(member)
                member.new = await operations.steps.make(record, member.plugin, given, group)
                group[record.name] = member.new
                if member.active:
                    await operations.steps.activate(member.new)
            self._check_services(members, group)
            for member in members:
                if not member.active:
                    await operations.steps.stop_ahead(group[member.record.name])
            self._at = members[0]
            before = await self._commit(
                group[members[0].record.name],
                remove=lambda: [e for m in members for e in m.old.entries],
                add=lambda: [e for m in members if m.active for e in group[m.record.name].entries],
                incoming=group.values(),
                swapping=lambda: self._swap(members, group),
            )
        except BaseException as error:
            await operations.steps.discard(error, *reversed(group.values()))
            raise
        for member in members:
            new = group[member.record.name]
            member.old.live = new.open = False
            if member.down:
                member.record.move(State.ACTIVE)
            if not member.active and member.record.state is not State.INACTIVE:
                member.record.move(State.INACTIVE)
            if member.active:
                new.go_live(self._begin)
        group.clear()
        return before

    def _swap(self, members: Sequence[Member], group: dict[str, Generation]) -> None:
        if members is self._members:  # not one that comes back as it was
            self._check_group()
        for member in members:
            self._at = member
            member.hand_over()
        for member in members:
            member.record.current = group[member.record.name]
            member.record.plugin = member.plugin
            self._operations.runtime.note_need(member.record)

    def _check_group(self) -> None:
        """Raise if others came to need one of the group: they would keep what is replaced.

        They did so since the locks were taken: a plugin has loaded meanwhile, or was the first time
        seen to use a service (test_what_comes_to_need_it_while_it_reloads_reloads_too).
        """
        known = {member.record for member in self._members}
        for record in self._operations.runtime.group_of(self._members[0].record):
            if record not in known:
                raise _Outgrown(
                    f"{record.name} came to need it while it was reloaded",
                    plugin=self._members[0].record.name,
                    remedy="Reload it again.",
                )

    def _check_services(self, members: Sequence[Member], group: dict[str, Generation]) -> None:
        """Refuse new versions without a service that others look up while they run.

        Plugins that look it up in `load()` have just done so (see `late`). For those that look it
        up later, what the old version provided once it was live, from a task for instance, is
        expected of the new one at that time too: until then `use` fails and `when` waits
        (test_a_late_provider_reloads_under_its_users).
        """
        provided = {e.key for new in group.values() for e in new.entries if e.kind == "service"}
        for member in members:
            lost = member.services - provided - member.old.provided_late
            for service in sorted(map(str, lost)):
                users = [m.record.name for m in members if service in m.old.late]
                if users:
                    raise DependencyError(
                        f"it no longer provides {service!r}, which {', '.join(users)} uses",
                        plugin=member.record.name,
                        path=member.plugin.source,
                        remedy="Provide it for as long as it is used, or unload its users first.",
                    )

    async def _inside(self, function: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Call a function inside the operation that this is, in another task."""
        records = (member.record for member in self._members)
        with Operation(*records, afterwards=self._afterwards):
            await function(*args)

    async def _bring_back(self, gone: Sequence[Member], error: BaseException) -> None:
        for member in gone:
            await self._inside(self._bring_one_back, member, error)

    async def _bring_one_back(self, member: Member, error: BaseException) -> None:
        """Bring a plugin up again as it was; if that fails too, it is `failed`."""
        afterwards = self._afterwards
        record, member.plugin, member.changes = member.record, member.old.plugin, {}
        try:
            await self._bring_up([member])
        except BaseException as second:
            if must_pass(second):
                raise
            both = LoadError(
                f"{error}. The version before does not come back either: {second}",
                step=getattr(second, "step", "load"),
                plugin=record.name,
                path=record.source,
                remedy="Load it again.",
            )
            both.__cause__ = second
            record.current = None
            record.fail(both.step, both)
            afterwards.report(record, both)
            afterwards.announce(record, "plugin:unloaded")
            afterwards.stopped(record, both)
            member.fault = both
        else:
            afterwards.announce(record, "plugin:loaded")


async def _next(dependents: Dependents, record: PluginRecord) -> Plugin:
    """Return the new version of a plugin that is reloaded because it needs another one."""
    answer: Any = dependents(record)
    form = await answer if inspect.isawaitable(answer) else answer
    try:
        plugin = made_of(form)
    except ManifestError as error:
        error.message = f"what `dependents` returned for it: {error.message}"
        raise
    if plugin.manifest.name != record.name:
        raise ManifestError(
            f"its name is {plugin.manifest.name!r} now",
            plugin=record.name,
            path=plugin.source,
            remedy="A generation has the name of the one before: unload that, and load this.",
        )
    return plugin
