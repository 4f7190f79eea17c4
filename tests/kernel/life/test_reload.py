"""Reload: one swap, or the old generation goes on; and nothing of what is gone stays alive."""

import types
import weakref
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Event, Kernel, LoadError, State, StateError

pytestmark = pytest.mark.anyio


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


SOURCE = """
name, version = "p", "1.0.0"

class Payload: ...

class Manager:
    async def __aenter__(self): return self
    async def __aexit__(self, *args): ...

async def load(context):
    import anyio
    global held
    held = context
    def handler(value): return Payload()
    async def slow(value): await anyio.lowlevel.checkpoint()
    def broken(value): raise ValueError("broken")
    context.declare(Event("p:event", payload=Payload, returns=True))
    context.hook("p:event", handler)
    context.hook("x", slow)
    context.hook("x", broken)
    context.hook("**", slow)
    context.provide("s", Payload())
    context.attach("extra", lambda context: Payload())
    context.intercept(lambda event, subscription, call: call)
    context.spawn(anyio.sleep_forever)
    context.every(60, slow)
    await context.enter(Manager())
    if FAILS: raise ValueError("fails to load")
"""


def module(fails: bool = False) -> tuple[types.ModuleType, list["weakref.ref[Any]"]]:
    made = types.ModuleType("p")
    vars(made).update(FAILS=fails, Event=Event)
    exec(compile(SOURCE, "<p>", "exec"), vars(made))
    return made, [weakref.ref(made), weakref.ref(made.Payload), weakref.ref(made.load)]


def parts(made: types.ModuleType) -> list["weakref.ref[Any]"]:
    return [weakref.ref(made.held), weakref.ref(made.held._generation)]


async def use_everything(kernel: Kernel) -> None:
    await kernel.bus.emit("p:event", None)
    for _ in range(3):
        await kernel.bus.emit("x", 1)
    kernel.use("s")
    _ = kernel.get("other").current.context.extra  # type: ignore[union-attr]


async def test_unload_leaves_nothing(kernel: Kernel, all_die: Any) -> None:
    await kernel.load(plugin("other"))
    made, references = module()
    await kernel.load(made)
    references += parts(made)
    await use_everything(kernel)
    await kernel.unload("p")
    del made
    await all_die(*references)


async def test_unload_from_a_hook_leaves_nothing(kernel: Kernel, all_die: Any) -> None:
    references = []

    class Mine:
        def load(self, context: Any) -> None:
            async def leave() -> None:
                await kernel.unload("p")

            context.hook("x", leave)
            references.append(weakref.ref(context))

    mine = Mine()
    references.append(weakref.ref(mine))
    await kernel.load(plugin("p", mine.load))
    del mine
    await kernel.bus.emit("x", strict=True)
    await all_die(*references)


async def test_toggling_first_changes_nothing_about_that(kernel: Kernel, all_die: Any) -> None:
    await kernel.load(plugin("other"))
    made, references = module()
    await kernel.load(made)
    references += parts(made)
    await use_everything(kernel)
    for _ in range(4):
        await kernel.toggle("p")
    await use_everything(kernel)
    await kernel.toggle("p", False)
    await kernel.unload("p")
    del made
    await all_die(*references)


async def test_a_failed_load_leaves_only_the_text_of_its_error(
    kernel: Kernel, all_die: Any
) -> None:
    made, references = module(fails=True)
    with pytest.raises(LoadError):
        await kernel.load(made)
    references += parts(made)
    del made
    record = kernel.get("p")
    assert record is not None
    assert "fails to load" in str(record.error)
    await kernel.load(plugin("p"))
    del record
    await all_die(*references)


async def test_reload_leaves_nothing_of_the_old(kernel: Kernel, all_die: Any) -> None:
    await kernel.load(plugin("other"))
    made, references = module()
    await kernel.load(made)
    references += parts(made)
    await use_everything(kernel)
    again, _ = module()
    await kernel.reload(again)
    del made
    await all_die(*references)
    await use_everything(kernel)


async def test_a_failed_reload_leaves_nothing_of_the_new(kernel: Kernel, all_die: Any) -> None:
    await kernel.load(plugin("other"))
    made, _ = module()
    await kernel.load(made)
    broken, references = module(fails=True)
    with pytest.raises(LoadError):
        await kernel.reload(broken)
    references += parts(broken)
    del broken
    await use_everything(kernel)
    await all_die(*references)


async def test_the_old_serves_until_the_swap(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()
    seen: list[str] = []

    async def slow_load(context: Any) -> None:
        context.hook("x", lambda value: "new")
        context.provide("s", "new")
        begun.set()
        await go.wait()

    def load(context: Any) -> None:
        context.hook("x", lambda value: "old")
        context.provide("s", "old")

    record = await kernel.load(plugin("p", load))
    kernel.bus.on("plugin:reload", lambda name: seen.append("reload"))
    kernel.bus.on("plugin:unloaded", lambda name: seen.append("unloaded"))
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.reload, plugin("p", slow_load, version="2.0.0"))
        await begun.wait()
        assert record.state is State.ACTIVE
        assert (await kernel.bus.emit("x"), kernel.use("s"), record.version) == (
            "old",
            "old",
            "1.0.0",
        )
        version = kernel.registry.version
        go.set()
    assert kernel.registry.version == version + 1
    assert (await kernel.bus.emit("x"), kernel.use("s"), record.version) == ("new", "new", "2.0.0")
    assert record.generation == 2
    assert seen == ["reload"]
    assert kernel.get("p") is record


async def test_the_steps_of_a_reload(kernel: Kernel) -> None:
    steps: list[str] = []

    def form(number: int) -> dict[str, Any]:
        def step(name: str) -> Any:
            return lambda: steps.append(f"{name} {number}")

        names = ("load", "activate", "deactivate", "unload")
        return {"name": "p", "version": "1", **{name: step(name) for name in names}}

    await kernel.load(form(1))
    steps.clear()
    await kernel.reload(form(2))
    assert steps == ["load 2", "activate 2", "deactivate 1", "unload 1"]


async def test_hooks_keep_their_order(kernel: Kernel) -> None:
    seen: list[str] = []

    def load(name: str) -> Any:
        return lambda context: context.hook("x", lambda: seen.append(name))

    for name in ("a", "b", "c"):
        await kernel.load(plugin(name, load(name)))
    await kernel.reload(plugin("a", load("a2")))
    await kernel.reload(plugin("b", load("b2")))
    await kernel.bus.emit("x")
    assert seen == ["a2", "b2", "c"]


@pytest.mark.parametrize("where", ["load", "activate", "conflict", "import_state", "hang"])
async def test_the_old_stays_when_a_step_fails(where: str, faults: Any) -> None:
    steps: list[str] = []

    def broken(*args: Any) -> None:
        raise ValueError("broken")

    def load(context: Any) -> None:
        context.hook("x", lambda value: "old")
        context.spawn(anyio.sleep_forever)

    def new_load(context: Any) -> None:
        context.hook("x", lambda value: "new")
        context.hook("y", print)
        if where == "conflict":
            context.provide("taken", 1)
        if where == "load":
            broken()

    new: dict[str, Any] = plugin("p", new_load, unload=lambda: steps.append("unload new"))
    if where == "hang":
        new["load"] = anyio.sleep_forever
    elif where not in ("load", "conflict"):
        new[where] = broken
    async with Kernel(timeout=0.05) as kernel:
        await kernel.load(plugin("holder", lambda context: context.provide("taken", 0)))
        old = plugin(
            "p", load, unload=lambda: steps.append("unload old"), export_state=lambda: "state",
            deactivate=lambda: steps.append("deactivate old"),
        )  # fmt: skip
        record = await kernel.load(old)
        seen = faults(kernel.bus)
        heard: list[str] = []
        kernel.bus.on("plugin:error", lambda name, error: heard.append(name))
        with pytest.raises(Exception):
            await kernel.reload(new)
        assert await kernel.bus.emit("x") == "old"
        assert not kernel.bus.heard("y")
        assert (record.state, record.generation) == (State.ACTIVE, 1)
        assert steps == ([] if where in ("load", "hang") else ["unload new"])
        assert heard == ["p"]
        assert len(seen) == 1
        await kernel.reload(plugin("p"))
        assert not kernel.bus.heard("x")


async def test_state_is_handed_over_in_the_swap(kernel: Kernel) -> None:
    counts = {"old": 0}
    got: list[Any] = []

    def load(context: Any) -> None:
        def count() -> None:
            counts["old"] += 1

        context.hook("x", count)

    async def new_load(context: Any) -> None:
        await kernel.bus.emit("x")  # counted by the old one, while the new one loads

    await kernel.load(plugin("p", load, export_state=lambda: dict(counts), version="1.5.0"))
    await kernel.bus.emit("x")
    await kernel.reload(plugin("p", new_load, import_state=lambda *args: got.append(args)))
    assert got == [({"old": 2}, "1.5.0")]


async def test_running_calls_of_the_old_drain(kernel: Kernel) -> None:
    steps: list[str] = []
    begun, go = anyio.Event(), anyio.Event()

    async def handler() -> None:
        begun.set()
        await go.wait()
        steps.append("old handler")

    await kernel.load(
        plugin(
            "p", lambda context: context.hook("x", handler), unload=lambda: steps.append("unload")
        )
    )
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.bus.emit, "x")
        await begun.wait()
        group.start_soon(
            kernel.reload,
            plugin("p", lambda context: context.hook("x", lambda: steps.append("new"))),
        )
        await anyio.wait_all_tasks_blocked()
        await kernel.bus.emit("x")
        assert steps == ["new"]
        go.set()
    assert steps == ["new", "old handler", "unload"]


async def test_config_is_merged_over_the_present_one(kernel: Kernel) -> None:
    form = plugin("p", default_config={"a": 1, "deep": {"x": 1, "y": 1}})
    record = await kernel.load(form, {"deep": {"x": 2}})
    assert record.config == {"a": 1, "deep": {"x": 2, "y": 1}}
    await kernel.reload(form, {"b": 3})
    assert record.config == {"a": 1, "b": 3, "deep": {"x": 2, "y": 1}}


async def test_a_plugin_that_used_its_own_service_can_be_unloaded(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        if kernel.registry.get("service", "s"):
            context.use("s")  # the old generation's, while the new one loads
        context.provide("s", 1)
        context.use("s")

    await kernel.load(plugin("p", load))
    await kernel.reload(plugin("p", load))
    await kernel.toggle("p", False)
    await kernel.toggle("p", True)
    await kernel.unload("p")
    assert kernel.get("p") is None


@pytest.mark.parametrize("swallows", [False, True])
async def test_closing_gives_up_a_reload_that_hangs(swallows: bool) -> None:
    hanging, unloaded, failures = anyio.Event(), list[int](), list[Exception]()

    async def hangs() -> None:
        hanging.set()
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                if not swallows:
                    raise

    async def reload(kernel: Kernel) -> None:
        try:
            await kernel.reload(plugin("p", hangs, unload=lambda: unloaded.append(2)))
        except StateError as error:
            failures.append(error)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group, Kernel(timeout=60) as kernel:
            await kernel.load(plugin("p", unload=lambda: unloaded.append(1)))
            group.start_soon(reload, kernel)
            await hanging.wait()
    assert unloaded == [1]
    assert "closed" in str(failures[0])


async def test_while_closing_nothing_is_reloaded_or_loaded() -> None:
    failures: list[Exception] = []

    async def leave() -> None:
        for action in (kernel.reload, kernel.load):
            try:
                await action(plugin("p" if action == kernel.reload else "late"))
            except StateError as error:
                failures.append(error)

    async with Kernel() as kernel:
        await kernel.load(plugin("p"))
        await kernel.load(plugin("q", unload=leave))
    assert ["closing" in str(error) for error in failures] == [True, True]


async def test_what_has_loaded_while_closing_is_unloaded() -> None:
    go, loaded, order = anyio.Event(), anyio.Event(), list[str]()

    async def slow() -> None:
        await go.wait()
        loaded.set()

    async def leave() -> None:
        go.set()
        await loaded.wait()

    async def load(kernel: Kernel) -> None:
        with pytest.raises(StateError, match="closing"):
            await kernel.load(plugin("late", slow, unload=lambda: order.append("late")))

    async with anyio.create_task_group() as group, Kernel() as kernel:
        await kernel.load(plugin("p", unload=leave))
        group.start_soon(load, kernel)
        await anyio.wait_all_tasks_blocked()
    assert order == ["late"]


async def test_many_reloads_pile_nothing_up(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        context.hook("x", lambda value: value + 1)
        context.provide("s", 1)
        context.spawn(anyio.sleep_forever)

    await kernel.load(plugin("p", load))
    for _ in range(50):
        await kernel.reload(plugin("p", load))
        assert await kernel.bus.emit("x", 0) == 1
    assert len(kernel.registry.entries("hook")) == 1
    await kernel.unload("p")
    assert not kernel.bus.heard("x")
