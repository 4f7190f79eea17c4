"""Who needs whom: what must go before a plugin can go.

A plugin needs those that it names in `dependencies`, and those whose services it has used.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ..errors import DependencyError

if TYPE_CHECKING:
    from .generation import PluginRecord
    from .kernel import Kernel

__all__ = ["dependents", "from_the_top", "refuse_if_needed"]


def dependents(kernel: Kernel, name: str, *, off: bool = False) -> list[PluginRecord]:
    """Return the active plugins that need one, the last to arrive first; also those `off`."""
    return [
        r
        for r in reversed(kernel.records())
        if (r.active or (off and r.loaded)) and name in r.needs()
    ]


def from_the_top(
    kernel: Kernel, record: PluginRecord, seen: list[PluginRecord], *, off: bool = False
) -> Iterator[PluginRecord]:
    """Give the active plugins that need one, and those `off`, those that nobody needs first.

    Plugins may use each other's services in a circle: each comes once.
    """
    for dependent in dependents(kernel, record.name, off=off):
        if dependent not in seen:
            seen.append(dependent)
            yield from from_the_top(kernel, dependent, seen, off=off)
            yield dependent


def refuse_if_needed(
    kernel: Kernel, record: PluginRecord, verb: str, leaving: Collection[PluginRecord]
) -> None:
    """Refuse what active plugins that are not leaving would not survive.

    Raises:
        DependencyError: Some need it; the message names them.
    """
    names = ", ".join(sorted(r.name for r in dependents(kernel, record.name) if r not in leaving))
    if names:
        raise DependencyError(
            f"cannot {verb} it: {names} need it",
            plugin=record.name,
            remedy=f"Do it to {names} first, or give cascade=True.",
        )
