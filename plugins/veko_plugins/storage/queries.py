"""`database:query`: hooks that run around the writes of the storage.

While the event has subscribers, each write becomes a `Query` and a task that emits it. Memory shows
the write at once, as always; it goes to disk when a hook awaits the query, or when the hooks have
finished. Writes of one namespace reach the disk in the order in which they were made, however long
their hooks take; those of the same turn still share a transaction if the hooks do not delay them. A
hook that fails or hangs does not stop the write. Writes made inside a hook go straight to disk.

Cost: one check while there are no subscribers; otherwise a task for each write, some 30 us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator, Mapping

from veko.errors import StorageError

from .._lib.database_events import INSIDE, BaseQuery, Result, is_inside
from .base import BaseEngine
from .codec import Expiring, Packed, check_key, expiry_of, pack, unpack
from .namespace import Entries, Namespace, Operation

__all__ = ["Queries", "Query", "Result"]


class Query(BaseQuery):
    """A write that has not run yet. `result = await query` runs it; it runs once.

    If a hook returns another query (see `replace`), that one runs instead. If it returns the
    result, that stands for the query, which has run.

    Attributes:
        operation: `"set"`, `"update"`, `"delete"` or `"clear"`.
        namespace: The namespace that it writes to: the plugin's name.
    """

    __slots__ = ("_entries", "_turn", "_write", "namespace", "operation")

    def __init__(self, operation: Operation, entries: Entries, turn: _Turn) -> None:
        self.operation = operation
        self.namespace = turn.namespace.name
        self._entries = entries
        self._turn = turn
        self._write: Awaitable[None] | None = None

    def __repr__(self) -> str:
        return f"<Query {self.operation} of {self.namespace!r}: {', '.join(self.keys)[:60]}>"

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that it sets or deletes; empty for `clear`."""
        return tuple(self._entries)

    @property
    def entries(self) -> dict[str, object]:
        """The values that it sets, by key; a copy."""
        found: dict[str, object] = {}
        for key, packed in self._entries.items():
            if packed is not None:
                value = unpack(Packed(packed))
                found[key] = value.value if isinstance(value, Expiring) else value
        return found

    @property
    def started(self) -> bool:
        """Whether the engine has it already."""
        return self._write is not None

    def replace(self, entries: Mapping[str, object]) -> Query:
        """Return a query that sets other entries instead; a key that expires still does.

        Args:
            entries: The values to set, by key.

        Raises:
            StorageError: A key or value cannot be stored, or this query sets no values.
        """
        if self.operation not in {"set", "update"}:
            raise StorageError(
                f"a {self.operation} has no values to replace", plugin=self.namespace
            )
        packed: Entries = {}
        for key, value in entries.items():
            check_key(key)
            former = self._entries.get(key)
            packed[key] = pack(key, value, None if former is None else expiry_of(former))[1]
        return Query("update", packed, self._turn)

    def __await__(self) -> Generator[object, None, Result]:
        """Run it, if it does not run yet; return the number of entries once they are durable."""
        return self._run().__await__()

    async def _run(self) -> Result:
        if self._write is None:
            await self._turn.wait_for_earlier()
        await self.submit()
        return Result(len(self._entries), self)

    def submit(self) -> Awaitable[None]:
        """Give it to the engine, once."""
        if self._write is None:
            self._write = self._turn.submit(self._entries, cleared=self.operation == "clear")
        return self._write


class _Turn:
    """The turn of a write among those of its namespace; also the handle that its author has."""

    __slots__ = ("cleared", "engine", "entries", "error", "hooked", "namespace", "previous",
                 "query", "submitted", "through")  # fmt: skip

    def __init__(
        self, engine: BaseEngine, namespace: Namespace, operation: Operation, entries: Entries
    ) -> None:
        self.engine = engine
        self.namespace = namespace
        self.entries = entries
        self.cleared = operation == "clear"
        # The query to run, which a hook may replace.
        self.query = Query(operation, entries, self)
        self.previous: _Turn | None = None
        self.hooked = True
        self.error: StorageError | None = None
        self.submitted = asyncio.Event()
        self.through = asyncio.Event()

    def __await__(self) -> Generator[object, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        await self.through.wait()
        await self.query.submit()

    async def wait_for_earlier(self) -> None:
        """Wait until the engine has the earlier writes of the namespace."""
        while self.previous is not None:
            if self.previous.submitted.is_set():
                self.previous = None
            else:
                await self.previous.submitted.wait()

    def submit(self, entries: Entries, *, cleared: bool) -> Awaitable[None]:
        """Write a query's entries; if they differ from memory, memory is read again."""
        write = self.engine.write(self.namespace.name, entries, cleared=cleared)
        if not self.submitted.is_set():
            self.previous = None
            self.namespace.queued.remove(self)
            self.submitted.set()
            if entries is not self.entries or self.namespace.bypassed:
                self.namespace.forget()
        else:
            self.namespace.forget()
        return write

    def finish(self) -> None:
        """Write after the hooks have finished; the author then waits for the disk."""
        self.query.submit()
        self.through.set()

    def force(self) -> None:
        """Write it now if its hooks have not finished, after the earlier writes."""
        if not self.through.is_set():
            for earlier in [*self.namespace.queued]:
                if isinstance(earlier, _Turn):
                    earlier.query.submit()
                if earlier is self:
                    break
            self.finish()


class Queries:
    """Emits the queries of an engine, until `close()`.

    Args:
        engine: The engine.
        emit: Emits `database:query` and returns the hooks' result.
        wanted: Returns whether the event has subscribers.
    """

    def __init__(
        self,
        engine: BaseEngine,
        emit: Callable[[Query], Awaitable[object]],
        wanted: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._emit = emit
        self._wanted = wanted
        self._tasks: dict[asyncio.Task[None], _Turn] = {}
        engine.surround = self._surround

    def _surround(
        self, namespace: Namespace, operation: Operation, entries: Entries
    ) -> Awaitable[None] | None:
        if is_inside():
            if namespace.queued:
                namespace.bypassed = True
            return None
        if not namespace.queued:
            namespace.bypassed = False
            if not self._wanted():
                return None
        turn = _Turn(self._engine, namespace, operation, entries)
        if namespace.queued:
            last = namespace.queued[-1]
            turn.previous = last if isinstance(last, _Turn) else None
        namespace.queued.append(turn)
        task = asyncio.get_running_loop().create_task(
            self._around(turn), name=f"database:query of {namespace.name}"
        )
        self._tasks[task] = turn
        task.add_done_callback(self._ended)
        return turn

    async def _around(self, turn: _Turn) -> None:
        INSIDE.set(turn)
        try:
            made = await self._emit(turn.query)
            made = made.query if isinstance(made, Result) else made
            if isinstance(made, Query) and made is not turn.query:
                turn.query = made
        finally:
            turn.hooked = False
        await turn.wait_for_earlier()
        turn.finish()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task).force()
        if not task.cancelled():
            task.exception()

    async def close(self, timeout: float) -> None:
        """Wait for hooks at most `timeout` seconds, then run the remaining writes without them."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait([*self._tasks], timeout=left)
        late = {**self._tasks}
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)
        for turn in late.values():
            turn.force()
        self._engine.surround = None
