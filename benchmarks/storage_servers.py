"""What does a durable `set` on a server cost, beside the server's bare client?

    python benchmarks/storage_servers.py [--seconds N] [--quick] [URL ...]

A Redis, PostgreSQL or NATS is started for it where its program is installed, unless URLs of servers
that run are given. For each, in turns in one process: one `set` after the other, each awaited;
and 100 at once. The bare client writes the same encoded entries without a mirror, revisions,
changes for other processes, or protection from carrying out a write twice: `HSET` on Redis (at
once: one `MULTI`), `INSERT … ON CONFLICT` on PostgreSQL (at once: `executemany`), `put` of the
key-value bucket on NATS (at once: 100 tasks, no transaction; ours is one). Goal: at least 0.8 of
the bare client's rate. See `_harness.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from _harness import take_turns
from _report import Report, progress, script
from _servers import storages

from veko_plugins.storage import SharedEngine, find_backend

AT_ONCE = 100
ALONE = 20
GOAL = 0.8
Pairs = list[tuple[str, dict[str, object]]]
Write = Callable[[Pairs], Awaitable[object]]

encode = msgspec.msgpack.Encoder().encode


def pairs_of(count: int, number: int) -> Pairs:
    """Make entries like those of a link shortener."""
    return [
        (
            f"link-{key}",
            {"url": f"https://example.org/articles/{number:08}", "clicks": number, "tags": ["a"]},
        )
        for key in range(count)
    ]


@asynccontextmanager
async def redis(url: str) -> AsyncIterator[tuple[Write, Write]]:
    from redis.asyncio import Redis

    client: Any = Redis.from_url(url)

    async def alone(pairs: Pairs) -> None:
        for key, value in pairs:
            await client.hset("bare", key, encode(value))

    async def at_once(pairs: Pairs) -> None:
        pipe = client.pipeline(transaction=True)
        for key, value in pairs:
            pipe.hset("bare", key, encode(value))
        await pipe.execute()

    yield alone, at_once
    await client.aclose()


@asynccontextmanager
async def postgres(url: str) -> AsyncIterator[tuple[Write, Write]]:
    import asyncpg

    client: Any = await asyncpg.connect(url)
    await client.execute("CREATE TABLE IF NOT EXISTS bare (key text PRIMARY KEY, value bytea)")
    upsert = "INSERT INTO bare VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2"

    async def alone(pairs: Pairs) -> None:
        for key, value in pairs:
            await client.execute(upsert, key, encode(value))

    async def at_once(pairs: Pairs) -> None:
        await client.executemany(upsert, [(key, encode(value)) for key, value in pairs])

    yield alone, at_once
    await client.close()


@asynccontextmanager
async def nats(url: str) -> AsyncIterator[tuple[Write, Write]]:
    import nats as nats_py

    client = await nats_py.connect(url)
    bucket: Any = await client.jetstream().create_key_value(bucket="bare")

    async def alone(pairs: Pairs) -> None:
        for key, value in pairs:
            await bucket.put(key, encode(value))

    async def at_once(pairs: Pairs) -> None:
        await asyncio.gather(*(bucket.put(key, encode(value)) for key, value in pairs))

    yield alone, at_once
    await client.close()


BARE = {"redis": redis, "postgresql": postgres, "nats": nats}


def writing(write: Write) -> Callable[[int], Awaitable[object]]:
    """Make a contender of what writes some pairs."""
    turn = itertools.count()
    return lambda count: write(pairs_of(count, next(turn)))


async def contend(report: Report, url: str, seconds: float) -> list[list[str]]:
    """Return a row each for one after the other, and for 100 at once."""
    scheme = url.partition(":")[0]
    backend = find_backend(f"{url}?prefix=bench{uuid.uuid4().hex[:8]}")
    rows = []
    async with BARE[scheme](url) as (alone, at_once), SharedEngine(backend) as engine:
        storage = engine.namespace("links")

        async def ours_alone(pairs: Pairs) -> None:
            for key, value in pairs:
                await storage.set(key, value)

        async def ours_at_once(pairs: Pairs) -> None:
            for handle in [storage.set(key, value) for key, value in pairs]:
                await handle

        for label, ours, bare, count in (
            ("one after the other", ours_alone, alone, ALONE),
            (f"{AT_ONCE} at once", ours_at_once, at_once, AT_ONCE),
        ):
            turns = {"ours": (writing(ours), count), "bare": (writing(bare), count)}
            timings = await take_turns(turns, seconds=seconds / 2, least=8)
            ratio = timings.ratio("bare", "ours")
            goal = report.goal(f"{scheme}, {label}, of bare", ratio, least=GOAL)
            rates = [f"{1e9 / timings.median(name):,.0f}" for name in ("ours", "bare")]
            rows.append([f"{scheme}, {label}", *rates, *goal.cells()[1:]])
    return rows


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure each server."""
    with contextlib.ExitStack() as stack:
        urls = given.urls or [*storages(stack, report).values()]
        rows = []
        for url in urls:
            progress(url.partition(":")[0])
            rows += await contend(report, url, given.seconds / len(urls))
    if rows:
        report.table(["", "Veko, sets/s", "bare, sets/s", "of bare", "goal", ""], rows)


if __name__ == "__main__":
    script(
        measure,
        seconds=9,
        options=lambda parser: parser.add_argument("urls", nargs="*", metavar="URL"),
    )
