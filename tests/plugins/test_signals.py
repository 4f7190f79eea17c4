"""Signals: observers hear every emission, change nothing, disturb nobody."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from veko import Kernel, Plugin, Stop, VekoError
from veko_plugins.manager import PluginManager
from veko_plugins.signals import Signals


@pytest.fixture
def signals() -> Signals:
    return Signals(limit=0.05)


@pytest.fixture
async def kernel(signals: Signals) -> AsyncIterator[Kernel]:
    async with Kernel() as kernel:
        await kernel.load(signals)
        yield kernel


class Errors(list[tuple[str, str]]):
    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        kernel.bus.on("error:handle", self.add)

    def add(self, error: Exception, origin) -> None:
        self.append((str(error), origin.event))


class Hello(Plugin):
    name = "hello"
    version = "1.0.0"

    def load(self) -> None:
        pass


@pytest.mark.anyio
async def test_def_and_async_def_hear_in_order_of_arrival(kernel: Kernel, signals: Signals) -> None:
    heard: list[object] = []

    async def later(value: int, other: str) -> None:
        await asyncio.sleep(0)
        heard.append(("later", value, other))

    signals.on("tick", lambda: heard.append("none"))
    signals.on("tick", later)
    signals.on("tick", lambda *args: heard.append(args))
    signals.on("tick", lambda value, extra=5: heard.append((value, extra)))
    await kernel.bus.emit("tick", 1, "x")
    assert heard == ["none", ("later", 1, "x"), (1, "x"), (1, 5)]


@pytest.mark.anyio
async def test_observers_change_nothing_and_see_what_is_stopped(
    kernel: Kernel, signals: Signals
) -> None:
    heard: list[int] = []

    def stop(value: int) -> None:
        raise Stop(value + 1)

    def observe(value: int) -> int:
        heard.append(value)
        return 99

    kernel.bus.on("tick", stop, priority=1_000_000)
    signals.on("tick", observe)
    assert await kernel.bus.emit("tick", 1) == 2
    assert await kernel.bus.first("tick", 3) == 4
    assert heard == [1, 3]


@pytest.mark.anyio
@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(3), Stop(5)])
async def test_one_that_raises_is_reported_and_disturbs_nobody(
    kernel: Kernel, signals: Signals, raised: BaseException
) -> None:
    heard: list[str] = []
    errors = Errors(kernel)

    async def fails() -> None:
        raise raised

    signals.on("tick", fails)
    signals.on("tick", lambda: heard.append("other"))
    kernel.bus.on("tick", lambda: heard.append("hook"))
    assert await kernel.bus.emit("tick", 1) == 1
    assert heard == ["other", "hook"]
    assert [event for _, event in errors] == ["tick"]


@pytest.mark.anyio
async def test_one_that_hangs_is_reported_and_the_rest_goes_on(
    kernel: Kernel, signals: Signals
) -> None:
    heard: list[str] = []
    errors = Errors(kernel)

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def waits_for_the_cancelled() -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    signals.on("tick", hangs)
    signals.on("tick", waits_for_the_cancelled)
    signals.on("tick", lambda: heard.append("other"))
    await kernel.bus.emit("tick")
    assert heard == ["other"]
    assert len(errors) == 2
    assert "hangs" in errors[0][0]
    assert "cancelled" in errors[1][0]


@pytest.mark.anyio
async def test_one_of_errors_that_fails_does_not_recurse(kernel: Kernel, signals: Signals) -> None:
    calls: list[str] = []

    def fails(*args: object) -> None:
        calls.append("called")
        raise ValueError("again")

    def hook() -> None:
        raise ValueError("first")

    signals.on("error:handle", fails)
    signals.on("plugin:error", fails)
    kernel.bus.on("tick", hook)
    await kernel.bus.emit("tick")
    assert calls == ["called", "called"]


@pytest.mark.anyio
async def test_off_twice_is_fine_and_leaves_no_subscription(
    kernel: Kernel, signals: Signals
) -> None:
    heard: list[int] = []
    before = kernel.registry.entries("hook")
    observer = signals.on("tick", heard.append)
    assert signals.on("tick", heard.append) is observer
    other = signals.on("tick", lambda value: heard.append(-value))
    assert len(kernel.registry.entries("hook")) == len(before) + 1
    await kernel.bus.emit("tick", 1)
    signals.off("tick", heard.append)
    signals.off("tick", heard.append)
    signals.off("nothing", heard.append)
    await kernel.bus.emit("tick", 2)
    other.cancel()
    other.cancel()
    await kernel.bus.emit("tick", 3)
    assert heard == [1, -1, -2]
    assert kernel.registry.entries("hook") == before


@pytest.mark.anyio
async def test_observers_are_held_strongly(kernel: Kernel, signals: Signals) -> None:
    heard: list[int] = []

    class Owner:
        def observe(self, value: int) -> None:
            heard.append(value)

    signals.on("tick", Owner().observe)
    gc.collect()
    await kernel.bus.emit("tick", 1)
    assert heard == [1]


@pytest.mark.anyio
async def test_patterns_and_life_cycle_events(kernel: Kernel, signals: Signals) -> None:
    heard: list[object] = []
    signals.on("plugin:loaded", lambda name, plugin: heard.append((name, plugin.name)))
    signals.on("plugin:*", lambda name: heard.append(name))
    await kernel.load(Hello)
    assert ("hello", "hello") in heard
    assert heard.count("hello") >= 2


@pytest.mark.anyio
async def test_what_cannot_be_observed_is_said(kernel: Kernel, signals: Signals) -> None:
    before = kernel.registry.entries("hook")
    with pytest.raises(VekoError, match="pattern"):
        signals.on("plugin:a*", lambda: None)
    with pytest.raises(VekoError, match="pattern"):
        Signals().on("plugin::x", lambda: None)
    with pytest.raises(VekoError, match="callable"):
        signals.on("tick", "print")  # type: ignore[arg-type]
    assert kernel.registry.entries("hook") == before


@pytest.mark.anyio
async def test_the_log_can_be_observed(kernel: Kernel, signals: Signals) -> None:
    heard = asyncio.get_running_loop().create_future()

    class Talker(Plugin):
        name = "talker"
        version = "1.0.0"

        def load(self, context) -> None:
            context.log("info", "hello")

    signals.on("log", lambda record: heard.done() or heard.set_result(record))
    await kernel.load(Talker)
    record = await asyncio.wait_for(heard, 5)
    assert (record.plugin, record.message) == ("talker", "hello")


@pytest.mark.anyio
async def test_the_signal_is_blinkers(kernel: Kernel, signals: Signals) -> None:
    heard: list[object] = []

    def receiver(sender: object, **given: object) -> None:
        heard.append((sender, given))

    async def later(sender: object, **given: object) -> None:
        heard.append(sender)

    signals["tick"].connect(receiver, sender="a")
    signals["tick"].connect(later)
    await kernel.bus.emit("tick", "a", 2)
    await kernel.bus.emit("tick", "b", 3)
    assert heard[0] == ("a", {"event": "tick", "args": ("a", 2)})
    assert heard[1:] == ["a", "b"]
    with signals["tick"].muted():
        await kernel.bus.emit("tick", "a", 2)
    signals["tick"].disconnect(receiver)
    signals["tick"].disconnect(later)
    await kernel.bus.emit("tick", "a", 2)
    assert len(heard) == 3
    assert all(entry.key != "tick" for entry in kernel.registry.entries("hook"))


@pytest.mark.anyio
async def test_observers_come_before_the_kernel_and_outlive_it() -> None:
    heard: list[int] = []
    signals = Signals()
    signals.on("tick", heard.append)
    for number in range(2):
        async with Kernel() as kernel:
            await kernel.load(signals)
            await kernel.bus.emit("tick", number)
            await kernel.unload("signals")
            await kernel.bus.emit("tick", -1)
    assert heard == [0, 1]


@pytest.mark.anyio
async def test_switched_off_it_hears_nothing(kernel: Kernel, signals: Signals) -> None:
    heard: list[int] = []
    signals.on("tick", heard.append)
    await kernel.toggle("signals", False)
    await kernel.bus.emit("tick", 1)
    await kernel.toggle("signals", True)
    await kernel.bus.emit("tick", 2)
    assert heard == [2]


@pytest.mark.anyio
async def test_the_manager_observes_before_it_starts_and_over_a_restart(tmp_path: Path) -> None:
    heard: list[object] = []
    manager = PluginManager(root=tmp_path, adapter=None, auto_load=False)
    manager.on("plugin:loaded", lambda name: heard.append(name))
    manager.on("app:start", lambda: heard.append("start"))
    async with manager:
        await manager.load_plugin(Hello)
        assert heard[-2:] == ["start", "hello"]
        heard.clear()
        await manager.restart()
        assert heard.count("start") == 1
        assert heard.count("hello") == 1
        assert manager.signals["plugin:loaded"].receivers


async def test_observers_hear_core_plugins_only_if_they_ask_to(tmp_path: Path) -> None:
    heard: list[str] = []
    core: list[str] = []
    manager = PluginManager(root=tmp_path, adapter=None, auto_load=False)
    manager.on("plugin:loaded", heard.append)
    manager.on("plugin:*", lambda name: heard.append(name))
    manager.on("plugin:loaded", core.append, core=True)
    async with manager:
        assert heard == []
        assert "storage" in core
        await manager.load_plugin({"name": "own", "version": "1.0.0", "load": lambda: None})
        assert set(heard) == {"own"}
        assert core[-1] == "own"
        await manager.toggle_plugin("storage", False)
        assert set(heard) == {"own"}
