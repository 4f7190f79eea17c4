"""Calls, notes and cancellation between two ends in one process."""

import asyncio
import contextvars
from typing import Any

import pytest
import uvloop

from veko_plugins.remote.protocol import ConnectionLost, Overloaded, RemoteError

from .pair import pair


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_call_returns_what_the_method_returned() -> None:
    async def later(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    methods = {"add": lambda a, b: a + b, "later": later}
    async with pair(None, {"methods": methods}) as (host, _):
        assert await host.call("add", 1, 2) == 3
        assert await host.call("later", {"a": [1, None, "é"]}) == {"a": [1, None, "é"]}
        assert host.calls == 0


async def test_both_sides_call_and_calls_overlap() -> None:
    async def ask_back(value: int) -> int:
        return int(await worker.call("double", value)) + 1

    async with pair({"methods": {"double": lambda n: 2 * n}}, {"methods": {"ask": ask_back}}) as (
        host,
        worker,
    ):
        answers = await asyncio.gather(*(host.call("ask", n) for n in range(100)))
        assert answers == [2 * n + 1 for n in range(100)]


async def test_what_a_method_raises_is_raised_by_the_call() -> None:
    class NotHere(Exception):
        status = 404
        code = "ENOENT"
        remedy = "Look elsewhere."

    async def fail() -> None:
        raise NotHere("nothing here")

    def fail_at_once() -> None:
        raise ValueError("no")

    methods = {"fail": fail, "at_once": fail_at_once}
    async with pair(None, {"methods": methods}) as (host, _):
        with pytest.raises(RemoteError, match=r"nothing here\. Look elsewhere\.") as raised:
            await host.call("fail")
        error = raised.value
        assert (error.type, error.status, error.code) == ("NotHere", 404, "ENOENT")
        with pytest.raises(RemoteError, match="no") as raised:
            await host.call("at_once")
        assert raised.value.type == "ValueError"


async def test_wrong_arguments_and_what_cannot_be_sent_fail_the_call_alone() -> None:
    methods = {"one": lambda a: a, "odd": lambda: object()}
    async with pair(None, {"methods": methods}) as (host, _):
        with pytest.raises(RemoteError, match="positional argument"):
            await host.call("one")
        with pytest.raises(RemoteError, match="an object cannot be sent"):
            await host.call("odd")
        with pytest.raises(TypeError, match=r"\[1\]\[0\]\.a\[1\]: an object cannot be sent"):
            await host.call("one", {"a": [1, object()]})
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        with pytest.raises(TypeError, match="nested this deeply"):
            await host.call("one", deep)
        while deep:  # so that taking it apart does not recurse
            deep = deep.pop()
        assert await host.call("one", 1) == 1


async def test_calls_and_notes_begin_in_the_order_in_which_they_were_sent() -> None:
    begun: list[Any] = []

    async def slow(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(0.001)

    methods, notes = {"slow": slow, "quick": begun.append}, {"note": begun.append, "slow": slow}
    async with pair(None, {"methods": methods, "notes": notes}) as (host, _):
        calls = []
        for n in range(0, 40, 4):
            calls.append(asyncio.ensure_future(host.call("slow", n)))
            await asyncio.sleep(0)
            host.note("note", n + 1)
            calls.append(asyncio.ensure_future(host.call("quick", n + 2)))
            await asyncio.sleep(0)
            host.note("slow", n + 3)
        await asyncio.gather(*calls)
        await host.ping(1)
    assert begun == list(range(40))


async def test_cancelling_a_call_cancels_it_on_the_other_side() -> None:
    ends: list[str] = []
    running = asyncio.Event()

    async def hang() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async with pair(None, {"methods": {"hang": hang, "echo": lambda v: v}}) as (host, _):
        call = asyncio.ensure_future(host.call("hang"))
        await running.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert host.calls == 1  # its answer is still to come
        assert await host.call("echo", 1) == 1
        await turns()
        assert ends == ["cancelled"]
        assert host.calls == 0


async def test_a_call_made_in_a_call_runs_in_its_context() -> None:
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")
    seen: list[str] = []

    async def outer() -> None:
        await worker.call("see")
        await asyncio.create_task(worker.call("see"))
        worker.note("see")

    methods = {"see": lambda: seen.append(span.get())}
    async with pair(
        {"methods": methods, "notes": {"see": lambda: seen.append(span.get())}},
        {"methods": {"outer": outer}},
    ) as (host, worker):

        async def one(name: str) -> None:
            span.set(name)
            await host.call("outer")

        await asyncio.gather(*(asyncio.create_task(one(name)) for name in ("a", "b")))
        assert sorted(seen) == ["a", "a", "b", "b", "none", "none"]
        await worker.call("see")
        assert seen[-1] == "none"


async def test_a_call_through_another_worker_keeps_its_parent() -> None:
    """Host calls a, a calls host, host calls b, b calls host, host calls a: a sees its own call."""
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span", default="none")
    seen: list[str] = []

    async def to_b() -> None:
        await host_b.call("work")

    async def to_a() -> None:
        await host_a.call("last")

    async def first() -> None:
        await a.call("to_b")

    async def last() -> None:
        await a.call("see")

    async def work() -> None:
        await b.call("to_a")

    host_methods = {"to_b": to_b, "to_a": to_a, "see": lambda: seen.append(span.get())}
    async with (
        pair({"methods": host_methods}, {"methods": {"first": first, "last": last}}) as (host_a, a),
        pair({"methods": host_methods}, {"methods": {"work": work}}) as (host_b, b),
    ):
        span.set("request")
        await host_a.call("first")
    assert seen == ["request"]


async def test_the_end_of_one_side_ends_all_calls_of_the_other() -> None:
    lost: list[Exception | None] = []
    ends: list[str] = []
    running = asyncio.Event()

    async def hang() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")

    async with pair({"lost": lost.append}, {"methods": {"hang": hang}}) as (host, worker):
        call = asyncio.ensure_future(host.call("hang"))
        await running.wait()
        await worker.close()
        assert ends == ["cancelled"]
        with pytest.raises(ConnectionLost, match="the worker of p is gone"):
            await call
        with pytest.raises(ConnectionLost, match="the worker of p is gone"):
            await host.call("hang")
        with pytest.raises(ConnectionLost, match="the worker of p is gone"):
            host.note("x")
        with pytest.raises(ConnectionLost, match="the worker of p is gone"):
            await host.ping(1)
    assert [str(reason) for reason in lost] == ["the worker of p is gone"]


async def test_closing_sends_what_was_written_before() -> None:
    heard: list[int] = []
    lost: list[Exception | None] = []
    ended = asyncio.Event()
    options = {"notes": {"n": heard.append}, "lost": lambda _: ended.set()}
    async with pair(options, {"lost": lost.append}) as (_, worker):
        for n in range(1000):
            worker.note("n", n)
        await worker.close()
        await ended.wait()
    assert heard == list(range(1000))
    assert lost == [None]


async def test_a_note_that_fails_is_reported() -> None:
    failed: list[tuple[str, str]] = []

    async def later() -> None:
        raise KeyError("later")

    notes = {"now": lambda: 1 / 0, "later": later}
    options = {"notes": notes, "failed": lambda name, error: failed.append((name, str(error)))}
    async with pair(None, options) as (host, _):
        host.note("now")
        host.note("later")
        await host.ping(1)
        await turns()
    assert failed == [("now", "division by zero"), ("later", "'later'")]


async def test_a_ping_is_answered_while_calls_run_and_not_by_a_blocked_loop() -> None:
    async with pair() as (host, worker):
        assert 0 < await host.ping(1) < 1
        await worker.close()
        with pytest.raises(ConnectionLost):
            await host.ping(1)


async def test_no_hello_in_time_ends_the_connection() -> None:
    import socket

    from veko_plugins.remote.protocol import Connection

    ours, theirs = socket.socketpair()
    with theirs:
        host = Connection(ours, methods={}, notes={}, other="the worker of p")
        with pytest.raises(TimeoutError):
            await host.open({}, timeout=0.01)
        with pytest.raises(ConnectionLost, match=r"did not say hello in 0\.01 s"):
            await host.call("x")
        await host.close()


async def test_a_side_that_does_not_read_holds_calls_back_and_is_cut_off() -> None:
    from .pair import raw_pair

    lost: list[Exception | None] = []
    async with raw_pair(lost=lost.append, limit=2**20) as (host, _):
        large = b"x" * 2**20
        calls = [asyncio.ensure_future(host.call("take", large)) for _ in range(20)]
        await turns()
        assert host.unread < 4 * 2**20

        async def flood() -> None:
            for _ in range(100):
                host.note("take", large[: 2**19])
                await asyncio.sleep(0)

        with pytest.raises(Overloaded, match="the worker of p does not read"):
            await flood()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_what_is_collected_is_forgotten_on_both_sides() -> None:
    async with pair(None, {"methods": {"make": lambda: [lambda: 1, lambda: 2]}}) as (host, worker):
        for _ in range(100):
            found = await host.call("make")
            assert [await one() for one in found] == [1, 2]
            del found
        await turns()
        await host.call("make")
        assert len(host._imports) <= 2
        assert len(worker._exports) <= 4


def test_on_uvloop() -> None:
    async def run() -> None:
        async with pair(None, {"methods": {"echo": lambda value: value}}) as (host, _):
            for size in (1, 100_000, 4_000_000):
                assert await host.call("echo", b"x" * size) == b"x" * size

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
