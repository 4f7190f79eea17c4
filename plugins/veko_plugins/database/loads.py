"""The transaction of a load: what migrations do is durable if the plugin goes live, else undone.

A plugin that migrates in its `load()` opens a transaction on a connection of its own, which is
committed right before the plugin goes live. Until then its sessions use that connection; so do
those of the plugins that are reloaded with it. If anything refuses the plugin, the transaction is
rolled back: the code that ran before finds its tables as they were.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from veko import PluginRecord
from veko.extend import Draft

from .engines import WRITES
from .errors import MigrationError
from .pool import named

__all__ = ["KIND", "LoadTransaction", "Loads", "loading"]

KIND: Final = "database transaction"
"""The kind of entry that commits the transaction of a load when its plugin is accepted."""
_STEPS: Final = frozenset({"load()", "activate()"})
_LOADING: Final[ContextVar[Any]] = ContextVar("veko_database_loading", default=None)


def loading() -> Any:
    """Return the generation whose `load()` or `activate()` runs here and is not live yet."""
    generation = _LOADING.get()
    if generation is None or generation.live or generation.closed:
        return None
    return generation


@contextmanager
def _within(generation: Any) -> Iterator[None]:
    token = _LOADING.set(generation)
    try:
        yield
    finally:
        _LOADING.reset(token)


class LoadTransaction:
    """An open transaction in which a plugin, or a group that reloads together, is loaded.

    Attributes:
        connection: Its connection; `None` once it has ended.
        owner: The plugin that has begun it.
    """

    def __init__(
        self, connection: AsyncConnection, owner: str, release: Callable[[], object]
    ) -> None:
        self.connection: AsyncConnection | None = connection
        self.owner = owner
        self._release = release

    async def commit(self) -> None:
        """Commit it and give back its connection; a second call does nothing.

        Raises:
            MigrationError: It has ended already.
            DBAPIError: The database refused it.
        """
        connection = self.connection
        if connection is None:
            return
        try:
            if not connection.in_transaction():
                raise MigrationError(
                    "the transaction of the load has ended before the plugin was live",
                    plugin=self.owner,
                    remedy="Do not commit or roll back the connection of a session in load().",
                )
            await connection.commit()
        finally:
            await self.close()

    async def close(self) -> None:
        """Roll it back if it is open, and give back its connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._release()


class Remembered:
    """The migrations that the code of a plugin came with, for when that code is loaded once more.

    A reload that fails, or that is rolled back later, loads the code of before again while the
    folder has the new migrations already: they are not that code's
    (test_code_that_is_brought_back_does_not_run_the_new_migrations).
    """

    def __init__(self) -> None:
        self._tried: dict[str, tuple[Any, Any]] = {}
        self._live: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def of(self, generation: Any) -> Any:
        """Return the migrations that a generation's code was live with; `None` if it was not."""
        found = self._live.get(id(generation.plugin))
        return found[1] if found is not None and found[0]() is generation.plugin else None

    def tried(self, generation: Any, migrations: object) -> None:
        """Note what the code of a generation has that is about to be loaded."""
        self._tried[generation.name] = generation.plugin, migrations

    def loaded(self, name: str, record: PluginRecord) -> None:
        """Note that a plugin is live; for `plugin:loaded`."""
        plugin, migrations = self._tried.pop(name, (None, None))
        if plugin is not None and plugin is record.plugin:
            key = id(plugin)
            gone = weakref.ref(plugin, lambda _: self._live.pop(key, None))
            self._live[key] = gone, migrations


class Loads:
    """The transactions of loads, one at a time in this process.

    Args:
        engine: The engine.
        timeout: How long a load waits for the transaction of another one, in seconds.

    Attributes:
        timeout: As given.
        remembered: The migrations of code that is or was live.
    """

    def __init__(self, engine: AsyncEngine, timeout: float) -> None:
        self._engine = engine
        self.timeout = timeout
        self.remembered = Remembered()
        self._lock = asyncio.Lock()
        self._open: dict[int, LoadTransaction] = {}

    @staticmethod
    def within(step: str, owner: Any) -> AbstractContextManager[None]:
        """Note whose `load()` or `activate()` runs; for `intercept_step`."""
        return _within(owner) if step in _STEPS else nullcontext()

    def current(self) -> LoadTransaction | None:
        """Return the transaction of the load that this code runs in, if it has one."""
        generation = loading() if self._open else None
        return None if generation is None else self._open.get(id(generation.group))

    async def begin(self, generation: Any) -> LoadTransaction:
        """Return the transaction of a generation's load; it is begun if there is none.

        Raises:
            MigrationError: Another plugin's load kept its transaction open for too long.
        """
        found = self.current()
        if found is None:
            found = await generation.context.enter(self._transaction(generation))
        generation.context.register(KIND, generation.name, found)
        return found

    @asynccontextmanager
    async def _transaction(self, generation: Any) -> AsyncIterator[LoadTransaction]:
        """Begin a transaction; at the end, roll it back if it was not committed."""
        await self._acquire(generation.name)
        key = id(generation.group)

        def release() -> None:
            self._open.pop(key, None)
            self._lock.release()

        try:
            connection = await named(self._engine, generation.name, **{WRITES: True}).connect()
        except BaseException:
            release()
            raise
        made = self._open[key] = LoadTransaction(connection, generation.name, release)
        try:
            await connection.begin()
            yield made
        finally:
            await made.close()

    async def _acquire(self, name: str) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self._lock.acquire()
        except TimeoutError:
            other = next((one.owner for one in self._open.values()), "another plugin")
            raise MigrationError(
                f"its migrations waited {self.timeout:g} s for the load of {other}, which has "
                "migrated and not ended",
                plugin=name,
                remedy=f"If {other} waits for a service of {name}, let it wait first and migrate "
                "afterwards.",
            ) from None

    @staticmethod
    async def accept(draft: Draft) -> None:
        """Commit the transactions of the plugins that are about to go live."""
        # The kinds of other core plugins, which may refuse, were asked before: this core plugin is
        # loaded last. What is refused later leaves tables that are ahead of the code, as any
        # change of tables does while old code runs.
        for entry in draft.added:
            if entry.kind == KIND:
                await entry.value.commit()
