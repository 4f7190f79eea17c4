"""The core plugin `storage`: gives every plugin its namespace as `context.storage`.

It opens the file when it loads; when it unloads, it flushes all writes and closes the file. Its
events let other plugins observe writes and run code around them; see `queries` for the cost.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, cast
from urllib.parse import parse_qsl, unquote

from veko import Context, Event, Plugin
from veko.errors import OptionError

from .._lib.masking import masked_text
from .engine import Durability, Engine
from .queries import Queries, Query
from .transfers import Transfers

__all__ = ["Storage", "parse_url"]

CONNECT: Final = Event(
    "database:connect",
    payload=Engine,
    doc="The storage's file was opened. Argument: the engine.",
)
QUERY: Final = Event(
    "database:query",
    payload=Query,
    returns=True,
    doc="A plugin writes to its storage. Argument: the query. `result = await query` runs it, "
    "once; otherwise it runs after the hooks. Not emitted for writes made inside such a "
    "hook.",
)
DISCONNECT: Final = Event(
    "database:disconnect",
    payload=Engine,
    doc="The storage's file is about to be closed. Argument: the engine.",
)

# Seconds for hooks that still run around a write when the storage closes.
_HOOKS_TIMEOUT: Final = 3.0
_KNOWN: Final = "sqlite:///path, sqlite:///:memory:"


class Storage(Plugin):
    """Durable storage for plugins.

    Args:
        target: A path, or a URL: `sqlite:///relative/path`, `sqlite:////absolute/path`,
            `sqlite:///:memory:`, each optionally with `?durability=power`.
        durability: What awaited writes survive: `"process"`, `kill -9`; `"power"`, a power cut
            too.

    Attributes:
        shared: Whether several processes may use one storage at once; false here. A core plugin
            that replaces this one may set it.

    Raises:
        OptionError: The URL has an unknown scheme or parameter.
    """

    name = "storage"
    version = "2.0.0"
    description = "Durable key-value storage: one namespace a plugin"
    type = "database"
    reload = "restart"  # a file has one engine
    core = True
    shared = False

    def __init__(
        self,
        target: str | Path = Path(".veko/storage.db"),
        *,
        durability: Durability | None = None,
    ) -> None:
        self.path, asked = parse_url(target)
        self.durability: Durability = durability or asked

    async def load(self, context: Context) -> None:
        """Open the file."""
        for event in (CONNECT, QUERY, DISCONNECT):
            context.declare(event)
        engine = await context.enter(self._opened(context))
        context.attach("storage", lambda holder: engine.namespace(holder.name))
        context.provide("storage", engine)
        context.provide("transfer", Transfers(engine))

    @asynccontextmanager
    async def _opened(self, context: Context) -> AsyncIterator[Engine]:
        bus = context.kernel.bus

        def report(error: Exception) -> None:
            context.log("error", f"a write failed: {error}")

        async with Engine(self.path, durability=self.durability, report=report) as engine:
            heard = functools.partial(bus.heard, QUERY.name)
            queries = Queries(engine, bus.emitter(QUERY.name), heard)
            await bus.emit(CONNECT.name, engine)
            try:
                yield engine
            finally:
                try:
                    await queries.close(_HOOKS_TIMEOUT)
                finally:
                    await bus.emit(DISCONNECT.name, engine)


def parse_url(target: str | Path) -> tuple[str, Durability]:
    """Split a storage's URL or path.

    Returns:
        The path (or `":memory:"`) and the durability.

    Raises:
        OptionError: The scheme or a parameter is unknown, or the path is missing.
    """
    text = str(target)
    shown = masked_text(text)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text:
            raise OptionError("the storage has no path", remedy=f"Give a path or one of {_KNOWN}")
        return text, "process"
    if scheme != "sqlite":
        raise OptionError(
            f"storage {shown!r}: the scheme {scheme!r} is unknown",
            remedy=f"Use one of {_KNOWN}",
        )
    location, _, parameters = rest.partition("?")
    path = unquote(location.removeprefix("/"))
    if not location.startswith("/") or not path:
        raise OptionError(
            f"storage {shown!r} has no path",
            remedy="Three slashes begin a relative path, four an absolute one: sqlite:///data.db",
        )
    durability = "process"
    for name, value in parse_qsl(parameters, keep_blank_values=True):
        if name != "durability" or value not in {"process", "power"}:
            raise OptionError(
                f"storage {shown!r}: the parameter {name} is unknown, or its value is",
                remedy="Use durability=process or durability=power",
            )
        durability = value
    return path, cast(Durability, durability)
