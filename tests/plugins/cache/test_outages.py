"""A Redis that dies, hangs, refuses: callers get an answer, the log one record, all comes back."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from veko.errors import OptionError
from veko_plugins import PluginManager

from .conftest import Start

pytestmark = pytest.mark.anyio


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (the state of another process)
            await asyncio.sleep(0.01)


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if words in r.getMessage()]


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_a_server_that_is_gone_is_a_miss_and_one_record(
    start: Start, own_redis: Any, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    caplog.set_level("INFO")
    cache = await (await start(own_redis.url, settings={"timeout": 0.2})).cache()
    assert await cache.set("k", 1)
    own_redis.kill() if how == "kill" else own_redis.pause(True)
    began = time.monotonic()
    found = await asyncio.gather(*(cache.get_or_set(f"n{n}", lambda n=n: n) for n in range(200)))
    assert len(found) == 200
    assert time.monotonic() - began < 10  # one wait for all of them, not one for each
    assert not cache.reached
    began = time.monotonic()
    for _ in range(100):
        assert await cache.get("k") is None
        assert not await cache.set("k", 2)
        assert await cache.get_or_set("k", lambda: 3) == 3
    assert time.monotonic() - began < 5  # nothing waits any more
    assert len(said(caplog, "is not reached")) == 1
    assert "s3cret" not in caplog.text
    own_redis.start() if how == "kill" else own_redis.pause(False)
    await until(lambda: cache.reached)
    assert len(said(caplog, "/0 is back")) == 1
    assert await cache.get("k") == 1
    assert await cache.set("k", 4)
    assert await cache.get("k") == 4


async def test_what_is_deleted_while_the_server_is_gone_does_not_come_back(
    start: Start, own_redis: Any
) -> None:
    cache = await (await start(own_redis.url, settings={"timeout": 0.2})).cache()
    for key in ("one", "two", "three", "kept"):
        assert await cache.set(key, key, tags=[f"tag-{key}"])
    own_redis.kill()
    await cache.delete("one")
    await cache.clear(tags=["tag-two"])
    for number in range(12_000):  # too many to remember: the namespace is cleared
        await cache.delete(f"n{number}")
    assert len(cache._engine.store._lost) < 11_000  # type: ignore[union-attr]
    own_redis.start()
    await until(lambda: cache.reached)
    assert [await cache.get(key) for key in ("one", "two")] == [None, None]


async def test_an_application_starts_without_its_cache(
    start: Start, own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.kill()
    cache = await (await start(own_redis.url, settings={"timeout": 0.2})).cache()
    assert await cache.get_or_set("k", lambda: 1) == 1
    assert len(said(caplog, "is not reached")) == 1
    own_redis.start()
    await until(lambda: cache.reached)
    assert await cache.set("k", 2)


async def test_a_wrong_password_is_refused_at_the_start(tmp_path: Any, redis_server: Any) -> None:
    url = redis_server.url.replace("s3cret-of-the-tests", "gue55ed")
    manager = PluginManager(root=tmp_path, auto_load=False, storage="memory:", cache=url)
    with pytest.raises(OptionError, match="refuses the login") as caught:
        await manager.start()
    assert "gue55ed" not in str(caught.value)


async def test_a_server_without_memory_refuses_and_is_read(
    start: Start, own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import redis.asyncio

    cache = await (await start(own_redis.url)).cache()
    assert await cache.set("k", 1)
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory", "1")
        for number in range(20):
            assert not await cache.set(f"n{number}", number)
        assert await cache.get("k") == 1
        assert cache.reached
        assert len(said(caplog, "refuses: ")) == 1
        await client.config_set("maxmemory", "0")
    assert await cache.set("k", 2)


async def test_entries_that_the_server_drops_make_nothing_old_valid(
    start: Start, own_redis: Any
) -> None:
    import redis.asyncio

    cache = await (await start(own_redis.url)).cache()
    await cache.set("k", "old", tags=["t"])
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        for name in await client.keys("veko:cache:[tv]:*"):
            await client.delete(name)
        await cache.set("other", 1, tags=["t"])
        assert await cache.get("k") is None
        await cache.set("k", "new")
        for name in await client.keys("veko:cache:e:*"):
            await client.set(name, b"something else")
    assert await cache.get("k") is None


async def test_a_cancelled_request_leaves_no_answer_to_the_next(
    start: Start, own_redis: Any
) -> None:
    # The default limit is short, and a busy machine would miss it: that is an outage, not a mix-up.
    cache = await (await start(own_redis.url, settings={"timeout": 10})).cache()
    for number in range(50):
        await cache.set(f"n{number}", number)
    for turn in range(300):
        task = asyncio.create_task(cache.get(f"n{turn % 50}"))
        for _ in range(turn % 7):
            await asyncio.sleep(0)
        task.cancel()
        assert await cache.get(f"n{(turn + 1) % 50}") == (turn + 1) % 50
    with_many = [asyncio.create_task(cache.get("n7")) for _ in range(100)]
    await asyncio.sleep(0)
    for task in with_many[::2]:
        task.cancel()
    assert await asyncio.gather(*with_many[1::2]) == [7] * 50
    await asyncio.gather(*with_many, return_exceptions=True)


async def test_workers_see_each_others_writes_and_deletions(start: Start, own_redis: Any) -> None:
    one, two = [await (await start(own_redis.url)).cache() for _ in range(2)]
    await one.set("k", 1, tags=["t"])
    assert await two.get("k") == 1
    await two.clear(tags=["t"])
    assert await one.get("k") is None
    await one.set("k", 2)
    await two.clear()
    assert await one.get("k") is None


async def test_many_at_once_are_no_outage(
    start: Start, own_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = await (await start(own_redis.url, settings={"timeout": 10})).cache()
    await asyncio.gather(*(cache.set(f"n{n}", n) for n in range(1_000)))
    found = await asyncio.gather(*(cache.get(f"n{n}") for n in range(1_000)))
    assert found == list(range(1_000))
    assert not said(caplog, "is not reached")
