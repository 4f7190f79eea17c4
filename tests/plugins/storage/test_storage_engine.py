"""The engine: what is durable when, whose data it is, what a bad file says."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import uvloop

from veko import StorageError
from veko_plugins.storage import Durability, Engine

_MODES: list[Durability] = ["process", "power"]


def _rows(path: Path) -> dict[tuple[str, str], bytes]:
    """What another program sees on disk now."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT namespace, key, value FROM entry").fetchall()
    finally:
        connection.close()
    return {(namespace, key): value for namespace, key, value in found}


@pytest.mark.parametrize("durability", _MODES)
async def test_awaited_write_is_on_disk(tmp_path: Path, durability: Durability) -> None:
    path = tmp_path / "s.db"
    async with Engine(path, durability=durability) as engine:
        storage = engine.namespace("a")

        handle = storage.set("key", 1)
        assert storage.get("key") == 1
        assert ("a", "key") not in _rows(path)
        await handle

        assert ("a", "key") in _rows(path)
        await storage.delete("key")
        assert ("a", "key") not in _rows(path)


@pytest.mark.parametrize("durability", _MODES)
async def test_ignored_writes_are_there_after_close(tmp_path: Path, durability: Durability) -> None:
    path = tmp_path / "s.db"
    async with Engine(path, durability=durability) as engine:
        for number in range(500):
            engine.namespace("a").set(f"{number}", number)
    async with Engine(path) as engine:
        assert len(engine.namespace("a")) == 500


async def test_writes_of_one_turn_are_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        watcher = sqlite3.connect(path)
        version = watcher.execute("PRAGMA data_version").fetchone()
        seen: set[int] = set()
        one, two = engine.namespace("one"), engine.namespace("two")
        handles = [store.set(f"{n}", n) for n in range(50) for store in (one, two)]
        for handle in handles:
            await handle
            seen.add(watcher.execute("SELECT count(*) FROM entry").fetchone()[0])
        assert seen == {100}
        assert watcher.execute("PRAGMA data_version").fetchone() != version
        watcher.close()


async def test_last_write_of_a_turn_wins(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        storage = engine.namespace("a")
        await storage.update({"gone": 1, "kept": 1})
        storage.set("before", 1)
        storage.clear()
        storage.set("kept", 2)
        storage.set("twice", 1)
        storage.delete("twice")
        await storage.set("twice", 2)
        expected = {"kept": 2, "twice": 2}
        assert dict(storage.items()) == expected
    async with Engine(path) as engine:
        assert dict(engine.namespace("a").items()) == expected


async def test_write_before_the_first_read_shows(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        await engine.namespace("a").update({"old": 1, "gone": 1})
    async with Engine(path) as engine:
        storage = engine.namespace("a")
        storage.set("new", 2)
        storage.delete("gone")
        assert dict(storage.items()) == {"old": 1, "new": 2}


async def test_namespaces_are_apart(tmp_path: Path) -> None:
    async with Engine(tmp_path / "s.db") as engine:
        one, two = engine.namespace("one"), engine.namespace("two")
        assert engine.namespace("one") is one
        one.set("key", 1)
        await two.set("key", 2)
        await one.clear()

        assert (one.get("key"), two.get("key")) == (None, 2)
        assert engine.namespaces() == ["two"]
        assert "key" in two
        assert [*two] == ["key"]


@pytest.mark.parametrize("durability", _MODES)
async def test_cancelling_one_who_waits_hurts_nobody(
    tmp_path: Path, durability: Durability
) -> None:
    async with Engine(tmp_path / "s.db", durability=durability) as engine:
        storage = engine.namespace("a")
        handle = storage.set("key", 1)

        async def wait() -> None:
            await handle

        first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
        await asyncio.sleep(0)
        first.cancel()
        await second
        await asyncio.gather(first, return_exceptions=True)
        await handle
    async with Engine(tmp_path / "s.db") as engine:
        assert engine.namespace("a").get("key") == 1


async def test_close_twice_and_use_afterwards(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "s.db")
    await engine.close()
    await engine.open()
    storage = engine.namespace("a")
    storage.set("key", 1)
    await asyncio.gather(engine.close(), engine.close())
    await engine.close()

    for use in (lambda: storage.get("key"), lambda: storage.set("key", 2), engine.namespaces):
        with pytest.raises(StorageError, match="closed"):
            use()
    with pytest.raises(StorageError, match="opened before"):
        await engine.open()
    assert _rows(tmp_path / "s.db").keys() == {("a", "key")}
    assert not (tmp_path / "s.db-wal").exists()


def test_writes_are_kept_when_the_loop_ends_without_time(tmp_path: Path) -> None:
    async def run() -> None:
        engine = Engine(tmp_path / "s.db")
        await engine.open()
        engine.namespace("a").set("key", 1)
        closing = asyncio.create_task(engine.close())
        closing.add_done_callback(lambda _: None)

    asyncio.run(run())

    assert _rows(tmp_path / "s.db").keys() == {("a", "key")}


async def test_writing_in_a_thread_is_fine(tmp_path: Path) -> None:
    async with Engine(tmp_path / "s.db") as engine:
        storage = engine.namespace("a")

        def work() -> object:
            storage.set("key", 1)
            storage.update({"other": [2], "gone": 3})
            storage.delete("gone")
            return storage.get("key")

        assert await asyncio.to_thread(work) == 1
        with pytest.raises(StorageError, match="cannot be stored"):
            await asyncio.to_thread(storage.set, "key", object())
    assert _rows(tmp_path / "s.db").keys() == {("a", "key"), ("a", "other")}


async def test_writing_in_a_thread_when_the_storage_is_closed_is_refused(tmp_path: Path) -> None:
    async with Engine(tmp_path / "s.db") as engine:
        storage = engine.namespace("a")
    with pytest.raises(StorageError, match="closed"):
        await asyncio.to_thread(storage.set, "key", 1)


def test_a_thread_that_writes_does_not_wait_for_a_loop_that_has_ended(tmp_path: Path) -> None:
    program = """
import asyncio, sys, threading
from veko_plugins.storage import Engine

async def main():
    engine = Engine(sys.argv[1])
    await engine.open()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def write():
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                engine.namespace("a").set("key", 1)
        except Exception as error:
            print(type(error).__name__, flush=True)

    threading.Thread(target=write).start()
    await begun.wait()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s.db")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("StorageError\n", 0), done.stderr


async def test_reading_in_a_thread_is_fine(tmp_path: Path) -> None:
    async with Engine(tmp_path / "s.db") as engine:
        await engine.namespace("a").set("key", [1])
        engine.namespace("a").forget()
        engine.namespace("a").set("other", 2)
        found = await asyncio.to_thread(engine.namespace("a").items)
        assert dict(found) == {"key": [1], "other": 2}


async def test_cancelled_opening_leaves_the_file_free(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "s.db")
    opening = asyncio.create_task(engine.open())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    await engine.close()

    for thread in threading.enumerate():
        if thread.name.startswith("veko-storage"):
            await asyncio.to_thread(thread.join)
    async with Engine(tmp_path / "s.db") as engine:
        assert engine.namespaces() == []


def test_uvloop(tmp_path: Path) -> None:
    async def run(durability: Durability) -> None:
        async with Engine(tmp_path / f"{durability}.db", durability=durability) as engine:
            storage = engine.namespace("a")
            handles = [storage.set(f"{n}", n) for n in range(100)]
            for handle in handles:
                await handle
        assert len(_rows(tmp_path / f"{durability}.db")) == 100

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for durability in _MODES:
            runner.run(run(durability))


async def test_second_engine_on_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        await engine.namespace("a").set("key", 1)
        with pytest.raises(StorageError, match=r"in use .*process \d+") as caught:
            await Engine(path).open()
        assert caught.value.path == path
        await engine.namespace("a").set("key", 2)
    async with Engine(path) as engine:
        assert engine.namespace("a").get("key") == 2


@pytest.mark.parametrize("where", [0, 20, 4096])
async def test_damaged_file_is_told_and_left_alone(tmp_path: Path, where: int) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        await engine.namespace("a").update({f"{n}": "x" * 100 for n in range(500)})
    content = bytearray(path.read_bytes())
    content[where : where + 600] = b"\xa5" * 600
    path.write_bytes(content)

    with pytest.raises(StorageError, match="damaged") as caught:
        await Engine(path).open()

    assert caught.value.path == path
    assert "backup" in str(caught.value)
    assert path.read_bytes() == content


async def test_damaged_value_is_told_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        await engine.namespace("a").update({"bad": [1, 2], "good": [3]})
    connection = sqlite3.connect(path)
    connection.execute("UPDATE entry SET value = x'c1' WHERE key = 'bad'")
    connection.commit()
    connection.close()

    async with Engine(path) as engine:
        storage = engine.namespace("a")
        with pytest.raises(StorageError, match="damaged"):
            storage.get("bad")
        assert storage.get("good") == [3]
        await storage.set("bad", [1])
        assert storage.get("bad") == [1]


async def test_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are notes, not a database\n" * 100)

    with pytest.raises(StorageError, match="damaged"):
        await Engine(path).open()

    assert path.read_text().startswith("these are notes")


async def test_foreign_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StorageError, match="not a Veko storage"):
        await Engine(path).open()

    assert path.read_bytes() == before


async def test_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StorageError, match="newer Veko"):
        await Engine(path).open()


async def test_path_that_is_a_folder_or_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError) as folder:
        await Engine(tmp_path).open()
    with pytest.raises(StorageError) as under:
        await Engine(tmp_path / "file" / "s.db").open()

    assert folder.value.remedy
    assert under.value.remedy
    (tmp_path.with_name(tmp_path.name + ".lock")).unlink(missing_ok=True)


async def test_log_stays_bounded_while_a_writer_never_rests(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        storage, largest, payload = engine.namespace("a"), 0, "x" * 100_000
        for number in range(300):  # 20 values of 100 kB each: 600 MB in all
            await storage.update({f"{n}": f"{number}{payload}" for n in range(20)})
            largest = max(largest, path.with_name("s.db-wal").stat().st_size)
        assert largest < 256 << 20
        assert len(storage) == 20
    assert path.stat().st_size < 16 << 20


async def test_nothing_runs_before_open_and_after_close(tmp_path: Path) -> None:
    before = threading.active_count()
    engine = Engine(tmp_path / "s.db")
    assert threading.active_count() == before
    with pytest.raises(StorageError, match="closed"):
        engine.namespace("a").set("key", 1)
    assert not (tmp_path / "s.db").exists()
