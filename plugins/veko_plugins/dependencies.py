"""Dependencies: the order in which plugins load, and which cannot load and why.

`plan()` makes a `Plan` of manifests. A concurrent loader asks it repeatedly which plugins may start
now: a plugin starts as soon as what it needs is loaded, plugins of equal priority side by side,
those of lower priority after them. A plugin that needs one that is missing, in a circle or failed
is skipped, with the chain of reasons down to that one.

Cost: linear in plugins and requirements (graphlib), and one more pass for each circle. `ready()`
looks only at plugins that may start.
Promise: every plugin ends in exactly one of done, failed, faults and skipped. The order is the same
for the same plugins, in whatever order they are given.
"""

from __future__ import annotations

import functools
import heapq
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import version as distribution_version
from typing import Final, NamedTuple, Protocol, cast

import msgspec

from veko import ConflictError, Context, DependencyError, Plugin, State
from veko.errors import Fault

from ._lib.versions import Requirement, did_you_mean, satisfies, valid_range

__all__ = [
    "Absent",
    "Dependencies",
    "Describes",
    "Plan",
    "Requirement",
    "Skipped",
    "engine_faults",
    "plan",
]


_REMEDY: Final = "Add what is missing, or fix its `dependencies`."


class Describes(Protocol):
    """The part of a manifest that the order depends on; `veko.Manifest` has it."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def dependencies(self) -> Sequence[str]: ...
    @property
    def priority(self) -> float: ...


class Skipped(msgspec.Struct, frozen=True):
    """Why a plugin was not loaded though nothing is wrong with it.

    Attributes:
        chain: From the plugin that it needs to the one that failed, each needing the next.
        reason: What is wrong with the last one.
    """

    chain: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"needs {', which needs '.join(map(repr, self.chain))}, which {self.reason}"


class Absent(NamedTuple):
    """Why a plugin that exists cannot be used.

    Attributes:
        reason: Its state: `is switched off`.
        remedy: What to do.
    """

    reason: str
    remedy: str


class Plan:
    """Which plugins may load when. Made by `plan()` for one loader.

    Attributes:
        faults: What is wrong with the graph itself, by plugin: circles, missing plugins, versions.
        skipped: The plugins that are not loaded because of another one; grows with `failed()`.
    """

    def __init__(
        self,
        nodes: Mapping[str, Describes],
        needs: Mapping[str, tuple[str, ...]],
        faults: Mapping[str, DependencyError],
        reasons: Mapping[str, str],
    ) -> None:
        self.faults = dict(faults)
        self.skipped: dict[str, Skipped] = {}
        # NaN cannot be ordered; loading the plugin raises the error.
        self._priority = {
            name: 0.0 if math.isnan(node.priority) else node.priority
            for name, node in nodes.items()
        }
        self._needed_by: dict[str, list[str]] = {}
        for name in sorted(needs):
            for other in needs[name]:
                self._needed_by.setdefault(other, []).append(name)
        for name, reason in reasons.items():
            self._skip_dependents(name, reason)
        self._needs = {
            name: others
            for name, others in needs.items()
            if name not in faults and name not in self.skipped
        }
        self._sorter = self._prepared()
        self._waiting: list[tuple[float, str]] = []
        self._running: dict[str, float] = {}

    @functools.cached_property
    def order(self) -> tuple[str, ...]:
        """All plugins that can load, in the order of a loader that loads one at a time."""
        return tuple(self._one_by_one())

    def ready(self) -> list[str]:
        """Return the plugins that may start now, and count them as started.

        They have the highest priority among all that could start; there are none while a plugin of
        higher priority is loading. If the list is empty while something is loading, ask again after
        `done` or `failed`; otherwise the plan is finished.
        """
        self._collect()
        floor = max(self._running.values(), default=float("-inf"))
        started: list[str] = []
        while self._waiting and -self._waiting[0][0] >= floor:
            key, name = heapq.heappop(self._waiting)
            floor = -key
            self._running[name] = floor
            started.append(name)
        return started

    def done(self, name: str) -> None:
        """Note that a plugin returned by `ready()` is loaded."""
        del self._running[name]
        self._sorter.done(name)

    def failed(self, name: str, reason: str = "failed to load") -> list[str]:
        """Note that a plugin returned by `ready()` failed to load.

        Args:
            name: The plugin.
            reason: The `Skipped.reason` of the plugins that need it.

        Returns:
            The plugins that are skipped because of it, and were not before.
        """
        del self._running[name]
        self._sorter.done(name)
        return self._skip_dependents(name, reason)

    @property
    def finished(self) -> bool:
        """Whether nothing is loading and nothing is left to start."""
        self._collect()
        return not self._waiting and not self._running

    def _collect(self) -> None:
        while new := self._sorter.get_ready():
            for name in new:
                if name in self.skipped:
                    self._sorter.done(name)
                else:
                    heapq.heappush(self._waiting, (-self._priority[name], name))

    def _skip_dependents(self, failed: str, reason: str) -> list[str]:
        chains: dict[str, tuple[str, ...]] = {failed: (failed,)}
        skipped: list[str] = []
        pending = [failed]
        for current in pending:  # breadth first: the shortest chain is the one shown
            for name in self._needed_by.get(current, ()):
                if name in chains or name in self.skipped or name in self.faults:
                    continue
                self.skipped[name] = Skipped(chains[current], reason)
                chains[name] = (name, *chains[current])
                skipped.append(name)
                pending.append(name)
        return skipped

    def _prepared(self) -> TopologicalSorter[str]:
        sorter: TopologicalSorter[str] = TopologicalSorter(self._needs)
        sorter.prepare()
        return sorter

    def _one_by_one(self) -> Iterator[str]:
        sorter = self._prepared()
        heap: list[tuple[float, str]] = []
        while sorter.is_active():
            for name in sorter.get_ready():
                heapq.heappush(heap, (-self._priority[name], name))
            _, name = heapq.heappop(heap)
            yield name
            sorter.done(name)


def plan(
    manifests: Iterable[Describes],
    active: Mapping[str, str] | None = None,
    *,
    failed: Mapping[str, str] | None = None,
    known: Iterable[str] = (),
    absent: Callable[[str], Absent | None] = lambda name: None,
) -> Plan:
    """Put plugins in order, and find those that cannot load.

    Args:
        manifests: The plugins to load.
        active: Version by name of the plugins that are active already.
        failed: Plugins that failed before (a syntax error, for example): the `Skipped.reason` of
            those that need them, by name.
        known: More names that exist, to suggest when one is missing.
        absent: Returns why a plugin that is needed is neither active nor among `manifests`; `None`
            if there is no such plugin.

    Returns:
        The plan, with `faults` and `skipped` as far as they follow from the graph.

    Raises:
        ConflictError: Two manifests have one name.
    """
    nodes: dict[str, Describes] = {}
    for manifest in manifests:
        if nodes.setdefault(manifest.name, manifest) is not manifest:
            raise ConflictError(
                f"two plugins are named {manifest.name!r}",
                plugin=manifest.name,
                remedy="Rename one of the two.",
            )
    there = dict(active or {})
    there.update((name, node.version) for name, node in nodes.items())
    reasons = {name: why for name, why in (failed or {}).items() if name not in there}
    needs: dict[str, tuple[str, ...]] = {}
    faults: dict[str, DependencyError] = {}
    for name, node in nodes.items():
        wanted: list[str] = []
        problems: list[str] = []
        remedies: list[str] = []
        for text in node.dependencies:
            try:
                requirement = Requirement.parse(text)
                lost = requirement.name in (failed or {}) and requirement.name not in there
                problem, remedy = ("", "") if lost else _unmet(requirement, there, known, absent)
            except ValueError as error:
                problems.append(str(error))
                continue
            if problem:
                problems.append(problem)
                remedies.append(remedy)
            elif lost or requirement.name in nodes:
                wanted.append(requirement.name)
        needs[name] = tuple(dict.fromkeys(wanted))
        if problems:
            reasons[name] = f"cannot load: {'; '.join(problems)}"
            faults[name] = DependencyError(
                f"plugin {name!r} needs what is not there: {'; '.join(problems)}",
                plugin=name,
                remedy=" ".join(dict.fromkeys(remedies)) or "Fix its `dependencies`.",
            )
    for circle in _circles(needs, faults):
        shown = " -> ".join(circle)
        for name in circle[:-1]:
            reasons[name] = f"is in a circle: {shown}"
            faults[name] = DependencyError(
                f"dependencies run in a circle: {shown}",
                plugin=name,
                remedy="Remove one of the dependencies, or look the plugin up when it is used.",
            )
    return Plan(nodes, needs, faults, reasons)


def _unmet(
    requirement: Requirement,
    there: Mapping[str, str],
    known: Iterable[str],
    absent: Callable[[str], Absent | None],
) -> tuple[str, str]:
    """Return what is wrong with a requirement, and what to do; two empty texts if it is met."""
    name, version = requirement.name, there.get(requirement.name)
    if version is not None:
        if requirement.accepts(version):
            return "", ""
        return f"{requirement} is wanted, {name!r} is {version}", _REMEDY
    why = absent(name)
    if why is not None:
        return f"{name!r} {why.reason}", why.remedy
    known = {*there, *known}
    if name in known:
        return f"{name!r} is not loaded", f"Load {name} first."
    near = did_you_mean(name, known)
    return f"{name!r} is missing" + (f" ({near})" if near else ""), _REMEDY


def _circles(
    needs: Mapping[str, tuple[str, ...]], faults: Mapping[str, DependencyError]
) -> Iterator[list[str]]:
    """Yield circles until none is left: each `[a, b, a]`, "needs" from left to right."""
    left = {name: needs[name] for name in sorted(needs) if name not in faults}
    while True:
        try:
            # Plugins that are not in `left` are leaves here, so removing one breaks its circle.
            TopologicalSorter(left).prepare()
        except CycleError as error:
            found = cast(list[str], error.args[1])[
                :0:-1
            ]  # "is needed by"; the first one comes twice
            start = found.index(min(found))
            circle = [*found[start:], *found[:start]]
            for name in circle:
                del left[name]
            yield [*circle, circle[0]]
        else:
            return


def engine_faults(engines: Mapping[str, str], versions: Mapping[str, str]) -> list[Fault]:
    """Return a fault for each engine that does not meet a plugin's `engines`.

    Args:
        engines: Range by engine, PEP 440 or npm.
        versions: Version by engine, of those that are here; a missing engine is a fault too.
    """
    faults: list[Fault] = []
    for engine, range_ in engines.items():
        if not valid_range(range_):
            message = f"{range_!r} is neither a PEP 440 nor an npm range"
        elif engine == "node" and engine not in versions:
            message = f"{range_} is wanted, and there is no JavaScript runtime here"
        elif engine not in versions:
            near = did_you_mean(engine, versions)
            message = f"there is no such engine. {near}".rstrip(" ")
        elif not satisfies(versions[engine], range_):
            message = f"{range_} is wanted, this is {versions[engine]}"
        else:
            continue
        faults.append(Fault(f"engines.{engine}", message))
    return faults


class Dependencies(Plugin):
    """The service `dependencies`: plans, requirements and engines.

    A plugin that provides a service `engine:<name>` sets the version of that engine (`engine:node`
    is that of a JavaScript runtime).

    Args:
        engines: Version by engine; those of the running Python and Veko if left out.
    """

    name = "dependencies"
    version = "2.0.0"
    description = "The order in which plugins load, by what they need and by priority."
    core = True

    def __init__(self, engines: Mapping[str, str] | None = None) -> None:
        self._engines = dict(engines) if engines is not None else _engines()
        self._context: Context | None = None

    def load(self, context: Context) -> None:
        """Provide the service."""
        self._context = context
        context.provide("dependencies", self)

    @property
    def engine_versions(self) -> dict[str, str]:
        """The version of each engine that is here."""
        versions = dict(self._engines)
        for entry in self._context.kernel.registry.entries("service") if self._context else ():
            prefix, _, engine = str(entry.key).partition(":")
            if prefix == "engine" and engine:
                versions[engine] = str(entry.value)
        return versions

    def plan(
        self,
        manifests: Iterable[Describes],
        active: Mapping[str, str] | None = None,
        *,
        failed: Mapping[str, str] | None = None,
        known: Iterable[str] = (),
    ) -> Plan:
        """See `plan`; plugins that are off, have failed or are not loaded are named as such."""
        return plan(manifests, active, failed=failed, known=known, absent=self._why_absent())

    def _why_absent(self) -> Callable[[str], Absent | None]:
        """Return a function that tells why a plugin is not active; the folders are read once."""
        if self._context is None:
            return lambda name: None
        kernel = self._context.kernel

        @functools.cache
        def found() -> dict[str, str]:
            discovery = kernel.registry.get("service", "discovery")
            if discovery is None:
                return {}
            scanned = discovery.value.scan()
            return {one.name: str(one) for one in reversed(scanned.sources)} | {
                one.name: str(one.path) for one in scanned.problems if one.path is not None
            }

        def absent(name: str) -> Absent | None:
            record = kernel.get(name)
            if record is not None and record.state is State.INACTIVE:
                return Absent("is switched off", f"Switch {name} on first.")
            if record is not None and record.state is State.FAILED:
                return Absent(f"has failed: {record.error}", f"Fix {name} first.")
            where = found().get(name)
            if where is None:
                return None
            return Absent(f"is not loaded; it is in {where}", f"Load {name} first.")

        return absent

    def parse(self, requirement: str) -> Requirement:
        """Parse a requirement; see `Requirement.parse`."""
        return Requirement.parse(requirement)

    def engine_faults(
        self, engines: Mapping[str, str], runtime: Mapping[str, str] | None = None
    ) -> list[Fault]:
        """Return a fault for each of `engines` that neither this process nor a runtime meets."""
        return engine_faults(engines, {**self.engine_versions, **(runtime or {})})


def _engines() -> dict[str, str]:
    return {"python": platform.python_version(), "veko": distribution_version("veko")}
