"""`database:query`: hooks that run around the statements of an engine, and a span for each.

It sits where SQLAlchemy hands a statement to the driver, so it sees all: those of sessions (also
the ones that flushing and loading attributes make), of connections, of migrations. A hook sees text
and parameters as the driver gets them. A hook that fails or hangs does not stop the statement; if
the statement fails, its author gets the error.

Cost: a look at the plan of the event while there are no subscribers; otherwise an emission, and a
task if a hook awaits the query.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.util.concurrency import await_only, greenlet_spawn

from veko import Stop

from .._lib.database_events import INSIDE, BaseQuery, Result, is_inside
from .pool import OWNER

__all__ = ["QUIET", "Queries", "Query", "QueryError"]

QUIET: Final = "veko_quiet"
"""The execution option of statements of Veko's own, which are no queries of a plugin."""
_FIRST_WORD: Final = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w+)", re.S)
_CONTROL: Final = frozenset({"begin", "savepoint", "release", "rollback"})


class QueryError(Stop):
    """Raised by `await query` if the statement failed: the cause is the driver's error.

    A hook need not catch it: it ends the emission, is no failure of the hook, and the author of the
    statement gets the error as SQLAlchemy raises it.
    """

    def __str__(self) -> str:
        return f"the query failed: {type(self.__cause__).__name__}: {self.__cause__}"


class Query(BaseQuery):
    """A statement that was not run yet. `result = await query` runs it; it runs once.

    If a hook returns another query (see `replace`) before this one has run, that one runs instead.

    Attributes:
        operation: The first word of the statement: `"select"`, `"insert"`, …
        statement: The SQL, as the driver gets it.
        parameters: Its parameters: a sequence or a mapping, a list of them if `many`.
        many: Whether it runs once for each of several sets of parameters.
        plugin: The plugin that makes it; `None` if it uses no database of its own.
        duration: The seconds that it took; `None` if it has not run.
    """

    __slots__ = ("_run", "_task", "duration", "many", "operation", "parameters", "plugin",
                 "statement")  # fmt: skip

    def __init__(
        self,
        statement: str,
        parameters: Any,
        plugin: str | None,
        run: Callable[[str, Any], object],
        *,
        many: bool,
    ) -> None:
        self.statement = statement
        self.parameters = parameters
        self.plugin = plugin
        self.many = many
        self.operation = operation_of(statement)
        self.duration: float | None = None
        self._run = run
        self._task: asyncio.Task[int] | None = None

    def __repr__(self) -> str:
        return f"<Query of {self.plugin or 'the application'}: {' '.join(self.statement.split())}>"

    @property
    def started(self) -> bool:
        """Whether it runs or has run."""
        return self._task is not None or self.duration is not None

    def replace(self, statement: str, parameters: Any = None) -> Query:
        """Return a query that runs another statement instead; its rows must be alike.

        Args:
            statement: The SQL, for the driver.
            parameters: Its parameters; `None` for those of this query.
        """
        kept = self.parameters if parameters is None else parameters
        return Query(statement, kept, self.plugin, self._run, many=self.many)

    def __await__(self) -> Generator[object, None, Result]:
        """Run it, if it does not run yet; return the number of rows (-1 if that is not known).

        Raises:
            QueryError: It failed.
        """
        return self._result().__await__()

    async def _result(self) -> Result:
        # In a task of its own: a hook that exceeds its time limit must not cut the statement off
        # (test_a_hook_that_exceeds_its_limit_does_not_stop_the_query).
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self.run(), name="database:query")
        try:
            return Result(await asyncio.shield(self._task), self)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            raise QueryError(self) from error

    async def run(self) -> int:
        """Run it in this task; return the number of rows."""
        begin = time.perf_counter()
        try:
            cursor: Any = await greenlet_spawn(self._run, self.statement, self.parameters)
        finally:
            self.duration = time.perf_counter() - begin
        return int(getattr(cursor, "rowcount", -1))

    async def finish(self) -> None:
        """Run it unless it has run; raise its error.

        Raises:
            Exception: What the driver raised.
        """
        if self._task is None:
            await self.run()
            return
        try:
            await asyncio.shield(self._task)
        except asyncio.CancelledError:
            await self.abandon()
            raise

    async def abandon(self) -> None:
        """Cut it off, because its author was cancelled: nothing else may use the connection."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])


class _Emission:
    """See `INSIDE`."""

    __slots__ = ("hooked",)

    def __init__(self) -> None:
        self.hooked = True


class Queries:
    """Emits the statements of an engine.

    Args:
        engine: The synchronous engine.
        emit: Emits `database:query` and returns the hooks' result.
        heard: Returns whether the event has subscribers.
        system: The kind of the database, for spans.
    """

    def __init__(
        self,
        engine: Any,
        emit: Callable[[Query], Awaitable[object]],
        heard: Callable[[], bool],
        system: str,
    ) -> None:
        self._dialect = engine.dialect
        self._emit = emit
        self._heard = heard
        self._system = system
        event.listen(engine, "do_execute", self._one)
        event.listen(engine, "do_executemany", self._many)
        event.listen(engine, "do_execute_no_params", self._plain)

    # Called by SQLAlchemy in the greenlet of a statement; `True`: it was executed here.

    def _one(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        traced = _tracer()
        if traced is None and not self._heard():
            return False
        execute = self._dialect.do_execute
        return self._around(execute, cursor, statement, parameters, context, traced)

    def _many(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        traced = _tracer()
        if traced is None and not self._heard():
            return False
        execute = self._dialect.do_executemany
        return self._around(execute, cursor, statement, parameters, context, traced, many=True)

    def _plain(self, cursor: Any, statement: str, context: Any) -> bool:
        traced = _tracer()
        if traced is None and not self._heard():
            return False

        def execute(cursor: Any, statement: str, _: object, context: Any) -> None:
            self._dialect.do_execute_no_params(cursor, statement, context)

        return self._around(execute, cursor, statement, (), context, traced)

    def _around(
        self,
        execute: Callable[[Any, str, Any, Any], object],
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        tracer: Any,
        *,
        many: bool = False,
    ) -> bool:
        options = context.execution_options if context is not None else {}
        if options.get(QUIET) or operation_of(statement) in _CONTROL:
            return False
        plugin = options.get(OWNER)

        def run(statement: str, parameters: Any) -> Any:
            if tracer is None:
                execute(cursor, statement, parameters, context)
            else:
                with self._span(tracer, statement, plugin):
                    execute(cursor, statement, parameters, context)
            return cursor

        if not self._heard() or is_inside():
            run(statement, parameters)
        else:
            await_only(self._hooked(Query(statement, parameters, plugin, run, many=many)))
        return True

    async def _hooked(self, query: Query) -> None:
        emission = _Emission()
        token = INSIDE.set(emission)
        try:
            made = await self._emit(query)
        except QueryError:
            made = query
        except BaseException:
            await query.abandon()
            raise
        finally:
            emission.hooked = False
            INSIDE.reset(token)
        made = made.query if isinstance(made, Result) else made
        if isinstance(made, Query) and not query.started:
            query = made
        await query.finish()

    def _span(
        self, tracer: Any, statement: str, plugin: str | None
    ) -> AbstractContextManager[object]:
        operation = operation_of(statement)
        attributes = {
            "db.system.name": self._system,
            "db.operation.name": operation.upper(),
            "db.query.text": statement,  # its parameters are no part of it
        }
        if plugin is not None:
            attributes["veko.plugin"] = plugin
        name = f"{operation.upper()} ({self._system})"
        kind = sys.modules["opentelemetry.trace"].SpanKind.CLIENT
        span: AbstractContextManager[object] = tracer.start_as_current_span(
            name, kind=kind, attributes=attributes
        )
        return span


def operation_of(statement: str) -> str:
    """Return the first word of a statement, in lower case; empty if there is none."""
    found = _FIRST_WORD.match(statement)
    return found[1].lower() if found is not None else ""


def _tracer() -> Any:
    """Return OpenTelemetry's tracer if a span is being recorded here."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().is_recording():
        return None
    return trace.get_tracer("veko.database")
