"""Transactions: how what plugins register becomes live, all of it or nothing.

A transaction makes the next registry, lets every kind that it touches accept it, and publishes
it in a step that does not wait. If the registry moved meanwhile (somebody subscribed), it is made
and accepted anew, so that what was accepted is what goes live. There is no lock to wait for.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Collection
from typing import Final

from .._bus.handles import STAGING, Handle
from .._bus.registry import Draft, Entry, Registry
from ..errors import ConflictError, RefusedError, TransactionError, VekoError
from .generation import Generation
from .runtime import Runtime

__all__ = ["Transactions"]

ATTEMPTS: Final = 16


class Transactions:
    """The transactions of a kernel."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._bus = runtime.bus

    async def commit(
        self,
        generation: Generation | None,
        *,
        add: Collection[Entry] | Callable[[], Collection[Entry]] = (),
        remove: Collection[Entry] | Callable[[], Collection[Entry]] = (),
        swapping: Callable[[], None] | None = None,
        changed: frozenset[str] = frozenset(),
    ) -> Registry:
        """Make, accept and publish the next registry.

        Args:
            generation: On whose behalf.
            add: Entries to add, or what gives those that are still wanted.
            remove: Entries to take away before others are added, or what gives them.
            swapping: Called right before the swap; what it raises refuses everything.
            changed: Events whose subscribers have changed without anybody being asked.

        Returns:
            The registry before.

        Raises:
            ConflictError: A name is taken.
            RefusedError: A hook that was asked raised.
            TransactionError: The registry never stood still.
            VekoError: What an `accept` or `swapping` raised; nothing has happened then.
        """
        for _ in range(ATTEMPTS):
            draft = self._bus.draft(changed)
            for entry in tuple(remove() if callable(remove) else remove):
                draft.remove(entry)
            for entry in tuple(add() if callable(add) else add):
                draft.add(entry)
            token = STAGING.set(None if generation is None else weakref.ref(generation))
            try:
                await draft.accept()
            except VekoError:
                raise
            except Exception as error:
                raise RefusedError(
                    f"what it registers was refused: {type(error).__name__}: {error}",
                    plugin=generation.name if generation else None,
                    remedy="What was raised is the cause.",
                ) from error
            finally:
                STAGING.reset(token)
            self._runtime.check_open()  # a load in somebody's task may outlast it
            if draft.before is self._bus.registry:
                if swapping is not None:
                    swapping()
                self._bus.publish(draft)
                return draft.before
        raise TransactionError(
            "the registry kept moving while this was being accepted",
            plugin=generation.name if generation else None,
            remedy="Something subscribes or unsubscribes at every moment; find it.",
        )

    def add(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        """Add one entry of a plugin that is live: at once if nobody has to be asked."""
        draft = self._bus.draft()
        try:
            draft.add(entry)
        except ConflictError as error:
            self._refuse(generation, entry, handle, error)
            return
        generation.entries.append(entry)
        if draft.concerned():
            handle.wait_for(generation)
            self._runtime.root.start(self._add_later, generation, entry, handle)
        else:
            self._bus.publish(draft)
            handle.settle()

    async def _add_later(self, generation: Generation, entry: Entry, handle: Handle) -> None:
        def wanted() -> list[Entry]:
            return [entry] if generation.live and entry in generation.entries else []

        try:
            await self.commit(generation, add=wanted)
        except Exception as error:
            if entry in generation.entries:
                generation.entries.remove(entry)
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
        """Take one entry away: at once if nobody has to be asked."""
        draft = self._bus.draft()
        draft.remove(entry)
        if draft.concerned():
            # Acceptance seldom waits for anything. If it does, or refuses, it is begun anew in a
            # task, which can wait and tell.
            attempt = self.commit(None, remove=[entry])
            with contextlib.suppress(Exception):
                try:
                    attempt.send(None)
                except StopIteration:
                    return
                attempt.close()
            self._runtime.root.start(self._remove_later, entry)
        else:
            self._bus.publish(draft)

    async def _remove_later(self, entry: Entry) -> None:
        try:
            await self.commit(None, remove=[entry])
        except Exception as error:
            if not entry.owner.closed:
                entry.owner.entries.append(entry)  # it is live still, and goes with its owner
            await self._bus.report(error, owner=entry.owner, handler=f"{entry.kind} {entry.key}")

    def moved(self, draft: Draft) -> None:
        """Ask those who have a say in a change that the host made at once, on the bus itself."""
        if not draft.accepted and draft.concerned():
            root = getattr(self._runtime, "root", None)
            if root is not None and not root.closed:
                root.start(functools.partial(self._retest, draft.changed_hooks))

    async def _retest(self, events: frozenset[str]) -> None:
        try:
            await self.commit(None, changed=events)
        except Exception as error:
            await self._bus.report(error, handler=f"hooks on {', '.join(sorted(events))}")
