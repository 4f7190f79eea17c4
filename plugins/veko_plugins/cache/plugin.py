"""The core plugin `cache`: opens the store, attaches `context.cache`, provides the service."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from veko import Context, Plugin

from .engine import Engine, Scope
from .exchange import Received
from .guarded import GuardedStore
from .memory import MemoryStore
from .service import Cache
from .stats import Counts
from .stores import Store, store_of
from .values import around_handler, refuse_for_all

if TYPE_CHECKING:
    from litestar.stores.base import Store as AnyStore

__all__ = ["CachePlugin", "Settings"]

_SWEEP: Final = 60.0

_Seconds = Annotated[float, msgspec.Meta(gt=0)]
_Bytes = Annotated[int, msgspec.Meta(gt=0)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins.cache]` in `veko.toml`.

    Attributes:
        ttl: Seconds that a value lives if nothing else is said.
        max_bytes: How much memory or disk the entries may take; a server has its own bound.
        max_value: Bytes that one value may have.
        timeout: Seconds that a request waits for a server at most.
        wait: Seconds that a caller waits for another's computation at most.
    """

    ttl: _Seconds = 3600.0
    max_bytes: _Bytes = 64 << 20
    max_value: _Bytes = 4 << 20
    timeout: _Seconds = 0.5
    wait: _Seconds = 10.0


class CachePlugin(Plugin):
    """The core plugin `cache`.

    Args:
        target: The URL of the store (`memory:`, `file:PATH`, `redis://…`), or one of Litestar's.
        directory: What a relative path starts at.

    Raises:
        OptionError: `load` raises it if the URL is not valid, or what it needs is not installed.
    """

    name = "cache"
    version = "2.0.0"
    description = "Values that are computed once and kept for a while"
    type = "cache"
    config_schema = Settings
    core = True

    def __init__(self, target: str | AnyStore = "memory:", directory: Path | None = None) -> None:
        self._target = target
        self._directory = directory or Path()
        self._scopes: dict[str, Scope] = {}

    async def load(self, context: Context) -> None:
        """Open the store."""
        settings = msgspec.convert(context.config, Settings)
        self._scopes = {}
        store = self._store(settings)
        opened: MemoryStore | GuardedStore
        if isinstance(store, MemoryStore):
            opened = store
        else:
            opened = GuardedStore(
                store,
                timeout=settings.timeout,
                report=lambda level, message: context.log(level, message),
                spawn=context.spawn,
            )
            context.every(_SWEEP, opened.sweep)
        await context.enter(_open(opened))
        engine = Engine(
            opened,
            context.kernel.bus,
            ttl=settings.ttl,
            max_value=min(settings.max_value, settings.max_bytes // 2),
            patience=settings.wait,
            response=functools.partial(_received, context),
            warn=functools.partial(context.log, "warning"),
        )

        async def changed(name: str) -> None:
            # Its author wants to see what the new code answers.
            await engine.clear(self._scope(name), (), None)

        context.hook("dev:hotreload", changed)
        context.provide("cache", Cache(engine, self._scope, ""))
        context.attach("cache", lambda holder: Cache(engine, self._scope, holder.name))
        context.hook("plugin:unloaded", self._forget)
        context.hook("route:create", around_handler, priority=-math.inf)
        context.hook("middleware:add", refuse_for_all)

    def _store(self, settings: Settings) -> Store:
        if isinstance(self._target, str):
            return store_of(self._target, self._directory, settings.max_bytes, settings.timeout)
        from .litestar import LitestarStore

        return LitestarStore(self._target)

    def _scope(self, name: str) -> Scope:
        found = self._scopes.get(name)
        if found is None:
            found = self._scopes[name] = Scope(name, Counts())
        return found

    def _forget(self, name: str) -> None:
        self._scopes.pop(name, None)


@asynccontextmanager
async def _open(store: MemoryStore | GuardedStore) -> AsyncIterator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()


def _received(context: Context) -> Received:
    received: Received = context.use("http").response.received
    return received
