"""The changes that were done, and what undoes them. They are kept in memory, and bounded.

What a configuration was has secrets in it: it is not written to disk, so a change can be undone
until the application stops, and only where each of its workers has seen it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec

from veko import NotFoundError, StateError

from .documents import Change
from .was import Was

__all__ = ["Done", "History"]

_MOST: Final = 500


class Done(msgspec.Struct, kw_only=True):
    """A change, with what was before it and what it left.

    Attributes:
        change: The change.
        before: What the plugins were.
        after: What they were then.
        backup: The backup that was made before one was restored.
    """

    change: Change
    before: tuple[Was, ...] = ()
    after: tuple[Was, ...] = ()
    backup: Any = None


class History:
    """The changes of this run."""

    def __init__(self) -> None:
        self._done: OrderedDict[str, Done] = OrderedDict()
        self.heard: Callable[[Change], object] | None = None

    def add(self, done: Done) -> None:
        """Add a change."""
        self._done[done.change.id] = done
        while len(self._done) > _MOST:
            self._done.popitem(last=False)
        self._tell(done.change)

    def changes(self) -> tuple[Change, ...]:
        """Return all changes, the newest first."""
        return tuple(self._shown(done) for done in reversed(self._done.values()))

    def get(self, id: str) -> Done:
        """Return a change that can be undone.

        Raises:
            NotFoundError: There is none of that id.
            StateError: It was undone, cannot be undone, or a later one has to be undone first.
        """
        done = self._done.get(id)
        if done is None:
            raise NotFoundError(
                f"there is no change {id[:40]!r}",
                remedy="`veko changes` or `GET changes` lists them. They are forgotten when the "
                "application stops, and a worker that replaces another knows none before it.",
            )
        why = self._why_not(done)
        if why is not None:
            raise StateError(
                f"the change {id} cannot be undone: {why}",
                remedy="See `veko changes`, or `GET changes`.",
            )
        return done

    def undone(self, id: str, by: str) -> None:
        """Note that a change was undone by another one; what it had undone itself holds again."""
        done = self._done.get(id)
        if done is None:
            return
        done.change = msgspec.structs.replace(done.change, undone=by)
        self._tell(done.change)
        again = self._done.get(done.change.target) if done.change.verb == "undo" else None
        if again is not None and again.change.undone == id:
            again.change = msgspec.structs.replace(again.change, undone=None)
            self._tell(again.change)

    def _why_not(self, done: Done) -> str | None:
        change = done.change
        if change.undone is not None:
            return f"it was undone by {change.undone}"
        if not change.plan.undoable:
            return change.plan.why_not or "there is no way back"
        names = {was.name for was in done.before}
        for later in self._after(change.id):
            if later.undone is None and not self._is_undo_of_undone(later):
                other = {was.name for was in self._done[later.id].before}
                if names & other:
                    return f"{later.id} came after it and has to be undone first"
        return None

    def _is_undo_of_undone(self, change: Change) -> bool:
        """Return whether a change only took a later one back: the two cancel each other."""
        if change.verb != "undo":
            return False
        undone = self._done.get(change.target)
        return undone is not None and undone.change.undone == change.id

    def _after(self, id: str) -> Iterator[Change]:
        found = False
        for done in self._done.values():
            if found:
                yield done.change
            found = found or done.change.id == id

    def _shown(self, done: Done) -> Change:
        why = self._why_not(done)
        return msgspec.structs.replace(done.change, undoable=why is None, why_not=why)

    def _tell(self, change: Change) -> None:
        if self.heard is not None:
            self.heard(change)
