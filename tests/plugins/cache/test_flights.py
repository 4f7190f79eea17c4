"""One computes and the others wait: in one process, over several on one Redis, whatever happens."""

import asyncio
import time
from typing import Any

import anyio
import pytest

from veko_plugins import CacheError

from .conftest import Start

pytestmark = pytest.mark.anyio
MANY = 1_000


class Work:
    """A computation that counts its runs and waits to be let go."""

    def __init__(self) -> None:
        self.runs = 0
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> dict[str, int]:
        self.runs += 1
        run = self.runs
        self.began.set()
        await self.go_on.wait()
        return {"run": run}


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_thousand_misses_at_once_compute_once(start: Start, url: str) -> None:
    cache, work = await (await start(url)).cache(), Work()
    tasks = [asyncio.create_task(cache.get_or_set("k", work)) for _ in range(MANY)]
    await work.began.wait()
    await settle()
    work.go_on.set()
    found = await asyncio.gather(*tasks)
    assert found == [{"run": 1}] * MANY
    assert len({id(one) for one in found}) == MANY
    assert work.runs == 1
    assert cache.stats().misses == 1
    assert cache.stats().hits == MANY - 1
    assert cache.stats().rate == (MANY - 1) / MANY
    assert len(cache._engine.flights) == 0


async def test_processes_on_one_redis_compute_once(start: Start, redis_server: Any) -> None:
    url = f"{redis_server.url}?prefix=together"
    caches, work = [await (await start(url)).cache() for _ in range(4)], Work()
    tasks = [asyncio.create_task(c.get_or_set("k", work)) for c in caches for _ in range(50)]
    await work.began.wait()
    await asyncio.sleep(0.1)  # the others find the key claimed
    work.go_on.set()
    assert await asyncio.gather(*tasks) == [{"run": 1}] * 200
    assert work.runs == 1


async def test_a_process_that_dies_while_it_computes_is_waited_for_in_vain_only_so_long(
    start: Start, redis_server: Any
) -> None:
    url = f"{redis_server.url}?prefix=dead"
    first, second = [await (await start(url, settings={"wait": 0.3})).cache() for _ in range(2)]
    # The claim of a process that is gone: nobody gives it up.
    assert await first._engine.store.claim("c:guest:k", "dead", 60)
    began = time.monotonic()
    assert await second.get_or_set("k", lambda: 2) == 2
    assert time.monotonic() - began < 10


async def test_an_error_reaches_all_and_the_next_computes_again(start: Start, url: str) -> None:
    cache = await (await start(url)).cache()
    go_on, runs = asyncio.Event(), 0

    async def fail() -> None:
        nonlocal runs
        runs += 1
        await go_on.wait()
        raise LookupError("no such page")

    tasks = [asyncio.create_task(cache.get_or_set("k", fail)) for _ in range(20)]
    await asyncio.sleep(0.05)
    go_on.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(error) for error in errors] == ["no such page"] * 20
    assert runs == 1
    depth, trace = 0, errors[-1].__traceback__  # type: ignore[union-attr]
    while trace is not None:
        depth, trace = depth + 1, trace.tb_next
    assert depth < 20  # not a frame more for each that raised it
    assert await cache.get_or_set("k", lambda: "fine") == "fine"


async def test_when_the_first_is_cancelled_another_computes(start: Start, url: str) -> None:
    cache, work = await (await start(url)).cache(), Work()
    first = asyncio.create_task(cache.get_or_set("k", work))
    await work.began.wait()
    others = [asyncio.create_task(cache.get_or_set("k", work)) for _ in range(20)]
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.go_on.set()
    async with asyncio.timeout(10):
        assert await asyncio.gather(*others) == [{"run": 2}] * 20


async def test_one_that_waits_is_cancelled_alone(start: Start, url: str) -> None:
    cache, work = await (await start(url)).cache(), Work()
    first, second, third = (asyncio.create_task(cache.get_or_set("k", work)) for _ in range(3))
    await work.began.wait()
    await settle()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    work.go_on.set()
    assert await first == await third == {"run": 1}


async def test_a_time_limit_around_the_first_leaves_nobody_waiting(start: Start) -> None:
    cache, work = await (await start()).cache(), Work()
    with anyio.move_on_after(0.02) as scope:
        await cache.get_or_set("k", work)
    assert scope.cancelled_caught
    assert await cache.get_or_set("k", lambda: 3) == 3


async def test_a_computation_that_hangs_is_waited_for_only_so_long(start: Start) -> None:
    cache, work = await (await start(settings={"wait": 0.05})).cache(), Work()
    hanging = asyncio.create_task(cache.get_or_set("k", work))
    await work.began.wait()
    others = [asyncio.create_task(cache.get_or_set("k", lambda: {"run": 0})) for _ in range(20)]
    async with asyncio.timeout(10):
        assert await asyncio.gather(*others) == [{"run": 0}] * 20
    work.go_on.set()
    assert await hanging == {"run": 1}


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_what_is_no_error_of_the_program_leaves_nobody_waiting(
    start: Start, raised: type[BaseException]
) -> None:
    cache = await (await start()).cache()
    began, go_on = asyncio.Event(), asyncio.Event()

    async def leave() -> None:
        began.set()
        await go_on.wait()
        raise raised

    async def ask() -> str:
        try:
            await cache.get_or_set("k", leave)
        except raised:
            return "raised"
        return "returned"

    first = asyncio.create_task(ask())
    await began.wait()
    second = asyncio.create_task(cache.get_or_set("k", lambda: 2))
    await settle()
    go_on.set()
    assert await first == "raised"
    assert await second == 2


async def test_a_computation_that_waits_for_itself_is_refused(start: Start) -> None:
    cache = await (await start()).cache()

    async def through(key: str) -> Any:
        return await cache.get_or_set(key, lambda: through("a"))

    with pytest.raises(CacheError, match="'guest:a' waits for itself"):
        await through("a")
    with pytest.raises(CacheError, match="waits for itself"):
        await through("b")
    assert await cache.get_or_set("outer", lambda: cache.get_or_set("inner", lambda: 5)) == 5
