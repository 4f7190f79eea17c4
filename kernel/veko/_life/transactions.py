"""Transactions: what plugins register goes live all at once, or not at all.

A transaction makes the next registry, lets every kind that it touches accept it, and publishes it
in a step without an `await`. There is no lock to wait for.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Final

from .._bus.draft import Draft
from .._bus.handles import STAGING, Handle
from .._bus.registry import Entry, Registry
from ..errors import ConflictError, RefusedError, TransactionError, VekoError
from .generation import Generation
from .runtime import Runtime
from .services import Services

__all__ = ["Transactions"]

ATTEMPTS: Final = 16
SLICED: Final = 3
"""The attempts of a transaction that let other tasks run in between; those after them do not."""

CHUNK: Final = 50
"""Entries that are added or removed between two looks at the clock; of many, a hundredth."""


class Transactions:
    """The transactions of a kernel."""

    def __init__(self, runtime: Runtime, services: Services) -> None:
        self._runtime = runtime
        self.services = services
        self._bus = runtime.bus

    async def commit(
        self,
        generation: Generation | None,
        *,
        add: Collection[Entry] | Callable[[], Collection[Entry]] = (),
        remove: Collection[Entry] | Callable[[], Collection[Entry]] = (),
        incoming: Collection[Generation] = (),
        swapping: Callable[[], None] | None = None,
        changed: frozenset[str] = frozenset(),
    ) -> Registry:
        """Make, accept and publish the next registry.

        Args:
            generation: The generation that asks for it; `None` for the host.
            add: Entries to add, or a function that returns those that are still wanted.
            remove: Entries to remove before others are added, or a function that returns them.
            incoming: Generations that go live: the services that they have used must be live.
            swapping: Called right before the swap; whatever it raises refuses the transaction.
            changed: Events whose subscribers have changed without the kinds being asked.

        Returns:
            The registry before the swap.

        Raises:
            ConflictError: A name is taken.
            RefusedError: A hook that was asked raised.
            LoadError: See `Runtime.check_fresh`.
            TransactionError: The registry changed during each of 16 attempts.
            VekoError: What an `accept` or `swapping` raised; nothing has happened then.
        """
        for attempt in range(ATTEMPTS):
            leaving, coming = _now(remove), _now(add)
            # What yields may be overtaken each time; in the end it is to get through.
            draft = self._bus.draft(changed, slices=attempt < SLICED)
            if attempt < SLICED and len(leaving) + len(coming) > CHUNK:
                await draft.turns.pause()  # after the plugin's `load()`, which has taken its time
            await _in_slices(draft, draft.remove, leaving)
            await _in_slices(draft, draft.add, coming)
            token = STAGING.set(None if generation is None else weakref.ref(generation))
            try:
                await draft.accept()
            except VekoError:
                raise
            except Exception as error:
                raise RefusedError(
                    f"what it registers was refused: {type(error).__name__}: {error}",
                    plugin=generation.name if generation else None,
                    remedy="The cause is what was raised.",
                ) from error
            finally:
                STAGING.reset(token)
            if draft.turns.due:
                await draft.turns.pause()  # before the swap, which is in one piece
            # Accepting may wait, and others publish meanwhile: what they changed (a guard, a
            # route) has not been part of this acceptance. So it is accepted again, on top of
            # theirs: what goes live is what was accepted (test_what_moved_meanwhile_is_accepted
            # _anew, test_hooks_have_their_say_in_acceptance_and_are_asked_anew).
            # The same if the plugin itself registered or cancelled something in the meantime
            # (test_what_is_cancelled_while_it_is_accepted_never_goes_live).
            if draft.before is not self._bus.live.registry or _now(add) != coming:
                continue
            # From here to the end there is no await, so nobody sees a registry without the
            # records that go with it (test_state_is_handed_over_in_the_swap).
            self._runtime.check_open()  # a load in a caller's task may outlast the kernel
            self._runtime.check_fresh(incoming)
            if swapping is not None:
                swapping()
            self._bus.publish(draft)
            return draft.before
        raise TransactionError(
            f"the registry changed during each of {ATTEMPTS} attempts to accept this",
            plugin=generation.name if generation else None,
            remedy="Find what subscribes or unsubscribes all the time.",
        )

    def add(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        """Add one entry of a live plugin: at once if no kind has to accept it."""
        draft = self._bus.draft()
        try:
            draft.add(entry)
        except ConflictError as error:
            self._refuse(generation, entry, handle, error)
            return
        generation.entries[entry] = None
        if draft.concerned():
            handle.wait_for(generation)
            self._runtime.root.start(self._add_later, generation, entry, handle)
        else:
            self._bus.publish(draft)
            handle.settle()

    def stage(self, entry: Entry) -> None:
        """Wake those that wait for a service: plugins of the same reload see it from now on."""
        if entry.kind == "service" and self.services.awaited:
            self.services.changed()

    async def _add_later(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        def wanted() -> list[Entry]:
            return [entry] if generation.live and entry in generation.entries else []

        try:
            await self.commit(generation, add=wanted)
        except Exception as error:
            generation.entries.pop(entry, None)
            self._refuse(generation, entry, handle, error)
        else:
            if wanted():
                handle.settle()

    def _refuse(
        self, generation: Generation, entry: Entry, handle: Handle, error: Exception
    ) -> None:
        generation.handles.pop(entry, None)
        handle.settle(error)
        what = f"{entry.kind} {entry.key}"
        report = functools.partial(self._bus.report, error, owner=generation, handler=what)
        self._runtime.root.start(report)

    def remove(self, entry: Entry) -> None:
        """Remove one entry: at once if no kind has to accept it, or none of them waits."""
        draft = self._bus.draft()
        draft.remove(entry)
        if not draft.concerned():
            self._bus.publish(draft)
        elif not self._removed_at_once(entry):
            self._runtime.root.start(self._remove_later, entry)

    def _removed_at_once(self, entry: Entry) -> bool:
        """Run the transaction that removes an entry as far as it goes without waiting.

        Returns:
            Whether it is done. If not, nothing has happened, and a task has to do it.
        """
        # `Handle.cancel()` is a plain call, and after it the registration should be gone. Nearly
        # all acceptance ends without waiting, so the first step of the coroutine is all of it. If
        # it does wait it can only be closed, as it is in no task; it publishes last, so nothing
        # has happened yet. An error is not lost either: the task meets it again and reports it
        # (test_a_removal_that_is_refused_does_not_hurt_the_host).
        attempt = self.commit(None, remove=[entry])
        try:
            attempt.send(None)
            attempt.close()
        except StopIteration:
            return True
        except Exception:
            return False
        return False

    async def _remove_later(self, entry: Entry) -> None:
        try:
            await self.commit(None, remove=[entry])
        except Exception as error:
            if not entry.owner.closed:
                entry.owner.entries[entry] = None  # it is still live, and leaves with its owner
            await self._bus.report(error, owner=entry.owner, handler=f"{entry.kind} {entry.key}")

    def accept_later(self, draft: Draft) -> None:
        """Let the kinds accept afterwards what the host changed at once, on the bus itself."""
        if draft.concerned():
            root = getattr(self._runtime, "root", None)
            if root is not None and not root.closed:
                root.start(functools.partial(self._retest, draft.changed_hooks))

    async def _retest(self, events: frozenset[str]) -> None:
        try:
            await self.commit(None, changed=events)
        except Exception as error:
            await self._bus.report(error, handler=f"hooks on {', '.join(sorted(events))}")


def _now(entries: Collection[Entry] | Callable[[], Collection[Entry]]) -> tuple[Entry, ...]:
    return tuple(entries() if callable(entries) else entries)


async def _in_slices(draft: Draft, change: Callable[..., None], entries: Sequence[Entry]) -> None:
    """Call a change of a draft with some entries at a time, and let other tasks run in between."""
    # A piece copies the entries of its keys, so that the number of pieces is bounded
    # (test_the_work_of_a_load_grows_with_what_it_registers).
    size = max(CHUNK, len(entries) // 100)
    for begin in range(0, len(entries), size):
        change(*entries[begin : begin + size])
        if begin + size < len(entries) and draft.turns.due:
            await draft.turns.pause()
