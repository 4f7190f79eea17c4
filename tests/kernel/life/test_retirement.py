"""Retirement: calls in what was replaced end by themselves or are cut; never more than two wait."""

import gc
import logging
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Context, HookError, Kernel, LoadTimeout, StateError, TransactionError

pytestmark = pytest.mark.anyio


def plugin(version: int, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": "p", "version": str(version), "load": load, **more}


class Calls:
    """A plugin whose handler waits, and what becomes of its calls and generations."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.go = anyio.Event()
        self.seen: list[str] = []
        self.unloaded: list[int] = []
        self.held: Context

    def form(self, version: int) -> dict[str, Any]:
        async def handler(value: Any = None) -> str:
            self.begun.set()
            try:
                await self.go.wait()
            except BaseException:
                self.seen.append(f"cut {version}")
                raise
            self.seen.append(f"ended {version}")
            return f"answer {version}"

        def load(context: Context) -> None:
            self.held = context
            context.hook("x", handler, timeout=None)
            context.hook("y", lambda value: f"quick {version}")

        def unload() -> None:
            self.unloaded.append(version)

        return plugin(version, load, unload=unload)

    async def call(self, kernel: Kernel, group: Any, how: str = "emit") -> None:
        self.begun = anyio.Event()
        group.start_soon(getattr(kernel.bus, how), "x")
        await self.begun.wait()


async def test_a_second_reload_need_not_wait_for_the_calls_of_the_first(kernel: Kernel) -> None:
    calls, heard = Calls(), list[str]()
    kernel.bus.on("plugin:loaded", lambda name, record: heard.append(f"loaded {record.version}"))
    kernel.bus.on(
        "plugin:retired", lambda name, record, old: heard.append(f"retired {old.manifest.version}")
    )
    await kernel.load(calls.form(1))
    async with anyio.create_task_group() as group:
        await calls.call(kernel, group)
        group.start_soon(kernel.reload, calls.form(2))
        await anyio.wait_all_tasks_blocked()
        await kernel.reload(calls.form(3))
        assert await kernel.bus.emit("y") == "quick 3"
        assert calls.unloaded == [2]
        calls.go.set()
    assert calls.seen == ["ended 1"]
    assert calls.unloaded == [2, 1]
    assert heard == ["loaded 1", "loaded 2", "loaded 3", "retired 2", "retired 1"]


async def test_unloading_waits_for_what_was_replaced(kernel: Kernel) -> None:
    calls = Calls()
    await kernel.load(calls.form(1))
    async with anyio.create_task_group() as group:
        await calls.call(kernel, group)
        group.start_soon(kernel.reload, calls.form(2))
        await anyio.wait_all_tasks_blocked()
        group.start_soon(kernel.unload, "p")
        await anyio.wait_all_tasks_blocked()
        assert calls.unloaded == [2]
        assert kernel.get("p") is not None
        calls.go.set()
    assert calls.unloaded == [2, 1]
    assert kernel.get("p") is None


async def test_closing_waits_for_what_was_replaced() -> None:
    calls = Calls()
    async with anyio.create_task_group() as group, Kernel(drain_timeout=5) as kernel:
        await kernel.load(calls.form(1))
        await calls.call(kernel, group)
        group.start_soon(kernel.reload, calls.form(2))
        await anyio.wait_all_tasks_blocked()
        calls.go.set()
    assert sorted(calls.unloaded) == [1, 2]


async def test_a_call_of_the_old_may_unload_the_plugin(kernel: Kernel) -> None:
    go, begun, ended = anyio.Event(), anyio.Event(), list[int]()

    async def handler() -> None:
        begun.set()
        await go.wait()
        await kernel.unload("p")

    def load(context: Context) -> None:
        context.hook("x", handler, timeout=None)

    await kernel.load(plugin(1, load, unload=lambda: ended.append(1)))
    with anyio.fail_after(3):
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.bus.emit, "x")
            await begun.wait()
            group.start_soon(kernel.reload, plugin(2, unload=lambda: ended.append(2)))
            await anyio.wait_all_tasks_blocked()
            go.set()
    assert sorted(ended) == [1, 2]
    assert kernel.get("p") is None


async def test_unload_of_the_old_cannot_wait_for_itself(kernel: Kernel) -> None:
    raised: list[BaseException] = []

    async def unload() -> None:
        try:
            await kernel.unload("p")
        except StateError as error:
            raised.append(error)

    await kernel.load(plugin(1, unload=unload))
    await kernel.reload(plugin(2))
    assert len(raised) == 1
    assert kernel.get("p") is not None


@pytest.mark.parametrize("hot", [False, True], ids=["loop", "generated"])
@pytest.mark.parametrize("how", ["emit", "first", "gather"])
async def test_calls_that_outlast_drain_timeout_are_cut(
    how: str, hot: bool, faults: Any, on_asyncio: None
) -> None:
    calls, errors = Calls(), list[BaseException]()
    async with Kernel(drain_timeout=0.01, hook_timeout=0.001) as kernel:
        kernel.bus.on("x", lambda value=None: None, priority=100)
        kernel.bus.on("x", lambda value=None: None, priority=-100)
        await kernel.load(calls.form(1))
        if hot:
            calls.go.set()
            for _ in range(1001):
                await kernel.bus.emit("x")
            calls.go, calls.seen = anyio.Event(), []
        seen = faults(kernel.bus)
        kernel.bus.on("plugin:error", lambda name, error: errors.append(error))
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await getattr(kernel.bus, how)("x", *([7] if how == "emit" else [])))

        async with anyio.create_task_group() as group:
            calls.begun = anyio.Event()
            group.start_soon(ask)
            await calls.begun.wait()
            record = await kernel.reload(calls.form(2))
        assert calls.seen == ["cut 1"]
        assert answers == [{"emit": 7, "first": None, "gather": [None, None]}[how]]
        assert [type(error) for error, _ in seen] in (
            [LoadTimeout, HookError],
            [HookError, LoadTimeout],
        )
        assert len(errors) == 2
        cut = next(error for error in errors if isinstance(error, LoadTimeout))
        assert "1 calls into generation 1 still ran" in str(cut)
        assert (record.version, record.active, calls.unloaded) == ("2", True, [1])


async def test_what_calls_go_on_where_nothing_can_be_cut(
    anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls()

    async def stubborn() -> None:
        while not calls.go.is_set():
            try:
                calls.begun.set()
                await calls.go.wait()
            except BaseException:
                if anyio_backend_name == "trio":
                    raise

    def load(context: Context) -> None:
        context.hook("x", stubborn, timeout=None)

    async with Kernel(drain_timeout=0.01) as kernel:
        await kernel.load(plugin(1, load))
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.bus.emit, "x")
            await calls.begun.wait()
            with caplog.at_level(logging.WARNING, "veko"):
                await kernel.reload(plugin(2))
            assert "work that may call p still runs" in caplog.text
            calls.go.set()


async def test_never_more_than_two_wait(kernel: Kernel, on_asyncio: None) -> None:
    calls = Calls()
    record = await kernel.load(calls.form(1))
    async with anyio.create_task_group() as group:
        for version in range(2, 8):
            await calls.call(kernel, group)
            group.start_soon(kernel.reload, calls.form(version))
            await anyio.wait_all_tasks_blocked()
            assert len(record.retiring) <= 2
        assert calls.seen == ["cut 1", "cut 2", "cut 3", "cut 4"]
        assert calls.unloaded == [1, 2, 3, 4]
        assert await kernel.bus.emit("y") == "quick 7"
        calls.go.set()
    assert calls.seen[4:] == ["ended 5", "ended 6"]
    assert record.retiring == []


async def test_a_pinned_request_of_the_plugin_is_cut_and_others_move_on(
    on_asyncio: None, faults: Any
) -> None:
    calls, outcome = Calls(), dict[str, str]()
    async with Kernel(drain_timeout=0.01) as kernel:
        await kernel.load(calls.form(1))
        await kernel.load({"name": "q", "version": "1", "load": lambda: None})
        begun = [anyio.Event(), anyio.Event(), anyio.Event()]
        go = anyio.Event()

        async def request(owner: str | None, begun: anyio.Event) -> None:
            pin = kernel.pin()
            with pin as registry:
                pin.owner = owner
                begun.set()
                try:
                    await go.wait()
                except BaseException as error:
                    outcome[str(owner)] = type(error).__name__
                else:
                    assert kernel.registry is not registry
                    outcome[str(owner)] = await kernel.bus.emit("y")

        async with anyio.create_task_group() as group:
            for owner, event in zip(("p", "q", None), begun, strict=True):
                group.start_soon(request, owner, event)
                await event.wait()
            await kernel.reload(calls.form(2))
            assert calls.unloaded == [1]
            assert outcome == {"p": "CancelledError"}
            go.set()
        assert outcome == {"p": "CancelledError", "q": "quick 2", "None": "quick 2"}
        assert kernel.bus.older == []


async def test_one_long_request_does_not_keep_what_came_after_it(kernel: Kernel) -> None:
    with kernel.pin():
        for _ in range(20):
            kernel.bus.on("z", lambda: None)
        assert len(kernel.bus.older) == 1
        with kernel.pin():
            kernel.bus.on("z", lambda: None)
        assert len(kernel.bus.older) == 1
    assert kernel.bus.older == []


async def test_an_old_context_that_is_kept_raises(kernel: Kernel) -> None:
    calls = Calls()
    await kernel.load(calls.form(1))
    old = calls.held
    await kernel.reload(calls.form(2))
    for verb in (
        lambda: old.hook("x", print),
        lambda: old.provide("s", 1),
        lambda: old.spawn(anyio.sleep_forever),
    ):
        with pytest.raises(TransactionError, match="generation 1 has ended"):
            verb()
    with pytest.raises(TransactionError, match="generation 1 has ended"):
        await old.enter(anyio.create_task_group())
    assert await kernel.bus.emit("y") == "quick 2"


async def test_the_callers_own_call_is_never_cut(on_asyncio: None) -> None:
    ended: list[str] = []
    async with Kernel(drain_timeout=0.01) as kernel:
        begun, go = anyio.Event(), anyio.Event()

        async def other() -> None:
            begun.set()
            await go.wait()

        async def mine() -> None:
            await kernel.reload(plugin(2))
            ended.append("reload")
            await anyio.lowlevel.checkpoint()
            ended.append("mine")

        def load(context: Context) -> None:
            context.hook("x", other, timeout=None)
            context.hook("y", mine, timeout=None)

        await kernel.load(plugin(1, load))
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.bus.emit, "x")
            await begun.wait()
            await kernel.bus.emit("y", strict=True)
        assert ended == ["reload", "mine"]
        gc.collect()


@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("how", ["emit", "first", "gather", "strict"])
@pytest.mark.parametrize("verb", ["unload", "toggle", "reload"])
async def test_no_hook_of_a_plugin_runs_after_its_unload(
    kernel: Kernel, verb: str, how: str, hot: bool
) -> None:
    """The emission began with the old plan, and the handler that unloads is part of it."""
    heard: list[str] = []
    acting = False

    def form(version: int) -> dict[str, Any]:
        async def later() -> None:
            heard.append(f"hook {version}")

        def load(context: Context) -> None:
            context.hook("x", lambda: heard.append(f"hook {version}"))
            context.hook("x", later)
            context.hook("x", later, timeout=None)

        def end() -> None:
            heard.append(f"end {version}")

        return plugin(version, load, unload=end, deactivate=end)

    async def end() -> None:
        if not acting:
            return
        if verb == "unload":
            await kernel.unload("p")
        elif verb == "toggle":
            await kernel.toggle("p", False)
        else:
            await kernel.reload(form(2))

    async def emit() -> None:
        if how == "strict":
            await kernel.bus.emit("x", strict=True)
        else:
            await getattr(kernel.bus, how)("x")

    kernel.bus.on("x", end, priority=100)
    last: list[str] = []
    kernel.bus.on("x", lambda: last.append("host"), priority=-100)
    await kernel.load(form(1))
    for _ in range(1100 if hot else 1):  # past the number at which a plan is compiled
        await emit()
    assert len(heard) == (3300 if hot else 3)
    heard.clear()
    last.clear()
    acting = True
    with anyio.fail_after(3):
        await emit()
    assert last == ["host"]
    assert "hook 1" not in heard[heard.index("end 1") :], heard
    acting = False
    heard.clear()
    if verb == "toggle":
        await kernel.toggle("p", True)
    await emit()
    assert heard == {"unload": [], "toggle": ["hook 1"] * 3, "reload": ["hook 2"] * 3}[verb]
