"""The pool: at most so many connections, and the names of the plugins that hold them.

Waiting for a connection is bounded; the error then says which plugins hold the connections, and for
how long. A connection that was unused for a while is tested before it is used again, because the
server may have been restarted.
"""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import Counter
from typing import Any, Final

from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry

__all__ = ["OWNER", "HolderPool", "follow", "named"]

_log: Final = logging.getLogger("veko.database")
OWNER: Final = "veko_plugin"
"""The execution option with the name of the plugin on whose behalf a connection is used."""
_HOLDER: Final = "veko holder"
_RETURNED: Final = "veko returned"


class _Task:
    """The task that took a connection, without keeping it alive."""

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self._task = None if task is None else weakref.ref(task)

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        if self._task is None:
            return False
        task = self._task()
        return task is None or task.done()


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class HolderPool(AsyncAdaptedQueuePool):
    """A pool that knows who holds its connections."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._records: dict[int, tuple[ConnectionPoolEntry, _Task]] = {}

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            record = super()._do_get()
        except exc.TimeoutError:
            held = self.held()
            if not self._reclaim():
                raise exc.TimeoutError(
                    f"no connection was free within {self._timeout:g} s: all "
                    f"{self.size() + self._max_overflow} are in use ({held}). Close sessions "
                    "sooner (`async with`), or raise pool_size in [plugins.database]"
                ) from None
            record = super()._do_get()
        self._records[id(record)] = record, _Task(_current_task())
        _note(record.record_info, None)
        return record

    def _reclaim(self) -> bool:
        """Close the connections whose tasks have ended and left them open; whether there were any.

        A cancelled request whose session is in no `async with` leaves one, which the garbage
        collector would return at some time, or never
        (test_a_session_that_a_cancelled_task_has_leaked_does_not_cost_a_connection).
        """
        found = False
        for record, task in list(self._records.values()):
            reference: Any = getattr(record, "fairy_ref", None)
            fairy = reference() if reference is not None else None
            if fairy is not None and task.ended:
                owner, _ = (record.record_info or {}).get(_HOLDER, (None, 0))
                _log.warning(
                    "%s has left a session open at the end of a task: its transaction is rolled "
                    "back. Use `async with db.session()`",
                    owner or "the application",
                )
                fairy.invalidate()
                found = True
        return found

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._records.pop(id(record), None)
        record.info[_RETURNED] = time.monotonic()
        super()._do_return_conn(record)

    def held(self) -> str:
        """Return which plugins hold connections, and the longest time of each."""
        count, longest, now = Counter[str](), dict[str, float](), time.monotonic()
        for record, _ in self._records.values():
            owner, since = (record.record_info or {}).get(_HOLDER, (None, now))
            name = owner or "the application"
            count[name] += 1
            longest[name] = max(longest.get(name, 0.0), now - since)
        parts = (
            f"{name} {number} for up to {longest[name]:.1f} s"
            for name, number in count.most_common()
        )
        return ", ".join(parts) or "none"


def _note(info: dict[Any, Any] | None, owner: str | None) -> None:
    if info is not None:
        info[_HOLDER] = owner, time.monotonic()


def named(engine: AsyncEngine, owner: str | None, **options: bool) -> AsyncEngine:
    """Return an engine with the same pool whose connections are held in the name of a plugin.

    Args:
        engine: The engine.
        owner: The plugin's name; `None` for the application.
        options: More execution options.
    """
    made = engine.execution_options(**{OWNER: owner}, **options)
    sync: Any = made.sync_engine
    take = sync.raw_connection

    def raw_connection() -> Any:
        connection = take()
        _note(connection.record_info, owner)
        return connection

    # In place of an event: one of connections makes every statement dispatch several.
    sync.raw_connection = raw_connection
    return made


def follow(engine: Any, idle: float | None) -> None:
    """Test the connections of an engine that were idle.

    Args:
        engine: The synchronous engine.
        idle: Seconds without use after which a connection is tested; `None` for never.
    """

    if idle is not None:

        @event.listens_for(engine, "checkout")
        def test(dbapi_connection: Any, record: ConnectionPoolEntry, _: object) -> None:
            returned = record.info.get(_RETURNED)
            if returned is None or time.monotonic() - returned < idle:
                return
            try:
                alive = engine.dialect.do_ping(dbapi_connection)
            except (engine.dialect.loaded_dbapi.Error, OSError, TimeoutError):
                alive = False
            if not alive:  # the pool opens another one in its place
                raise exc.DisconnectionError("the server has closed the connection")
