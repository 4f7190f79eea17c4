"""Leases: emissions that still run on plans which left the registry, and waiting for their end.

A lease is a weak reference to the token that the emissions of a plan hold, so an emission pays
nothing for it. Those that wait look again each time that an emission or a pin has ended.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import anyio

from .lookup import Plans
from .owners import name_of
from .plans import Plan, Token

__all__ = ["Leases"]


class Leases:
    """The retired plans on which emissions still run.

    Attributes:
        held: Each of them, with a reference that dies with its last emission, by the id of that:
            so one that ends is found at once, however many there are.
        waiting: Set when an emission or a pin has ended, for those that wait for that.
    """

    def __init__(self) -> None:
        self.held: dict[int, tuple[Plan, weakref.ref[Token]]] = {}
        # No set: those that wait run again in the order in which they came, in each process
        # (test_the_same_seed_is_the_same_run_in_another_process).
        self.waiting: dict[anyio.Event, None] = {}

    def retire(self, plans: Iterable[Plan | None]) -> None:
        """Let no emission begin on some plans any more."""
        for plan in plans:
            reference = None if plan is None else plan.retire(self._ended)
            if plan is not None and reference is not None:
                self.held[id(reference)] = plan, reference
                if reference() is None:  # it has ended since
                    self.held.pop(id(reference), None)

    def _ended(self, reference: weakref.ref[Token]) -> None:
        self.held.pop(id(reference), None)
        self.progress()

    def progress(self) -> None:
        """Let those who wait look again."""
        for event in self.waiting:
            event.set()

    def silence(self, owner: object) -> None:
        """Let the emissions skip an owner's handlers."""
        for plan, _ in tuple(self.held.values()):
            plan.silence(owner)

    async def drained(self, older: Sequence[Plans], owner: object, spare: AbstractSet[int]) -> None:
        """Wait until nothing runs that may call an owner's code; see `Bus.drained`.

        Args:
            older: The plans of the older registries that may have entries of the owner.
            owner: The owner.
            spare: Ids of tokens of emissions not to wait for.
        """
        name = name_of(owner)
        reaching = [old for old in older if old.registry.reaches(owner)]

        def is_called() -> bool:
            if any(old.pins for old in reaching):
                return True
            if any(getattr(pin, "owner", None) == name for old in older for pin in old.pins):
                return True
            # A copy: an emission may end, and leave, at any allocation.
            held = tuple(self.held.values())
            calling = (reference() for plan, reference in held if plan.calls(owner))
            return any(token is not None and id(token) not in spare for token in calling)

        while is_called():
            event = anyio.Event()
            self.waiting[event] = None
            try:
                await event.wait()
            finally:
                del self.waiting[event]
