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

from veko import Context, Plugin
from veko.errors import OptionError

from .._lib.database_events import QUERY, Announcer
from .._lib.masking import masked_text
from .base import BaseEngine
from .database import MEMORY
from .engine import Durability, Engine
from .port import find_backend, schemes
from .queries import Queries
from .shared import SharedEngine
from .transfers import SharedTransfers, Transfers

__all__ = ["Storage", "is_shared", "parse_url"]

# Seconds for hooks that still run around a write when the storage closes.
_HOOKS_TIMEOUT: Final = 3.0
_OF_ONE: Final = frozenset({"sqlite", "memory"})
_KNOWN: Final = "sqlite:///path, memory:, redis://…, postgresql://…, nats://…"


class Storage(Plugin):
    """Durable storage for plugins.

    Args:
        target: A path, or a URL: `sqlite:///relative/path`, `sqlite:////absolute/path`,
            `sqlite:///:memory:`, each optionally with `?durability=power`; `memory:`; or the URL of
            a server whose adapter is installed: `redis://…`, `postgresql://…`, `nats://…`.
        durability: What awaited writes to a file survive: `"process"`, `kill -9`; `"power"`, a
            power cut too.

    Attributes:
        shared: Whether several processes may use one storage at once: true for servers. A core
            plugin that replaces this one may set it.

    Raises:
        OptionError: The URL has an unknown scheme or parameter, or its adapter is not installed.
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
        self.path: str | None = None
        self._url: str | None = None
        self.durability: Durability = durability or "process"
        if is_shared(target):
            self._url = str(target)
            find_backend(self._url)  # an error is reported now
            self.shared = True
        else:
            self.path, asked = parse_url(target)
            self.durability = durability or asked
        self._announcer: Announcer | None = None

    async def load(self, context: Context) -> None:
        """Open the file; announce it when plugins can hear that."""
        engine = await context.enter(self._opened(context))
        self._announcer = Announcer(context, engine)
        context.attach("storage", lambda holder: engine.namespace(holder.name))
        context.provide("storage", engine)
        if isinstance(engine, Engine):
            context.provide("transfer", Transfers(engine))
        elif isinstance(engine, SharedEngine):
            context.provide("transfer", SharedTransfers(engine))

    async def deactivate(self) -> None:
        """Announce that it is switched off, unless `app:stop` has."""
        if self._announcer is not None:
            await self._announcer.disconnect()

    @asynccontextmanager
    async def _opened(self, context: Context) -> AsyncIterator[BaseEngine]:
        bus = context.kernel.bus

        def report(error: Exception) -> None:
            context.log("error", f"a write failed: {error}")

        made: BaseEngine
        if self._url is not None:
            made = SharedEngine(find_backend(self._url), report=report)
        else:
            made = Engine(self.path or MEMORY, durability=self.durability, report=report)
        async with made as engine:
            heard = functools.partial(bus.heard, QUERY.name)
            queries = Queries(engine, bus.emitter(QUERY.name), heard)
            try:
                yield engine
            finally:
                await queries.close(_HOOKS_TIMEOUT)


def is_shared(target: str | Path | None) -> bool:
    """Return whether several processes can use the storage of a URL or path at once."""
    scheme, separator, rest = str(target or "").partition(":")
    if not separator or not scheme or scheme in _OF_ONE:
        return False
    return rest.startswith("//") or scheme in schemes()


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
        return (MEMORY if text == "memory:" else text), "process"
    if scheme == "memory" and not rest:
        return MEMORY, "process"
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
