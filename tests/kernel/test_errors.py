"""Failing: what counts as a failure, what passes, where it is reported, and that it ends there."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import veko
from veko import Bus, HookError, Kernel, Origin, VekoError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["loop", "compiled"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the chain as a loop, or as generated code once it ran."""
    if request.param == "compiled":
        # The rules for code that was just compiled, without a thousand failures first.
        monkeypatch.setattr("veko._bus.plans.HOT", 1)
    return str(request.param)


async def warm(bus: Bus, event: str, switch: list[bool]) -> None:
    """Let an event's code be generated while its handlers are still quiet."""
    await bus.emit(event)
    switch.append(True)


async def test_a_failing_handler_does_not_stop_the_chain(
    faults: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bus = Bus()
    seen = faults(bus)
    errors: list[tuple[Any, ...]] = []
    bus.on("plugin:error", lambda name, error: errors.append((name, error)))

    def broken(value: Any) -> None:
        raise ValueError("broken on purpose")

    bus.on("x", broken, owner="culprit", priority=20)
    bus.on("x", lambda value: value + 1)
    assert await bus.emit("x", 1) == 2
    assert await bus.emit("x", 1) == 2
    error, origin = seen[0]
    assert isinstance(error, ValueError)
    assert origin == Origin("culprit", "x", f"{broken.__module__}.{broken.__qualname__}", None)
    assert errors == [("culprit", seen[0][0]), ("culprit", seen[1][0])]
    assert "broken on purpose" in caplog.text
    assert any("culprit" in note and "'x'" in note for note in error.__notes__)


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit])
@pytest.mark.parametrize("is_async", [False, True])
async def test_exits_of_a_handler_count_as_failures(
    kind: type[BaseException], is_async: bool, faults: Any
) -> None:
    bus = Bus()
    seen = faults(bus)

    def leaves(value: Any) -> None:
        raise kind

    async def leaves_later(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise kind

    bus.on("x", leaves_later if is_async else leaves)
    bus.on("x", lambda value: value + 1)
    for _ in range(2):
        assert await bus.emit("x", 1) == 2
    assert await bus.first("x", 1) == 2
    assert await bus.gather("x", 1) == [2]
    assert len(seen) == 4
    for error, _ in seen:
        assert isinstance(error, HookError)
        assert isinstance(error.__cause__, kind)
    with pytest.raises(HookError) as caught:
        await bus.emit("x", 1, strict=True)
    assert isinstance(caught.value.__cause__, kind)


async def test_system_exit_of_a_limited_handler(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    async def leaves(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise SystemExit(3)

    bus.on("x", leaves, timeout=5)
    await bus.emit("x")
    await bus.emit("x")
    assert [type(error) for error, _ in seen] == [HookError, HookError]


async def test_groups_of_exits_count_as_failures_too(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    def leaves(value: Any) -> None:
        raise BaseExceptionGroup("several", [SystemExit(), ValueError()])

    bus.on("x", leaves)
    for _ in range(2):
        await bus.emit("x")
    assert [type(error) for error, _ in seen] == [HookError, HookError]


@pytest.mark.parametrize("is_async", [False, True])
async def test_keyboard_interrupt_passes(is_async: bool, faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    armed: list[bool] = []

    def interrupted(value: Any) -> None:
        if armed:
            raise KeyboardInterrupt

    async def interrupted_later(value: Any) -> None:
        interrupted(value)

    async def in_a_group(value: Any) -> None:
        if armed:
            raise BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()])

    bus.on("x", interrupted_later if is_async else interrupted)
    bus.on("group", in_a_group)
    await bus.emit("group")
    await warm(bus, "x", armed)
    with pytest.raises(KeyboardInterrupt):
        await bus.emit("x")
    with pytest.raises(KeyboardInterrupt):
        await bus.emit("x", strict=True)
    with pytest.raises(KeyboardInterrupt):
        await bus.first("x", 1)
    with pytest.raises(BaseExceptionGroup):
        await bus.emit("group")
    assert seen == []


@pytest.mark.parametrize("timeout", [None, 5])
async def test_the_own_tasks_cancellation_passes(timeout: float | None, faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    late: list[object] = []
    armed: list[bool] = []

    async def hangs(value: Any) -> None:
        if armed:
            await anyio.sleep_forever()

    bus.on("x", hangs, timeout=timeout)
    bus.on("x", lambda value: late.append(value) if armed else None)
    await warm(bus, "x", armed)
    for emit in (bus.emit, bus.first, bus.gather):
        with anyio.move_on_after(0.01) as scope:
            await emit("x", 1)
        assert scope.cancelled_caught
    assert late in ([], [1])  # gather runs all
    assert seen == []


@pytest.mark.parametrize("timeout", [None, 5])
async def test_awaiting_somebodys_cancelled_task_is_a_failure(
    timeout: float | None, faults: Any, on_asyncio: None
) -> None:
    bus = Bus()
    seen = faults(bus)

    async def awaits(value: Any) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        task.cancel()
        await task

    bus.on("x", awaits, timeout=timeout)
    bus.on("x", lambda value: value + 1)
    for _ in range(2):
        assert await bus.emit("x", 1) == 2
    assert await bus.first("x", 1) == 2
    assert await bus.gather("x", 1) == [2]
    assert [type(error) for error, _ in seen] == [HookError] * 4
    with pytest.raises(HookError):
        await bus.emit("x", 1, strict=True)


async def test_closing_an_emission_passes(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    undone: list[str] = []

    class Turn:
        def __await__(self) -> Any:
            yield

    async def waits(value: Any) -> None:
        try:
            await Turn()
        finally:
            undone.append("undone")

    bus.on("x", waits)
    bus.on("x", lambda value: undone.append("went on"))
    for _ in range(3):
        emission = bus.emit("x")
        emission.send(None)
        emission.close()
    assert undone == ["undone"] * 3
    assert seen == []


async def test_strict_raises_the_handlers_own_exception(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    class Mine(Exception): ...

    raised = Mine()
    late: list[object] = []

    def refuse(value: Any) -> None:
        raise raised

    bus.on("x", refuse)
    bus.on("x", late.append)
    with pytest.raises(Mine) as caught:
        await bus.emit("x", strict=True)
    assert caught.value is raised
    assert late == []
    assert seen == []


async def test_an_error_in_error_handling_goes_no_further(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Bus()
    calls: list[str] = []

    def broken(value: Any) -> None:
        raise ValueError("first")

    async def handles(error: Any) -> None:
        calls.append(str(error))
        await bus.emit("x")
        raise RuntimeError("second")

    bus.on("x", broken)
    bus.on("error:handle", handles)
    await bus.emit("x")
    assert calls == ["first"]
    assert "second" in caplog.text
    await bus.emit("x")
    assert calls == ["first", "first"]


async def test_gather_in_error_handling_does_not_recurse() -> None:
    bus = Bus()
    calls: list[str] = []

    async def broken(value: Any) -> None:
        if len(calls) < 20:
            raise ValueError("first")

    async def handles(error: Any) -> None:
        calls.append(str(error))
        await bus.gather("x", 1)

    bus.on("x", broken)
    bus.on("error:handle", handles)
    await bus.emit("x")
    assert calls == ["first"]


async def test_the_guard_is_not_inherited_by_tasks(faults: Any) -> None:
    bus = Bus()
    calls: list[str] = []

    def broken(value: Any) -> None:
        raise ValueError(value)

    async with anyio.create_task_group() as group:

        async def later() -> None:
            await bus.emit("x", "from the task")

        def handles(error: Any) -> None:
            calls.append(str(error))
            if len(calls) == 1:
                group.start_soon(later)

        bus.on("x", broken)
        bus.on("error:handle", handles)
        await bus.emit("x", "from here")
    assert calls == ["from here", "from the task"]


async def test_error_handle_may_replace_the_error() -> None:
    bus = Bus()
    errors: list[Any] = []
    bus.on("error:handle", lambda error: RuntimeError(f"seen: {error}"))
    bus.on("plugin:error", lambda name, error: errors.append(str(error)))

    def broken(value: Any) -> None:
        raise ValueError("original")

    bus.on("x", broken)
    await bus.emit("x")
    assert errors == ["seen: original"]


async def test_report_never_raises() -> None:
    bus = Bus()

    def broken(*args: Any) -> None:
        raise SystemExit

    for event in ("error:handle", "plugin:error", "plugin:timeout"):
        bus.on(event, broken)
    await bus.report(ValueError("x"), owner="p", event="e", handler="h")


async def test_errors_are_counted_for_their_plugin(kernel: Kernel) -> None:
    def broken(value: Any) -> None:
        raise ValueError("x")

    def load(context: Any) -> None:
        context.hook("x", broken)

    record = await kernel.load({"name": "culprit", "version": "1", "load": load})
    seen: list[Any] = []
    kernel.bus.on("plugin:error", lambda name, error: seen.append(name))
    await kernel.bus.emit("x")
    await kernel.bus.emit("x")
    assert record.error_count == 2
    assert seen == ["culprit", "culprit"]
    request = object()
    origins: list[Origin] = []
    kernel.bus.on("error:handle", lambda error, origin: origins.append(origin))
    await kernel.fault(ValueError("in a route"), plugin="culprit", origin=request)
    assert record.error_count == 3
    [origin] = origins
    assert origin.plugin == "culprit"
    assert origin.subject is request
    await kernel.fault(ValueError("of nobody"))
    await kernel.fault(ValueError("of a plugin that is gone"), plugin="gone")
    assert seen == ["culprit"] * 3 + [None, "gone"]


# -- the tree


def test_every_error_is_a_veko_error_and_says_where_and_what_to_do() -> None:
    for name in veko.errors.__all__:
        kind = getattr(veko, name)
        if kind is veko.Fault:  # what errors carry
            continue
        assert issubclass(kind, VekoError)
        assert kind.__doc__
    error = VekoError("it broke", plugin="p", event="e", path="a/b.py", line=3, remedy="Mend it.")
    assert str(error) == "it broke (plugin p, event e, file a/b.py:3). Mend it."
    assert (error.plugin, error.event, error.path) == ("p", "e", Path("a/b.py"))
    assert str(VekoError("bare")) == "bare"
    assert issubclass(veko.LoadTimeout, veko.LoadError)
    assert issubclass(veko.HookTimeout, veko.HookError)
