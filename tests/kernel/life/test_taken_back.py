"""What a step has left is taken back whole, whatever happens to the task that it ran in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from veko import Kernel, LoadError

pytestmark = pytest.mark.anyio


def plugin(load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": "p", "version": "1", "load": load, **more}


@pytest.mark.usefixtures("on_asyncio")
@pytest.mark.parametrize("step", ["load", "activate"])
async def test_a_load_that_is_cancelled_twice_is_taken_back_whole(
    kernel: Kernel, step: str
) -> None:
    """The first cancellation ends the step, the second comes while it is taken back.

    They are native: no scope shields a task from them.
    """
    heard: list[str] = []
    taking_back, closed = anyio.Event(), anyio.Event()
    tasks: list[asyncio.Task[Any]] = []

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        heard.append("opened")
        yield
        taking_back.set()
        await anyio.sleep(0.02)
        heard.append("closed")
        closed.set()

    async def cancelled() -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        asyncio.get_running_loop().call_soon(task.cancel)
        await anyio.sleep(5)

    async def load(context: Any) -> None:
        await context.enter(resource())
        if step == "load":
            await cancelled()

    async def activate(context: Any) -> None:
        if step == "activate":
            await cancelled()

    async def unload() -> None:
        taking_back.set()
        heard.append("unload begins")
        await anyio.sleep(0.02)
        heard.append("unload ends")

    form = plugin(load, activate=activate, unload=unload)
    running = asyncio.ensure_future(kernel.load(form))
    with anyio.fail_after(5):
        await taking_back.wait()
        await anyio.sleep(0.005)
        tasks[0].cancel()
        running.cancel()
        await asyncio.wait([running])
        assert closed.is_set(), "the operation has ended before it was taken back"
    assert running.cancelled()
    ends = ["unload begins", "unload ends"] if step == "activate" else []
    assert heard == ["opened", *ends, "closed"]
    assert not kernel.get("p").loaded  # type: ignore[union-attr]
    await kernel.load(plugin())  # the name is free


async def test_a_load_that_is_given_up_while_it_is_taken_back_is_taken_back_whole(
    kernel: Kernel,
) -> None:
    ended: list[str] = []
    began = anyio.Event()

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        yield
        began.set()
        await anyio.sleep(0.02)
        ended.append("closed")

    async def load(context: Any) -> None:
        await context.enter(resource())
        raise ValueError("no")

    async def fail() -> None:
        with pytest.raises(LoadError):
            await kernel.load(plugin(load))

    async with anyio.create_task_group() as group:
        group.start_soon(fail)
        await began.wait()
        group.cancel_scope.cancel()
    assert ended == ["closed"]
    await kernel.load(plugin())


async def test_taking_back_is_bounded(kernel: Kernel) -> None:
    async def unload() -> None:
        await anyio.sleep_forever()

    async def activate() -> None:
        raise ValueError("no")

    kernel.timeout = 0.05
    with anyio.fail_after(3), pytest.raises(LoadError, match="no"):
        await kernel.load(plugin(activate=activate, unload=unload))
