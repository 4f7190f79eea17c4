"""The conformance suite of storages: what every engine must do, on a real server.

A test module runs all cases by a star import, and gives the URL of an empty storage in a fixture::

    import pytest
    from veko_adapters.conformance.storage import *

    @pytest.fixture
    def storage_url():
        return "redis://127.0.0.1:6379/0"

Each case uses a `prefix` of its own on servers. Cases about several processes are skipped for a
storage that belongs to one.
"""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest

from veko.errors import StorageError
from veko_plugins.storage import (
    ABSENT,
    BaseEngine,
    Change,
    Engine,
    Namespace,
    SharedEngine,
    SharedTransfers,
    Transfers,
    Watch,
    find_backend,
    is_shared,
)

from ._site import anyio_backend

pytestmark = pytest.mark.anyio

Open = Callable[[], "asyncio.Future[BaseEngine]"]
SECONDS = 20.0
"""Seconds within which what is waited for happens."""

ODD_KEYS = [
    " ", ".", "..", "*", ">", "a.b.*.>", "=", "\0", "a\0b", "\n", "'; DROP TABLE entry; --", "%s",
    "$1", "/", "\\", "{tag}", "[", "é", "日本語", "\U0001f600", "\u202e", "x" * 512,
    "\U0001f600" * 512, "KV-Operation", "_", "-", "A", "a",
]  # fmt: skip
VALUES = [
    None, True, 0, -1, 2**80, 1.5, float("inf"), "", "text", "\0", b"", b"\0\xff", [], [1, [2]],
    (1, "a"), {1, 2}, {}, {"a": {"b": [1]}}, {1: "one"}, Decimal("1.10"), dt.date(2026, 1, 2),
    dt.timedelta(days=1, microseconds=5), uuid.UUID(int=5),
]  # fmt: skip


def of_prefix(url: str) -> str:
    """Return a server's URL with a prefix that no other case has; another URL as it is."""
    if not is_shared(url):
        return url
    return f"{url}{'&' if '?' in url else '?'}prefix=t{uuid.uuid4().hex[:12]}"


def engine_of(url: str, *, patience: float = 10.0) -> BaseEngine:
    """Return a new engine for a URL or path."""
    if is_shared(url):
        return SharedEngine(find_backend(url), patience=patience)
    return Engine(":memory:" if url == "memory:" else url)


@pytest.fixture
async def url(storage_url: str) -> str:
    return of_prefix(storage_url)


@pytest.fixture
async def opened(url: str) -> AsyncIterator[Callable[[], object]]:
    """Open a further engine on the same storage; all are closed with the test."""
    async with AsyncExitStack() as stack:

        async def make() -> BaseEngine:
            return await stack.enter_async_context(engine_of(url))

        yield make


@pytest.fixture
async def engine(opened: Open) -> BaseEngine:
    return await opened()


@pytest.fixture
async def other(url: str, opened: Open) -> BaseEngine:
    """A second engine, as another process has it."""
    if not is_shared(url):
        pytest.skip("the storage belongs to one process")
    return await opened()


async def shows(namespace: Namespace, key: str, value: object) -> None:
    """Wait until an engine shows a value."""
    async with asyncio.timeout(SECONDS):
        while namespace.get(key, ABSENT) != value:  # noqa: ASYNC110  (reading is what is tested)
            await asyncio.sleep(0.002)


async def changes_of(watch: Watch, count: int) -> list[Change]:
    """Take that many changes."""
    async with asyncio.timeout(SECONDS):
        return [await anext(watch) for _ in range(count)]


async def test_values_are_there_again_after_reopening(url: str) -> None:
    if url in ("memory:", ":memory:"):
        pytest.skip("memory keeps nothing")
    async with engine_of(url) as engine:
        storage = engine.namespace("one")
        for number, value in enumerate(VALUES):
            storage.set(f"k{number}", value)
        await storage.set("last", 1)
        assert [storage.get(f"k{number}") for number in range(len(VALUES))] == VALUES
    async with engine_of(url) as engine:
        storage = engine.namespace("one")
        found = [storage.get(f"k{number}") for number in range(len(VALUES))]
        assert found == VALUES
        assert [type(value) for value in found] == [type(value) for value in VALUES]
        assert len(storage) == len(VALUES) + 1


async def test_odd_keys_are_kept_apart(engine: BaseEngine) -> None:
    storage = engine.namespace("odd")
    await storage.update({key: key for key in ODD_KEYS})
    if isinstance(engine, SharedEngine):
        await engine.refresh()
    storage.forget()
    assert {key: storage.get(key) for key in ODD_KEYS} == {key: key for key in ODD_KEYS}
    for key in ODD_KEYS:
        assert await storage.compare_and_set(key, key, 1)
        await storage.delete(key)
    storage.forget()
    assert storage.keys() == []


async def test_namespaces_do_not_see_each_other(engine: BaseEngine) -> None:
    names = ["a", "b", "a.b", "a:b", "@scope/name", "*"]
    for name in names:
        await engine.namespace(name).set("key", name)
    await engine.namespace("b").clear()
    if isinstance(engine, SharedEngine):
        await engine.refresh()
    assert [engine.namespace(name).get("key") for name in names] == [
        None if name == "b" else name for name in names
    ]
    assert engine.namespaces() == sorted({*names} - {"b"})


async def test_writes_of_one_turn_keep_their_order(engine: BaseEngine) -> None:
    storage = engine.namespace("turn")
    await storage.update({"a": 1, "b": 1})
    storage.set("c", 1)
    storage.clear()
    storage.set("a", 2)
    storage.set("gone", 1)
    await storage.delete("gone")
    if isinstance(engine, SharedEngine):
        await engine.refresh()
    storage.forget()
    assert dict(storage.items()) == {"a": 2}


async def test_a_thousand_entries_in_one_transaction(engine: BaseEngine) -> None:
    storage = engine.namespace("many")
    entries = {f"k{number}": number for number in range(1_000)}
    await storage.update(entries)
    await storage.set("one more", True)
    if isinstance(engine, SharedEngine):
        await engine.refresh()
    storage.forget()
    assert dict(storage.items()) == {**entries, "one more": True}


async def test_a_large_value(engine: BaseEngine) -> None:
    storage, value = engine.namespace("large"), b"\xc7\x00" * 400_000
    await storage.set("key", value)
    if isinstance(engine, SharedEngine):
        await engine.refresh()
    storage.forget()
    assert storage.get("key") == value


async def test_compare_and_set(engine: BaseEngine) -> None:
    storage = engine.namespace("swap")
    assert await storage.compare_and_set("key", ABSENT, 1)
    assert storage.get("key") == 1
    assert not await storage.compare_and_set("key", ABSENT, 2)
    assert not await storage.compare_and_set("key", None, 2)
    assert not await storage.compare_and_set("key", 2, 3)
    assert await storage.compare_and_set("key", 1, {"a": [1]})
    storage.set("key", {"a": [2]})
    assert not await storage.compare_and_set("key", {"a": [1]}, 3)
    assert await storage.compare_and_set("key", {"a": [2]}, ABSENT)
    assert "key" not in storage
    assert await storage.compare_and_set("key", None, None)
    assert await storage.compare_and_set("key", None, 5)
    await storage.clear()
    assert await storage.compare_and_set("key", ABSENT, 6)
    assert storage.get("key") == 6


async def test_many_tasks_count_with_compare_and_set(engine: BaseEngine) -> None:
    storage = engine.namespace("count")
    await asyncio.gather(*(_count(storage, 5) for _ in range(8)))
    assert storage.get("n") == 40


async def _count(storage: Namespace, times: int) -> None:
    for _ in range(times):
        while True:
            now = storage.get("n")
            if await storage.compare_and_set("n", now, (now or 0) + 1):
                break
            await asyncio.sleep(0.001)


async def test_two_processes_count_with_compare_and_set(
    engine: BaseEngine, other: BaseEngine
) -> None:
    ours, theirs = engine.namespace("count"), other.namespace("count")
    await asyncio.gather(_count(ours, 20), _count(theirs, 20), _count(ours, 20))
    await shows(ours, "n", 60)
    await shows(theirs, "n", 60)


async def test_an_entry_expires(engine: BaseEngine) -> None:
    storage = engine.namespace("short")
    watch = storage.watch("s")
    await storage.set("stays", {"a": 1}, ttl=60)
    await storage.set("short", {"a": 1}, ttl=0.2)
    storage.set("changed", 1, ttl=0.2)
    await storage.set("changed", 2)
    assert storage.get("short") == {"a": 1}
    assert await storage.compare_and_set("swapped", None, 1, ttl=0.2)
    await shows(storage, "short", ABSENT)
    async with asyncio.timeout(SECONDS):
        while (change := await anext(watch)) != Change("short", None, True):
            assert not change.deleted or change.key == "swapped"
    await shows(storage, "swapped", ABSENT)
    assert sorted(storage.keys()) == ["changed", "stays"]
    assert dict(storage.items()) == {"changed": 2, "stays": {"a": 1}}
    storage.forget()
    assert len(storage) == 2
    assert storage.get("stays") == {"a": 1}


async def test_an_expired_entry_is_none_to_compare_and_set(engine: BaseEngine) -> None:
    storage = engine.namespace("lock")
    assert await storage.compare_and_set("lock", None, "first", ttl=0.1)
    assert not await storage.compare_and_set("lock", None, "second", ttl=0.1)
    await asyncio.sleep(0.12)
    assert await storage.compare_and_set("lock", None, "second", ttl=10)
    assert storage.get("lock") == "second"


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "1", True])
async def test_a_wrong_ttl_is_refused(engine: BaseEngine, ttl: float) -> None:
    with pytest.raises(StorageError, match="ttl must be"):
        engine.namespace("short").set("key", 1, ttl=ttl)


async def test_watch_has_the_changes_of_a_prefix_in_order(engine: BaseEngine) -> None:
    storage = engine.namespace("watched")
    await storage.set("user:0", 0)
    users, everything = storage.watch("user:"), storage.watch()
    await storage.set("user:1", [1])
    await storage.set("other", 1)
    await storage.delete("user:1")
    await engine.namespace("another").set("user:9", 1)
    async with asyncio.timeout(SECONDS):
        while (change := await anext(everything)) != Change("user:1", None, True):
            assert change.key != "user:9"
    await storage.set("user:2", 2)
    async with asyncio.timeout(SECONDS):
        while (change := await anext(users)).key != "user:2":
            assert change.key in ("user:0", "user:1")  # servers may repeat the latest ones
    assert change == Change("user:2", 2, False)
    await storage.clear()
    assert await changes_of(users, 2) == [
        Change("user:0", None, True), Change("user:2", None, True)
    ]  # fmt: skip
    users.close()
    users.close()
    with pytest.raises(StopAsyncIteration):
        await anext(users)


async def test_watch_ends_when_the_storage_closes(url: str) -> None:
    async with engine_of(url) as engine:
        watch = engine.namespace("watched").watch()
        reading = asyncio.ensure_future(anext(watch, None))
        await asyncio.sleep(0)
    assert await reading is None
    with pytest.raises(StorageError, match="closed"):
        engine.namespace("watched").set("key", 1)


async def test_another_process_sees_what_is_written(engine: BaseEngine, other: BaseEngine) -> None:
    ours, theirs = engine.namespace("both"), other.namespace("both")
    watch = theirs.watch()
    await ours.update({"a": 1, "b": 1})
    await shows(theirs, "a", 1)
    await ours.set("big", "x" * 600_000)  # too large to be kept among the changes
    await shows(theirs, "big", "x" * 600_000)
    await theirs.delete("b")
    await shows(ours, "b", ABSENT)
    await ours.clear()
    await shows(theirs, "a", ABSENT)
    assert {change.key for change in await changes_of(watch, 3)} == {"a", "b", "big"}


async def test_processes_that_write_one_key_agree(engine: BaseEngine, other: BaseEngine) -> None:
    ours, theirs = engine.namespace("both"), other.namespace("both")

    async def write(storage: Namespace, who: str) -> None:
        handle = storage.set("key", who)
        for number in range(60):
            handle = storage.set("key", f"{who}{number}")
            if number % 3 == 0:
                await handle
            if number % 7 == 0:
                storage.delete("key")
            await asyncio.sleep(0)
        await handle

    await asyncio.gather(write(ours, "a"), write(theirs, "b"))
    await ours.set("end", 1)
    await theirs.set("end 2", 1)
    for storage in (ours, theirs):
        await shows(storage, "end", 1)
        await shows(storage, "end 2", 1)
    assert ours.get("key") == theirs.get("key")
    assert ours.get("key") in ("a59", "b59")


async def test_a_process_that_starts_later_has_all(engine: BaseEngine, opened: Open) -> None:
    if not isinstance(engine, SharedEngine):
        pytest.skip("the storage belongs to one process")
    storage = engine.namespace("both")
    storage.set("a", 1)
    await storage.clear()
    await storage.update({"b": 2, "c": 3})
    late = await opened()
    assert dict(late.namespace("both").items()) == {"b": 2, "c": 3}
    await storage.set("d", 4)
    await shows(late.namespace("both"), "d", 4)


async def test_entries_are_exchanged_for_staged_ones(engine: BaseEngine) -> None:
    transfers = SharedTransfers(engine) if isinstance(engine, SharedEngine) else None
    if isinstance(engine, Engine):
        transfers = Transfers(engine)  # type: ignore[assignment]
    assert transfers is not None
    storage = engine.namespace("one")
    await storage.update({"a": 1, "b": 2})
    await storage.set("short", 1, ttl=60)
    await engine.namespace("two").set("stays", 1)
    async with transfers.snapshot() as snapshot:
        rows = [(name, key, snapshot.value(value)) for name, key, value in snapshot.rows()]
    assert rows == [("one", "a", 1), ("one", "b", 2), ("two", "stays", 1)]
    async with transfers.staging() as staged:
        staged.name(["one"])
        staged.add("one", "c", {"new": 3})
        staged.finish()
        await transfers.exchange(staged)
        assert dict(storage.items()) == {"c": {"new": 3}}
        assert engine.namespace("two").get("stays") == 1
        await transfers.exchange(staged)
        assert dict(storage.items())["a"] == 1


__all__ = ["anyio_backend", "engine", "opened", "other", "pytestmark", "url"]
__all__ += [name for name in dir() if name.startswith("test_")]
