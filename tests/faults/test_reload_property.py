"""Any interleaving of operations and emissions, against a dict of what is live.

Plugins `a`, `b` (uses `a`), `c` (needs `b`) and `d` are loaded, unloaded, switched and reloaded,
good and broken, their services provided in `load()` or by a task, two operations at once, while
emissions run and some of them stay under way. In a simulation, tasks also run in other orders than
the loop's, and operations and emissions are slow, hang or are cancelled. What is live is always
exactly what the active generations registered, in the order in which the plugins came; an observer
sees one generation of each plugin, and one made on what it stands on.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veko import Context, Kernel, Plugin, PluginRecord, State, VekoError, as_plugin
from veko.testing import Simulation, simulate

NAMES = ("a", "b", "c", "d")
BELOW = {"b": "a", "c": "b"}
BROKEN = ("load", "activate", "import_state", "export_state", "conflict", "drop")
names = st.sampled_from(NAMES)
hows = st.sampled_from([*BROKEN, *["good", "late"] * 3])
goods = st.sampled_from(["good", "late"])
operations = st.one_of(
    st.tuples(st.just("load"), names, hows),
    st.tuples(st.just("unload"), names, st.booleans()),
    st.tuples(st.just("toggle"), names, st.booleans()),
    st.tuples(st.just("reload"), names, hows, names, hows, st.booleans()),
    st.tuples(st.just("reload"), names, goods, names, goods, st.booleans()),
)
# Nothing, or three that stand on each other.
begun = st.tuples(*(st.tuples(st.just("load"), st.just(name), goods) for name in NAMES[:3]))
beginnings = st.one_of(st.just(()), begun)
programs = st.builds(
    lambda begin, program: [*([one] for one in begin), *program],
    beginnings,
    st.lists(st.lists(operations, min_size=1, max_size=2), min_size=1, max_size=12),
)
Seen = tuple[str, int, Any]
TIMEOUT = 0.2
SETTLED = 60.0
RUNS = 600
HOLDER = {"name": "holder", "version": "1", "load": lambda context: context.provide("taken", 0)}


class World:
    """A kernel, the plugins that a program makes, and who looks at them meanwhile."""

    def __init__(
        self,
        kernel: Kernel,
        turn: Callable[[], Awaitable[object]] = anyio.lowlevel.checkpoint,
    ) -> None:
        self.kernel = kernel
        self.turn = turn
        self.version = 0
        self.ranks: dict[str, int] = {}
        self.arrivals = 0
        self.running = True
        self.go = anyio.Event()
        self.unloaded: set[int] = set()

    def make(self, name: str, how: str, restart: bool = False) -> Plugin:
        self.version += 1
        version = self.version

        def step(which: str) -> Any:
            def run(*args: Any) -> int:
                if how == which:
                    raise ValueError(how)
                return version

            return run

        async def provide(context: Context) -> None:
            await anyio.lowlevel.checkpoint()
            assert version not in self.unloaded, "its task runs after its end"
            context.provide(name, version)

        async def load(context: Context) -> None:
            self.unloaded.discard(version)  # it restarts as it was
            below: Any = context.use(BELOW[name]) if name in BELOW else None
            mark = (name, version, below)
            context.hook("x", lambda value: [*value, mark])
            await anyio.lowlevel.checkpoint()
            if how == "late":
                context.spawn(provide, context)
            elif how != "drop":
                context.provide(name, version)
            if how == "conflict":
                context.provide("taken", version)

            async def last(value: list[Seen]) -> list[Seen]:
                await anyio.lowlevel.checkpoint()
                assert version not in self.unloaded, "called after its end"
                return [*value, mark]

            async def stay(value: Any) -> None:
                await self.go.wait()
                assert version not in self.unloaded, "unloaded under a call"

            context.hook("x", last)
            context.hook("stay", stay, timeout=None)
            context.spawn(anyio.sleep_forever)
            if how in ("slow", "hang"):
                await anyio.sleep(TIMEOUT * (0.9 if how == "slow" else 1.1))
            step("load")()

        def unload() -> None:
            self.unloaded.add(version)

        form = {"name": name, "version": str(version), "load": load, "unload": unload}
        form |= {which: step(which) for which in ("activate", "export_state", "import_state")}
        return as_plugin(form | {"reload": "restart" if restart else "swap"})

    async def act(self, operation: tuple[Any, ...]) -> None:
        kernel = self.kernel
        try:
            match operation:
                case ("load", name, how):
                    await kernel.load(self.make(name, how))
                case ("unload", name, cascade):
                    await kernel.unload(name, cascade=cascade)
                case ("toggle", name, cascade):
                    await kernel.toggle(name, cascade=cascade)
                case ("reload", name, how, other, other_how, restart):

                    async def dependents(record: PluginRecord) -> Plugin:
                        same = record.name == other
                        return self.make(
                            record.name, other_how if same else "good", restart and same
                        )

                    new = self.make(name, how, restart and name != other)
                    await kernel.reload(new, dependents=dependents)
        except (VekoError, ValueError):
            pass

    async def look(self) -> None:
        """Emit all the time: what comes is whole."""
        while self.running:
            self.check(await self.kernel.bus.emit("x", []))
            with self.kernel.pin() as registry:
                first = await self.kernel.bus.emit("x", [])
                await anyio.lowlevel.checkpoint()
                assert await self.kernel.bus.emit("x", []) == first
                marks = {mark[0]: mark[1] for mark in first}
                for name in NAMES:  # services and hooks are of one generation
                    entry = registry.get("service", name)
                    assert entry is None or entry.value == marks[name]
            await self.turn()

    def check(self, seen: list[Seen]) -> None:
        assert seen[::2] == seen[1::2], "half a plugin"
        versions = {mark[0]: mark[1] for mark in seen}
        assert len(versions) == len(seen) / 2, "two generations of one plugin"
        for name, _, below in seen:
            if name in BELOW:
                assert versions.get(BELOW[name]) == below, "made on what is not there"
        places = [self.kernel.get(mark[0]) for mark in seen]
        ranks = [record.rank for record in places if record is not None]
        assert ranks == sorted(ranks) or None in places, "the order was lost"

    async def check_all(self) -> None:
        """Compare what is live with what the records say."""
        kernel = self.kernel
        live = [record for record in kernel.records() if record.active and record.name != "holder"]
        seen = await kernel.bus.emit("x", [])
        self.check(seen)
        assert [(m[0], str(m[1])) for m in seen[::2]] == [(r.name, r.version) for r in live]
        entries = [e for kind in ("hook", "service") for e in kernel.registry.entries(kind)]
        owners = [entry.owner for entry in entries if entry.owner is not None]
        assert {owner for owner in owners if owner.name != "holder"} == {r.current for r in live}
        assert sum(len(r.current.entries) for r in live if r.current is not None) == len(
            [owner for owner in owners if owner.name != "holder"]
        )
        for record in kernel.records():
            assert record.state in (State.ACTIVE, State.INACTIVE, State.FAILED)
            # What could not be switched on is failed too, and still loaded.
            assert record.loaded or record.state is State.FAILED
            assert len(record.retiring) <= 3
            rank = self.ranks.setdefault(record.name, record.rank)
            if record.loaded and rank != record.rank:
                assert record.rank > rank, "it came anew"
                self.ranks[record.name] = record.rank

    async def end(self) -> None:
        """Unload all: nothing is left."""
        kernel = self.kernel
        for name in reversed(NAMES):
            if kernel.get(name) is not None and kernel.get(name).loaded:  # type: ignore[union-attr]
                await kernel.unload(name, cascade=True)
        assert await kernel.bus.emit("x", []) == []
        assert not kernel.bus.heard("stay")
        assert kernel.registry.keys("service") == ("taken",)


async def run(program: list[list[tuple[Any, ...]]]) -> None:
    # A dropped service that came from a task is waited for until the time limit.
    async with Kernel(drain_timeout=5, timeout=TIMEOUT) as kernel:
        await kernel.load(HOLDER)
        world = World(kernel)
        async with anyio.create_task_group() as lookers:
            lookers.start_soon(world.look)
            for at_once in program:
                world.go = anyio.Event()
                lookers.start_soon(kernel.bus.emit, "stay")
                await anyio.lowlevel.checkpoint()
                async with anyio.create_task_group() as group:
                    for operation in at_once:
                        group.start_soon(world.act, operation)
                    for _ in range(10):
                        await anyio.lowlevel.checkpoint()
                    world.go.set()
                await world.check_all()
            world.running = False
        await world.end()


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(program=programs)
@settings(max_examples=250)
def test_what_is_live_is_what_the_active_generations_registered(
    backend: str, program: list[list[tuple[Any, ...]]]
) -> None:
    anyio.run(run, program, backend=backend)


def draw(simulation: Simulation) -> tuple[Any, ...]:
    """Draw an operation; what is simple comes first."""
    kind = simulation.choose(["load", "unload", "toggle", "reload"])
    name, hows = simulation.choose(NAMES), ["good", "late", "slow", *BROKEN, "good", "late", "hang"]
    if kind == "load":
        return kind, name, simulation.choose(hows)
    if kind != "reload":
        return kind, name, simulation.chance()
    other, restart = simulation.choose(NAMES), simulation.chance(3)
    return kind, name, simulation.choose(hows), other, simulation.choose(hows), restart


async def simulated(simulation: Simulation) -> None:
    settled = False
    async with Kernel(drain_timeout=5, timeout=TIMEOUT) as kernel:
        await kernel.load(HOLDER)
        world = World(kernel, lambda: anyio.sleep(SETTLED / 4 if settled else 0.2))

        async def act(operation: tuple[Any, ...]) -> None:
            await simulation.pause()
            simulation.note(repr(operation))
            await simulation.interrupted(world.act(operation))

        async def emit(event: str) -> None:
            await simulation.pause()
            await simulation.interrupted(kernel.bus.emit(event, []))

        async with anyio.create_task_group() as lookers:
            lookers.start_soon(world.look)
            if simulation.chance():
                for name in NAMES[:3]:
                    await world.act(("load", name, simulation.choose(["good", "late"])))
            for _ in simulation.times(8):
                world.go = anyio.Event()
                async with anyio.create_task_group() as group:
                    group.start_soon(emit, "stay")
                    group.start_soon(emit, "x")
                    group.start_soon(act, draw(simulation))
                    for _ in range(simulation.integer(0, 2)):
                        group.start_soon(act, draw(simulation))
                    await simulation.pause()
                    world.go.set()
                # What was cancelled may continue in tasks of the kernel.
                settled = True
                await anyio.sleep(SETTLED)
                settled = False
                await world.check_all()
            world.running = False
        await world.end()


@pytest.mark.usefixtures("unlogged")
def test_any_order_of_tasks_leaves_what_the_active_generations_registered() -> None:
    done = simulate(simulated, runs=RUNS)
    assert done.runs == RUNS
    assert done.orders > RUNS / 2
