"""Probes: the same lines run around handlers and emissions, in loops and in generated code."""

from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, Event, Kernel, Stop, Subscription
from veko._bus.codegen import FILENAME
from veko._bus.plans import HOT, LONG
from veko.extend import Call, Probe, Snippet

pytestmark = pytest.mark.anyio

Seen = list[str]


def marking(seen: Seen, mark: str = "") -> Any:
    """Make a probe that records each of its moments."""
    note = seen.append

    def make(event: str, subscriptions: Sequence[Subscription]) -> Probe:
        emission = Snippet(
            before=f"{mark}x_count = 0\nx_note('{mark}begin' + ' at once' * at_once)",
            after=f"x_note('{mark}end')",
            failed=f"x_note('{mark}broken ' + type(error).__name__)",
            names={"x_note": note},
        )
        hook = Snippet(
            alone=f"{mark}x_count = 0",
            before=f"{mark}x_count += 1\nx_note('{mark}before ' + {mark}x_name$)",
            after=f"x_note('{mark}after ' + {mark}x_name$)",
            failed=f"x_note('{mark}failed ' + {mark}x_name$ + ' ' + type(error).__name__)",
            resumed=f"x_note('{mark}resumed')",
        )
        return Probe(
            emission,
            [
                hook._replace(names={"x_note": note, f"{mark}x_name$": one.handler.__name__})
                for one in subscriptions
            ],
        )

    return make


def first(value: Any) -> Any:
    return value + 1


async def second(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value + 1


async def third(value: Any) -> Any:
    return value + 1


def stops(value: Any) -> Any:
    raise Stop("stopped")


def fails(value: Any) -> Any:
    raise KeyError(value)


async def hot(bus: Bus, event: str = "x", value: Any = 1) -> None:
    for _ in range(HOT + 1):
        await bus.emit(event, value)


@pytest.fixture(params=["loop", "generated"])
async def ready(request: pytest.FixtureRequest) -> Any:
    """Return what brings a bus to where its plans are loops, or generated code."""

    async def warm(bus: Bus, seen: Seen) -> bool:
        if request.param == "generated":
            await hot(bus)
            plan = bus.plan("x")
            assert plan is not None
            assert plan.call.__code__.co_filename == FILENAME
            seen.clear()
        return bool(request.param == "generated")

    return warm


async def test_lines_stand_around_emissions_and_handlers(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    bus.on("x", first)
    bus.on("x", second, timeout=5)
    bus.on("x", third)
    await ready(bus, seen)
    assert await bus.emit("x", 1) == 4
    assert seen == [
        "begin", "before first", "after first", "before second", "after second", "before third",
        "after third", "end",
    ]  # fmt: skip


async def test_the_first_probe_is_the_outermost(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen, "a"))
    bus.probe(marking(seen, "b"))
    bus.on("x", first)
    await ready(bus, seen)
    assert await bus.emit("x", 1) == 2
    assert seen == [
        "abegin", "bbegin", "abefore first", "bbefore first", "bafter first", "aafter first",
        "bend", "aend",
    ]  # fmt: skip


async def test_a_stop_ends_the_emission_and_no_failure_does(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    bus.on("x", fails)
    bus.on("x", stops)
    bus.on("x", first)
    resumed = ["resumed"] if await ready(bus, seen) else []
    assert await bus.emit("x", 1) == "stopped"
    assert seen == [
        "begin", "before fails", "failed fails KeyError", *resumed, "before stops",
        "failed stops Stop", "end",
    ]  # fmt: skip


async def test_a_type_that_stops_is_an_answer_to_the_probe(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.declare(Event("x", int, returns=True, stops=str))
    bus.probe(marking(seen))

    def answers(value: int) -> str:
        return "answer"

    bus.on("x", answers)
    bus.on("x", first)
    await ready(bus, seen)
    assert await bus.emit("x", 1) == "answer"
    assert seen == ["begin", "before answers", "after answers", "end"]


async def test_strict_emissions_first_and_gather_have_them_too() -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    bus.on("x", first)
    assert await bus.emit("x", 1, strict=True) == 2
    assert seen == ["begin", "before first", "after first", "end"]
    seen.clear()
    assert await bus.first("x", 1) == 2
    assert seen == ["begin", "before first", "after first", "end"]
    seen.clear()
    assert await bus.gather("x", 1) == [2]
    assert seen == ["begin at once", "before first", "after first", "end"]
    seen.clear()
    bus.on("x", fails)
    with pytest.raises(KeyError):
        await bus.emit("x", 1, strict=True)
    assert seen[-2:] == ["failed fails KeyError", "broken KeyError"]


async def test_a_cancelled_emission_reaches_the_probe(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    running, waits = anyio.Event(), False

    async def hangs(value: Any) -> None:
        if waits:
            running.set()
            await anyio.sleep_forever()

    bus.on("x", hangs, timeout=60)
    await ready(bus, seen)
    waits = True
    async with anyio.create_task_group() as group:
        group.start_soon(bus.emit, "x", 1)
        await running.wait()
        group.cancel_scope.cancel()
    assert seen[:2] == ["begin", "before hangs"]
    assert [one.rpartition(" ")[0] for one in seen[2:]] == ["failed hangs", "broken"]


async def test_a_closed_emission_reaches_the_probe(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    waits = False

    async def hangs(value: Any) -> None:
        if waits:
            await anyio.sleep(60)

    bus.on("x", hangs)
    await ready(bus, seen)
    waits = True
    emission = bus.emit("x", 1)
    emission.send(None)
    emission.close()
    assert seen[2:] == ["failed hangs GeneratorExit", "broken GeneratorExit"]


async def test_it_stands_around_what_interceptors_made(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))

    def wrap(event: str, subscription: Any, call: Any) -> Any:
        async def wrapped(*args: Any) -> Any:
            seen.append("wrapper")
            await anyio.lowlevel.checkpoint()
            return call(*args)

        return wrapped

    bus.intercept(wrap)
    bus.on("x", first)
    await ready(bus, seen)
    assert await bus.emit("x", 1) == 2
    assert seen == ["begin", "before first", "wrapper", "after first", "end"]


async def test_it_may_pass_over_events_and_handlers(ready: Any) -> None:
    asked: list[str] = []
    seen: Seen = []
    bus = Bus()

    def make(event: str, subscriptions: Sequence[Subscription]) -> Probe | None:
        asked.append(event)
        if event == "y":
            return None
        around = Snippet(before="p_seen.append(p_name$)", names={"p_seen": seen, "p_name$": "2"})
        return Probe(None, [None, around])

    handle = bus.probe(make)
    for event in ("x", "y"):
        bus.on(event, first)
        bus.on(event, third)
    assert await bus.emit("nobody hears this", 1) == 1
    await ready(bus, seen)
    assert (await bus.emit("x", 1), await bus.emit("y", 1)) == (3, 3)
    assert seen == ["2"]
    assert asked == ["x", "y"]
    handle.cancel()
    handle.cancel()
    assert (await bus.emit("x", 1), await bus.emit("y", 1)) == (3, 3)
    assert (seen, asked) == (["2"], ["x", "y"])


async def test_long_chains_have_them() -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    for _ in range(LONG + 1):
        bus.on("x", first)
    for _ in range(HOT + 2):
        seen.clear()
        assert await bus.emit("x", 0) == LONG + 1
    assert len(seen) == 2 + 2 * (LONG + 1)


async def test_too_few_arguments_raise_the_same_error_as_without_a_probe(faults: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))

    def wants(one: Any, answer: Any) -> None: ...  # `answer` is a name of the lines' own function

    def needs(one: Any, two: Any) -> None: ...

    errors = faults(bus)
    bus.on("x", wants)
    bus.on("x", needs)
    await bus.emit("x", 1)
    assert "required positional argument" in str(errors[0])
    assert "needs() missing 1 required positional argument: 'two'" in str(errors[1])


async def test_more_and_fewer_arguments(ready: Any) -> None:
    seen: Seen = []
    bus = Bus()
    bus.probe(marking(seen))
    got: list[Any] = []

    def none() -> None:
        got.append(())

    def everything(*args: Any) -> None:
        got.append(args)

    def two(one: Any, two: Any = "default") -> None:
        got.append((one, two))

    for handler in (none, everything, two):
        bus.on("x", handler)
    await ready(bus, seen)
    got.clear()
    await bus.emit("x", 1, 2, 3)
    assert got == [(), (1, 2, 3), (1, "default")]


async def test_a_plugin_brings_one_and_takes_it_along() -> None:
    seen: Seen = []
    async with Kernel() as kernel:
        kernel.bus.on("x", first)
        assert await kernel.bus.emit("x", 1) == 2

        def load(context: Any) -> None:
            context.probe(marking(seen))

        await kernel.load({"name": "prober", "version": "1.0.0", "load": load})
        assert await kernel.bus.emit("x", 1) == 2
        assert len(seen) == 4
        await kernel.toggle("prober", False)
        await kernel.bus.emit("x", 1)
        await kernel.toggle("prober", True)
        await kernel.bus.emit("x", 1)
        await kernel.unload("prober")
        await kernel.bus.emit("x", 1)
        assert len(seen) == 8


def test_calls_that_have_ended_are_forgotten() -> None:
    bus = Bus()
    held = [bus.enclose(Call("command", f"c{number}", print, None)) for number in range(1_000)]
    assert len(bus._enclosed._kept) == len(held)
    for number in range(20_000):
        bus.enclose(Call("command", f"d{number}", print, None))
    assert len(bus._enclosed._kept) <= 2 * len(held) + 1
    del held
    for number in range(20_000):
        bus.enclose(Call("command", f"e{number}", print, None))
    assert len(bus._enclosed._kept) <= 32
