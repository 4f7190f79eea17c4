"""The life cycle against a naive model: a dict of plugins, what they are and what they registered.

Good and broken plugins are loaded, unloaded, switched off and on and reloaded while emissions
run. After each step what is live is exactly what the active generations registered, in order;
an emission that ran meanwhile saw the registry before or the one after, never a mixture.
"""

from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veko import Kernel, State, VekoError

NAMES = ("a", "b", "c")
NEEDS = {"a": (), "b": (), "c": ("a",)}
BROKEN = ("load", "activate", "conflict", "hang")
STEPS = ("import_state", "deactivate", "unload", "none", "none", "none")

names = st.sampled_from(NAMES)
hows = st.one_of(st.sampled_from(STEPS), st.sampled_from(BROKEN))
commands = st.one_of(
    st.tuples(st.just("load"), names, hows),
    st.tuples(st.just("load"), names, st.just("none")),
    st.tuples(st.just("reload"), names, hows),
    st.tuples(st.just("unload"), names, st.booleans()),
    st.tuples(st.just("toggle"), names, st.sampled_from([None, True, False]), st.booleans()),
)


@dataclass
class Known:
    """What the model knows of one plugin."""

    rank: int
    version: int | None = None
    active: bool = False


class Model:
    """What a kernel is to do, done naively."""

    def __init__(self) -> None:
        self.plugins: dict[str, Known] = {}
        self.ranks = 0

    def load(self, name: str, version: int, how: str) -> bool:
        known = self.plugins.get(name)
        if known is not None and known.version is not None:
            return False
        if known is None:
            self.ranks += 1
            known = self.plugins[name] = Known(self.ranks)
        if how in BROKEN or not all(self.is_active(need) for need in NEEDS[name]):
            return False
        known.version, known.active = version, True
        return True

    def reload(self, name: str, version: int, how: str) -> bool:
        known = self.plugins.get(name)
        if known is None or known.version is None:
            return False
        # Off, it is neither activated nor accepted before it is switched on again.
        ignored = () if known.active else ("activate", "conflict")
        if how == "import_state" or (how in BROKEN and how not in ignored):
            return False
        known.version = version
        return True

    def is_active(self, name: str) -> bool:
        return name in self.plugins and self.plugins[name].active

    def above(self, name: str) -> list[str]:
        return [other for other in NAMES if name in NEEDS[other] and self.is_active(other)]

    def unload(self, name: str, cascade: bool) -> bool:
        known = self.plugins.get(name)
        above = self.above(name)
        if known is None or known.version is None or (above and not cascade):
            return False
        for other in (*above, name):
            del self.plugins[other]
        return True

    def toggle(self, name: str, active: bool | None, cascade: bool) -> bool:
        known = self.plugins.get(name)
        if known is None or known.version is None:
            return False
        wanted = not known.active if active is None else active
        if wanted == known.active:
            return True
        above = self.above(name)
        if wanted and not all(self.is_active(need) for need in NEEDS[name]):
            return False
        if not wanted and above and not cascade:
            return False
        known.active = wanted
        for other in above if not wanted else ():
            self.plugins[other].active = False
        return True

    def live(self) -> list[tuple[str, int, int]]:
        ordered = sorted(self.plugins.items(), key=lambda item: item[1].rank)
        return [
            (name, known.version, number)
            for name, known in ordered
            if known.active and known.version is not None
            for number in (0, 1)
        ]


def make(name: str, version: int, how: str) -> dict[str, Any]:
    def broken(*args: Any) -> None:
        raise ValueError(how)

    async def load(context: Any) -> None:
        async def later(value: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            return [*value, (name, version, 1)]

        context.hook("x", lambda value: [*value, (name, version, 0)])
        context.provide(f"{name}-service", version)
        context.register("thing", name, version)
        context.spawn(anyio.sleep_forever)
        await anyio.lowlevel.checkpoint()
        context.hook("x", later)
        if how == "conflict" and version:
            context.provide("taken", version)
        if how == "load":
            broken()
        if how == "hang":
            await anyio.sleep_forever()

    form = {"name": name, "version": str(version), "load": load, "dependencies": NEEDS[name]}
    form["export_state"] = lambda: version
    if how in ("activate", "deactivate", "unload", "import_state"):
        form[how] = broken
    return form


async def run(program: list[tuple[Any, ...]]) -> None:
    async with Kernel(drain_timeout=5) as kernel:
        await kernel.load(
            {"name": "holder", "version": "1", "load": lambda context: context.provide("taken", 0)}
        )
        model = Model()
        for version, command in enumerate(program, 1):
            await step(kernel, model, version, command)
        for name in ("c", "b", "a"):
            if name in model.plugins and model.plugins[name].version is not None:
                await kernel.unload(name)
        assert await kernel.bus.emit("x", []) == []
        assert kernel.registry.entries("thing") == ()
        assert kernel.registry.keys("service") == ("taken",)


async def step(kernel: Kernel, model: Model, version: int, command: tuple[Any, ...]) -> None:
    outcome: list[bool] = []
    seen: list[Any] = []
    kernel.timeout = 0.003 if "hang" in command else 10.0

    async def act() -> None:
        try:
            match command:
                case ("load", name, how):
                    await kernel.load(make(name, version, how))
                case ("reload", name, how):
                    await kernel.reload(make(name, version, how))
                case ("unload", name, cascade):
                    await kernel.unload(name, cascade=cascade)
                case ("toggle", name, active, cascade):
                    await kernel.toggle(name, active, cascade=cascade)
        except (VekoError, ValueError):
            outcome.append(False)
        else:
            outcome.append(True)

    async def emit() -> None:
        while not outcome:
            seen.append(await kernel.bus.emit("x", []))
            with kernel.pin() as registry:
                first = await kernel.bus.emit("x", [])
                await anyio.lowlevel.checkpoint()
                assert kernel.registry is registry
                assert await kernel.bus.emit("x", []) == first
                seen.append(first)
            await anyio.lowlevel.checkpoint()

    before = model.live()
    async with anyio.create_task_group() as group:
        group.start_soon(emit)
        group.start_soon(act)
    match command:
        case ("load" | "reload" as verb, name, how):
            expected = getattr(model, verb)(name, version, how)
        case (verb, *rest):
            expected = getattr(model, verb)(*rest)
    assert outcome == [expected], command
    after = model.live()
    assert await kernel.bus.emit("x", []) == after
    cascades = "unload" in command or "toggle" in command
    for one in seen:
        # A cascade is a swap a plugin: in between, those above are gone and the one below not.
        assert one in (before, after) or (cascades and set(after) < set(one) < set(before))
    for name in NAMES:
        record, known = kernel.get(name), model.plugins.get(name)
        assert (record is None) == (known is None)
        if record is None or known is None:
            continue
        if known.version is None:
            assert record.state is State.FAILED
            assert record.error is not None
        else:
            assert record.state is (State.ACTIVE if known.active else State.INACTIVE)
            assert record.version == str(known.version)
        live = known.version if known.active else None
        for kind, key in (("service", f"{name}-service"), ("thing", name)):
            entry = kernel.registry.get(kind, key)
            assert (None if entry is None else entry.value) == live


@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@given(program=st.lists(commands, min_size=1, max_size=15))
@settings(max_examples=250)
def test_a_kernel_does_what_a_dict_would(backend: str, program: list[tuple[Any, ...]]) -> None:
    anyio.run(run, program, backend=backend)
