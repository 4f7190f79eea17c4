"""Pins against a naive model: each holds a copy of the list of handlers.

Subscriptions, pins, interceptors and emissions of all ways come in any order, with few dynamic
names kept and code generated soon. Who is called must not depend on who else holds an older
registry, and in the end nothing is left of those.
"""

import contextvars
import itertools
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from veko import Bus, Event
from veko.extend import unheard

EVENTS = ("a:x", "a:y", "b:x", "b:y")
NAMES = ("a:x", "b:x", "a:*", "*:x", "**")
WAYS = ("name", "declared", "emitter", "kept", "strict", "first", "gather", "hot")
LIVE = 0


def fits(pattern: str, event: str) -> bool:
    if pattern == "**":
        return True
    return all(p in ("*", e) for p, e in zip(pattern.split(":"), event.split(":"), strict=True))


Handlers = dict[int, tuple[int, str]]
"""Priority and name of each handler, by its number."""


class World:
    """A bus, and what it should do."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.numbers = itertools.count()
        self.subscriptions: list[Any] = []
        self.handlers: Handlers = {}
        self.pins: dict[int, tuple[contextvars.Context, Any, Handlers]] = {}
        self.emitters: dict[str, Any] = {}
        self.interceptors: list[Any] = []
        self.plans: dict[int, Any] = {}

    def on(self, name: str, priority: int) -> None:
        number = next(self.numbers)
        subscription = self.bus.on(name, lambda called: [*called, number], priority=priority)
        self.subscriptions.append(subscription)
        self.handlers = {**self.handlers, number: (priority, name)}

    def off(self, number: int) -> None:
        if number < len(self.subscriptions):
            self.subscriptions[number].cancel()
            self.handlers = {n: one for n, one in self.handlers.items() if n != number}

    def pin(self, slot: int, inside: bool) -> None:
        if slot == LIVE or slot in self.pins:
            return
        context, handlers = contextvars.Context(), self.handlers
        if inside and self.pins:
            outer, _, handlers = next(iter(self.pins.values()))
            context = outer.copy()
        pin = self.bus.pin()
        context.run(pin.__enter__)
        self.pins[slot] = context, pin, handlers

    def release(self, slot: int) -> None:
        if slot in self.pins:
            context, pin, _ = self.pins.pop(slot)
            context.run(pin.release)

    def move_on(self, slot: int) -> None:
        if slot in self.pins:
            context, pin, _ = self.pins[slot]
            context.run(pin.move_on)
            self.pins[slot] = context, pin, self.handlers

    def intercept(self, on: bool) -> None:
        if on:
            self.interceptors.append(self.bus.intercept(lambda event, subscription, call: call))
        elif self.interceptors:
            self.interceptors.pop().cancel()

    def emit(self, slot: int, event: str, way: str) -> None:
        context, _, handlers = self.pins.get(slot, (contextvars.Context(), None, self.handlers))
        chain = [n for n, (_, name) in handlers.items() if fits(name, event)]
        chain.sort(key=lambda n: (-handlers[n][0], n))
        expected: Any = chain
        if way == "first":
            expected = chain[:1] or None
        elif way == "gather":
            expected = [[number] for number in chain]
        for _ in range(5 if way == "hot" else 1):
            assert run(context, self.calling(event, way), []) == expected
        assert context.run(self.bus.heard, event) == bool(chain)
        plan = context.run(self.bus.plan, event)
        if plan is not None:
            self.plans[id(plan)] = plan

    def calling(self, event: str, way: str) -> Callable[[Any], Coroutine[Any, Any, Any]]:
        bus = self.bus
        match way:
            case "declared":
                return lambda value: bus.emit(Event(event, payload=list, returns=True), value)
            case "emitter":
                return lambda value: bus.emitter(event)(value)
            case "kept":
                return lambda value: self.emitters.setdefault(event, bus.emitter(event))(value)
            case "strict":
                return lambda value: bus.emit(event, value, strict=True)
            case "first":
                return lambda value: bus.first(event, value)
            case "gather":
                return lambda value: bus.gather(event, value)
        return lambda value: bus.emit(event, value)

    def check(self) -> None:
        """Check what is kept: nothing of a plan that is in no table."""
        bus = self.bus
        tables = [bus.live, *bus.older]
        for plan in self.plans.values():
            tabled = any(table.get(plan.event) is plan for table in tables)
            assert (plan.token is not None) == tabled
        for event, call in bus._calls.items():
            if event in bus._emitters._asking:
                assert bus.older
            else:
                plan = bus.live.get(event, self)
                assert call is (unheard if plan is None else plan.call)
            assert any(event in table for table in tables)
            if event in self.emitters:
                assert self.emitters[event].func is call
        assert all(plans.pins for plans in bus.older)
        if not bus.older:
            assert not bus._pinned
        assert {id(pin) for table in tables for pin in table.pins} == {
            id(pin) for _, pin, _ in self.pins.values()
        }


def run(
    context: contextvars.Context, call: Callable[[Any], Coroutine[Any, Any, Any]], value: Any
) -> Any:
    """Await in a context what never suspends."""
    coroutine = context.run(call, value)
    with pytest.raises(StopIteration) as returned:
        context.run(coroutine.send, None)
    return returned.value.value


def step(world: World, chance: random.Random) -> None:
    """Do something, more often what is more frequent in applications."""
    slot, event = chance.randrange(4), chance.choice(EVENTS)
    match chance.randrange(20):
        case 0 | 1:
            world.on(chance.choice(NAMES), chance.randrange(3))
        case 2 | 3:
            world.off(chance.randrange(len(world.subscriptions) + 1))
        case 4 | 5:
            world.pin(slot, inside=chance.random() < 0.3)
        case 6 | 7:
            world.release(slot)
        case 8:
            world.move_on(slot)
        case 9:
            world.intercept(on=chance.random() < 0.3)
        case 10:
            world.bus.declare(Event(event, payload=list, returns=True))
        case _:
            world.emit(slot, event, chance.choice(WAYS))


@pytest.mark.parametrize("seed", range(40))
def test_who_is_called_does_not_depend_on_the_pins_of_others(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("veko._bus.plans.HOT", 3)
    monkeypatch.setattr("veko._bus.lookup.DYNAMIC", 1 if seed % 2 else 4096)
    monkeypatch.setattr("veko._bus.tables.SMALL", 1 if seed % 3 else 1000)
    world, chance = World(), random.Random(seed)
    for _ in range(400):
        step(world, chance)
        world.check()
    for slot in list(world.pins):
        world.release(slot)
    world.check()
    assert world.bus.older == []
