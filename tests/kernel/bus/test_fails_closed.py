"""Events that fail closed: the failure of a handler ends the emission, unless it only observes."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, Event, HookError, HookTimeout, Origin, Stop
from veko._bus.plans import HOT

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("unlogged")]

Reports = list[tuple[BaseException, Origin]]
Emit = Callable[[Bus], Awaitable[Any]]


class Refusal(Exception):
    """What handlers of the event may raise as an answer."""


EVENT = Event("gate:pass", payload=str, returns=True, stops=Refusal, fails_closed=True)


def fail(value: str) -> None:
    raise TypeError("no")


async def fail_later(value: str) -> None:
    await anyio.lowlevel.checkpoint()
    raise TypeError("no")


def leave(value: str) -> None:
    raise SystemExit(3)


async def close(value: str) -> None:
    raise GeneratorExit


async def hang(value: str) -> None:
    await anyio.sleep(60)


async def return_too_late(value: str) -> None:
    """Swallow the cancellation, as `except BaseException` does."""
    with contextlib.suppress(anyio.get_cancelled_exc_class()):
        await anyio.sleep(60)


async def linger_and_return(value: str) -> None:
    for _ in range(2):
        with contextlib.suppress(anyio.get_cancelled_exc_class()):
            await anyio.sleep(0.01)


async def await_a_cancelled_task(value: str) -> None:
    task = asyncio.ensure_future(asyncio.sleep(60))
    task.cancel()
    await task


def return_a_number(value: str) -> int:
    return 1


FAILING = [
    (fail, TypeError),
    (fail_later, TypeError),
    (leave, HookError),
    (close, HookError),
    (hang, HookTimeout),
    (return_too_late, HookTimeout),
    (linger_and_return, HookTimeout),
    (return_a_number, HookError),
]


async def emit(bus: Bus) -> object:
    return await bus.emit(EVENT, "x")


async def emit_hot(bus: Bus) -> object:
    """Emit through generated code."""
    return await bus.emit(EVENT, "x")


async def emit_strictly(bus: Bus) -> object:
    return await bus.emit(EVENT, "x", strict=True)


async def first(bus: Bus) -> object:
    return await bus.first(EVENT, "x")


async def gather(bus: Bus) -> object:
    return await bus.gather(EVENT, "x")


async def through_an_emitter(bus: Bus) -> object:
    return await bus.emitter(EVENT)("x")


WAYS: list[Emit] = [emit, emit_hot, emit_strictly, first, gather, through_an_emitter]


def gate() -> tuple[Bus, list[str]]:
    """Return a bus whose last handler notes what gets to it."""
    bus, passed = Bus(), []  # type: ignore[var-annotated]
    bus.declare(EVENT)
    bus.on(EVENT.name, passed.append, priority=0)
    return bus, passed


async def heat(bus: Bus) -> None:
    """Emit until the plan is generated code, whatever its handlers raise."""
    for _ in range(HOT + 1):
        try:
            await bus.emit(EVENT, "warm")
        except Exception:
            continue
    plan = bus.plan(EVENT)
    assert plan is not None
    assert plan.call.__name__ == "emission"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("handler", "error"), FAILING)
@pytest.mark.parametrize("event", ["gate:pass", "gate:*", "**"])
async def test_a_failing_handler_ends_the_emission(
    way: Emit,
    handler: Callable[..., object],
    error: type[Exception],
    event: str,
    faults: Callable[[Bus], Reports],
) -> None:
    if handler is return_a_number and way in (first, gather):
        pytest.skip("answers to questions are not checked")
    bus, passed = gate()
    limit = 0.001 if error is HookTimeout else 30
    if way is emit_hot:
        switch = {"on": False}

        async def guard(value: str) -> object:
            answer = handler(value) if switch["on"] else None
            return await answer if hasattr(answer, "__await__") else answer  # type: ignore[misc]

        bus.on(event, guard, owner="guard", timeout=limit)
        await heat(bus)
        switch["on"] = True
    else:
        bus.on(event, handler, owner="guard", timeout=limit)
    passed.clear()
    seen = faults(bus)
    with pytest.raises(error):
        await way(bus)
    if way is not gather:
        assert passed == []
    if way is emit_strictly:
        assert seen == []  # whoever emits strictly reports what is raised
    else:
        [(reported, origin)] = seen
        assert isinstance(reported, error)
        assert (origin.plugin, origin.event) == ("guard", "gate:pass")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("on_asyncio")
async def test_cancellation_by_somebody_else_is_a_failure(
    way: Emit, faults: Callable[[Bus], Reports]
) -> None:
    bus, passed = gate()
    bus.on(EVENT, await_a_cancelled_task)
    with pytest.raises(HookError) as caught:
        await way(bus)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    if way is not gather:
        assert passed == []


@pytest.mark.parametrize("way", WAYS)
async def test_the_cancellation_of_the_emission_passes(way: Emit) -> None:
    bus, _ = gate()
    bus.on(EVENT, hang)
    with anyio.move_on_after(0.001) as scope:
        await way(bus)
    assert scope.cancelled_caught


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handler", [fail, fail_later, leave, close, hang])
async def test_the_failure_of_an_observer_ends_nothing(
    way: Emit, handler: Callable[..., object], faults: Callable[[Bus], Reports]
) -> None:
    bus, passed = gate()
    bus.on(EVENT.name, handler, observe=True, owner="watch", timeout=0.001)
    if way is emit_hot and handler is not hang:
        await heat(bus)
        passed.clear()
    seen = faults(bus)
    await way(bus)
    assert passed == ["x"]
    [(_, origin)] = seen
    assert origin.plugin == "watch"


async def answer(value: str) -> str:
    return "changed"


def answer_at_once(value: str) -> str:
    return "changed"


async def stop(value: str) -> None:
    raise Stop("stopped")


@pytest.mark.parametrize("handler", [answer, answer_at_once, stop])
@pytest.mark.parametrize("way", WAYS)
async def test_what_an_observer_answers_is_ignored(
    way: Emit, handler: Callable[..., object], faults: Callable[[Bus], Reports]
) -> None:
    bus, passed = gate()
    bus.on(EVENT.name, handler, observe=True)
    seen = faults(bus)
    if way is emit_hot:
        await heat(bus)
        passed.clear()
    got = await way(bus)
    assert passed == ["x"]
    assert got == {first: None, gather: [None]}.get(way, "x")
    assert seen == []


@pytest.mark.parametrize("way", WAYS)
async def test_an_observer_that_refuses_is_reported_and_refuses_nothing(
    way: Emit, faults: Callable[[Bus], Reports]
) -> None:
    def refuse(value: str) -> None:
        raise Refusal

    bus, passed = gate()
    bus.on(EVENT.name, refuse, observe=True)
    seen = faults(bus)
    await way(bus)
    assert passed == ["x"]
    assert isinstance(seen[0][0], Refusal)


async def test_a_refusal_is_raised_and_not_reported(faults: Callable[[Bus], Reports]) -> None:
    def refuse(value: str) -> None:
        raise Refusal

    bus, passed = gate()
    bus.on(EVENT.name, refuse)
    seen = faults(bus)
    for way in WAYS[:2]:
        with pytest.raises(Refusal):
            await way(bus)
    assert (passed, seen) == ([], [])


async def test_an_observer_that_returns_a_coroutine_is_reported(
    faults: Callable[[Bus], Reports],
) -> None:
    bus, passed = gate()
    bus.on(EVENT.name, lambda value: answer(value), observe=True)
    for _ in range(HOT + 1):
        await bus.emit(EVENT, "x")
    seen = faults(bus)
    await bus.emit(EVENT, "x")
    assert isinstance(seen[0][0], HookError)
    assert passed == ["x"] * (HOT + 2)


async def test_other_events_go_on_as_before(faults: Callable[[Bus], Reports]) -> None:
    bus = Bus()
    bus.declare(Event("open:pass", payload=str, returns=True))
    bus.on("open:pass", fail)
    bus.on("open:pass", lambda value: value + "!", priority=0)
    seen = faults(bus)
    assert await bus.emit("open:pass", "x") == "x!"
    assert len(seen) == 1


async def test_an_event_declared_later_fails_closed_from_then_on() -> None:
    bus = Bus()
    bus.on(EVENT.name, fail)
    assert await bus.emit(EVENT.name, "x") == "x"
    bus.declare(EVENT)
    with pytest.raises(TypeError):
        await bus.emit(EVENT.name, "x")
