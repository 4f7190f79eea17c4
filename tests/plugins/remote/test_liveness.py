"""A worker that owes an answer and answers no ping is blocked."""

import asyncio
import time

from veko_plugins.remote.liveness import Liveness

from .protocol.pair import pair, raw_pair


async def test_a_worker_that_answers_nothing_is_blocked_while_calls_are_out() -> None:
    blocked: list[str] = []
    now = asyncio.Event()
    async with raw_pair() as (host, _):
        Liveness(host, lambda why: (blocked.append(why), now.set()), seconds=0.1)
        await asyncio.sleep(0.3)
        assert blocked == []  # nothing is asked of it
        call = asyncio.ensure_future(host.call("anything"))
        start = time.perf_counter()
        await now.wait()
        assert time.perf_counter() - start >= 0.1
        assert blocked == ["blocked: no answer to a ping for 0.1 s"]
        call.cancel()
        await asyncio.wait([call])


async def test_a_worker_whose_calls_take_long_is_not_blocked() -> None:
    blocked: list[str] = []
    async with pair(None, {"methods": {"slow": lambda: asyncio.sleep(0.5)}}) as (host, _):
        liveness = Liveness(host, blocked.append, seconds=0.1)
        await host.call("slow")
        await asyncio.sleep(0.1)
        assert not host.watched  # no timer while nothing is asked of it
        await host.call("slow")
        liveness.stop()
    assert blocked == []


async def test_time_in_which_the_host_was_blocked_does_not_count() -> None:
    blocked: list[str] = []
    async with pair(None, {"methods": {"slow": lambda: asyncio.sleep(1)}}) as (host, _):
        liveness = Liveness(host, blocked.append, seconds=0.1)
        call = asyncio.ensure_future(host.call("slow"))
        for _ in range(4):
            await asyncio.sleep(0.06)
            time.sleep(0.2)  # noqa: ASYNC251 (that is the point)
        assert blocked == []
        await call
        liveness.stop()


async def test_a_worker_may_be_blocked_while_it_imports() -> None:
    blocked: list[str] = []
    async with raw_pair() as (host, _):
        liveness = Liveness(host, blocked.append, seconds=0.05)
        call = asyncio.ensure_future(host.call("describe"))
        with liveness.patient():
            await asyncio.sleep(0.3)
        assert blocked == []
        await asyncio.sleep(0.3)
        assert len(blocked) == 1
        call.cancel()
        await asyncio.wait([call])
