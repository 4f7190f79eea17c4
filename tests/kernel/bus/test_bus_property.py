"""The bus against a naive model: a list of handlers, sorted by priority and then by arrival.

Handlers add and take away others, raise, stop, hang until their limit and emit again while an
emission runs; the model does the same to its list. What was called, with what, and what came
back must be equal.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veko import Bus, Stop

EVENTS = ("a:x", "a:y", "b:x")
NAMES = (*EVENTS, "a:*", "*:x", "**")
SHORT = 0.001
DEPTH = 3
WAYS = ("emit", "strict", "first", "gather", "hot")

deeds = st.one_of(
    st.sampled_from(
        [("keep",), ("raise",), ("exit",), ("close",), ("stop",), ("suspend",), ("answer",)]
    ),
    st.tuples(st.just("subscribe"), st.sampled_from(NAMES), st.integers(0, 2)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("emit"), st.sampled_from(EVENTS)),
)
subscribing = st.tuples(
    st.just("on"), st.sampled_from(NAMES), st.integers(0, 2), deeds, st.booleans(), st.booleans()
)
commands = st.one_of(
    subscribing,
    st.tuples(st.just("off"), st.integers(0, 8)),
    st.tuples(
        st.sampled_from(["emit", "strict", "first", "gather", "hot"]), st.sampled_from(EVENTS)
    ),
)
hanging = st.tuples(
    st.just("on"),
    st.sampled_from(NAMES),
    st.integers(0, 2),
    st.just(("hang",)),
    st.just(True),
    st.just(True),
)
programs = st.lists(subscribing, min_size=1, max_size=5).flatmap(
    lambda first: st.lists(commands, max_size=20).map(lambda rest: [*first, *rest])
)


def fits(pattern: str, event: str) -> bool:
    if pattern == "**":
        return True
    return all(p in ("*", e) for p, e in zip(pattern.split(":"), event.split(":"), strict=True))


class Failed(Exception): ...


class Model:
    """What a bus is to do, done naively."""

    def __init__(self) -> None:
        self.handlers: list[tuple[float, int, str, tuple[Any, ...], bool]] = []
        self.numbers = itertools.count()
        self.calls: list[tuple[int, Any]] = []

    def on(self, name: str, priority: int, deed: tuple[Any, ...], is_async: bool) -> None:
        self.handlers.append((-priority, next(self.numbers), name, deed, is_async))

    def off(self, number: int) -> None:
        self.handlers = [handler for handler in self.handlers if handler[1] != number]

    def chain(self, event: str) -> list[tuple[int, tuple[Any, ...], bool]]:
        return [(n, deed, a) for _, n, name, deed, a in sorted(self.handlers) if fits(name, event)]

    def act(self, number: int, deed: tuple[Any, ...], is_async: bool, value: Any) -> Any:
        depth = value[1]
        self.calls.append((number, value))
        match deed:
            case ("raise",) | ("exit",) | ("close",) | ("hang",):
                raise Failed
            case ("stop",):
                raise Stop((f"stop {number}", depth))
            case ("answer",):
                return (f"answer {number}", depth)
            case ("subscribe", name, priority):
                self.on(name, priority, ("answer",), False)
            case ("cancel", other):
                self.off(other)
            case ("emit", event) if is_async and depth < DEPTH:
                return (self.emit(event, ("inner", depth + 1))[0], depth)
        return None

    def emit(self, event: str, value: Any, strict: bool = False) -> Any:
        for number, deed, is_async in self.chain(event):
            try:
                answer = self.act(number, deed, is_async, value)
            except Stop as stop:
                return stop.value
            except Failed:
                if strict:
                    raise
            else:
                value = value if answer is None else answer
        return value

    def first(self, event: str, value: Any) -> Any:
        for number, deed, is_async in self.chain(event):
            try:
                answer = self.act(number, deed, is_async, value)
            except Stop as stop:
                return stop.value
            except Failed:
                continue
            if answer is not None:
                return answer
        return None


class Real:
    """The same on a bus."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.subscriptions: list[Any] = []
        self.numbers = itertools.count()
        self.calls: list[tuple[int, Any]] = []

    def on(
        self, name: str, priority: int, deed: tuple[Any, ...], is_async: bool, limited: bool = False
    ) -> None:
        number = next(self.numbers)

        def act(value: Any) -> Any:
            depth = value[1]
            self.calls.append((number, value))
            match deed:
                case ("raise",):
                    raise Failed
                case ("exit",):
                    raise SystemExit
                case ("close",):
                    raise GeneratorExit
                case ("stop",):
                    raise Stop((f"stop {number}", depth))
                case ("answer",):
                    return (f"answer {number}", depth)
                case ("subscribe", other, priority):
                    self.on(other, priority, ("answer",), False)
                case ("cancel", other):
                    self.off(other)
            return None

        async def act_async(value: Any) -> Any:
            if deed == ("suspend",):
                await anyio.lowlevel.checkpoint()
            answer = act(value)
            if deed == ("hang",):
                await anyio.sleep_forever()
            if deed[0] == "emit" and value[1] < DEPTH:
                inner = await self.bus.emit(deed[1], ("inner", value[1] + 1))
                return (inner[0], value[1])
            return answer

        limit = (SHORT if deed == ("hang",) else 30.0) if limited else None
        self.subscriptions.append(
            self.bus.on(name, act_async if is_async else act, priority=priority, timeout=limit)
        )

    def off(self, number: int) -> None:
        if number < len(self.subscriptions):
            self.subscriptions[number].cancel()


async def run(program: list[tuple[Any, ...]], hot: int) -> None:
    model, real = Model(), Real()
    for command in program:
        match command:
            case ("on", name, priority, deed, is_async, limited):
                model.on(name, priority, deed, is_async)
                real.on(name, priority, deed, is_async, limited)
            case ("off", number):
                model.off(number)
                real.off(number)
            case ("hot", event):
                for _ in range(hot):
                    emit = real.bus.emitter(event)
                    assert await emit(("begin", 0)) == model.emit(event, ("begin", 0))
            case ("emit", event):
                value = ("begin", 0)
                assert await real.bus.emit(event, value) == model.emit(event, value)
            case ("first", event):
                value = ("begin", 0)
                assert await real.bus.first(event, value) == model.first(event, value)
            case ("strict", event):
                value = ("begin", 0)
                try:
                    expected = model.emit(event, value, strict=True)
                except Failed:
                    with pytest.raises(Exception):
                        await real.bus.emit(event, value, strict=True)
                else:
                    assert await real.bus.emit(event, value, strict=True) == expected
            case ("gather", event):
                # All at once: only the quiet ones have an order to compare.
                chain = model.chain(event)
                if all(deed in (("keep",), ("answer",), ("raise",)) for _, deed, _ in chain):
                    expected = [
                        (f"answer {number}", 0) if deed == ("answer",) else None
                        for number, deed, _ in chain
                        if deed != ("raise",)
                    ]
                    assert await real.bus.gather(event, ("begin", 0)) == expected
                    del real.calls[len(model.calls) :]
        assert real.calls == model.calls
        live = {s for event in EVENTS for s in live_of(real.bus, event)}
        assert live <= set(real.subscriptions)
        for event in EVENTS:
            numbers = [real.subscriptions.index(s) for s in live_of(real.bus, event)]
            assert numbers == [number for number, _, _ in model.chain(event)]


def live_of(bus: Bus, event: str) -> Iterator[Any]:
    return (entry.value for entry in bus.registry.hooks(event))


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(program=programs)
@settings(max_examples=400)
def test_a_bus_does_what_a_list_would(backend: str, program: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("veko._bus.plans.HOT", 3)  # generated code within a short program
        anyio.run(run, program, 5, backend=backend)


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(program=st.lists(st.one_of(commands, hanging), min_size=3, max_size=12))
@settings(max_examples=150)
def test_a_bus_with_handlers_that_hang(backend: str, program: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("veko._bus.plans.HOT", 2)
        anyio.run(run, program, 2, backend=backend)
