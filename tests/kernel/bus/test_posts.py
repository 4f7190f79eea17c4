"""Posting: in order, soon, bounded; what is dropped is counted and logged."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from veko import Bus, Event
from veko._bus.posts import BACKLOG, Posts

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(posts: Posts, seconds: float = 5) -> AsyncIterator[None]:
    posts.open()
    async with anyio.create_task_group() as group:
        group.start_soon(posts.run)
        yield
        await posts.close(seconds)
        group.cancel_scope.cancel()


async def test_posts_are_emitted_in_order_and_before_the_end() -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[int] = []

    async def hear(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(number)

    bus.on("x", hear)
    async with running(posts):
        for number in range(50):
            posts.add("x", number)
        posts.add("nobody hears this", 1)
        assert posts.waiting == 50
        assert seen == []
        await anyio.wait_all_tasks_blocked()
        assert seen == list(range(50))
        posts.add("x", 50)  # it is handed to the task that waits, which has not run yet
        assert posts.waiting == 1
    assert seen == list(range(51))
    assert posts.waiting == 0


async def test_posts_inside_a_pin_reach_who_came_since() -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[int] = []
    async with running(posts):
        with bus.pin():
            bus.on("x", seen.append)
            assert not bus.heard("x")
            posts.add("x", 1)
            posts.add_all([("x", 2), ("nobody hears this", 3)])
    assert seen == [1, 2]


async def test_a_full_queue_drops_the_oldest(caplog: pytest.LogCaptureFixture) -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[int] = []
    bus.on("x", seen.append)
    async with running(posts):
        for number in range(BACKLOG + 5):
            posts.add("x", number)
    assert seen == list(range(5, BACKLOG + 5))
    assert "5 posted events were dropped" in caplog.text


async def test_what_is_posted_too_early_or_too_late_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[int] = []
    bus.on("x", seen.append)
    for _ in range(2):  # it may be opened again
        caplog.clear()
        posts.add("x", 1)
        assert "x was posted while" in caplog.text
        async with running(posts):
            posts.add("x", 2)
    posts.add("x", 3)
    assert seen == [2, 2]


async def test_a_handler_that_hangs_does_not_hold_up_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Bus()
    posts = Posts(bus)
    bus.on("x", anyio.sleep_forever)
    with anyio.fail_after(5):
        async with running(posts, seconds=0.02):
            posts.add("x")
            posts.add("x")
    assert "1 posted events were dropped" in caplog.text


async def test_an_error_that_ends_an_emission_does_not_end_the_posts() -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[object] = []
    errors: list[object] = []

    def refuse(value: object) -> None:
        seen.append(value)
        raise KeyError(value)

    bus.declare(Event("x", stops=KeyError))
    bus.on("x", refuse)
    bus.on("plugin:error", lambda name, error: errors.append(type(error)))
    async with running(posts):
        posts.add("x", 1)
        posts.add("x", 2)
    assert seen == [1, 2]
    assert errors == [KeyError, KeyError]


async def test_posts_from_another_thread_are_emitted_on_the_loop() -> None:
    bus = Bus()
    posts = Posts(bus)
    seen: list[tuple[int, bool]] = []
    heard = anyio.Event()

    def hear(number: int) -> None:
        seen.append((number, threading.current_thread() is threading.main_thread()))
        if number == 2:
            heard.set()

    def work() -> None:
        for number in range(3):
            posts.add("x", number)

    bus.on("x", hear)
    async with running(posts):
        await anyio.to_thread.run_sync(work)
        with anyio.fail_after(5):
            await heard.wait()  # the loop must be woken: nothing else happens
    assert seen == [(0, True), (1, True), (2, True)]
