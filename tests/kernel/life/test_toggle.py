"""Toggle: off takes everything out of action at once, on brings it back where it was."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Event, Kernel, LoadError, NotFoundError, ServiceError, State, StateError

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


async def test_off_takes_every_registration_out_of_the_registry(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        context.hook("x", lambda value: "hooked")
        context.hook("y:*", lambda value: "hooked")
        context.provide("s", 1)
        context.attach("extra", lambda context: "extra")
        context.declare(Event("z", payload=int))
        context.intercept(lambda event, subscription, call: call)
        context.register("thing", "key", "value")

    def others() -> list[Any]:
        return [
            entry
            for kind in ("hook", "pattern", "service", "attach", "event", "interceptor", "thing")
            for entry in kernel.registry.entries(kind)
            if entry.owner is not None
        ]

    await kernel.load(plugin("p", load))
    contexts: list[Any] = []
    await kernel.load(plugin("other", lambda context: contexts.append(context)))
    emit = kernel.bus.emitter("x")
    before = others()
    assert len(before) == 7
    assert await emit(1) == "hooked"
    assert contexts[0].extra == "extra"
    assert await kernel.toggle("p") is False
    assert others() == []
    assert await emit(1) == 1
    assert await kernel.bus.emit("y:1", 1) == 1
    with pytest.raises(AttributeError):
        _ = contexts[0].extra
    with pytest.raises(ServiceError, match="p, which is inactive"):
        kernel.use("s")
    assert await kernel.toggle("p") is True
    assert others() == before
    assert await emit(1) == "hooked"
    assert kernel.use("s") == 1


async def test_on_comes_back_in_the_old_order(kernel: Kernel) -> None:
    seen: list[str] = []

    def load(name: str) -> Any:
        def run(context: Any) -> None:
            for number in (1, 2):
                context.hook("x", lambda number=number: seen.append(f"{name}{number}"))

        return run

    for name in ("a", "b", "c"):
        await kernel.load(plugin(name, load(name)))
    kernel.bus.on("x", lambda: seen.append("host"))
    for name in ("b", "a"):
        await kernel.toggle(name, False)
    for name in ("a", "b"):
        await kernel.toggle(name, True)
    await kernel.bus.emit("x")
    assert seen == ["a1", "a2", "b1", "b2", "c1", "c2", "host"]


async def test_running_calls_drain_before_deactivate(kernel: Kernel) -> None:
    steps: list[str] = []
    begun, go = anyio.Event(), anyio.Event()

    async def handler() -> None:
        begun.set()
        await go.wait()
        steps.append("handler")

    await kernel.load(
        plugin(
            "p",
            lambda context: context.hook("x", handler),
            deactivate=lambda: steps.append("deactivate"),
        )
    )
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.bus.emit, "x")
        await begun.wait()
        group.start_soon(kernel.toggle, "p", False)
        await anyio.wait_all_tasks_blocked()
        assert kernel.get("p").state is State.INACTIVE  # type: ignore[union-attr]
        assert not kernel.bus.heard("x")
        assert steps == []
        go.set()
    assert steps == ["handler", "deactivate"]


async def test_unfinished_tasks_start_anew(kernel: Kernel) -> None:
    log: list[str] = []

    async def forever() -> None:
        log.append("begins")
        try:
            await anyio.sleep_forever()
        finally:
            log.append("ends")

    async def once() -> None:
        log.append("once")

    def load(context: Any) -> None:
        context.spawn(forever)
        context.spawn(once)

    await kernel.load(plugin("p", load))
    await anyio.wait_all_tasks_blocked()
    assert sorted(log) == ["begins", "once"]
    log.clear()
    await kernel.toggle("p", False)
    assert log == ["ends"]
    log.clear()
    await kernel.toggle("p", True)
    await anyio.wait_all_tasks_blocked()
    assert log == ["begins"]


async def test_every_starts_anew(kernel: Kernel) -> None:
    beats = 0
    beat = anyio.Event()

    def count() -> None:
        nonlocal beats
        beats += 1
        beat.set()

    await kernel.load(plugin("p", lambda context: context.every(0.005, count)))
    with anyio.fail_after(5):
        await beat.wait()
    await kernel.toggle("p", False)
    before = beats
    await anyio.sleep(0.02)
    assert beats == before
    beat = anyio.Event()
    await kernel.toggle("p", True)
    with anyio.fail_after(5):
        await beat.wait()


async def test_activate_runs_before_anything_comes_back(kernel: Kernel) -> None:
    seen: list[bool] = []
    await kernel.load(
        plugin(
            "p",
            lambda context: context.hook("x", print),
            activate=lambda: seen.append(kernel.bus.heard("x")),
            deactivate=lambda: seen.append(kernel.bus.heard("x")),
        )
    )
    await kernel.toggle("p")
    await kernel.toggle("p")
    assert seen == [False, False, False]


async def test_an_activate_that_fails_leaves_it_off(kernel: Kernel) -> None:
    broken = False

    def activate(context: Any) -> None:
        context.hook("y", print)
        if broken:
            raise ValueError("not now")

    record = await kernel.load(
        plugin("p", lambda context: context.hook("x", print), activate=activate)
    )
    await kernel.toggle("p", False)
    broken = True
    with pytest.raises(LoadError, match="activate"):
        await kernel.toggle("p", True)
    assert record.state is State.FAILED
    assert not kernel.bus.heard("x")
    assert not kernel.bus.heard("y")
    broken = False
    assert await kernel.toggle("p", True) is True
    assert kernel.bus.heard("x")
    assert len(kernel.registry.all("hook", "y")) == 1


async def test_what_activate_registers_does_not_pile_up(kernel: Kernel) -> None:
    runs: list[str] = []

    async def work() -> None:
        runs.append("begins")
        try:
            await anyio.sleep_forever()
        finally:
            runs.append("ends")

    def activate(context: Any) -> None:
        context.hook("x", lambda value: value + 1)
        context.spawn(work)

    await kernel.load(plugin("p", activate=activate))
    for _ in range(3):
        await kernel.toggle("p", False)
        await kernel.toggle("p", True)
    await anyio.wait_all_tasks_blocked()
    assert await kernel.bus.emit("x", 0) == 1
    assert runs.count("begins") - runs.count("ends") == 1


async def test_what_is_registered_while_off_comes_with_on(kernel: Kernel) -> None:
    contexts: list[Any] = []
    await kernel.load(plugin("p", lambda context: contexts.append(context)))
    await kernel.toggle("p", False)
    handle = contexts[0].hook("x", lambda value: value + 1)
    gone = contexts[0].hook("x", lambda value: value + 10)
    gone.cancel()
    assert await kernel.bus.emit("x", 0) == 0
    await kernel.toggle("p", True)
    assert await handle is handle
    assert await kernel.bus.emit("x", 0) == 1


async def test_what_is_taken_away_while_off_stays_away(kernel: Kernel) -> None:
    handles: list[Any] = []
    await kernel.load(
        plugin("p", lambda context: handles.append(context.hook("x", lambda value: value + 1)))
    )
    await kernel.toggle("p", False)
    handles[0].cancel()
    handles[0].cancel()
    await kernel.toggle("p", True)
    assert await kernel.bus.emit("x", 0) == 0


async def test_a_plugin_switched_off_may_be_unloaded_and_reloaded(kernel: Kernel) -> None:
    steps: list[str] = []

    def form(version: str) -> dict[str, Any]:
        return plugin(
            "p",
            lambda context: context.hook("x", lambda value: version),
            version=version,
            activate=lambda: steps.append(f"activate {version}"),
            deactivate=lambda: steps.append(f"deactivate {version}"),
            unload=lambda: steps.append(f"unload {version}"),
        )

    record = await kernel.load(form("1"))
    await kernel.toggle("p", False)
    steps.clear()
    await kernel.reload(form("2"))
    assert record.state is State.INACTIVE
    assert record.version == "2"
    assert steps == ["unload 1"]
    assert await kernel.bus.emit("x", 0) == 0
    await kernel.toggle("p", True)
    assert await kernel.bus.emit("x", 0) == "2"
    await kernel.toggle("p", False)
    steps.clear()
    await kernel.unload("p")
    assert steps == ["unload 2"]
    assert not kernel.bus.heard("x")


async def test_toggling_often_leaves_nothing_behind(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        context.hook("x", lambda value: value + 1)
        context.provide("s", 1)
        context.spawn(anyio.sleep_forever)

    record = await kernel.load(plugin("p", load))
    for _ in range(100):
        await kernel.toggle("p")
    assert record.active
    assert await kernel.bus.emit("x", 0) == 1
    assert len(kernel.registry.entries("service")) == 1


@pytest.mark.parametrize("event", ["plugin:deactivate", "plugin:unload"])
async def test_a_hook_that_would_wait_for_its_own_operation_is_refused(event: str) -> None:
    raised: list[Exception] = []

    async def act(name: str) -> None:
        try:
            await kernel.toggle(name, False)
        except StateError as error:
            raised.append(error)

    with anyio.fail_after(10):
        async with Kernel() as kernel:
            await kernel.load({"name": "p", "version": "1", "load": lambda: None})
            kernel.bus.on(event, act)
            await kernel.unload("p")
    assert [error.plugin for error in raised] == ["p"]


async def test_a_change_of_configuration_waits_for_a_reload() -> None:
    began, go = anyio.Event(), anyio.Event()

    async def load() -> None:
        began.set()
        await go.wait()

    async with Kernel() as kernel, anyio.create_task_group() as group:
        await kernel.load({"name": "p", "version": "1", "load": lambda: None})
        group.start_soon(kernel.reload, {"name": "p", "version": "2", "load": load})
        await began.wait()
        group.start_soon(kernel.update_config, "p", {"a": 1})
        await anyio.wait_all_tasks_blocked()
        go.set()
        with anyio.fail_after(10):
            while (record := kernel.get("p")) is None or record.config != {"a": 1}:
                await anyio.lowlevel.checkpoint()
        assert record.version == "2"


async def test_two_toggles_at_once_switch_it_off_and_on(kernel: Kernel) -> None:
    """Each chooses its target when it has the lock, not when it is called."""
    answers: list[bool] = []

    async def toggle() -> None:
        answers.append(await kernel.toggle("p"))

    async def deactivate() -> None:
        await anyio.lowlevel.checkpoint()

    await kernel.load(plugin("p", lambda: None, deactivate=deactivate))
    for count in (2, 3):
        answers.clear()
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(toggle)
        record = kernel.get("p")
        assert record is not None
        assert answers == [False, True, False][:count]
        assert record.active is answers[-1]


async def test_a_toggle_that_waited_for_an_unload_says_so(kernel: Kernel) -> None:
    began, go = anyio.Event(), anyio.Event()
    raised: list[Exception] = []

    async def unload() -> None:
        began.set()
        await go.wait()

    async def toggle(active: bool | None) -> None:
        try:
            await kernel.toggle("p", active)
        except NotFoundError as error:
            raised.append(error)

    await kernel.load(plugin("p", lambda: None, unload=unload))
    await kernel.toggle("p", False)
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.unload, "p")
        await began.wait()
        group.start_soon(toggle, None)
        group.start_soon(toggle, True)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert len(raised) == 2


async def test_a_plugin_that_cannot_be_switched_on_has_failed(kernel: Kernel) -> None:
    """It shows why, and may be switched on again, reloaded or unloaded."""
    broken = False

    def activate() -> None:
        if broken:
            raise RuntimeError("the port is taken")

    def form(version: str) -> dict[str, Any]:
        return plugin("p", activate=activate) | {"version": version}

    record = await kernel.load(form("1"))
    await kernel.toggle("p", False)
    broken = True
    for _ in range(2):
        with pytest.raises(LoadError, match="port is taken"):
            await kernel.toggle("p", True)
        assert (record.state, record.failed_step) == (State.FAILED, "activate")
        assert "port is taken" in (record.error or "")
        assert record.loaded
        assert not record.active
    broken = False
    assert await kernel.toggle("p") is True
    assert (record.state, record.error, record.failed_step) == (State.ACTIVE, None, None)
    await kernel.toggle("p", False)
    broken = True
    with pytest.raises(LoadError):
        await kernel.toggle("p", True)
    await kernel.reload(form("2"))
    assert (record.state, record.error) == (State.INACTIVE, None)
    with pytest.raises(LoadError):
        await kernel.toggle("p", True)
    await kernel.unload("p")
    assert kernel.get("p") is None
