"""All of a storage out of it and into it: snapshots and exchanges."""

import asyncio
from pathlib import Path

import pytest

from veko import StorageError
from veko_plugins.storage import Engine, Transfers

pytestmark = pytest.mark.anyio

STORES = ["process", "power", ":memory:"]


def opened(tmp_path: Path, store: str) -> Engine:
    if store == ":memory:":
        return Engine(store)
    return Engine(tmp_path / "s.db", durability="power" if store == "power" else "process")


@pytest.mark.parametrize("store", STORES)
async def test_a_snapshot_is_of_one_moment(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as engine:
        transfers, space = Transfers(engine), engine.namespace("a")
        space.set("k", 1)  # not awaited: it is in it all the same
        async with transfers.snapshot() as snapshot:
            await space.set("k", 2)
            assert len(snapshot) == 1
            assert [(n, k, snapshot.value(v)) for n, k, v in snapshot.rows()] == [("a", "k", 1)]


@pytest.mark.parametrize("store", STORES)
async def test_exchanging_twice_brings_back_what_was(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as engine:
        transfers = Transfers(engine)
        one, two, other = (engine.namespace(name) for name in ("one", "two", "other"))
        await one.update({"a": 1, "b": 2})
        await two.set("c", 3)
        await other.set("d", 4)
        async with transfers.staging() as staged:
            staged.name(["one", "two"])
            staged.add("one", "a", (1, 2))
            staged.add("one", "e", 5)
            staged.finish()

            await transfers.exchange(staged)
            assert (dict(one.items()), len(two)) == ({"a": (1, 2), "e": 5}, 0)
            assert other.items() == [("d", 4)]

            await one.set("f", 6)
            await transfers.exchange(staged)
            assert (dict(one.items()), two.items()) == ({"a": 1, "b": 2}, [("c", 3)])
            assert other.items() == [("d", 4)]
        assert not staged.path.exists()


@pytest.mark.parametrize("store", ["process", "power"])
async def test_writes_wait_for_an_exchange_and_go_on_top(tmp_path: Path, store: str) -> None:
    async with opened(tmp_path, store) as engine:
        transfers, space, other = Transfers(engine), engine.namespace("a"), engine.namespace("b")
        async with transfers.staging() as staged:
            staged.name(["a"])
            for number in range(20_000):
                staged.add("a", f"k{number}", 1)
            staged.finish()
            exchanging = asyncio.create_task(transfers.exchange(staged))
            number = 0
            while not exchanging.done():
                number += 1
                space.set("k0", number)
                other.set("k", number)
                await asyncio.sleep(0)
            await exchanging
            await space.set("last", True)
        assert number > 1
    async with opened(tmp_path, store) as engine:
        space = engine.namespace("a")
        assert len(space) == 20_001
        assert space.get("k0") == engine.namespace("b").get("k") == number


async def test_a_cancelled_exchange_is_done_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path, "process") as engine:
        transfers, space = Transfers(engine), engine.namespace("a")
        await space.set("k", 0)
        async with transfers.staging() as staged:
            staged.name(["a"])
            for number in range(5_000):
                staged.add("a", f"n{number}", 1)
            staged.finish()
            exchanging = asyncio.create_task(transfers.exchange(staged))
            await asyncio.sleep(0)
            exchanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await exchanging
        assert len(space) == 5_000
        await space.set("k", 1)


async def test_an_exchange_that_fails_changes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path, "process") as engine:
        transfers, space = Transfers(engine), engine.namespace("a")
        await space.set("k", 0)
        async with transfers.staging() as staged:
            staged.name(["a"])
            staged.finish()
            staged.path.write_bytes(b"this is no database" * 1000)
            with pytest.raises(StorageError):
                await transfers.exchange(staged)
        assert space.get("k") == 0
        await space.set("k", 1)


async def test_a_closed_storage_has_no_snapshot(tmp_path: Path) -> None:
    engine = opened(tmp_path, "process")
    async with engine:
        transfers = Transfers(engine)
    with pytest.raises(StorageError, match="closed"):
        async with transfers.snapshot():
            pass
    with pytest.raises(StorageError, match="closed"):
        await engine.threaded(lambda database: database.checkpoint(), alone=True)
