"""Plans: the loop and the generated code of a chain do the same, and change over unnoticed."""

import gc
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, Event, HookError, Stop
from veko._bus.plans import HOT, LONG, Plan
from veko.extend import owner_in

pytestmark = pytest.mark.anyio


class Fault(Exception): ...


class Answer: ...


def add(value: Any) -> Any:
    return value + 1


async def add_async(value: Any) -> Any:
    return value + 1


async def add_later(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value + 1


def nothing(value: Any) -> None: ...


def fail(value: Any) -> Any:
    raise Fault


async def fail_async(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    raise Fault


def leave(value: Any) -> Any:
    raise SystemExit


async def close(value: Any) -> Any:
    raise GeneratorExit


def stop(value: Any) -> Any:
    raise Stop("stopped")


def none() -> None: ...


def pair(value: Any, other: Any) -> Any:
    return (value, other)


def everything(*args: Any) -> Any:
    return args


def optional(value: Any, other: Any = "default") -> Any:
    return (value, other)


def coroutine(value: Any) -> Any:
    return add_async(value)


def text(value: Any) -> str:
    return "text"


def answer(value: Any) -> Answer:
    return ANSWER


def same(value: Any) -> Any:
    return value


ANSWER = Answer()
SCENES: dict[str, tuple[list[Callable[..., Any]], tuple[Any, ...], Event | None]] = {
    "one": ([add], (1,), None),
    "mixed": ([add, add_async, add_later, nothing, add], (1,), None),
    "failing in the middle": ([add, fail, add_later, fail_async, add], (1,), None),
    "system exit": ([add, leave, close, add], (1,), None),
    "stop": ([add, stop, add], (1,), None),
    "pairs": ([pair, pair], (1, 2), None),
    "more than anybody takes": ([pair, none, optional], (1, 2, 3, 4), None),
    "star": ([everything, none], (1, 2, 3), None),
    "star alone": ([everything], (), None),
    "star without value": ([none, everything, pair], (1,), None),
    "too few": ([pair, optional, none], (1,), None),
    "no argument at all": ([nothing, none], (), None),
    "coroutine of a def": ([coroutine, add], (1,), None),
    "declared, no returns": ([add, text, nothing], (1,), Event("x", payload=int)),
    "declared, wrong": ([add, text, add], (1,), Event("x", payload=int, returns=True)),
    "declared, wrong from the start": (
        [same, text],
        (b"1",),
        Event("x", payload=int, returns=True),
    ),
    "declared, stops": (
        [add, answer, add],
        (1,),
        Event("x", payload=int, returns=True, stops=Answer),
    ),
    "stops with the value": ([same, fail], (ANSWER,), Event("x", returns=True, stops=Answer)),
    "stops without returns": ([add, answer, fail], (1,), Event("x", payload=int, stops=Answer)),
}


@pytest.mark.parametrize("limit", [None, 5.0], ids=["unlimited", "limited"])
@pytest.mark.parametrize("scene", SCENES)
async def test_loop_and_generated_code_do_the_same(
    scene: str, limit: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko._bus.plans.HOT", 3)  # a thousand reports of a failure take too long
    handlers, args, declared = SCENES[scene]
    bus = Bus()
    if declared is not None:
        bus.declare(declared)
    for handler in handlers:
        bus.on("x", handler, timeout=limit)
    failed: list[str] = []
    bus.on("error:handle", lambda error, origin: failed.append(f"{origin.handler} {error!r}"))
    emit = bus.emitter("x")
    outcomes = []
    for number in range(8):
        failed.clear()
        value = await (emit(*args) if number % 2 else bus.emit("x", *args))
        outcomes.append((value, list(failed)))
    assert outcomes == [outcomes[0]] * 8


async def test_a_hot_event_changes_over_unnoticed() -> None:
    bus = Bus()
    for handler in (add, add_async, add_later):
        bus.on("x", handler)
    emit = bus.emitter("x")
    assert [await emit(0) for _ in range(HOT + 5)] == [3] * (HOT + 5)
    gone = bus.on("x", add)
    assert await emit(0) == await bus.emit("x", 0) == 4
    gone.cancel()
    assert await emit(0) == 3


async def test_a_chain_changed_when_it_is_hot() -> None:
    bus = Bus()
    emit = bus.emitter("x")
    bus.on("x", add)
    for _ in range(HOT + 1):
        await emit(0)
    kept: list[Any] = []

    async def changes(value: Any) -> Any:
        kept.append(bus.on("x", add, priority=0))
        return value

    once = bus.on("x", changes, priority=20)
    assert await emit(0) == 1
    once.cancel()
    assert await emit(0) == 2


@pytest.mark.parametrize("count", [LONG - 1, LONG, LONG + 1, 300])
async def test_long_chains(count: int) -> None:
    bus = Bus()
    for number in range(count):
        bus.on("x", add_async if number % 3 == 0 else add)
    for _ in range(HOT + 2):
        value = await bus.emit("x", 0)
        assert value == count


async def test_strict_on_a_hot_event() -> None:
    bus = Bus()
    armed = False

    def sometimes(value: Any) -> Any:
        if armed:
            raise Fault

    bus.on("x", sometimes)
    for _ in range(HOT + 1):
        await bus.emit("x", 0)
    armed = True
    with pytest.raises(Fault):
        await bus.emit("x", 0, strict=True)


async def test_a_hot_event_whose_handlers_begin_to_fail() -> None:
    bus = Bus()
    mode: list[type[BaseException] | None] = [None]

    async def handler(value: Any) -> Any:
        if mode[0] is not None:
            raise mode[0]
        return value + 1

    bus.on("x", handler, timeout=5)
    bus.on("x", add)
    seen: list[Any] = []
    bus.on("error:handle", lambda error: seen.append(type(error)))
    for _ in range(HOT + 1):
        assert await bus.emit("x", 0) == 2
    for raised in (Fault, SystemExit, GeneratorExit, RuntimeError):
        mode[0] = raised
        assert await bus.emit("x", 0) == 1
    assert seen == [Fault, HookError, HookError, RuntimeError]


async def test_concurrent_emissions_of_a_hot_event() -> None:
    bus = Bus()
    bus.on("x", add_later)
    bus.on("x", add_later, timeout=5)
    for _ in range(HOT + 1):
        await bus.emit("x", 0)
    answers: list[int] = []

    async def emit(value: int) -> None:
        answers.append(await bus.emit("x", value))

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(emit, number)
    assert sorted(answers) == list(range(2, 52))


async def test_one_plan_serves_two_backends() -> None:
    """A limited plan that was compiled on one backend runs on the other."""
    import asyncio
    import threading

    import trio

    bus = Bus()
    bus.on("x", add_later, timeout=5)
    bus.on("x", add_async, timeout=5)
    answers: list[int] = []

    async def many() -> None:
        for _ in range(HOT + 2):
            answers.append(await bus.emit("x", 0))

    for run in (lambda: asyncio.run(many()), lambda: trio.run(many)):
        thread = threading.Thread(target=run)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    assert answers == [2] * (2 * HOT + 4)


async def test_plans_of_a_changed_event_do_not_pile_up() -> None:
    bus = Bus()
    for number in range(300):
        subscription = bus.on("x", lambda value, number=number: value)
        await bus.emit("x", 1)
        subscription.cancel()
    gc.collect()
    mine = [p for p in gc.get_objects() if isinstance(p, Plan) and p.host is bus and p.event == "x"]
    assert mine == []


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize("form", ["loop", "generated"])
async def test_an_emission_whose_error_is_kept_holds_nothing_up(
    form: str, looked_at: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(value: object) -> object:
        frame: FrameType | None = sys._getframe() if looked_at else None
        while frame is not None:  # as whatever samples stacks does
            owner_in(frame)
            frame = frame.f_back
        raise Fault(value)

    monkeypatch.setattr("veko._bus.plans.HOT", 2 if form == "generated" else 9)

    class Owner:
        name = "owner"

    bus, owner = Bus(), Owner()
    bus.declare(Event("x", stops=Fault))
    subscription = bus.on("x", fail, owner=owner)
    errors = []
    for _ in range(4):
        with pytest.raises(Fault) as caught:
            await bus.emit("x", 1)
        errors.append(caught.value)  # its traceback keeps the frame of the emission
    before = bus.registry
    subscription.cancel()
    with anyio.fail_after(2):
        await bus.drained(before, owner, frozenset())
    assert all(error.__traceback__ is not None for error in errors)


async def test_an_emitter_of_a_forgotten_name_hears_who_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("veko._bus.lookup.DYNAMIC", 2)
    bus = Bus()
    unheard, matched = bus.emitter("x:1"), bus.emitter("y:1")
    bus.on("y:*", lambda value: value + 1)
    assert (await unheard(1), await matched(1)) == (1, 2)
    for number in range(10):
        await bus.emit(f"z:{number}")
    for event in ("x:1", "y:1"):
        bus.on(event, lambda value: value * 10)
    assert (await unheard(1), await matched(1)) == (10, 20)
    for number in range(10, 20):
        await bus.emit(f"z:{number}")
    bus.on("x:*", lambda value: value + 5)
    assert (await unheard(1), await matched(1)) == (15, 20)


async def test_names_that_handlers_subscribe_to_are_not_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("veko._bus.lookup.DYNAMIC", 2)
    bus = Bus()
    for number in range(5):
        bus.on(f"x:{number}", lambda value: value)
    plans = [bus.plan(f"x:{number}") for number in range(5)]
    for number in range(10):
        await bus.emit(f"z:{number}")
    assert [bus.plan(f"x:{number}") for number in range(5)] == plans
    assert len(bus.live) < 5 + 2 + 10
