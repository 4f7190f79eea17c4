"""Servers that die, hang, refuse; applications that are killed: nothing acknowledged is lost."""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from veko.errors import StorageError
from veko_plugins.storage import (
    Changes,
    Contents,
    Lagged,
    Namespace,
    Record,
    SharedEngine,
    Unreachable,
    find_backend,
)  # fmt: skip
from veko_plugins.storage.codec import pack

from .conftest import RedisServer

# Of a server, and of an application; VEKO_KILLS=200 takes minutes.
KILLS = int(os.environ.get("VEKO_KILLS", "20"))
PASSWORD = "s3cret-of-the-tests"


def _engine(url: str, *, patience: float = 30.0, prefix: str = "faults") -> SharedEngine:
    return SharedEngine(
        find_backend(f"{url}?prefix={prefix}"), patience=patience, report=lambda error: None
    )


async def _shows(namespace: Namespace, key: str, value: object) -> None:
    async with asyncio.timeout(30):
        while namespace.get(key) != value:  # noqa: ASYNC110  (reading is what is tested)
            await asyncio.sleep(0.01)


async def test_a_server_killed_at_random_moments_loses_nothing_acknowledged(
    own_server: Any,
) -> None:
    dice = random.Random(20)
    acknowledged: dict[str, int] = {}
    stopping = False

    async def write(storage: Namespace, key: str) -> None:
        number = 0
        while not stopping:
            number += 1
            # One entry is written again and again, the others once: a server that has lost
            # everything would soon have the first again.
            if storage is ours:
                await storage.update({key: number, f"{key}.{number}": number})
            else:
                one = storage.set(key, number)
                await storage.set(f"{key}.{number}", number)
                await one
            acknowledged[key] = acknowledged[f"{key}.{number}"] = number

    async with _engine(own_server.url) as one, _engine(own_server.url) as two:
        ours, theirs = one.namespace("load"), two.namespace("load")
        writers = [
            asyncio.ensure_future(write(storage, f"{name}{number}"))
            for name, storage in (("a", ours), ("b", theirs))
            for number in range(5)
        ]
        for _ in range(KILLS):
            before = len(acknowledged)
            async with asyncio.timeout(30):
                while len(acknowledged) < before + 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            await asyncio.sleep(dice.random() * 0.05)
            await asyncio.to_thread(own_server.kill)
            await asyncio.to_thread(own_server.start)
        stopping = True
        await asyncio.wait_for(asyncio.gather(*writers), 40)
        assert min(acknowledged.values()) > 0
        for storage in (ours, theirs):
            for key, number in acknowledged.items():
                await _shows(storage, key, number)
    async with _engine(own_server.url) as later:
        assert dict(later.namespace("load").items()) == acknowledged


async def test_a_redis_that_would_forget_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    server.prepare()
    file = tmp_path / "redis.conf"
    server.start()
    try:
        async with _engine(server.url) as engine:
            await engine.namespace("kept").set("key", 1)
        assert "may lose its entries" not in caplog.text
        server.kill()
        lines = file.read_text().splitlines()
        limited = [line for line in lines if not line.startswith("user default")]
        file.write_text("\n".join([*limited, "user default off"]) + "\n")
        server.start()
        async with _engine(server.url) as engine:
            assert "may lose its entries when it restarts" in caplog.text
            assert PASSWORD not in caplog.text
            assert engine.namespace("kept").get("key") in (
                1,
                None,
            )  # an old one has forgotten
    finally:
        server.kill()


class Forgetful:
    """A server that carries out writes, reports none of them, and may lose everything."""

    location = "test://forgetful"

    def __init__(self) -> None:
        self.entries: dict[str, dict[str, bytes]] = {}
        self.revision = 0
        self.answers = True

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def load(self) -> Contents:
        if not self.answers:
            raise Unreachable("it is being started")
        return Contents({name: dict(one) for name, one in self.entries.items()}, self.revision)

    async def follow(self, revision: int) -> AsyncIterator[Sequence[Record]]:
        while self.answers:
            yield ()
            await asyncio.sleep(0.005)
        raise Lagged("it was restarted")

    async def write(self, changes: Sequence[Changes], token: str) -> int:
        self.revision += 1
        for one in changes:
            entries = self.entries.setdefault(one.namespace, {})
            entries.update({key: value for key, value in one.entries.items() if value is not None})
        return self.revision

    async def get(self, namespace: str, key: str) -> bytes | None:
        return self.entries.get(namespace, {}).get(key)

    async def compare_and_set(
        self, namespace: str, key: str, expected: bytes | None, value: bytes | None, token: str
    ) -> int | None:
        raise NotImplementedError


async def test_writes_that_a_server_has_lost_are_not_shown_forever() -> None:
    backend = Forgetful()
    async with SharedEngine(backend, report=lambda error: None) as engine:
        storage = engine.namespace("x")
        backend.answers = False  # the engine loads, again and again
        await asyncio.sleep(0.1)
        for number in range(5):
            await storage.set("key", number)
        backend.entries, backend.revision = {"x": {"key": pack("key", "other")[1]}}, 1
        backend.answers = True
        await _shows(storage, "key", "other")


async def test_reading_continues_and_writing_is_bounded_while_the_server_is_gone(
    own_server: Any,
) -> None:
    async with _engine(own_server.url, patience=1) as one, _engine(own_server.url) as two:
        ours, theirs = one.namespace("gone"), two.namespace("gone")
        await ours.set("key", 1)
        await _shows(theirs, "key", 1)
        own_server.kill()
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"127\.0\.0\.1") as caught:
            await ours.set("key", 2)
        assert time.monotonic() - began < 8
        assert PASSWORD not in str(caught.value)
        assert ours.get("key") == 1
        later = theirs.set("key", 3)
        with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
            await ours.compare_and_set("key", 1, 2)
        await asyncio.to_thread(own_server.start)
        await later
        await _shows(ours, "key", 3)
        await ours.set("after", 1)
        await _shows(theirs, "after", 1)


async def test_a_server_that_hangs_is_given_up_and_used_again(own_server: Any) -> None:
    async with _engine(own_server.url, patience=1) as engine:
        storage = engine.namespace("hangs")
        await storage.set("key", 1)
        own_server.pause(True)
        began = time.monotonic()
        with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
            await storage.set("key", 2)
        assert time.monotonic() - began < 12
        own_server.pause(False)
        await storage.set("after", 1)
        # The write that hung may have been carried out: then memory shows it, as the server does.
        await engine.refresh()
        assert storage.get("key") in (1, 2)
        assert storage.get("after") == 1


async def test_a_wrong_password_is_named_at_once_and_not_shown(server: Any) -> None:
    wrong = server.url.replace(PASSWORD, "wr0ng-secret")
    began = time.monotonic()
    with pytest.raises(StorageError, match="refuses the login") as caught:
        await _engine(wrong).open()
    assert time.monotonic() - began < 8
    for text in (str(caught.value), repr(caught.value), repr(find_backend(wrong))):
        assert "wr0ng-secret" not in text
        assert PASSWORD not in text


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        made.listen(50)
        yield made.getsockname()[1]


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "nats"])
async def test_a_server_that_never_answers_is_given_up(scheme: str, silent: int) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"{scheme}://127.0.0.1:{silent}") as caught:
        await _engine(f"{scheme}://u:{PASSWORD}@127.0.0.1:{silent}", patience=1).open()
    assert time.monotonic() - began < 12
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "nats"])
async def test_without_a_server_nothing_opens(scheme: str) -> None:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
    with pytest.raises(StorageError, match=f"{scheme}://127.0.0.1:{port}") as caught:
        await _engine(f"{scheme}://u:{PASSWORD}@127.0.0.1:{port}", patience=0.5).open()
    assert PASSWORD not in str(caught.value)


APPLICATION = """
import asyncio, sys
from veko_plugins.storage import SharedEngine, find_backend

async def main():
    async with SharedEngine(find_backend(sys.argv[1])) as engine:
        storage, number = engine.namespace("killed"), int(sys.argv[2])
        while True:
            number += 1
            one = storage.update({"a": number, "b": number})
            other = storage.set(f"n{number % 50}", number)
            await one
            await other
            print(number, flush=True)

asyncio.run(main())
"""


async def test_an_application_killed_at_random_moments_loses_nothing_acknowledged(
    server: Any,
) -> None:
    dice, last, url = random.Random(9), 0, f"{server.url}?prefix=killed"
    for _ in range(KILLS):
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", APPLICATION, url, str(last)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await asyncio.sleep(dice.random() * 0.05)
        process.kill()
        lines = (await asyncio.to_thread(process.stdout.read)).split()
        process.stdout.close()
        process.wait()
        last = int(lines[-1]) if lines else last + 1
        async with _engine(server.url, prefix="killed") as engine:
            storage = engine.namespace("killed")
            assert storage.get("a") >= last
            assert storage.get("a") == storage.get("b")
            own = range(max(1, last - 20), last + 1)
            assert [storage.get(f"n{number % 50}", 0) >= number for number in own].count(False) == 0
            last = storage.get("a")


async def test_many_writes_of_one_turn_are_all_stored(server: Any) -> None:
    async with _engine(server.url, prefix="many") as engine:
        storage = engine.namespace("many")
        for handle in [storage.set(f"key{number}", number) for number in range(2_500)]:
            await handle
        handles = [storage.set("key1", "new"), storage.delete("key2"), storage.set("more", 1)]
        for handle in handles:
            await handle
    wanted = {f"key{number}": number for number in range(2_500)} | {"key1": "new", "more": 1}
    del wanted["key2"]
    async with _engine(server.url, prefix="many") as later:
        assert dict(later.namespace("many").items()) == wanted


async def test_a_value_that_the_server_refuses_fails_alone(server: Any) -> None:
    if not server.url.startswith("nats"):
        pytest.skip("takes values of any size")
    async with _engine(server.url, prefix="large") as engine:
        one, two = engine.namespace("one"), engine.namespace("two")
        one.set("before", 1)  # of the same turn: both or neither
        large, small = one.set("key", b"x" * 2_000_000), two.set("key", 1)
        await small
        with pytest.raises(StorageError, match="max_payload"):
            await large
        await engine.refresh()
        assert one.get("key") is None
        assert one.get("before") is None
        await one.set("key", 2)
