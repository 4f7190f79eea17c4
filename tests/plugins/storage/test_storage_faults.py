"""What goes wrong under the storage: killed processes, full disks, locks, missing permissions."""

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from veko import StorageError
from veko_plugins.storage import Engine

# Of the application, in all; VEKO_KILLS=200 takes minutes.
KILLS = int(os.environ.get("VEKO_KILLS", "20"))
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX processes")


def _child(source: str, *arguments: object) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(source)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _answers(source: str, *arguments: object) -> dict[str, Any]:
    """Run a child to its end; what it printed as JSON."""
    child = _child(source, *arguments)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err.decode()
    found: dict[str, Any] = json.loads(out)
    return found


_WRITER = """
import asyncio, os, sys
from veko_plugins.storage import Engine

async def main():
    path, durability, start, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    async with Engine(path, durability=durability) as engine:
        storage, other = engine.namespace("numbers"), engine.namespace("other")
        payload = "x" * size
        number = start
        while True:
            handles = []
            for _ in range(7):
                number += 1
                entries = {f"slot{i}": number for i in range(5)}
                handles.append(storage.update(entries | {f"n{number % 400}": [number, payload]}))
                other.set("latest", number)
            for handle in handles:
                await handle
            os.write(1, b"%d\\n" % number)  # all up to this one are durable

asyncio.run(main())
"""


@posix
@pytest.mark.parametrize(
    ("durability", "size", "share"), [("process", 50, 8), ("process", 60_000, 8), ("power", 50, 4)]
)
async def test_what_was_awaited_survives_kill_9(
    tmp_path: Path, durability: str, size: int, share: int
) -> None:
    path = tmp_path / "s.db"
    dice = random.Random(f"{durability} {size}")
    acknowledged = 0
    for _ in range(share * KILLS // 20):
        with _child(_WRITER, path, durability, acknowledged, size) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(1, 120)):
                line = child.stdout.readline()
                assert line, child.stderr and child.stderr.read().decode()
                acknowledged = int(line)
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().splitlines()
            acknowledged = int(rest[-1]) if rest else acknowledged
        async with Engine(path) as engine:
            storage = engine.namespace("numbers")
            slots = {storage.get(f"slot{i}") for i in range(5)}
            assert len(slots) == 1, "an update is there in part"
            (latest,) = slots
            assert isinstance(latest, int)
            assert latest >= acknowledged
            own: Any = storage.get(f"n{latest % 400}")
            assert own[0] == latest
            assert engine.namespace("other").get("latest") == latest
            acknowledged = latest


_FULL = """
import asyncio, json, resource, sys
from veko import StorageError
from veko_plugins.storage import Engine

async def main():
    told, answer = [], {}
    async with Engine(sys.argv[1], durability=sys.argv[2], report=told.append) as engine:
        storage, other = engine.namespace("a"), engine.namespace("b")
        await storage.update({"kept": 1, "changed": "before", "deleted": True})
        await other.set("small", 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        errors = []
        for use in (
            lambda: storage.set("big", "x" * 1_000_000),
            lambda: storage.update({"changed": "after", "big": "x" * 1_000_000, "new": 1}),
        ):
            try:
                await use()
            except StorageError as error:
                errors.append([str(error), error.plugin, bool(error.remedy)])
        answer["errors"] = errors
        answer["memory"] = dict(storage.items())
        # One turn, two namespaces: the small one is not the big one's victim.
        storage.set("big", "y" * 1_000_000)
        await other.set("small", 2)
        for _ in range(3):
            storage.set("big", "z" * 1_000_000)
            await asyncio.sleep(0.01)
        await other.set("small", 3)
        answer["told"] = [str(error) for error in told]
        answer["after"] = dict(storage.items())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await storage.set("big", "w" * 1_000_000)
    async with Engine(sys.argv[1]) as engine:
        answer["disk"] = {k: v if k != "big" else v[0] for k, v in engine.namespace("a").items()}
        answer["other"] = engine.namespace("b").get("small")
    print(json.dumps(answer))

asyncio.run(main())
"""


@posix
@pytest.mark.parametrize("durability", ["process", "power"])
def test_full_disk_raises_and_memory_goes_back(tmp_path: Path, durability: str) -> None:
    answer = _answers(_FULL, tmp_path / "s.db", durability)

    before = {"kept": 1, "changed": "before", "deleted": True}
    assert len(answer["errors"]) == 2
    for text, plugin, remedy in answer["errors"]:
        assert "storage failed" in text
        assert plugin == "a"
        assert remedy
    assert answer["memory"] == before
    assert answer["after"] == before
    assert 1 <= len(answer["told"]) <= 4
    assert answer["disk"] == {**before, "big": "w"}
    assert answer["other"] == 3


_LOGGED = """
import asyncio, json, logging, resource, sys
from veko_plugins.storage import Engine

lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append([record.name, record.levelname, record.getMessage()])
logging.getLogger().addHandler(Lines())

async def main():
    async with Engine(sys.argv[1]) as engine:
        storage = engine.namespace("a")
        await storage.set("key", 1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for _ in range(20):
            storage.set("key", "x" * 1_000_000)
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        print(json.dumps({"lines": lines, "value": storage.get("key")}))

asyncio.run(main())
"""


@posix
def test_failure_that_nobody_awaited_is_logged_once(tmp_path: Path) -> None:
    answer = _answers(_LOGGED, tmp_path / "s.db")

    assert answer["value"] == 1
    ((logger, level, message),) = answer["lines"]
    assert (logger, level) == ("veko.storage", "ERROR")
    assert "plugin a" in message


_READ_ONLY = """
import asyncio, json, os, sys
from veko import StorageError
from veko_plugins.storage import Engine

async def main():
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    try:
        await Engine(sys.argv[1]).open()
    except StorageError as error:
        print(json.dumps({"text": str(error), "path": str(error.path)}))

asyncio.run(main())
"""


def _permit(folder: Path, mode: int) -> None:
    folder.chmod(mode)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@posix
@pytest.mark.parametrize("what", ["file", "folder"])
async def test_storage_that_cannot_be_written_says_so_at_once(open_folder: Path, what: str) -> None:
    path = open_folder / "s.db"
    async with Engine(path) as engine:
        await engine.namespace("a").set("key", 1)
    path.with_name("s.db.lock").chmod(0o666)
    path.chmod(0o444 if what == "file" else 0o666)
    _permit(open_folder, 0o777 if what == "file" else 0o555)

    answer = _answers(_READ_ONLY, path)

    assert "writable" in answer["text"]
    assert answer["path"].startswith(str(path))
    _permit(open_folder, 0o755)
    path.chmod(0o644)
    async with Engine(path) as engine:
        assert engine.namespace("a").get("key") == 1


@posix
async def test_engine_of_another_process_is_refused_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with _child(_WRITER, path, "process", 0, 10) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(StorageError, match=f"in use .*process {child.pid}"):
            await Engine(path).open()
        child.kill()
        child.stdout.read()
    async with Engine(path) as engine:
        assert engine.namespaces() == ["numbers", "other"]


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_write_waits_for_a_locked_file(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "s.db"
    async with Engine(path, durability=durability) as engine:
        storage = engine.namespace("a")
        await storage.set("key", 1)
        shell = sqlite3.connect(path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(_wait(storage.set("key", 2)))
        late = asyncio.ensure_future(_wait(storage.set("later", 3)))
        for _ in range(20):  # the loop goes on meanwhile
            await asyncio.sleep(0.001)
        assert not waiting.done()
        shell.execute("ROLLBACK")
        await waiting
        await late
        shell.close()
        assert dict(storage.items()) == {"key": 2, "later": 3}


async def _wait(handle: Any) -> None:
    await handle


@pytest.mark.parametrize("durability", ["process", "power"])
async def test_file_locked_for_long_raises(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "s.db"
    async with (
        asyncio.timeout(5),
        Engine(path, durability=durability, busy_timeout=0.5) as engine,
    ):
        storage = engine.namespace("a")
        await storage.set("key", 1)
        shell = sqlite3.connect(path, isolation_level=None)
        shell.execute("BEGIN IMMEDIATE")
        handles = [engine.namespace(f"{n}").set("key", 2) for n in range(30)]
        with pytest.raises(StorageError, match="locked"):
            await storage.update({"key": 2, "new": 1})
        for handle in handles:  # none of them waited for the others
            with pytest.raises(StorageError, match="locked"):
                await handle
        assert dict(storage.items()) == {"key": 1}
        shell.execute("ROLLBACK")
        shell.close()
        await storage.set("key", 3)
        assert storage.get("key") == 3


@posix
@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_file_that_is_taken_away_while_in_use_raises(tmp_path: Path, how: str) -> None:
    path = tmp_path / "s.db"
    async with Engine(path) as engine:
        storage = engine.namespace("a")
        await storage.set("key", 1)
        path.rename(path.with_suffix(".away"))
        if how == "replaced":
            path.write_bytes(b"")
        with pytest.raises(StorageError, match="removed or replaced"):
            await storage.set("key", 2)
        assert storage.get("key") == 1
        path.with_suffix(".away").rename(path)
        await storage.set("key", 3)
        assert storage.get("key") == 3


async def test_close_is_bounded_while_the_file_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    told: list[StorageError] = []
    engine = Engine(path, close_timeout=0.1, report=told.append)
    await engine.open()
    shell = sqlite3.connect(path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    handle = engine.namespace("a").set("key", 1)

    async with asyncio.timeout(2):
        await engine.close()

    shell.close()
    with pytest.raises(StorageError, match="closing"):
        await handle
    assert told == []
    async with Engine(path) as engine:
        assert engine.namespaces() == []
