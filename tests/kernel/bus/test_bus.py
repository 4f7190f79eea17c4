"""Emitting: order, values, arguments, Stop, first and gather, declarations, interceptors."""

import functools
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from veko import Bus, ConflictError, Event, HookError, Kernel, Stop, Subscription, VekoError
from veko.extend import Probe, Snippet

pytestmark = pytest.mark.anyio


class Shouter:
    async def __call__(self, value: Any) -> Any:
        await anyio.lowlevel.checkpoint()
        return f"{value}!"


async def test_an_event_without_handlers_gives_its_value_back() -> None:
    bus = Bus()
    assert await bus.emit("nobody", 3) == 3
    assert await bus.emit("nobody") is None
    assert await bus.emitter("nobody")(4, 5) == 4
    assert await bus.first("nobody", 3) is None
    assert await bus.gather("nobody", 3) == []
    assert not bus.heard("nobody")


async def test_higher_priority_first_and_ties_in_order_of_arrival() -> None:
    bus = Bus()
    seen: list[str] = []
    for name, priority in [("c", 10), ("a", 20), ("d", 10), ("b", 10.5), ("e", -1)]:
        bus.on("x", functools.partial(lambda n, _: seen.append(n), name), priority=priority)
    await bus.emit("x", 1)
    assert seen == ["a", "b", "c", "d", "e"]


async def test_what_a_handler_returns_is_the_next_ones_value() -> None:
    bus = Bus()
    bus.on("x", lambda value: value + 1)
    bus.on("x", lambda value: None)

    async def double(value: int) -> int:
        await anyio.lowlevel.checkpoint()
        return value * 2

    bus.on("x", double)
    assert await bus.emit("x", 1) == 4


@pytest.mark.parametrize("answer", [0, False, "", [], {}])
async def test_only_none_leaves_the_value(answer: object) -> None:
    bus = Bus()
    bus.on("x", lambda value: answer)
    assert await bus.emit("x", 1) is answer
    assert await bus.first("x", 1) is answer
    assert await bus.gather("x", 1) == [answer]


async def test_arguments_are_cut_to_the_parameters_without_default() -> None:
    bus = Bus()
    seen: list[Any] = []
    bus.on("x", lambda: seen.append(()))
    bus.on("x", lambda a: seen.append((a,)))
    bus.on("x", lambda a, b: seen.append((a, b)))
    bus.on("x", lambda a, b=7: seen.append((a, b)))
    bus.on("x", lambda *args: seen.append(args))
    bus.on("x", lambda a, *args, k=1: seen.append((a, *args, k)))
    bus.on("x", lambda a, **named: seen.append((a, named)))
    await bus.emit("x", 1, 2, 3)
    assert seen == [(), (1,), (1, 2), (1, 7), (1, 2, 3), (1, 2, 3, 1), (1, {})]


async def test_methods_partials_and_callable_objects_are_handlers() -> None:
    class Host:
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def method(self, value: Any) -> None:
            self.seen.append(value)

        @classmethod
        def of_class(cls, value: Any) -> str:
            return f"{cls.__name__} {value}"

    host = Host()
    bus = Bus()
    bus.on("x", host.method)
    bus.on("x", Host.of_class)
    bus.on("x", Shouter())
    bus.on("x", functools.partial(Shouter()))
    assert await bus.emit("x", 1) == "Host 1!!"
    assert host.seen == [1]
    bus.on("y", str.upper)
    assert await bus.emit("y", "low") == "LOW"


async def test_a_handler_that_can_never_be_called_is_refused() -> None:
    bus = Bus()

    def wants(value: Any, *, keyword: int) -> None: ...

    with pytest.raises(VekoError, match="keyword"):
        bus.on("x", wants)
    with pytest.raises(VekoError, match="not callable"):
        bus.on("x", 3)  # type: ignore[arg-type]
    with pytest.raises(VekoError, match="timeout must be above 0, got 0"):
        bus.on("x", print, timeout=0)
    assert not bus.heard("x")


async def test_too_few_arguments_are_the_fault_of_the_handler_alone(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    bus.on("x", lambda a, b: None)
    bus.on("x", lambda a: a + 1)
    assert await bus.emit("x", 1) == 2
    [(error, origin)] = seen
    assert isinstance(error, TypeError)
    assert origin.event == "x"


async def test_cancel_twice_is_fine_and_ends_the_subscription() -> None:
    bus = Bus()
    kept = bus.on("x", lambda value: value + 1)
    gone = bus.on("x", lambda value: value + 10)
    assert await bus.emit("x", 0) == 11
    gone.cancel()
    gone.cancel()
    assert await bus.emit("x", 0) == 1
    assert await kept is kept
    kept.cancel()
    assert not bus.heard("x")
    assert await gone is gone


async def test_one_function_may_subscribe_twice_and_each_is_its_own() -> None:
    bus = Bus()

    def more(value: int) -> int:
        return value + 1

    first, _second = bus.on("x", more), bus.on("x", more)
    assert await bus.emit("x", 0) == 2
    first.cancel()
    first.cancel()
    assert await bus.emit("x", 0) == 1


async def test_stop_ends_the_chain_with_its_value() -> None:
    bus = Bus()
    late: list[object] = []

    async def stop(value: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise Stop(value)

    bus.on("x", stop, priority=20)
    bus.on("x", late.append)
    assert await bus.emit("x", "kept") == "kept"
    assert await bus.emit("x", None) is None
    assert await bus.emit("x", 7, strict=True) == 7
    assert late == []


async def test_stop_none_says_none() -> None:
    bus = Bus()

    def stop(value: Any) -> None:
        raise Stop(None)

    bus.on("x", stop)
    bus.on("x", lambda value: 2)
    assert await bus.emit("x", 1) is None
    assert await bus.first("x", 1) is None
    assert await bus.gather("x", 1) == [None, 2]


async def test_first_ends_with_the_first_answer(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    asked: list[int] = []

    def fail(value: Any) -> None:
        raise ValueError("no")

    async def late(value: Any) -> str:
        asked.append(3)
        return "late"

    bus.on("x", fail)
    bus.on("x", lambda value: asked.append(1))
    bus.on("x", lambda value: f"{value} found")
    bus.on("x", late)
    assert await bus.first("x", "it") == "it found"
    assert asked == [1]
    assert [type(error) for error, _ in seen] == [ValueError]


async def test_gather_asks_all_at_once_and_answers_in_order(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    second_runs = anyio.Event()

    async def waits(value: Any) -> str:
        await second_runs.wait()
        return "first"

    async def frees(value: Any) -> str:
        second_runs.set()
        return "second"

    async def fails(value: Any) -> None:
        raise ValueError("left out")

    async def stops(value: Any) -> None:
        raise Stop("fourth")

    for handler in (waits, frees, fails, stops):
        bus.on("x", handler)
    bus.on("x", lambda value: "fifth")
    bus.on("x", lambda value: None)
    with anyio.fail_after(5):
        answers = await bus.gather("x", 1)
    assert answers == ["first", "second", "fourth", "fifth", None]
    assert len(seen) == 1


async def test_emitters_follow_changes() -> None:
    bus = Bus()
    emit = bus.emitter("x")
    assert emit is bus.emitter("x")
    assert await emit(1) == 1
    one = bus.on("x", lambda value: value + 1)
    assert await emit(1) == 2
    every = bus.on("*", lambda value: value * 10, priority=0)
    assert await emit(1) == 20
    with bus.pin():
        one.cancel()
        assert await emit(1) == 20
    assert await emit(1) == 10
    every.cancel()
    assert await emit(1) == 1


async def test_an_emission_under_way_finishes_on_its_plan() -> None:
    bus = Bus()
    late: list[str] = []
    subscriptions = []

    async def change(value: Any) -> None:
        subscriptions[0].cancel()
        bus.on("x", lambda value: late.append("new"))
        await anyio.lowlevel.checkpoint()

    bus.on("x", change, priority=20)
    subscriptions.append(bus.on("x", lambda value: late.append("old")))
    await bus.emit("x")
    assert late == ["old"]
    await bus.emit("x")
    assert late == ["old", "new"]


async def test_a_coroutine_made_before_a_change_and_begun_after_sees_the_change() -> None:
    bus = Bus()
    old = bus.on("x", lambda value: value + 1)
    emission, strict = bus.emit("x", 0), bus.emit("x", 0, strict=True)
    first, gather = bus.first("x", 0), bus.gather("x", 0)
    old.cancel()
    bus.on("x", lambda value: value + 10)
    assert await emission == 10
    assert await strict == 10
    assert await first == 10
    assert await gather == [10]


async def test_a_coroutine_never_begun_holds_nothing_up() -> None:
    bus = Bus()
    bus.on("x", lambda value: value)
    emission = bus.emit("x", 0)
    emission.close()


async def test_reentrant_emissions() -> None:
    bus = Bus()

    async def down(value: int) -> int:
        return value if value == 0 else 1 + await bus.emit("x", value - 1)

    bus.on("x", down)
    assert await bus.emit("x", 20) == 20


async def test_a_def_that_returns_a_coroutine_has_failed(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)

    async def work() -> int:
        return 1

    def forgets(value: Any) -> Any:
        return work()

    bus.on("x", forgets)
    bus.on("x", lambda value: value + 1)
    assert await bus.emit("x", 1) == 2
    assert await bus.first("x", 1) == 2
    assert await bus.gather("x", 1) == [2]
    assert len(seen) == 3
    for error, _ in seen:
        assert isinstance(error, HookError)
        assert "forgets" in str(error)


async def test_a_def_that_returns_a_handle_has_answered_none() -> None:
    bus = Bus()
    bus.on("x", lambda value: bus.on("y", print))
    assert await bus.emit("x", 1) == 1
    assert await bus.first("x", 1) is None
    assert await bus.gather("x", 1) == [None]


# -- declared events


async def test_declared_events_without_returns_ignore_answers() -> None:
    bus = Bus()
    bus.declare(Event("x", payload=int))
    bus.on("x", lambda value: "ignored")
    bus.on("x", lambda value: value + 1)
    assert await bus.emit("x", 1) == 1


async def test_a_wrong_payload_is_refused_with_the_handlers_name(faults: Any) -> None:
    bus = Bus()
    seen = faults(bus)
    bus.declare(Event("x", payload=int, returns=True))

    def wrong(value: int) -> str:
        return "not a number"

    bus.on("x", wrong)
    bus.on("x", lambda value: value + 1)
    assert await bus.emit("x", 1) == 2
    [(error, _)] = seen
    assert isinstance(error, HookError)
    assert "wrong" in str(error)
    with pytest.raises(HookError, match="wrong"):
        await bus.emit("x", 1, strict=True)


@pytest.mark.parametrize("payload", [list[int], list, int | list[int], Any, object])
async def test_generic_payloads_are_checked_by_their_origin(payload: Any) -> None:
    bus = Bus()
    bus.declare(Event("x", payload=payload, returns=True))
    bus.on("x", lambda value: [*value, 1])
    assert await bus.emit("x", []) == [1]


async def test_a_type_that_stops() -> None:
    class Response: ...

    class Teapot(Response): ...

    bus = Bus()
    bus.declare(Event("x", payload=int, returns=True, stops=Response))
    late: list[int] = []
    answer: list[object] = [None]
    bus.on("x", lambda value: answer[0])
    bus.on("x", late.append, priority=0)
    assert await bus.emit("x", 1) == 1
    answer[0] = Teapot()
    assert await bus.emit("x", 1) is answer[0]
    assert await bus.emit("x", 1, strict=True) is answer[0]
    assert late == [1]


async def test_a_declared_event_may_be_given_for_its_name() -> None:
    bus = Bus()
    event = Event("x", payload=int, returns=True)
    undeclared = Event("y", payload=list[int], stops=[])  # not hashable by its fields
    seen: list[Any] = []
    bus.declare(event)
    handler = bus.on(event, lambda value: value + 1)
    bus.on(undeclared, seen.append)
    assert handler.event == "x"
    assert await bus.emit(event, 1) == await bus.emit("x", 1) == 2
    assert await bus.emit(event, 1, strict=True) == 2
    assert await bus.first(event, 1) == 2
    assert await bus.gather(event, 1) == [2]
    assert bus.emitter(event) is bus.emitter("x")
    assert await bus.emitter(event)(1) == 2
    await bus.emit(undeclared, [1])
    assert seen == [[1]]
    with bus.pin():
        handler.cancel()
        assert bus.heard(event)
        assert await bus.emit(event, 1) == 2
    assert not bus.heard(event)
    assert await bus.emit(event, 1) == 1
    assert set(bus.live) == {"x", "y"}


async def test_declaring_again_otherwise_is_refused() -> None:
    bus = Bus()
    one = bus.declare(Event("x", payload=int))
    same = bus.declare(Event("x", payload=int))
    with pytest.raises(ConflictError, match="x"):
        bus.declare(Event("x", payload=str))
    one.cancel()
    same.cancel()
    bus.declare(Event("x", payload=str))
    assert [event.payload for event in bus.events if event.name == "x"] == [str]


async def test_a_declaration_counts_from_now_on() -> None:
    bus = Bus()
    bus.on("x", lambda value: "text")
    emit = bus.emitter("x")
    assert await emit(1) == "text"
    declared = bus.declare(Event("x", payload=int))
    assert await emit(1) == 1
    declared.cancel()
    assert await emit(1) == "text"


# -- interceptors


async def test_interceptors_wrap_handlers_the_first_outermost() -> None:
    bus = Bus()
    seen: list[str] = []

    def wrapping(mark: str) -> Any:
        def wrap(event: str, subscription: Any, call: Any) -> Any:
            assert subscription.event == event == "x"

            def wrapped(*args: Any) -> Any:
                seen.append(f"{mark} in")
                try:
                    return call(*args)
                finally:
                    seen.append(f"{mark} out")

            return wrapped

        return wrap

    outer = bus.intercept(wrapping("outer"))
    bus.intercept(wrapping("inner"))
    bus.on("x", lambda a, b: seen.append(f"handler {a} {b}"))
    await bus.emit("x", 1, 2, 3)
    assert seen == ["outer in", "inner in", "handler 1 2", "inner out", "outer out"]
    outer.cancel()
    outer.cancel()
    seen.clear()
    await bus.emit("x", 1, 2)
    assert seen == ["inner in", "handler 1 2", "inner out"]


async def test_an_async_wrapper_of_a_sync_handler() -> None:
    bus = Bus()

    def wrap(event: str, subscription: Any, call: Any) -> Any:
        async def wrapped(value: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return call(value) + 1

        return wrapped

    bus.on("x", lambda value: value * 2)
    bus.intercept(wrap)
    assert await bus.emit("x", 5) == 11
    assert await bus.first("x", 5) == 11
    assert await bus.gather("x", 5) == [11]


async def test_an_interceptor_runs_when_a_plan_is_made_not_per_emission() -> None:
    bus = Bus()
    made: list[str] = []

    def wrap(event: str, subscription: Any, call: Any) -> Any:
        made.append(event)
        return call

    bus.intercept(wrap)
    bus.on("x", lambda value: None)
    assert made == []
    for _ in range(10):
        await bus.emit("x")
    assert made == ["x"]
    bus.on("y", lambda value: None)
    await bus.emit("x")
    assert made == ["x"]


async def test_probes_tell_concurrent_emissions_apart() -> None:
    bus = Bus()
    seen: list[tuple[int, str]] = []
    numbers = iter(range(10))
    both_run = anyio.Event()
    lines = Snippet(
        before="p_number = next(p_numbers); p_seen.append((p_number, 'begin'))",
        after="p_seen.append((p_number, 'end'))",
        names={"p_numbers": numbers, "p_seen": seen},
    )

    async def handler(value: int) -> int:
        if value == 1:
            both_run.set()
        await both_run.wait()
        return value + 1

    handle = bus.probe(lambda event, subscriptions: Probe(lines, [None] * len(subscriptions)))
    bus.on("x", handler)
    answers: dict[int, int] = {}

    async def emit(value: int) -> None:
        answers[value] = await bus.emit("x", value)

    async with anyio.create_task_group() as group:
        group.start_soon(emit, 0)
        group.start_soon(emit, 1)
    assert answers == {0: 1, 1: 2}
    assert sorted(seen) == [(n, w) for n in (0, 1) for w in ("begin", "end")]
    seen.clear()
    assert await bus.emit("nobody hears this", 1) == 1
    assert seen == []
    assert await bus.emit("x", 5, strict=True) == 6
    assert await bus.emitter("x")(5) == 6
    assert len(seen) == 4
    handle.cancel()
    await bus.emit("x", 5)
    assert len(seen) == 4


async def test_without_interceptors_the_handler_itself_is_called() -> None:
    bus = Bus()
    seen: list[int] = []
    bus.on("x", seen.append)
    handle = bus.intercept(lambda event, subscription, call: call)
    await bus.emit("x", 1)
    handle.cancel()
    await bus.emit("x", 2)
    assert seen == [1, 2]


async def test_probes_stand_around_first_and_gather_too() -> None:
    bus = Bus()
    seen: list[tuple[str, bool]] = []

    def make(event: str, subscriptions: Sequence[Subscription]) -> Probe:
        names = {"p_seen": seen, "p_event": event}
        lines = Snippet(before="p_seen.append((p_event, at_once))", names=names)
        return Probe(lines, [None] * len(subscriptions))

    bus.probe(make)
    bus.on("ask", lambda value: value + 1)
    assert await bus.first("ask", 1) == 2
    assert await bus.gather("ask", 1) == [2]
    assert await bus.emit("ask", 1) == 2
    assert seen == [("ask", False), ("ask", True), ("ask", False)]
    assert await bus.first("nobody", 1) is None
    assert await bus.gather("nobody", 1) == []


async def test_an_error_whose_text_fails_is_a_failure_like_another() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    async with Kernel() as kernel:
        errors: list[str] = []

        def load(context: Any) -> None:
            def fail(value: object) -> None:
                raise Mute

            context.hook("go", fail)

        record = await kernel.load({"name": "mute", "version": "1.0.0", "load": load})
        kernel.bus.on("plugin:error", lambda name, error: errors.append(type(error).__name__))
        assert await kernel.bus.emit("go", 1) == 1
        assert (errors, record.error_count) == (["Mute"], 1)
        assert record.last_error == "Mute: <no text: __str__ raised ValueError>"
