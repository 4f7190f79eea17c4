"""The life cycle: states and moves, events before and after, time limits, who may ask for what."""

import traceback
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import (
    ConflictError,
    DependencyError,
    Kernel,
    LoadError,
    LoadTimeout,
    NotFoundError,
    PluginRecord,
    RefusedError,
    State,
    StateError,
)
from veko._life.states import MOVES

pytestmark = pytest.mark.anyio
SIGNALS = (
    "load",
    "activate",
    "loaded",
    "activated",
    "deactivate",
    "unload",
    "deactivated",
    "unloaded",
    "reload",
)


def plugin(name: str, load: Any = lambda: None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


def watch(kernel: Kernel) -> list[str]:
    seen: list[str] = []

    def heard(signal: str, name: str, record: PluginRecord) -> None:
        assert record.name == name
        seen.append(f"{signal} {record.state}")

    for signal in SIGNALS:
        kernel.bus.on(f"plugin:{signal}", lambda n, r, signal=signal: heard(signal, n, r))
    return seen


# -- states


def test_the_table_of_moves() -> None:
    assert set(MOVES) == set(State)
    assert MOVES[State.ACTIVE] >= {State.INACTIVE, State.UNLOADING}
    assert MOVES[State.INACTIVE] >= {State.ACTIVE, State.UNLOADING}
    assert MOVES[State.FAILED] == {
        State.LOADING,
        State.ACTIVE,
        State.INACTIVE,
        State.UNLOADING,
    }
    assert all(State.FAILED in MOVES[s] for s in State if s not in (State.UNLOADED, State.FAILED))


async def test_each_move_fires_an_event_before_and_after(kernel: Kernel) -> None:
    seen = watch(kernel)
    record = await kernel.load(plugin("p"))
    assert record.state is State.ACTIVE
    assert seen == ["load loading", "activate loading", "loaded active", "activated active"]
    seen.clear()
    assert await kernel.toggle("p") is False
    assert record.state is State.INACTIVE
    assert await kernel.toggle("p") is True
    assert seen == [
        "deactivate active",
        "deactivated inactive",
        "activate inactive",
        "activated active",
    ]
    seen.clear()
    await kernel.unload("p")
    assert record.state is State.UNLOADED
    assert kernel.get("p") is None
    assert seen[0] == "unload active"
    assert sorted(seen[-2:]) == ["deactivated unloaded", "unloaded unloaded"]


async def test_the_steps_run_in_their_order(kernel: Kernel) -> None:
    steps: list[str] = []

    def step(name: str) -> Any:
        async def run(app: Any, config: Any, context: Any) -> None:
            await anyio.lowlevel.checkpoint()
            assert (app, context.name) == ("host", "p")
            steps.append(name)

        return run

    names = ("load", "unload", "activate", "deactivate")
    await kernel.load(plugin("p", **{name: step(name) for name in names}))
    assert steps == ["load", "activate"]
    await kernel.toggle("p", False)
    await kernel.toggle("p", False)
    assert steps == ["load", "activate", "deactivate"]
    await kernel.unload("p")
    assert steps == ["load", "activate", "deactivate", "unload"]
    await kernel.load(plugin("p", **{name: step(name) for name in names}))
    steps.clear()
    await kernel.unload("p")
    assert steps == ["deactivate", "unload"]


async def test_the_record(kernel: Kernel) -> None:
    exports = {"x": 1}
    record = await kernel.load(plugin("p", exports=exports, default_config={"a": {"b": 1}}))
    assert kernel.get("p") is record
    assert kernel.records() == (record,)
    assert (record.name, record.version, record.active, record.core) == ("p", "1.0.0", True, False)
    assert record.exports == exports
    assert record.config == {"a": {"b": 1}}
    assert record.loaded_at is not None
    assert record.loaded_at.tzinfo is not None
    assert 0 < record.load_duration < 5
    assert (record.error, record.failed_step, record.error_count) == (None, None, 0)
    assert record.generation == 1


async def test_a_hook_refuses_a_step(kernel: Kernel) -> None:
    refused: set[str] = set()

    class NoError(Exception): ...

    def refuse(event: str) -> Any:
        def hook(name: str) -> None:
            if event in refused:
                raise NoError(event)

        return hook

    for name in ("load", "activate", "deactivate", "unload", "reload"):
        kernel.bus.on(f"plugin:{name}", refuse(name))
    for name in ("load", "activate"):
        refused |= {name}
        with pytest.raises(RefusedError) as caught:
            await kernel.load(plugin("p", lambda context: context.hook("x", print)))
        assert isinstance(caught.value.__cause__, NoError)
        assert caught.value.plugin == "p"
        assert kernel.get("p").state is State.FAILED  # type: ignore[union-attr]
        assert not kernel.bus.heard("x")
        refused.clear()
    record = await kernel.load(plugin("p", lambda context: context.hook("x", print)))
    for name, operation in [
        ("deactivate", lambda: kernel.toggle("p", False)),
        ("deactivate", lambda: kernel.unload("p")),
        ("unload", lambda: kernel.unload("p")),
        ("reload", lambda: kernel.reload(plugin("p"))),
        ("activate", lambda: kernel.toggle("p", True)),
    ]:
        if name == "activate":
            await kernel.toggle("p", False)
        refused |= {name}
        with pytest.raises(RefusedError):
            await operation()
        refused.clear()
        assert record.state is (State.INACTIVE if name == "activate" else State.ACTIVE)
        assert kernel.bus.heard("x") is (name != "activate")


# -- failing


@pytest.mark.parametrize("step", ["load", "activate"])
@pytest.mark.parametrize("kind", [ValueError, SystemExit, GeneratorExit])
async def test_a_step_that_raises(kernel: Kernel, step: str, kind: Any, faults: Any) -> None:
    heard: list[Any] = []
    kernel.bus.on("plugin:error", lambda name, error: heard.append((name, error)))
    kernel.bus.on("error:critical", lambda error, origin: heard.append((origin.plugin, error)))

    async def broken(context: Any) -> None:
        context.hook("x", print)
        await anyio.lowlevel.checkpoint()
        raise kind("on purpose")

    with pytest.raises(LoadError, match=f"{step}\\(\\) raised {kind.__name__}") as caught:
        await kernel.load(plugin("p", **{"load": lambda: None, step: broken}))
    assert (caught.value.plugin, caught.value.step) == ("p", step)
    assert isinstance(caught.value.__cause__, kind)
    record = kernel.get("p")
    assert record is not None
    assert (record.state, record.failed_step) == (State.FAILED, step)
    assert record.error == str(caught.value)
    assert not record.loaded
    assert not kernel.bus.heard("x")
    assert heard == [("p", caught.value), ("p", caught.value)]
    again = await kernel.load(plugin("p"))
    assert again.state is State.ACTIVE
    assert (again.error, again.failed_step) == (None, None)


async def test_an_error_that_is_raised_keeps_its_variables_for_debuggers(kernel: Kernel) -> None:
    def broken() -> None:
        cause = "visible"
        raise ValueError(cause)

    with pytest.raises(LoadError) as caught:
        await kernel.load(plugin("p", broken))
    error = caught.value.__cause__
    assert error is not None
    assert error.__traceback__ is not None
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames[-1]["cause"] == "visible"


@pytest.mark.parametrize("swallows", [False, True])
async def test_a_load_that_hangs(swallows: bool) -> None:
    timed_out: list[Any] = []

    async def hangs() -> None:
        while True:
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                if not swallows:
                    raise

    async with Kernel(timeout=0.02) as kernel:
        kernel.bus.on("plugin:timeout", lambda name, error: timed_out.append((name, error)))
        with anyio.fail_after(5), pytest.raises(LoadTimeout, match="load") as caught:
            await kernel.load(plugin("p", hangs))
        assert timed_out == [("p", caught.value)]
        assert kernel.get("p").state is State.FAILED  # type: ignore[union-attr]


async def test_every_step_has_a_time_limit() -> None:
    async with Kernel(timeout=0.02) as kernel:
        with pytest.raises(LoadTimeout, match="activate"):
            await kernel.load(plugin("p", activate=anyio.sleep_forever))
        record = await kernel.load(
            plugin("q", deactivate=anyio.sleep_forever, unload=anyio.sleep_forever)
        )
        with anyio.fail_after(5):
            await kernel.toggle("q", False)
            assert record.error_count == 1
            await kernel.unload("q")
        assert record.error_count == 2
        assert kernel.get("q") is None


async def test_unload_runs_if_load_had_returned(kernel: Kernel) -> None:
    steps: list[str] = []

    def broken() -> None:
        raise ValueError

    more = {"unload": lambda: steps.append("unload")}
    with pytest.raises(LoadError):
        await kernel.load(plugin("p", broken, **more))
    assert steps == []
    with pytest.raises(LoadError):
        await kernel.load(plugin("p", activate=broken, **more))
    assert steps == ["unload"]


@pytest.mark.parametrize("step", ["deactivate", "unload"])
async def test_a_closing_step_that_raises_is_reported_and_ends_anyway(
    kernel: Kernel, step: str, faults: Any
) -> None:
    seen = faults(kernel.bus)

    def broken() -> None:
        raise SystemExit

    await kernel.load(plugin("p", lambda context: context.hook("x", print), **{step: broken}))
    await kernel.unload("p")
    assert kernel.get("p") is None
    assert not kernel.bus.heard("x")
    [(error, origin)] = seen
    assert isinstance(error, LoadError)
    assert error.step == step
    assert origin.plugin == "p"


async def test_awaiting_somebodys_cancelled_task_in_load(kernel: Kernel, on_asyncio: None) -> None:
    import asyncio

    async def load() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(LoadError, match="CancelledError"):
        await kernel.load(plugin("p", load))
    await kernel.load(plugin("p"))


async def test_a_cancelled_caller_takes_its_load_with_it(kernel: Kernel) -> None:
    left: list[str] = []

    async def load(context: Any) -> None:
        context.hook("x", print)
        try:
            await anyio.sleep_forever()
        finally:
            left.append("left")

    with anyio.move_on_after(0.02) as scope:
        await kernel.load(plugin("p", load))
    assert scope.cancelled_caught
    assert left == ["left"]
    assert kernel.get("p").state is State.FAILED  # type: ignore[union-attr]
    assert not kernel.bus.heard("x")
    await kernel.load(plugin("p"))


async def test_a_cancelled_caller_does_not_stop_an_unload(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def unload() -> None:
        begun.set()
        await go.wait()

    await kernel.load(plugin("p", unload=unload))
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.unload, "p")
        await begun.wait()
        group.cancel_scope.cancel()
    unloaded = anyio.Event()
    kernel.bus.on("plugin:unloaded", lambda name: unloaded.set())
    go.set()
    with anyio.fail_after(5):
        await unloaded.wait()
    assert kernel.get("p") is None


# -- who may ask for what


async def test_a_name_is_taken_once(kernel: Kernel) -> None:
    first = await kernel.load(plugin("p"))
    with pytest.raises(ConflictError, match="active"):
        await kernel.load(plugin("p", version="2.0.0"))
    assert first.version == "1.0.0"
    await kernel.toggle("p", False)
    with pytest.raises(ConflictError, match="inactive"):
        await kernel.load(plugin("p"))


async def test_two_loads_of_one_name_at_once(kernel: Kernel) -> None:
    outcomes: list[Any] = []
    go = anyio.Event()

    async def load(version: str) -> None:
        try:
            record = await kernel.load(plugin("p", go.wait, version=version))
            outcomes.append(record.version)
        except Exception as error:
            outcomes.append(type(error))

    async with anyio.create_task_group() as group:
        group.start_soon(load, "1.0.0")
        group.start_soon(load, "2.0.0")
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert ConflictError in outcomes
    [loaded] = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert kernel.get("p").version == loaded  # type: ignore[union-attr]
    assert kernel.get("p").active  # type: ignore[union-attr]


async def test_what_is_not_loaded_is_not_found(kernel: Kernel) -> None:
    await kernel.load(plugin("other"))
    for operation in (
        kernel.unload("p"),
        kernel.toggle("p"),
        kernel.reload(plugin("p")),
        kernel.update_config("p", {}),
    ):
        with pytest.raises(NotFoundError, match="other"):
            await operation


async def test_dependencies_are_needed_and_protected(kernel: Kernel) -> None:
    with pytest.raises(DependencyError, match="base"):
        await kernel.load(plugin("user", dependencies=["base>=1"]))
    await kernel.load(plugin("base"))
    await kernel.toggle("base", False)
    with pytest.raises(DependencyError, match="inactive"):
        await kernel.load(plugin("user", dependencies=["base"]))
    await kernel.toggle("base", True)
    await kernel.load(plugin("user", dependencies=["base"]))
    await kernel.load(plugin("top", dependencies=["user"]))
    for operation in (kernel.unload("base"), kernel.toggle("base", False)):
        with pytest.raises(DependencyError, match="user"):
            await operation
    await kernel.toggle("base", False, cascade=True)
    assert [record.active for record in kernel.records()] == [False, False, False]
    with pytest.raises(DependencyError):
        await kernel.toggle("user", True)
    for name in ("base", "user", "top"):
        await kernel.toggle(name, True)
    unloaded: list[str] = []
    kernel.bus.on("plugin:unloaded", unloaded.append)
    await kernel.unload("base", cascade=True)
    assert unloaded == ["top", "user", "base"]


async def test_using_a_service_is_a_dependency(kernel: Kernel) -> None:
    await kernel.load(plugin("base", lambda context: context.provide("s", 1)))
    await kernel.load(plugin("user", lambda context: context.use("s")))
    with pytest.raises(DependencyError, match="user"):
        await kernel.unload("base")
    await kernel.unload("user")
    await kernel.unload("base")


async def test_plugins_that_use_each_other_come_down_by_cascade(kernel: Kernel) -> None:
    await kernel.load(plugin("a", lambda context: context.provide("a", context)))
    await kernel.load(plugin("b", lambda context: (context.provide("b", 1), context.use("a"))))
    kernel.use("a").use("b")
    with pytest.raises(DependencyError):
        await kernel.unload("a")
    with anyio.fail_after(5):
        await kernel.unload("a", cascade=True)
    assert kernel.records() == ()
    await kernel.load(plugin("a", lambda context: context.provide("a", context)))
    await kernel.load(plugin("b", lambda context: (context.provide("b", 1), context.use("a"))))
    kernel.use("a").use("b")
    assert await kernel.toggle("b", False, cascade=True) is False
    assert [record.active for record in kernel.records()] == [False, False]


async def test_operations_on_one_plugin_are_serialised(kernel: Kernel) -> None:
    steps: list[str] = []

    def slow(name: str) -> Any:
        async def run() -> None:
            steps.append(f"{name} begins")
            await anyio.sleep(0.01)
            steps.append(f"{name} ends")

        return run

    names = ("load", "unload", "activate", "deactivate")
    await kernel.load(plugin("p", **{name: slow(name) for name in names}))
    steps.clear()
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.toggle, "p", False)
        while not steps:  # trio starts tasks in any order
            await anyio.lowlevel.checkpoint()
        group.start_soon(kernel.unload, "p")
    assert steps == [
        f"{name} {what}" for name in ("deactivate", "unload") for what in ("begins", "ends")
    ]


async def test_independent_plugins_load_side_by_side(kernel: Kernel) -> None:
    meet = [anyio.Event() for _ in range(3)]

    def load(number: int) -> Any:
        async def run() -> None:
            meet[number].set()
            for event in meet:
                await event.wait()

        return run

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(kernel.load, plugin(f"p{number}", load(number)))
    assert all(record.active for record in kernel.records())


@pytest.mark.parametrize("how", ["emit", "first", "gather", "limited", "strict", "hot"])
async def test_a_plugin_asks_for_its_own_unloading_from_a_hook(kernel: Kernel, how: str) -> None:
    ended: list[str] = []
    armed = how != "hot"

    def load(context: Any) -> None:
        async def leave(value: Any = None) -> str:
            if armed:
                await kernel.unload("p")
                ended.append("came back")
            return "answer"

        context.hook("x", leave, timeout=4 if how == "limited" else None)

    await kernel.load(plugin("p", load, unload=lambda: ended.append("unload")))
    if how == "hot":
        for _ in range(1001):
            await kernel.bus.emit("x")
        armed = True
    with anyio.fail_after(2):
        if how == "first":
            assert await kernel.bus.first("x") == "answer"
        elif how == "gather":
            assert await kernel.bus.gather("x") == ["answer"]
        else:
            assert await kernel.bus.emit("x", strict=how == "strict") == "answer"
    assert ended == ["unload", "came back"]
    assert kernel.get("p") is None


async def test_a_plugin_asks_for_its_own_unloading_from_a_task(kernel: Kernel) -> None:
    unloaded = anyio.Event()
    kernel.bus.on("plugin:unloaded", lambda name: unloaded.set())

    def load(context: Any) -> None:
        async def leave() -> None:
            await context.kernel.unload("p")

        context.spawn(leave)

    with anyio.fail_after(2):
        await kernel.load(plugin("p", load))
        await unloaded.wait()
    assert kernel.get("p") is None


async def test_a_plugin_toggles_and_reloads_itself_from_a_hook(kernel: Kernel) -> None:
    def load(context: Any) -> None:
        async def off() -> None:
            await kernel.toggle("p", False)

        async def anew() -> None:
            await kernel.reload(plugin("p", load))

        context.hook("off", off)
        context.hook("anew", anew)

    record = await kernel.load(plugin("p", load))
    with anyio.fail_after(2):
        await kernel.bus.emit("anew", strict=True)
        assert record.generation == 2
        await kernel.bus.emit("off", strict=True)
    assert not record.active


@pytest.mark.parametrize("signal", ["loaded", "activated"])
async def test_an_observer_of_a_signal_may_act_on_the_plugin(kernel: Kernel, signal: str) -> None:
    async def act(name: str) -> None:
        await kernel.unload(name)

    kernel.bus.on(f"plugin:{signal}", act)
    with anyio.fail_after(2):
        await kernel.load(plugin("p"))
    assert kernel.get("p") is None


@pytest.mark.parametrize("step", ["load", "activate", "deactivate", "unload"])
async def test_a_life_cycle_function_cannot_unload_its_own_plugin(
    kernel: Kernel, step: str
) -> None:
    caught: list[Any] = []

    async def function() -> None:
        try:
            await kernel.unload("p")
        except (StateError, NotFoundError) as error:
            caught.append(error)

    with anyio.fail_after(2):
        await kernel.load(plugin("p", **{"load": lambda: None, step: function}))
        await kernel.unload("p")
    assert len(caught) == 1


# -- draining


async def test_unloading_waits_for_running_handlers(kernel: Kernel) -> None:
    steps: list[str] = []
    begun, go = anyio.Event(), anyio.Event()

    async def handler() -> None:
        begun.set()
        await go.wait()
        steps.append("handler ended")

    await kernel.load(
        plugin(
            "p", lambda context: context.hook("x", handler), unload=lambda: steps.append("unload")
        )
    )
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.bus.emit, "x")
        await begun.wait()
        group.start_soon(kernel.unload, "p")
        await anyio.wait_all_tasks_blocked()
        assert not kernel.bus.heard("x")
        assert steps == []
        go.set()
    assert steps == ["handler ended", "unload"]


@pytest.mark.parametrize("how", ["first", "gather", "drained by a pattern"])
async def test_draining_knows_every_way_to_ask(kernel: Kernel, how: str) -> None:
    steps: list[str] = []
    begun, go = anyio.Event(), anyio.Event()

    async def handler() -> None:
        begun.set()
        await go.wait()
        steps.append("handler ended")

    event = "x:*" if "pattern" in how else "x:1"
    await kernel.load(
        plugin(
            "p", lambda context: context.hook(event, handler), unload=lambda: steps.append("unload")
        )
    )
    emit = getattr(kernel.bus, how, kernel.bus.emit)
    async with anyio.create_task_group() as group:
        group.start_soon(emit, "x:1")
        await begun.wait()
        if "pattern" in how:
            for number in range(5_000):  # so many that the plan of x:1 is forgotten
                kernel.bus.heard(f"x:{number}")
        group.start_soon(kernel.unload, "p")
        await anyio.wait_all_tasks_blocked()
        assert steps == []
        go.set()
    assert steps == ["handler ended", "unload"]


async def test_draining_is_bounded() -> None:
    steps: list[str] = []
    begun = anyio.Event()

    async def handler() -> None:
        begun.set()
        await anyio.sleep_forever()

    async with Kernel(drain_timeout=0.02, hook_timeout=None) as kernel:
        await kernel.load(
            plugin(
                "p",
                lambda context: context.hook("x", handler),
                unload=lambda: steps.append("unload"),
            )
        )
        async with anyio.create_task_group() as group:
            group.start_soon(kernel.bus.emit, "x")
            await begun.wait()
            with anyio.fail_after(2):
                await kernel.unload("p")
            assert steps == ["unload"]
            group.cancel_scope.cancel()


async def test_only_calls_into_the_plugin_are_waited_for(kernel: Kernel) -> None:
    begun, go = anyio.Event(), anyio.Event()

    async def handler() -> None:
        begun.set()
        await go.wait()

    kernel.bus.on("x", handler)
    await kernel.load(plugin("p", lambda context: context.hook("y", print)))
    async with anyio.create_task_group() as group:
        group.start_soon(kernel.bus.emit, "x")
        await begun.wait()
        with anyio.fail_after(2):
            await kernel.unload("p")
        go.set()


# -- the kernel's own life


async def test_leaving_the_kernel_unloads_in_reverse_order() -> None:
    steps: list[str] = []
    async with Kernel() as kernel:
        for name in ("a", "b", "c"):
            await kernel.load(plugin(name, unload=lambda name=name: steps.append(name)))
    assert steps == ["c", "b", "a"]


async def test_leaving_under_cancellation_still_unloads_in_order() -> None:
    steps: list[str] = []

    async def slowly(name: str) -> None:
        await anyio.sleep(0.01)
        steps.append(name)

    def unload_of(name: str) -> Any:
        async def unload() -> None:
            await slowly(name)

        return unload

    with anyio.CancelScope() as scope:
        async with Kernel() as kernel:
            for name in ("a", "b"):
                await kernel.load(plugin(name, unload=unload_of(name)))
            scope.cancel()
            await anyio.sleep_forever()
    assert steps == ["b", "a"]


async def test_leaving_by_an_error_unloads_and_raises_it() -> None:
    steps: list[str] = []

    async def fail() -> None:
        async with Kernel() as kernel:
            await kernel.load(plugin("p", unload=lambda: steps.append("unload")))
            raise ValueError("the host's own")

    with pytest.raises(Exception) as caught:
        await fail()
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    assert isinstance(error, ValueError)
    assert steps == ["unload"]


async def test_shutting_down_asks_neither_hooks_nor_dependents() -> None:
    steps: list[str] = []

    def refuse(name: str) -> None:
        raise ValueError("no")

    async with Kernel() as kernel:
        await kernel.load(plugin("p", unload=lambda: steps.append("unload")))
        for event in ("plugin:unload", "plugin:deactivate"):
            kernel.bus.on(event, refuse)
    assert steps == ["unload"]


async def test_a_kernel_that_is_not_open_says_so() -> None:
    kernel = Kernel()
    with pytest.raises(StateError, match="not open"):
        await kernel.load(plugin("p"))
    async with kernel:
        pass
    with pytest.raises(StateError, match="closed"):
        await kernel.load(plugin("p"))


async def test_a_load_that_runs_when_the_kernel_is_left() -> None:
    left: list[str] = []
    outcomes: list[Any] = []

    async def load() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            left.append("left")

    async with anyio.create_task_group() as group, Kernel() as kernel:

        async def ask() -> None:
            try:
                await kernel.load(plugin("p", load))
            except Exception as error:
                outcomes.append(error)

        group.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
    assert left == ["left"]
    assert len(outcomes) == 1


async def test_two_kernels_in_one_loop_do_not_touch_each_other() -> None:
    async with Kernel("one") as one, Kernel("other") as other:
        seen: list[str] = []

        def load(context: Any) -> None:
            context.hook("x", lambda: seen.append(context.app))
            context.provide("s", context.app)

        await one.load(plugin("p", load))
        await other.load(plugin("p", load))
        await one.bus.emit("x")
        assert seen == ["one"]
        assert (one.use("s"), other.use("s")) == ("one", "other")
        with one.pin():
            await other.unload("p")
            assert one.use("s") == "one"
        assert one.get("p") is not None

        async def crosses() -> None:
            await one.unload("p")

        other.bus.on("cross", crosses)
        await other.bus.emit("cross", strict=True)
        assert one.get("p") is None


# -- posting


async def test_posted_events_come_in_order(kernel: Kernel) -> None:
    seen: list[int] = []
    done = anyio.Event()

    async def hear(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        seen.append(number)
        if number == 99:
            done.set()

    kernel.bus.on("x", hear)
    kernel.post("nobody hears", 1)
    for number in range(100):
        kernel.post("x", number)
    assert seen == []
    with anyio.fail_after(5):
        await done.wait()
    assert seen == list(range(100))


async def test_what_was_posted_is_emitted_before_the_kernel_ends() -> None:
    seen: list[int] = []
    async with Kernel() as kernel:
        kernel.bus.on("x", seen.append)
        kernel.post("x", 1)
    assert seen == [1]


async def test_interceptors_stand_around_the_steps_of_the_life_cycle() -> None:
    seen: list[str] = []

    class Around:
        def __init__(self, step: str, plugin: Any) -> None:
            self.name = f"{step} {plugin.name}"

        def __enter__(self) -> None:
            seen.append(f"> {self.name}")

        def __exit__(self, kind: object, error: object, trace: object) -> None:
            seen.append(f"< {self.name}" + (f" {type(error).__name__}" if error else ""))

    def fail() -> None:
        raise ValueError("no")

    async with Kernel() as kernel:
        kernel.bus.intercept_step(Around)
        await kernel.load(plugin("a", activate=lambda: None))
        await kernel.toggle("a")
        with pytest.raises(LoadError):
            await kernel.load(plugin("b", fail))
    assert seen == [
        "> load a", "> load() a", "< load() a", "> activate() a", "< activate() a", "< load a",
        "> toggle a", "< toggle a",
        "> load b", "> load() b", "< load() b ValueError", "< load b LoadError",
        "> unload a", "< unload a",
    ]  # fmt: skip
