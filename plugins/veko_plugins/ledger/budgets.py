"""Budgets: how much of a resource a plugin may use; `[plugins.x.budget]` in the settings.

Promise: a budget that cannot be read, or that nothing measures, refuses the plugin: it is never
silently ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, cast

import msgspec

from veko import ConfigError
from veko.errors import Fault

from .._lib.config_schemas import convert_config
from .._lib.window import SlidingWindow
from ..reports import Budget
from .events import Resource

__all__ = ["Excess", "Meter", "budget_of"]

_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)?\s*", re.IGNORECASE)
_UNITS: Final = {"": 1.0, "b": 1.0} | {
    f"{letter}{i}b": (1024.0 if i else 1000.0) ** power
    for power, letter in enumerate("kmgt", 1)
    for i in ("", "i")
}


def _bytes(size: float | str | None) -> float | None:
    if not isinstance(size, str):
        return size
    found = _SIZE.fullmatch(size)
    if found is None:
        raise ValueError(size)
    number, unit = found.groups(default="")
    return float(number) * _UNITS[unit.lower()]


def budget_of(plugin: str, section: object, impossible: Mapping[str, str]) -> Budget:
    """Check a budget and convert it.

    Args:
        plugin: The plugin's name.
        section: What the settings say.
        impossible: Why a resource, or `off`, has no effect here, by its name.

    Raises:
        ConfigError: The budget is not valid, limits nothing, or limits what nothing measures; all
            faults are listed.
    """
    converted, faults = convert_config(section, Budget, plugin)
    budget = cast("Budget", converted)
    faults = faults or list(_faults(budget, impossible))
    if faults:
        raise ConfigError(
            f"the budget of {plugin!r} is not valid",
            faults=faults,
            plugin=plugin,
            remedy=f"Fix [plugins.{plugin}.budget]; "
            "its fields are those of veko_plugins.ledger.Budget.",
        )
    return budget


def _faults(budget: Budget, impossible: Mapping[str, str]) -> Iterator[Fault]:
    resources: tuple[Resource, ...] = ("cpu", "blocked", "memory")
    limited = [one for one in resources if getattr(budget, one) is not None]
    if not limited:
        yield Fault("", "it limits nothing; give at least one of cpu, blocked, memory")
    if budget.blocked is not None and budget.blocked > budget.window:
        yield Fault("blocked", f"expected at most the window, {budget.window:g} s")
    try:
        size = _bytes(budget.memory)
    except ValueError:
        yield Fault("memory", f"expected bytes, as a number or as '64 MiB', got {budget.memory!r}")
    else:
        if size is not None and size < 1:
            yield Fault("memory", "expected at least 1 byte")
    for one in limited:
        if one in impossible:
            yield Fault(one, impossible[one])
    if budget.then in impossible:
        yield Fault("then", impossible[budget.then])


class Excess(msgspec.Struct, frozen=True):
    """A resource of which a plugin uses too much.

    Attributes:
        resource: The resource.
        used: How much it uses.
        budget: How much it may use.
        message: The same as a sentence.
    """

    resource: Resource
    used: float
    budget: float
    message: str


class Meter:
    """Compares what a plugin uses with its budget.

    Args:
        budget: The budget.
        clock: Returns seconds that never go back.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float]) -> None:
        self.budget = budget
        self._clock = clock
        self._cpu = SlidingWindow(budget.window)
        self._blocked = SlidingWindow(budget.window)
        self._memory: int | None = None
        self.exceeded: dict[Resource, Excess] = {}

    def add(self, *, cpu: float = 0.0, blocked: float = 0.0, memory: int | None = None) -> None:
        """Add what the plugin has used.

        Args:
            cpu: Further seconds of processor time.
            blocked: Further seconds for which it blocked the event loop.
            memory: The bytes that it has now, if they were measured.
        """
        now = self._clock()
        self._cpu.add(cpu, now)
        self._blocked.add(blocked, now)
        if memory is not None:
            self._memory = memory

    def clear(self) -> None:
        """Begin a new window."""
        self._cpu.clear()
        self._blocked.clear()
        self._memory = None
        self.exceeded = {}

    def check(self) -> list[Excess]:
        """Return what the plugin uses too much of and did not at the last check."""
        found: dict[Resource, Excess] = {one.resource: one for one in self._excesses()}
        before, self.exceeded = self.exceeded, found
        return [one for resource, one in found.items() if resource not in before]

    def _excesses(self) -> Iterator[Excess]:
        budget, now = self.budget, self._clock()
        cpu, blocked = self._cpu.sum(now) / budget.window, self._blocked.sum(now)
        if budget.cpu is not None and cpu > budget.cpu:
            yield Excess(
                "cpu", cpu, budget.cpu,
                f"it used {cpu * 100:.3g}% of a core within {budget.window:g} s; its budget is "
                f"{budget.cpu * 100:.3g}%",
            )  # fmt: skip
        if budget.blocked is not None and blocked > budget.blocked:
            yield Excess(
                "blocked", blocked, budget.blocked,
                f"it blocked the event loop for {blocked:.2f} s within {budget.window:g} s; its "
                f"budget is {budget.blocked:g} s",
            )  # fmt: skip
        size = _bytes(budget.memory)
        if size is not None and self._memory is not None and self._memory > size:
            yield Excess(
                "memory", self._memory, size,
                f"it holds {_mib(self._memory)} of memory; its budget is {_mib(size)}",
            )  # fmt: skip


def _mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"
