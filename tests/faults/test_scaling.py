"""Many tasks, routes, hooks and names: work grows with their number, and others get their turn.

Work is counted as function calls, not timed, so that a busy machine changes nothing.
"""

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from veko import Bus, Kernel
from veko_plugins._lib.blame import CodeOwners
from veko_plugins.http import Routes

pytestmark = pytest.mark.anyio

FEW, MANY = 400, 1_600
LINEAR = 1.6 * MANY / FEW
"""How much more work four times as many may be; a square would be sixteen times as much."""

SLICE = 150_000
"""Function calls between two turns of the loop: some 20 to 50 ms."""

PIECE = 12_000
"""Function calls of one piece of a change: some 2 ms."""


class Work:
    """Function calls that were counted: all, and the most between two turns of the loop."""

    def __init__(self) -> None:
        self.calls = 0
        self.longest = 0
        self._at_turn = 0

    def count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event in {"call", "c_call"}

    def turn(self) -> None:
        self.longest = max(self.longest, self.calls - self._at_turn)
        self._at_turn = self.calls


@contextmanager
def counted() -> Iterator[Work]:
    """Count the calls of this thread meanwhile."""
    work = Work()
    before = sys.getprofile()
    sys.setprofile(work.count)
    try:
        yield work
    finally:
        sys.setprofile(before)


async def measured(make: Callable[[], Coroutine[Any, Any, object]]) -> Work:
    """Count the work of a coroutine, and how long it keeps the loop from others."""
    with counted() as work:
        task = asyncio.ensure_future(make())
        while not task.done():
            work.turn()
            await asyncio.sleep(0)
        work.turn()
    await task
    return work


def plugin(load: Any, name: str = "p") -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load}


async def wait() -> None:
    await asyncio.Event().wait()


def spawns(context: Any, number: int) -> Any:
    return context.spawn(wait)


def adds_a_route(context: Any, number: int) -> Any:
    return context.add_route("GET", f"/r{number}/{{id}}", lambda id: id)


def hooks_one_event(context: Any, number: int) -> Any:
    return context.hook("x", lambda: None)


def hooks_many_events(context: Any, number: int) -> Any:
    return context.hook(f"x{number}", lambda: None)


def hooks_patterns(context: Any, number: int) -> Any:
    return context.hook(f"x{number}:*", lambda: None)


def provides(context: Any, number: int) -> Any:
    return context.provide(f"service{number}", object())


VERBS = [spawns, adds_a_route, hooks_one_event, hooks_many_events, hooks_patterns, provides]
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.__name__)


@each_verb
async def test_the_work_of_a_load_grows_with_what_it_registers(verb: Any) -> None:
    async def load_and_unload(count: int) -> int:
        async with Kernel() as kernel:
            await kernel.load(Routes("asgi"))

            def load(context: Any) -> None:
                for number in range(count):
                    verb(context, number)

            loaded = await measured(lambda: kernel.load(plugin(load)))
            unloaded = await measured(lambda: kernel.unload("p"))
            return loaded.calls + unloaded.calls

    few, many = await load_and_unload(FEW), await load_and_unload(MANY)
    assert many < few * LINEAR, (few, many)


@each_verb
async def test_one_more_costs_as_much_however_many_there_are(verb: Any) -> None:
    async def one_more(count: int) -> int:
        contexts: list[Any] = []
        async with Kernel() as kernel:
            await kernel.load(Routes("asgi"))

            def load(context: Any) -> None:
                contexts.append(context)
                for number in range(count):
                    verb(context, number)

            await kernel.load(plugin(load))

            async def add() -> None:
                await verb(contexts[0], count)

            return (await measured(add)).calls

    few, many = await one_more(FEW), await one_more(MANY)
    assert many < few * 2 + 100, (few, many)


@each_verb
async def test_cancelling_one_costs_as_much_however_many_there_are(verb: Any) -> None:
    async def cancel_some(count: int) -> int:
        handles: list[Any] = []
        async with Kernel() as kernel:
            await kernel.load(Routes("asgi"))

            def load(context: Any) -> None:
                handles.extend(verb(context, number) for number in range(count))

            await kernel.load(plugin(load))

            async def cancel() -> None:
                for handle in handles[:20]:
                    handle.cancel()
                await asyncio.sleep(0)

            return (await measured(cancel)).calls

    few, many = await cancel_some(FEW), await cancel_some(MANY)
    assert many < few * 2 + 100, (few, many)


@pytest.mark.parametrize(
    ("verb", "count"), [(adds_a_route, 2_000), (hooks_many_events, 16_000), (spawns, 1_000)]
)
async def test_a_large_load_lets_the_loop_go_in_between(verb: Any, count: int) -> None:
    """The plugin itself does so while it registers; what Veko makes of that must do so too."""
    async with Kernel() as kernel:
        await kernel.load(Routes("asgi"))

        async def load(context: Any) -> None:
            for number in range(count):
                verb(context, number)
                if number % 100 == 0:
                    await asyncio.sleep(0)

        work = await measured(lambda: kernel.load(plugin(load)))
    assert work.longest < SLICE, (work.longest, work.calls)


@pytest.mark.parametrize("verb", [adds_a_route, hooks_one_event, hooks_many_events, provides])
async def test_changes_of_a_plugin_with_a_thousand_are_made_in_pieces(
    monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    """A slice of time and one such piece are the longest that a change holds the loop."""
    monkeypatch.setattr("veko._bus.turns.SLICE", 0.0)  # others get their turn after each piece

    async def load(context: Any) -> None:
        for number in range(1_000):
            verb(context, number)
            if number % 50 == 0:
                await asyncio.sleep(0)

    def guard(context: Any) -> None:
        context.hook("route:create", lambda route: None)

    async with Kernel() as kernel:
        await kernel.load(Routes("asgi"))
        changes: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "load": lambda: kernel.load(plugin(load)),
            "reload": lambda: kernel.reload(plugin(load)),
            "switch off": lambda: kernel.toggle("p", False),
            "switch on": lambda: kernel.toggle("p", True),
            "load a guard": lambda: kernel.load(plugin(guard, "guard")),
            "unload the guard": lambda: kernel.unload("guard"),
            "unload": lambda: kernel.unload("p"),
        }
        longest = {name: (await measured(change)).longest for name, change in changes.items()}
    assert max(longest.values()) < PIECE, longest


async def test_whose_code_it_is_is_found_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog asks for it: it must not report what it does itself, and so on."""
    monkeypatch.setattr("veko._bus.turns.SLICE", 0.0)
    async with Kernel() as kernel:
        await kernel.load(Routes("asgi"))
        for number in range(100):
            await kernel.load(
                plugin(lambda context: adds_a_route(context, 1), f"p{number}")
                if number == 0
                else plugin(lambda context: None, f"p{number}")
            )
        await kernel.load(plugin(lambda context: [adds_a_route(context, n) for n in range(2, 900)]))
        few = await measured(lambda: CodeOwners.of(kernel))
    assert few.longest < PIECE / 10, few.longest


async def test_emitters_that_nobody_holds_are_not_kept() -> None:
    bus = Bus()

    async def use(first: int, count: int) -> int:
        for number in range(first, first + count):
            await bus.emitter(f"order:{number}:made")(number)
        gc.collect()
        return len(gc.get_objects())

    await use(0, 2_000)
    before = await use(2_000, 2_000)  # whatever is bounded has reached its bound
    after = await use(4_000, 8_000)
    assert after - before < 2_000, f"{after - before} objects of 8,000 names are kept"


async def test_an_emitter_that_is_held_hears_of_hooks_that_come() -> None:
    """However many names others asked for since."""
    bus = Bus()
    emit = bus.emitter("x")
    assert await emit(1) == 1
    for number in range(5_000):
        bus.emitter(f"other:{number}")
    bus.on("x", lambda value: value + 1)
    assert await emit(1) == 2
