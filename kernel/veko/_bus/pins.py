"""Pins: one registry for everything that is awaited inside, a request or a piece of work.

A pin costs two settings of a context variable. Emissions look at it only while somebody holds a
registry that is not the newest: the bus then lets `PinnedPlans` stand in for its plans.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final

from .plans import Plan
from .registry import Registry

if TYPE_CHECKING:
    from .bus import Bus

__all__ = ["Pin", "PinnedPlans"]

_PIN: Final[ContextVar[Pin | None]] = ContextVar("veko_pin", default=None)
_LET_GO: Final = Registry(-1, {}, {})


class Pin:
    """Keeps one registry for everything that is awaited inside: `with bus.pin() as registry`.

    If something in it leaves, it is kept for `drain_timeout` more; then the work goes on with what
    is live.

    Attributes:
        owner: The name of the plugin whose code the work is, if it is one's: when that leaves the
            work is cancelled instead, if a suspended function holds this in a variable `pin`.
        cut: Whether that has happened.
    """

    __slots__ = ("_outer", "bus", "cut", "held", "owner", "registry")

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.held = self.cut = False
        self.owner: str | None = None
        self.registry = bus.registry
        self._outer: Pin | None = None

    def __enter__(self) -> Registry:
        self._outer = _PIN.get()
        if self._outer is not None:
            self.registry = self.bus.pinned()
        self.registry.pins.add(self)
        self.held = True
        _PIN.set(self)
        return self.registry

    def release(self) -> None:
        """Let go of the registry before the end; twice is fine."""
        if self.held:
            self.held = False
            # A timer that was made meanwhile keeps the context, and with it this pin.
            registry, self.registry = self.registry, _LET_GO
            registry.pins.discard(self)
            if not registry.pins and registry is not self.bus.registry:
                self.bus.settle()

    def move_on(self) -> None:
        """Hold the registry that is live now, for what goes on."""
        registry, self.registry = self.registry, self.bus.registry
        self.registry.pins.add(self)
        registry.pins.discard(self)
        if not registry.pins:
            self.bus.settle()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
        _PIN.set(self._outer)

    @classmethod
    def held_here(cls, bus: Bus) -> Pin | None:
        """Return the innermost pin of a bus that is held in this context."""
        pin = _PIN.get()
        while pin is not None and not (pin.held and pin.bus is bus):
            pin = pin._outer
        return pin


class PinnedPlans(dict[str, Plan | None]):
    """Stands in for the plans while somebody holds an older registry: asks the context."""

    def __init__(self, bus: Bus) -> None:
        super().__init__()
        self._bus = bus

    def __missing__(self, event: str) -> Plan | None:
        return self._bus.pinned().plans[event]
