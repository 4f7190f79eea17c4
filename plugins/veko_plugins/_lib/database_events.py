"""The events `database:*`, which the storage and the database service share.

Both emit `database:query` around what they run, with a query that runs at most once, and announce
themselves with `database:connect` and `database:disconnect` while plugins can hear it.
"""

from __future__ import annotations

import math
from abc import ABCMeta, abstractmethod
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any, Final, Protocol

from veko import Context, Event

__all__ = [
    "CONNECT", "DISCONNECT", "INSIDE", "QUERY", "Announcer", "BaseQuery", "DataSource", "Result",
    "is_inside",
]  # fmt: skip


class DataSource(metaclass=ABCMeta):  # noqa: B024  (its subclasses have nothing in common)
    """What is connected: the storage's engine, or the `Database` of the database service."""


class BaseQuery(metaclass=ABCMeta):
    """Something that was not run yet. `result = await query` runs it; it runs once.

    If a hook returns the result, that stands for the query, which has run.

    Attributes:
        operation: What it does: `"set"`, `"delete"`; `"select"`, `"insert"`.
    """

    __slots__ = ()

    operation: str

    @property
    @abstractmethod
    def started(self) -> bool:
        """Whether it runs or has run."""

    @abstractmethod
    def __await__(self) -> Generator[object, None, Result]:
        """Run it, if it does not run yet; return the number of entries or rows."""


@BaseQuery.register
class Result(int):
    """The number of entries or rows of a query that has run; returned by a hook, it is that query.

    `async def around(query): result = await query; return result` is how such hooks are written
    elsewhere. The next hook gets the result as its query, and may await it again.
    """

    query: Any

    def __new__(cls, number: int, query: BaseQuery) -> Result:
        """Make the result of a query."""
        self = super().__new__(cls, number)
        self.query = query
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.query, name)

    def __await__(self) -> Generator[object, None, Result]:
        """Return it again."""
        result: Generator[object, None, Result] = self.query.__await__()
        return result


class Emission(Protocol):
    """An emission of `database:query`.

    Attributes:
        hooked: Whether its hooks still run.
    """

    hooked: bool


INSIDE: Final[ContextVar[Emission | None]] = ContextVar("veko_database_query", default=None)
"""The emission of `database:query` in whose hook this code runs, in the storage or a database."""


def is_inside() -> bool:
    """Return whether this code runs in a hook on `database:query`, whose own queries emit none."""
    # A task that a hook has started keeps the variable for longer than the hook runs.
    emission = INSIDE.get()
    return emission is not None and emission.hooked


CONNECT: Final = Event(
    "database:connect",
    payload=DataSource,
    doc="The storage or the database is open, and plugins hear it: after they have loaded, before "
    "`app:start`; and when it is switched on. Argument: the storage's engine, or the `Database`.",
)
QUERY: Final = Event(
    "database:query",
    payload=BaseQuery,
    returns=True,
    doc="A plugin writes to its storage, or a statement is sent to the database. Argument: the "
    "query. `result = await query` runs it, once; otherwise it runs after the hooks. A returned "
    "result stands for the query. Not emitted for queries made inside such a hook.",
)
DISCONNECT: Final = Event(
    "database:disconnect",
    payload=DataSource,
    doc="The storage or the database is about to be closed, before plugins unload; or it is "
    "switched off. Argument: the storage's engine, or the `Database`.",
)


class Announcer:
    """Emits `database:connect` and `database:disconnect` for a core plugin, each in its turn.

    Args:
        context: The context of the core plugin, whose `load()` runs.
        source: What it has connected.
    """

    def __init__(self, context: Context, source: DataSource) -> None:
        self._context = context
        self._source = source
        self._begun = False  # whether the application's plugins have loaded
        self._connected = False
        for event in (CONNECT, QUERY, DISCONNECT):
            context.declare(event)
        context.hook("app:init", self._on_init, priority=math.inf, timeout=None)
        context.hook("app:stop", self._on_stop, priority=-math.inf, timeout=None)
        context.hook("plugin:activated", self._on_activated, timeout=None)

    async def disconnect(self) -> None:
        """Announce that it is switched off, unless `app:stop` has: for `deactivate()`."""
        if self._connected:
            self._connected = False
            await self._context.kernel.bus.emit(DISCONNECT.name, self._source)

    async def _on_init(self) -> None:
        self._begun = True
        await self._connect()

    async def _on_stop(self) -> None:
        self._begun = False
        await self.disconnect()

    async def _on_activated(self, name: str) -> None:
        if name == self._context.name and self._is_heard():
            await self._connect()

    def _is_heard(self) -> bool:
        """Return whether plugins have loaded; a manager emits `app:init` when they have."""
        kernel = self._context.kernel
        return (
            self._begun
            or kernel.registry.get("service", "loading") is None
            or any(record.loaded and not record.core for record in kernel.records())
        )

    async def _connect(self) -> None:
        if not self._connected:
            self._connected = True
            await self._context.kernel.bus.emit(CONNECT.name, self._source)
