"""Handles: numbers that stand for functions and iterators of the other side.

The owner of an object keeps it as long as the other side may use it: it counts how often it sent
the handle, and the other side, when it has collected the last reference, drops as many. So a drop
that crosses with the handle being sent again takes nothing away. An object that is lent (`lend`) is
withdrawn by its owner, however late the other side collects.

Promise: the other side cannot make either table grow past its bound, nor drop or call what it was
never given.
"""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from types import MethodType
from typing import Any, Final, Protocol

from .errors import GoneError, Overloaded, RemoteError, Violation
from .messages import Failure

__all__ = ["Exports", "Imports", "Lent", "RemoteFunction", "RemoteIterator"]

MOST: Final = 100_000
"""Handles that one side may hold."""
_MOST_ITEMS: Final = 16
"""Items asked for at a time."""


class Caller(Protocol):
    """What a remote function needs of its connection."""

    def call(self, target: str | int, *args: Any) -> Coroutine[Any, Any, Any]:
        """Call the other side."""
        ...

    def note(self, target: str | int, *args: Any) -> None:
        """Call the other side without an answer."""
        ...


class Lent:
    """A function or iterator that the other side may use until `withdraw` is called."""

    __slots__ = ("_exports", "handle", "kind", "name")

    def __init__(self, exports: Exports, target: Any, name: str) -> None:
        self._exports = exports
        self.kind = "iter" if hasattr(target, "__aiter__") else "fn"
        self.name = name
        self.handle = exports.add(aiter(target) if self.kind == "iter" else target, shared=False)

    def withdraw(self) -> None:
        """Withdraw it; a later call of the other side fails. May be called twice."""
        self._exports.withdraw(self.handle)


class _Export:
    __slots__ = ("key", "target", "times")

    def __init__(self, target: Any, key: object) -> None:
        self.target = target
        self.key = key
        self.times = 0


class Exports:
    """The objects that the other side may use.

    Args:
        imports: The other direction.
    """

    def __init__(self, imports: Imports) -> None:
        self.imports = imports
        self._by_handle: dict[int, _Export] = {}
        self._by_key: dict[object, int] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._by_handle)

    def add(self, target: Any, *, shared: bool = True) -> int:
        """Return the handle of an object: the one that it has, unless it is not to be shared.

        Raises:
            Overloaded: The other side holds too many already.
        """
        key = _key(target) if shared else None
        known = self._by_key.get(key) if shared else None
        if known is not None:
            return known
        if len(self._by_handle) >= MOST:
            raise Overloaded(f"the other side holds {MOST} functions and releases none")
        handle, self._next = self._next, self._next + 1
        self._by_handle[handle] = _Export(target, key)
        if shared:
            self._by_key[key] = handle
        return handle

    def sent(self, handle: int) -> None:
        """Count that a handle is sent.

        Raises:
            GoneError: It was withdrawn.
        """
        self._find(handle).times += 1

    def get(self, handle: int) -> Any:
        """Return the object of a handle.

        Raises:
            GoneError: It was withdrawn.
            Violation: There never was such a handle.
        """
        return self._find(handle).target

    def _find(self, handle: int) -> _Export:
        found = self._by_handle.get(handle)
        if found is not None:
            return found
        if handle < self._next:
            raise GoneError(f"the function {handle} was withdrawn by its owner")
        raise Violation(f"used the handle {handle}, which it was never given")

    def drop(self, handle: int, times: int) -> None:
        """Count that the other side needs a handle less often.

        Raises:
            Violation: It was not given the handle so often.
        """
        found = self._by_handle.get(handle)
        if found is None:
            if handle < self._next:
                return
            raise Violation(f"dropped the handle {handle}, which it was never given")
        if times > found.times:
            raise Violation(
                f"dropped the handle {handle} {times} times, but was given it {found.times} times"
            )
        found.times -= times
        if found.times == 0:
            self.withdraw(handle)

    def withdraw(self, handle: int) -> None:
        """Forget an object; do nothing if that has happened."""
        found = self._by_handle.pop(handle, None)
        if found is not None and found.key is not None:
            self._by_key.pop(found.key, None)

    def clear(self) -> None:
        """Forget all objects."""
        self._by_handle.clear()
        self._by_key.clear()


def _key(target: Any) -> object:
    """Return what tells an object from others, as long as it lives; methods live for a moment."""
    if type(target) is MethodType:
        return id(target.__self__), id(target.__func__)
    return id(target)


class _Remote:
    __slots__ = ("__weakref__", "_imports", "connection", "handle", "times")

    def __init__(self, imports: Imports, handle: int) -> None:
        self._imports = imports
        self.connection = imports.caller
        self.handle = handle
        self.times = 0

    def __del__(self) -> None:
        self._imports.collected(self)


class RemoteFunction(_Remote):
    """A function of the other side; released there when it is collected here.

    Attributes:
        name: Its name, for messages.
        connection: The connection that it came by.
    """

    __slots__ = ("name",)

    def __init__(self, imports: Imports, handle: int, name: str) -> None:
        super().__init__(imports, handle)
        self.name = name

    async def __call__(self, *args: Any) -> Any:
        """Call it.

        Raises:
            RemoteError: It raised.
            ConnectionLost: The other side is gone.
        """
        return await self.connection.call(self.handle, *args)

    def note(self, *args: Any) -> None:
        """Call it without waiting for an answer."""
        self.connection.note(self.handle, *args)

    def __repr__(self) -> str:
        return f"<remote function {self.name or self.handle}>"


class RemoteIterator(_Remote, AsyncIterator[Any]):
    """An async iterator of the other side."""

    __slots__ = ("_done", "_items")

    def __init__(self, imports: Imports, handle: int) -> None:
        super().__init__(imports, handle)
        self._items: list[Any] = []
        self._done = False

    async def __anext__(self) -> Any:
        """Return the next item.

        Raises:
            StopAsyncIteration: There is none.
            RemoteError: The iterator raised.
            ConnectionLost: The other side is gone.
        """
        while not self._items:
            if self._done:
                raise StopAsyncIteration
            answer = await self.connection.call("@next", self.handle, _MOST_ITEMS)
            self._items, self._done = _items_of(answer)
        return self._items.pop()

    async def aclose(self) -> None:
        """End the iteration on the other side too."""
        self._items, ended, self._done = [], self._done, True
        if not ended:
            self.connection.note("@stop", self.handle)


def _items_of(answer: object) -> tuple[list[Any], bool]:
    """Return the items of an answer to `@next`, last one first, and whether there are no more."""
    if isinstance(answer, dict):
        items, done = answer.get("items"), answer.get("done")
        if isinstance(items, list) and isinstance(done, bool):
            return items[::-1], done
    raise RemoteError(
        Failure(type="TypeError", message="an iterator answered with something else than items")
    )


class Imports:
    """The other side's functions that are used here.

    Args:
        caller: Calls the other side.
        released: Is called, from any thread, when there is something to be dropped.
    """

    def __init__(self, caller: Caller, released: Callable[[], None]) -> None:
        self.caller = caller
        self._released = released
        self._alive: dict[int, weakref.ref[_Remote]] = {}
        self._dropped: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._alive)

    def function(self, handle: int, name: str) -> RemoteFunction:
        """Return the function of a handle: the same one as long as it lives."""
        found = self._known(handle)
        if found is None:
            self._alive[handle] = weakref.ref(found := RemoteFunction(self, handle, name))
        if not isinstance(found, RemoteFunction):
            raise Violation(f"sent the iterator {handle} as a function")
        found.times += 1
        return found

    def iterator(self, handle: int) -> RemoteIterator:
        """Return the iterator of a handle: the same one as long as it lives."""
        found = self._known(handle)
        if found is None:
            self._alive[handle] = weakref.ref(found := RemoteIterator(self, handle))
        if not isinstance(found, RemoteIterator):
            raise Violation(f"sent the function {handle} as an iterator")
        found.times += 1
        return found

    @staticmethod
    def error(failure: Failure) -> RemoteError:
        """Return an error of the other side."""
        return RemoteError(failure)

    def handle_of(self, value: object) -> int | None:
        """Return the handle of what is the other side's own; `None` for anything else."""
        return value.handle if isinstance(value, _Remote) and value._imports is self else None

    def _known(self, handle: int) -> _Remote | None:
        found = self._alive.get(handle)
        known = found() if found is not None else None
        if known is None and len(self._alive) >= MOST:
            raise Violation(f"sent more than {MOST} functions")
        return known

    def collected(self, remote: _Remote) -> None:
        """Note, from any thread, that a remote object is being collected."""
        known = self._alive.get(remote.handle)
        # Its weak reference leads to it until `__del__` has returned. One that leads elsewhere
        # is that of the object which has the handle now. Held by `test_what_is_collected_*`.
        if known is not None and known() in (None, remote):
            self._alive.pop(remote.handle, None)
        self._dropped.append((remote.handle, remote.times))
        if len(self._dropped) == 1:
            self._released()

    def take_dropped(self) -> list[tuple[int, int]]:
        """Return what is to be dropped, once."""
        taken, self._dropped = self._dropped, []
        return taken
