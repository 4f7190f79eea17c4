"""Pins: one registry for everything that is awaited inside, a request or a piece of work.

A pin costs two settings of a context variable. Emissions look at it only while somebody holds a
registry that is not the newest.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Protocol

from .lookup import Plans
from .registry import Registry

__all__ = ["LivePin", "Pin"]

_PIN: Final[ContextVar[Pin | None]] = ContextVar("veko_pin", default=None)


class Bus(Protocol):
    """What a pin needs of its bus.

    Attributes:
        live: The plans of what is live now.
    """

    live: Plans

    def let_go(self, plans: Plans) -> None:
        """Note that a pin holds the plans of an older registry no more."""


class Pin:
    """Keeps one registry for everything that is awaited inside: `with bus.pin() as registry`.

    When something in that registry is removed, draining waits for the pin, in bounded time; after
    that the work inside continues with what is live (`move_on`).

    Attributes:
        owner: The name of the owner that the work belongs to, or `None`. When that owner is removed
            the work is cancelled instead, if a suspended function in it has this pin in a local
            variable.
        cut: Whether it was cancelled for that.
        plans: The plans of the registry that it holds; `None` before it is entered and after its
            release.
    """

    __slots__ = ("_outer", "bus", "cut", "owner", "plans")

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.cut = False
        self.owner: str | None = None
        self.plans: Plans | None = None
        self._outer: Pin | None = None

    def __enter__(self) -> Registry:
        outer = self.held_here(self.bus)
        self.plans = self.bus.live if outer is None or outer.plans is None else outer.plans
        self.plans.pins.add(self)
        self._outer = _PIN.get()
        _PIN.set(self)
        return self.plans.registry

    def release(self) -> None:
        """Let go of the registry before the end; twice is fine."""
        # `plans` goes at once, since this pin may live on: a timer that was made inside keeps a
        # copy of the context. Held by test_tasks_of_a_pin_inherit_it_until_it_ends.
        plans, self.plans = self.plans, None
        if plans is not None:
            plans.pins.discard(self)
            if plans is not self.bus.live:
                self.bus.let_go(plans)

    def move_on(self) -> None:
        """Hold the registry that is live now instead."""
        self.release()
        self.plans = self.bus.live
        self.plans.pins.add(self)

    def __exit__(self, *error: object) -> None:
        self.release()
        _PIN.set(self._outer)

    @classmethod
    def release_all(cls, bus: object) -> None:
        """Release the pins of a bus that are held in this context."""
        pin = cls.held_here(bus)
        while pin is not None:
            pin.release()
            pin = cls.held_here(bus)

    @staticmethod
    def held_here(bus: object) -> Pin | None:
        """Return the innermost pin of a bus that is held in this context."""
        pin = _PIN.get()
        while pin is not None and not (pin.plans is not None and pin.bus is bus):
            pin = pin._outer
        return pin


class LivePin(Pin):
    """A pin of what is live, even inside another pin: for work that is not part of what is around.

    Nothing of an older registry is reached through it, so what has left need not wait for pins that
    could otherwise reach it so (test_a_request_inside_a_pin_sees_what_is_live).
    """

    __slots__ = ()
    plans: Plans | None

    def __enter__(self) -> Registry:
        self.plans = self.bus.live
        self.plans.pins.add(self)
        self._outer = _PIN.get()
        _PIN.set(self)
        return self.plans.registry
