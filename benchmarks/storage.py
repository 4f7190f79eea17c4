"""What does a durable `set` cost, compared with rewriting a JSON file, aiosqlite and plain SQLite?

    python benchmarks/storage.py [--seconds N] [--quick]

Every contender holds the same state, 1,000 entries of about 150 bytes (150 kB as JSON: ten plugins
of a hundred entries), and changes random entries of it. A `set` counts once it would survive `kill
-9`. The JSON file is rewritten at each `set`, as the original does, without fsync and without a
rename, which is the cheapest way. "100 at once" is either one task that sets a hundred entries and
awaits their handles, or a hundred tasks that each set and await one (making and waking the tasks
is then half of the time); peers use a hundred tasks. aiosqlite uses the same schema and pragmas
(WAL, `NORMAL`) and commits each `set`; a variant uses one transaction with `executemany`. The
limit is `sqlite3` alone: one `executemany` and one commit. `power` waits for the disk at each
commit; no other contender does, so beside it a file is appended by a page and synced, which is what
the disk itself needs. Contenders take turns in one process; see `_harness.py`. The
process is not pinned to a core, because some contenders use threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiosqlite
import msgspec
from _harness import Timings, take_turns
from _report import Report, progress, script

from veko_plugins.storage import Engine, Namespace

ENTRIES = 1_000
AT_ONCE = 100
SINGLE = ("veko", "json", "aiosqlite", "power", "fsync")
SEVERAL = ("one", "veko", "json", "aiosqlite", "many", "limit", "power")
SCHEMA = (
    "CREATE TABLE entry (namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, "
    "PRIMARY KEY (namespace, key)) WITHOUT ROWID"
)
UPSERT = (
    "INSERT INTO entry VALUES (?, ?, ?) "
    "ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"
)
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL")

Value = dict[str, object]
Pairs = list[tuple[str, Value]]
Cells = list[str]
Write = Callable[[Pairs], Awaitable[object]]

encode = msgspec.msgpack.Encoder().encode
dice = random.Random(0)


def value(number: int) -> Value:
    """Make an entry like those of a link shortener."""
    return {
        "url": f"https://example.org/articles/2026/{number:08}/how-it-is-built",
        "clicks": number,
        "tags": ["news", "python"],
        "owner": "somebody@example.org",
        "active": True,
    }


def some(count: int) -> Pairs:
    """Choose entries and their new values."""
    keys = dice.sample(range(ENTRIES), count)
    return [(f"link-{key}", value(dice.randrange(10**8))) for key in keys]


class JsonFile:
    """The whole state, rewritten at each change."""

    def __init__(self, path: Path, state: dict[str, Value]) -> None:
        self.path, self.state = path, dict(state)

    async def sets(self, pairs: Pairs) -> None:
        for key, new in pairs:
            self.state[key] = new
            self.path.write_text(json.dumps(self.state))


class Aiosqlite:
    """The usual way to SQLite from asyncio."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self.connection = connection

    async def prepare(self, state: dict[str, Value]) -> None:
        for statement in (*PRAGMAS, SCHEMA):
            await self.connection.execute(statement)
        await self.one_transaction([*state.items()])

    async def set(self, key: str, new: Value) -> None:
        await self.connection.execute(UPSERT, ("links", key, encode(new)))
        await self.connection.commit()

    async def alone(self, pairs: Pairs) -> None:
        for key, new in pairs:
            await self.set(key, new)

    async def at_once(self, pairs: Pairs) -> None:
        await asyncio.gather(*(self.set(key, new) for key, new in pairs))

    async def one_transaction(self, pairs: Pairs) -> None:
        rows = [("links", key, encode(new)) for key, new in pairs]
        await self.connection.executemany(UPSERT, rows)
        await self.connection.commit()


class Veko:
    """What is measured."""

    def __init__(self, storage: Namespace) -> None:
        self.storage = storage

    async def set(self, key: str, new: Value) -> None:
        await self.storage.set(key, new)

    async def alone(self, pairs: Pairs) -> None:
        for key, new in pairs:
            await self.storage.set(key, new)

    async def at_once(self, pairs: Pairs) -> None:
        await asyncio.gather(*(self.set(key, new) for key, new in pairs))

    async def by_one(self, pairs: Pairs) -> None:
        for handle in [self.storage.set(key, new) for key, new in pairs]:
            await handle


class Disk:
    """A page appended to a file and synced: what a commit that survives a power cut needs."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb", buffering=0)

    async def sets(self, pairs: Pairs) -> None:
        for _, new in pairs:
            self.file.write(encode(new).ljust(4096, b"\0"))
            os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()


class Limit:
    """SQLite, called straight from the loop with what it needs."""

    def __init__(self, path: Path, state: dict[str, Value]) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        for statement in (*PRAGMAS, SCHEMA):
            self.connection.execute(statement)
        self.write([("links", key, encode(new)) for key, new in state.items()])

    def write(self, rows: list[tuple[str, str, bytes]]) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(UPSERT, rows)
        self.connection.execute("COMMIT")

    def close(self) -> None:
        self.connection.close()


def writing(write: Write) -> Callable[[int], Awaitable[object]]:
    """Make a contender of what writes some pairs."""
    return lambda count: write(some(count))


async def reading(storage: Namespace, count: int = 20_000) -> tuple[float, float]:
    """Nanoseconds of a `get` of a scalar and of an entry as above."""
    storage.set("scalar", "https://example.org")
    taken = []
    for key in ("scalar", "link-1"):
        rounds = []
        for _ in range(7):
            get, start = storage.get, time.perf_counter_ns()
            for _ in range(count):
                get(key)
            rounds.append((time.perf_counter_ns() - start) / count)
        taken.append(statistics.median(rounds))
    return taken[0], taken[1]


def rows_of(
    report: Report, timings: Timings, labels: dict[str, tuple[str, float]], ours: list[str]
) -> list[Cells]:
    """Make a row a contender: its rate, its time by each of ours, and what was hoped for."""
    rows = []
    for name, (label, least) in labels.items():
        ratios = [timings.ratio(name, own) for own in ours]
        fastest = [timings.ratio_of_fastest(name, own) for own in ours]
        goal = report.goal(f"{label}, by Veko", min(ratios), least=least) if least else None
        cells = [f"{one:.2f}× ({other:.2f}×)" for one, other in zip(ratios, fastest, strict=True)]
        ends = [goal.wanted, goal.verdict] if goal else ["", ""]
        rows.append([label, f"{1e9 / timings.median(name):,.0f}", *cells, *ends])
    return rows


async def measure(report: Report, given: argparse.Namespace) -> None:
    """Measure both ways of setting, then reading."""
    seconds = given.seconds
    state = {f"link-{key}": value(key) for key in range(ENTRIES)}
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = await stack.enter_async_context(Engine(folder / "veko.db"))
        safe = await stack.enter_async_context(Engine(folder / "power.db", durability="power"))
        peer = Aiosqlite(await stack.enter_async_context(aiosqlite.connect(folder / "aio.db")))
        await peer.prepare(state)
        ours, power = Veko(engine.namespace("links")), Veko(safe.namespace("links"))
        await ours.storage.update(state)
        await power.storage.update(state)
        rewrite = JsonFile(folder / "state.json", state)
        limit = Limit(folder / "limit.db", state)
        stack.callback(limit.close)
        disk = Disk(folder / "disk")
        stack.callback(disk.close)

        async def encoded(pairs: Pairs) -> None:
            limit.write([("links", key, encode(new)) for key, new in pairs])

        progress("one after the other")
        alone = await take_turns(
            {
                "veko": (writing(ours.alone), 50),
                "json": (writing(rewrite.sets), 5),
                "aiosqlite": (writing(peer.alone), 20),
                "power": (writing(power.alone), 20),
                "fsync": (writing(disk.sets), 20),
            },
            seconds=seconds / 2,
        )
        progress(f"{AT_ONCE} at once")
        at_once = await take_turns(
            {
                "veko": (writing(ours.at_once), AT_ONCE),
                "json": (writing(rewrite.sets), 20),
                "aiosqlite": (writing(peer.at_once), AT_ONCE),
                "one": (writing(ours.by_one), AT_ONCE),
                "many": (writing(peer.one_transaction), AT_ONCE),
                "limit": (writing(encoded), AT_ONCE),
                "power": (writing(power.at_once), AT_ONCE),
            },
            seconds=seconds / 2,
        )
        scalar, mapping = await reading(ours.storage)
        size = len(json.dumps(rewrite.state)) / 1_000
    labels = {
        "one": ("Veko, one task awaits 100 handles", 0.0),
        "veko": ("Veko, 100 tasks await one each", 0.0),
        "json": ("JSON-file rewrite", 100.0),
        "aiosqlite": ("aiosqlite, a commit each", 2.5),
        "many": ("aiosqlite, one `executemany`", 0.0),
        "limit": ("`sqlite3` on the loop, one `executemany` (the limit)", 0.0),
        "power": ('Veko, `durability="power"`', 0.0),
        "fsync": ("a page appended to a file and synced", 0.0),
    }
    single = {name: (labels[name][0], 0.0) for name in SINGLE} | {"veko": ("Veko", 0.0)}
    head = ["sets/s", "by Veko's, one task", "by Veko's, 100 tasks", "goal", ""]
    several = {name: labels[name] for name in SEVERAL}
    report.table([f"{AT_ONCE} at once", *head], rows_of(report, at_once, several, ["one", "veko"]))
    head = ["sets/s", "by Veko's", "goal", ""]
    report.table(["one after the other", *head], rows_of(report, alone, single, ["veko"]))
    report.goals(
        "a read",
        [
            report.goal("`get` of a scalar", scalar / 1000, "{:.2f} µs", most=1),
            report.goal("`get` of a small mapping", mapping / 1000, "{:.2f} µs", most=1),
        ],
    )
    report.say(
        f"SQLite {sqlite3.sqlite_version}; a state of {ENTRIES:,} entries, {size:.0f} kB as JSON. "
        "Ratios are medians of rounds (fastest by fastest)."
    )


if __name__ == "__main__":
    script(measure, seconds=12)
