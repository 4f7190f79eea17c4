"""The event of the ledger, declared in every application so that hooks on it are no mistake."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from veko import Event

__all__ = ["BUDGET_EXCEEDED", "EVENTS", "Overrun", "Resource"]

Resource = Literal["cpu", "blocked", "memory"]


class Overrun(msgspec.Struct, frozen=True):
    """A plugin used more than its budget.

    Attributes:
        plugin: The plugin's name.
        resource: What it used too much of.
        used: How much it used: the share of a core, seconds, or bytes.
        budget: How much it may use.
        window: The seconds within which it used that.
        switched_off: Whether it was switched off.
        message: The same as a sentence.
    """

    plugin: str
    resource: Resource
    used: float
    budget: float
    window: float
    switched_off: bool
    message: str


BUDGET_EXCEEDED: Final = Event(
    "budget:exceeded",
    Overrun,
    doc="A plugin used more than its budget. Arguments: what it used, the plugin's name.",
)
EVENTS: Final = (BUDGET_EXCEEDED,)
