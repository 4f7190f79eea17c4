"""`reload = "restart"`: the old one goes down before the new one comes up, and back if not."""

from typing import Any

import anyio
import pytest

from veko import Context, Kernel, LoadError, Plugin, PluginRecord, State, as_plugin

pytestmark = pytest.mark.anyio


class Exclusive:
    """What only one can hold, and a plugin that holds it; `above` uses it, `beside` does not."""

    def __init__(self) -> None:
        self.holder: int | None = None
        self.steps: list[str] = []
        self.broken: set[str] = set()

    def step(self, name: str) -> None:
        self.steps.append(name)
        if name in self.broken:
            raise ValueError(f"broken: {name}")

    def form(self, version: int, **more: Any) -> dict[str, Any]:
        def load(context: Context) -> None:
            self.step(f"load {version}")
            assert self.holder is None, "two of them at once"
            self.holder = version
            context.provide("port", version)
            context.hook("x", lambda value: [*value, version])

        def unload() -> None:
            self.step(f"unload {version}")
            if self.holder == version:
                self.holder = None

        def export_state() -> str:
            self.step(f"export {version}")
            return f"state {version}"

        def import_state(state: str, version_before: str) -> None:
            self.step(f"import {version} {state} {version_before}")

        return {
            "name": "port", "version": str(version), "load": load, "unload": unload,
            "reload": "restart", "export_state": export_state, "import_state": import_state,
            **more,
        }  # fmt: skip

    def above(self, version: int) -> dict[str, Any]:
        def load(context: Context) -> None:
            port = context.use("port")
            self.step(f"load above {version} on {port}")
            context.hook("x", lambda value: [*value, f"above {version} on {port}"])

        def unload() -> None:
            self.step(f"unload above {version}")

        return {"name": "above", "version": str(version), "load": load, "unload": unload}


async def test_the_old_goes_before_the_new_comes(kernel: Kernel) -> None:
    port, states = Exclusive(), list[State]()
    record = await kernel.load(port.form(1))
    port.steps.clear()

    def activate() -> None:
        states.append(record.state)

    await kernel.reload(port.form(2, activate=activate))
    assert port.steps == ["export 1", "unload 1", "load 2", "import 2 state 1 1"]
    assert states == [State.LOADING]
    assert (record.state, record.version, record.generation) == (State.ACTIVE, "2", 2)
    assert await kernel.bus.emit("x", []) == [2]


async def test_those_that_need_it_go_down_and_up_with_it(kernel: Kernel) -> None:
    port, heard = Exclusive(), list[str]()
    await kernel.load(port.form(1))
    await kernel.load(port.above(1))
    await kernel.load({"name": "beside", "version": "1", "load": lambda: None})
    port.steps.clear()
    for event in ("plugin:loaded", "plugin:retired", "plugin:unloaded"):
        kernel.bus.on(event, lambda name, event=event: heard.append(f"{event} {name}"))

    async def dependents(record: PluginRecord) -> Plugin:
        return as_plugin(port.above(2))

    await kernel.reload(port.form(2), dependents=dependents)
    assert port.steps == [
        "export 1", "unload above 1", "unload 1", "load 2", "load above 2 on 2",
        "import 2 state 1 1",
    ]  # fmt: skip
    assert await kernel.bus.emit("x", []) == [2, "above 2 on 2"]
    assert heard == [
        "plugin:loaded port", "plugin:loaded above",
        "plugin:retired above", "plugin:retired port",
    ]  # fmt: skip


async def test_what_it_needs_need_not_go_down(kernel: Kernel) -> None:
    port, seen = Exclusive(), list[bool]()
    base = {"name": "base", "version": "1", "load": lambda context: context.provide("base", 1)}
    await kernel.load(base)
    needs = {"dependencies": ["base"]}
    await kernel.load(port.form(1, **needs))
    port.steps.clear()

    def activate() -> None:
        seen.append(kernel.registry.get("service", "base") is not None)

    async def dependents(record: PluginRecord) -> Plugin:
        return as_plugin(port.form(2, activate=activate, **needs))

    await kernel.reload(base, dependents=dependents)
    assert seen == [True]
    assert [record.generation for record in kernel.records()] == [2, 2]
    assert port.holder == 2


@pytest.mark.parametrize("broken", ["load 2", "load above 2 on 2", "import 2 state 1 1"])
async def test_back_to_the_old_if_the_new_fails(kernel: Kernel, broken: str, faults: Any) -> None:
    port, heard = Exclusive(), list[str]()
    record = await kernel.load(port.form(1))
    above = await kernel.load(port.above(1))
    port.broken.add(broken)
    port.steps.clear()
    seen = faults(kernel.bus)
    kernel.bus.on("plugin:loaded", heard.append)

    async def dependents(record: PluginRecord) -> Plugin:
        return as_plugin(port.above(2))

    with pytest.raises(LoadError, match=f"broken: {broken}") as caught:
        await kernel.reload(port.form(2), dependents=dependents)
    assert caught.value.plugin == ("above" if "above" in broken else "port")
    assert [error for error, _ in seen] == [caught.value]
    assert port.steps[-3:] == ["load 1", "import 1 state 1 1", "load above 1 on 1"]
    assert await kernel.bus.emit("x", []) == [1, "above 1 on 1"]
    assert (record.state, above.state) == (State.ACTIVE, State.ACTIVE)
    assert (record.version, above.version) == ("1", "1")
    assert heard == ["port", "above"]
    port.broken.clear()
    await kernel.reload(port.form(3))
    assert await kernel.bus.emit("x", []) == [3, "above 1 on 3"]


async def test_failed_if_the_old_does_not_come_back_either(kernel: Kernel) -> None:
    port, heard = Exclusive(), list[str]()
    record = await kernel.load(port.form(1))
    above = await kernel.load(port.above(1))
    port.broken |= {"load 1", "load 2"}
    kernel.bus.on("error:critical", lambda error, origin: heard.append(f"critical {origin.plugin}"))
    kernel.bus.on("plugin:unloaded", lambda name: heard.append(f"unloaded {name}"))
    with pytest.raises(LoadError, match=r"broken: load 2.*not come back either.*broken: load 1"):
        await kernel.reload(port.form(2))
    assert (record.state, above.state) == (State.FAILED, State.FAILED)
    assert "The version before does not come back either: " in str(record.error)
    assert "there is no service 'port'" in str(above.error)
    assert heard == ["unloaded port", "critical port", "unloaded above", "critical above"]
    assert await kernel.bus.emit("x", []) == []
    port.broken.clear()
    port.holder = None
    await kernel.load(port.form(3))
    await kernel.load(port.above(3))
    assert await kernel.bus.emit("x", []) == [3, "above 3 on 3"]


async def test_an_export_that_fails_takes_nothing_down(kernel: Kernel) -> None:
    port = Exclusive()
    record = await kernel.load(port.form(1))
    port.broken.add("export 1")
    with pytest.raises(LoadError, match="broken: export 1"):
        await kernel.reload(port.form(2))
    assert port.steps == ["load 1", "export 1"]
    assert (record.state, record.generation) == (State.ACTIVE, 1)


async def test_switched_off_it_restarts_without_being_switched_on(kernel: Kernel) -> None:
    port = Exclusive()
    record = await kernel.load(port.form(1))
    await kernel.toggle("port")
    await kernel.reload(port.form(2))
    assert (record.state, record.version, port.holder) == (State.INACTIVE, "2", 2)
    port.broken.add("load 3")
    with pytest.raises(LoadError):
        await kernel.reload(port.form(3))
    assert (record.state, record.version) == (State.INACTIVE, "2")
    await kernel.toggle("port")
    assert await kernel.bus.emit("x", []) == [2]


async def test_a_cancelled_restart_comes_back(kernel: Kernel) -> None:
    port, begun = Exclusive(), anyio.Event()
    record = await kernel.load(port.form(1))

    async def hang() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(kernel.reload, port.form(2, activate=hang))
        await begun.wait()
        group.cancel_scope.cancel()
    assert (record.state, record.version) == (State.ACTIVE, "1")
    assert await kernel.bus.emit("x", []) == [1]


async def test_its_running_calls_end_before_the_new_one_begins(kernel: Kernel) -> None:
    port, begun, go = Exclusive(), anyio.Event(), anyio.Event()
    await kernel.load(port.form(1))

    def load(context: Context) -> None:
        async def handler() -> None:
            begun.set()
            await go.wait()
            port.step(f"call on {port.holder}")

        context.use("port")
        context.hook("y", handler)

    await kernel.load({"name": "above", "version": "1", "load": load})
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.bus.emit, "y")
        await begun.wait()
        port.steps.clear()
        group.start_soon(kernel.reload, port.form(2))
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert port.steps[:4] == ["export 1", "call on 1", "unload 1", "load 2"]
