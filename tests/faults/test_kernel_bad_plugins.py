"""Plugins that do not end, do not let go or change under the hand: what becomes of each.

`docs/guides/reload.md` says the same in words.
"""

import asyncio
import contextlib
import gc
import weakref
from typing import Any

import anyio
import pytest

from veko import (
    Context,
    DependencyError,
    Kernel,
    LoadTimeout,
    ManifestError,
    NotFoundError,
    State,
    TransactionError,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unlogged")]


def plugin(version: int, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": "p", "version": str(version), "load": load, **more}


def serving(version: int) -> Any:
    return lambda context: context.hook("x", lambda value: version)


async def swallow(*args: Any) -> None:
    """Go on after every cancellation."""
    while True:
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep_forever()


@pytest.mark.parametrize("step", ["load", "activate"])
async def test_a_new_version_that_swallows_cancellation_is_given_up(step: str) -> None:
    async with Kernel(timeout=0.02) as kernel:
        await kernel.load(plugin(1, serving(1)))
        heard: list[str] = []
        kernel.bus.on("plugin:timeout", lambda name, error: heard.append(error.step))
        with anyio.fail_after(5), pytest.raises(LoadTimeout):
            await kernel.reload(plugin(2, **{"load": serving(2), step: swallow}))
        assert heard == [step]
        assert await kernel.bus.emit("x") == 1


@pytest.mark.parametrize("step", ["unload", "deactivate"])
async def test_an_old_version_that_swallows_cancellation_ends_all_the_same(step: str) -> None:
    async with Kernel(timeout=0.02) as kernel:
        await kernel.load(plugin(1, serving(1), **{step: swallow}))
        heard: list[Any] = []
        kernel.bus.on("plugin:error", lambda name, error: heard.append(error))
        with anyio.fail_after(5):
            await kernel.reload(plugin(2, serving(2)))
        assert [(type(error), error.step) for error in heard] == [(LoadTimeout, step)]
        assert await kernel.bus.emit("x") == 2


async def test_tasks_that_never_end_are_closed() -> None:
    running: set[int] = set()

    async def task(number: int) -> None:
        running.add(number)
        try:
            await swallow()
        finally:
            running.discard(number)

    def load(context: Context) -> None:
        for number in range(3):
            context.spawn(task, number)

    async with Kernel(timeout=0.02) as kernel:
        await kernel.load(plugin(1, load))
        await anyio.wait_all_tasks_blocked()
        assert running == {0, 1, 2}
        with anyio.fail_after(5):
            await kernel.reload(plugin(2))
        assert running == set()


async def test_tasks_that_the_kernel_does_not_know_go_on_and_keep_what_they_use() -> None:
    """Tasks made with asyncio itself are nobody's: the generation lives for as long as they do."""
    tasks: list[asyncio.Task[None]] = []
    held: list[weakref.ref[Any]] = []

    async def load(context: Context) -> None:
        async def forever() -> None:
            await anyio.sleep_forever()
            context.log("info", "never")

        tasks.append(asyncio.create_task(forever()))
        held.append(weakref.ref(context))

    async with Kernel() as kernel:
        await kernel.load(plugin(1, load))
        await kernel.reload(plugin(2))
        gc.collect()
        assert not tasks[0].done()
        assert held[0]() is not None
        tasks[0].cancel()
        await asyncio.wait(tasks)
        tasks.clear()
        gc.collect()
        assert held[0]() is None


async def test_the_old_context_registers_nothing_any_more() -> None:
    held: list[Context] = []
    async with Kernel() as kernel:
        await kernel.load(plugin(1, lambda context: held.append(context)))
        handle = held[0].hook("x", lambda value: 1)
        await handle
        await kernel.reload(plugin(2, serving(2)))
        (old,) = held
        for act in (
            lambda: old.hook("x", lambda value: 1),
            lambda: old.provide("s", 1),
            lambda: old.attach("tool", lambda context: 1),
            lambda: old.spawn(anyio.sleep_forever),
            lambda: old.every(1, print),
        ):
            with pytest.raises(TransactionError, match="generation 1 has ended"):
                act()
        handle.cancel()
        assert await kernel.bus.emit("x") == 2


async def test_an_object_of_the_old_stays_with_who_kept_it_and_use_finds_the_new() -> None:
    kept: list[Any] = []

    def above(context: Context) -> None:
        kept.append(context.use("s"))
        context.hook("x", lambda: context.use("s"))

    async with Kernel() as kernel:
        await kernel.load(plugin(1, lambda context: context.provide("s", "old")))
        await kernel.load({"name": "above", "version": "1", "load": above})
        host = kernel.use("s")
        await kernel.reload(plugin(2, lambda context: context.provide("s", "new")))
        assert kept == ["old", "new"], "who needs it was made anew"
        assert await kernel.bus.emit("x") == "new"
        assert host == "old", "the host is on its own"


async def test_another_name_is_another_plugin() -> None:
    async with Kernel() as kernel:
        await kernel.load(plugin(1, serving(1)))
        with pytest.raises(NotFoundError, match="no plugin named 'q' is loaded"):
            await kernel.reload({**plugin(2, serving(2)), "name": "q"})
        assert await kernel.bus.emit("x") == 1


async def test_a_service_that_others_use_must_stay() -> None:
    async with Kernel() as kernel:
        await kernel.load(plugin(1, lambda context: context.provide("s", 1)))
        above = {"name": "above", "version": "1"}
        await kernel.load(
            {**above, "load": lambda context: context.hook("x", lambda: context.use("s"))}
        )
        assert await kernel.bus.emit("x") == 1
        with pytest.raises(DependencyError, match="no longer provides 's', which above uses"):
            await kernel.reload(plugin(2))
        assert await kernel.bus.emit("x") == 1


@pytest.mark.parametrize("step", ["export_state", "import_state"])
async def test_a_hand_over_that_would_wait_is_a_fault_of_the_manifest(step: str) -> None:
    async def wait(*args: Any) -> None: ...

    async with Kernel() as kernel:
        with pytest.raises(ManifestError, match=rf"{step}\(\) is async"):
            await kernel.load(plugin(1, **{step: wait}))
        await kernel.load(plugin(1, serving(1)))
        with pytest.raises(ManifestError, match=rf"{step}\(\) is async"):
            await kernel.reload(plugin(2, serving(2), **{step: wait}))
        assert await kernel.bus.emit("x") == 1


async def test_exits_in_the_hand_over_are_failures() -> None:
    def leave(*args: Any) -> None:
        raise SystemExit(3)

    async with Kernel() as kernel:
        record = await kernel.load(plugin(1, serving(1), export_state=lambda: 1))
        with pytest.raises(Exception, match="SystemExit"):
            await kernel.reload(plugin(2, serving(2), import_state=leave))
        assert (record.state, await kernel.bus.emit("x")) == (State.ACTIVE, 1)
