"""What does a hit save, and what does it cost beside its peers?

    python benchmarks/cache.py [--seconds N] [--quick] [--redis URL]

Responses: the same handler without a cache, inside a middleware that does nothing, and answered
from the cache in memory, by the adapter `asgi` and called as a server calls it; beside Litestar's
own response cache with its MemoryStore. One handler returns a word, another a list of 200 structs;
the third runs a small query on SQLite.
Values: `get` in memory beside Litestar's MemoryStore and a dict; `get` on Redis, where it is
installed, beside the bare client. Misses: how often 1,000 callers that ask for one key at once
compute it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import sqlite3
import time
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import msgspec
from _apps import ask
from _harness import Batch, batch, compare, pinned, quiet
from _report import Report, progress, script
from _servers import storages
from litestar import Litestar, get
from litestar.stores.memory import MemoryStore

from veko_plugins import Cache, PluginManager, Request, Response
from veko_plugins.http import CallNext

MANY = 1_000


class Post(msgspec.Struct):
    id: int
    title: str
    text: str


POSTS = [Post(n, f"post {n}", "water, leaves, four minutes " * 4) for n in range(200)]


def word() -> str:
    return "tea"


def posts() -> list[Post]:
    return POSTS


DATABASE = sqlite3.connect(":memory:")
DATABASE.execute("create table posts (id integer primary key, title text, text text)")
DATABASE.executemany("insert into posts values (?, ?, ?)", map(msgspec.structs.astuple, POSTS))


def query() -> list[dict[str, Any]]:
    rows = DATABASE.execute("select id, title from posts where title like '%7%' order by title")
    return [{"id": number, "title": title} for number, title in rows]


async def through(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


def load(context: Any) -> None:
    for handler in (word, posts, query):
        for name, around in (
            ("plain", ()), ("through", (through,)), ("cached", (context.cache.cached(3600),)),
            ("value", (context.cache.cached(3600, encoded=False),)),
        ):  # fmt: skip
            path = f"/{handler.__name__}/{name}"
            context.add_route("GET", path, *around, handler, sync_to_thread=False)


def litestar() -> Litestar:
    @get("/word", cache=3600, sync_to_thread=False)
    def cached_word() -> str:
        return "tea"

    @get("/posts", cache=3600, sync_to_thread=False)
    def cached_posts() -> list[Post]:
        return POSTS

    @get("/query", cache=3600, sync_to_thread=False)
    def cached_query() -> list[dict[str, Any]]:
        return query()

    return Litestar([cached_word, cached_posts, cached_query], openapi_config=None)


async def responses(manager: PluginManager, seconds: float) -> list[list[str]]:
    rows = []
    for handler in ("word", "posts", "query"):
        progress(handler)

        async def make(handler: str = handler) -> dict[str, Batch]:
            calls = {
                name: functools.partial(ask, manager.asgi, f"/{handler}/{name}")
                for name in ("plain", "through", "cached", "value")
            }
            calls["litestar"] = functools.partial(ask, litestar(), f"/{handler}")
            for call in calls.values():
                await call()
            return {name: batch("await call()", call=call) for name, call in calls.items()}

        found = await compare(make, seconds=seconds)
        rows += [
            [f"GET, {handler}", name, f"{found.median(name) / 1000:.1f} µs",
             f"{found.ratio(name, 'plain'):.2f}"]
            for name in found.names
        ]  # fmt: skip
    return rows


async def values(cache: Cache, seconds: float, stack: AsyncExitStack, url: str) -> list[list[str]]:
    value = {"id": 7, "title": "tea", "text": "water, leaves, four minutes"}
    data = msgspec.msgpack.encode(value)
    decode = msgspec.msgpack.decode
    store, plain = MemoryStore(), {"k": data}
    await store.set("k", data, 3600)
    await cache.set("k", value)

    async def make() -> dict[str, Batch]:
        return {
            "dict": batch("decode(plain['k'])", decode=decode, plain=plain),
            "cache.get": batch("await get('k')", get=cache.get),
            "get_or_set": batch("await ask('k', int)", ask=cache.get_or_set),
            "MemoryStore": batch("decode(await get('k'))", get=store.get, decode=decode),
        }

    found = await compare(make, seconds=seconds)
    rows = [
        ["value, memory", name, f"{found.median(name) / 1000:.2f} µs",
         f"{found.ratio(name, 'MemoryStore'):.2f}"]
        for name in found.names
    ]  # fmt: skip
    if not url:
        return rows
    import redis.asyncio

    client = await stack.enter_async_context(redis.asyncio.Redis.from_url(url))
    await client.set("bare", data)
    manager = await stack.enter_async_context(
        PluginManager(auto_load=False, storage="memory:", cache=f"{url}?prefix=bench", adapter=None)
    )
    shared = manager.use("cache")
    await shared.set("k", value)

    async def on_redis() -> dict[str, Batch]:
        return {
            "client": batch("decode(await get('bare'))", get=client.get, decode=decode),
            "cache.get": batch("await get('k')", get=shared.get),
            "get_or_set": batch("await ask('k', int)", ask=shared.get_or_set),
        }

    found = await compare(on_redis, seconds=seconds, batch_ns=5_000_000)
    rows += [
        ["value, Redis", name, f"{found.median(name) / 1000:.0f} µs",
         f"{found.ratio(name, 'client'):.2f}"]
        for name in found.names
    ]  # fmt: skip
    return [*rows, *await misses("misses, Redis", shared)]


async def misses(title: str, cache: Cache) -> list[list[str]]:
    """Ask for a key that is missing, from many tasks at once."""
    computed = 0

    async def compute() -> list[int]:
        nonlocal computed
        computed += 1
        await asyncio.sleep(0.05)
        return [computed]

    await cache.delete("missing")
    begin = time.perf_counter()
    with quiet():
        await asyncio.gather(*(cache.get_or_set("missing", compute) for _ in range(MANY)))
    took = (time.perf_counter() - begin) * 1000 - 50
    return [[title, f"{MANY} at once", f"{took:.0f} ms", f"{computed} computed"]]


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure all."""
    async with AsyncExitStack() as stack:
        servers = stack.enter_context(ExitStack())
        url = given.redis or storages(servers, report, ("redis",)).get("redis", "")
        stack.enter_context(pinned())
        manager = await stack.enter_async_context(
            PluginManager(
                auto_load=False, storage="memory:", cache="memory:", adapter="asgi", watchdog=0
            )
        )
        await manager.load_plugin(manager.create_simple_plugin("site", load))
        cache = manager.use("cache")
        each = given.seconds / 5
        rows = await responses(manager, each)
        rows += await values(cache, each, stack, url)
        rows += await misses("misses, memory", cache)
        report.table(["", "contender", "median", "ratio"], rows)


if __name__ == "__main__":
    script(
        measure,
        seconds=8,
        options=lambda parser: parser.add_argument(
            "--redis", default="", metavar="URL", help="a Redis that runs"
        ),
    )
