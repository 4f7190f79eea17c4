"""Off is off at once, on is as before, and what is unloaded leaves no trace."""

import asyncio
import gc
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from veko.errors import NotFoundError, VekoError
from veko_plugins import PluginManager

Collected = Callable[..., None]

EVERYTHING = """
import asyncio
import threading
from contextlib import asynccontextmanager
from typing import Optional
import msgspec
from veko import Event, Plugin

class Thing(msgspec.Struct):
    size: int = 1

class Other: ...

def optional() -> Optional[Thing]: ...

def sync_hook(value): return value
async def async_hook(value): return value
async def middleware(request, call_next):
    response = await call_next(request)
    response.headers["x-seen"] = response.headers.get("x-seen", "") + NAME
    return response
async def read(request): return {"plugin": NAME}
async def typed(data: Thing) -> Thing: return data
def command(count: int = 1): return [NAME] * count
async def forever(): await asyncio.Event().wait()

@asynccontextmanager
async def resource():
    task = asyncio.get_running_loop().create_task(forever())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])

async def load(app, config, context):
    context.hook("sum", lambda values: [*values, NAME])
    context.hook("plugin:**", sync_hook)
    context.hook("request:start", async_hook)
    context.add_middleware(middleware)
    context.add_route("GET", f"/{NAME}", read)
    context.add_route("POST", f"/{NAME}/{{id:int}}", middleware, typed)
    context.add_command(NAME, command)
    context.provide(f"{NAME}.service", Other())
    context.attach(f"{NAME}_verb", lambda context: Other())
    context.declare(Event(f"{NAME}:happened", payload=Thing, doc="An example."))
    context.spawn(forever)
    context.every(1000, command)
    await context.enter(resource())
    context.storage.set("key", 1)
    context.log("info", "here")
    getattr(context, f"{NAME}_verb")
"""


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    """Keep errors from pytest's log capture, which would keep their frames alive."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def write(home: Any, name: str, ending: str = "", **manifest: Any) -> None:
    home.plugin(name, f"NAME = {name!r}\n{EVERYTHING}{ending}", **manifest)


class World:
    """What a manager and the process hold, to be compared."""

    def __init__(self, manager: PluginManager) -> None:
        gc.collect()
        registry = manager.kernel.registry
        kinds = {str(entry.key) for entry in registry.entries("kind")}
        self.entries = {
            kind: [(entry.key, id(entry.value)) for entry in registry.entries(kind)]
            for kind in sorted({*kinds, "kind", "event", "hook", "pattern", "service", "attach"})
        }
        self.modules = {name for name in sys.modules if name.startswith("veko_generation.")}
        self.tasks = {id(task) for task in asyncio.all_tasks()}  # a task would keep its frames
        self.threads = set(threading.enumerate())
        self.records = [record.name for record in manager.kernel.records()]
        self.middleware = registry.view("middleware") is not None

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join(f"{key}: {value}" for key, value in vars(self).items())


def references(manager: PluginManager, name: str) -> list[Callable[[], object]]:
    """Weak references to everything of a plugin that can have one."""
    record = manager.get_plugin(name)
    assert record is not None
    assert record.current is not None
    module = record.module
    found: list[object] = [
        module, record, record.plugin, record.current, record.current.context,
        *(getattr(module, attribute) for attribute in
          ("Thing", "Other", "sync_hook", "async_hook", "middleware", "read", "typed", "command",
           "load", "forever", "resource", "optional")),
        manager.use(f"{name}.service"),
    ]  # fmt: skip
    return [weakref.ref(one) for one in found]


async def exercise(manager: PluginManager, client: Any, name: str) -> None:
    """Use all that a plugin has registered."""
    assert (await client.get(f"/{name}")).json() == {"plugin": name}
    assert (await client.post(f"/{name}/3", json={"size": 2})).json() == {"size": 2}
    assert (await client.post(f"/{name}/3", json={"size": "x"})).status_code == 400
    assert await manager.run_command(name, count=2) == [name, name]
    assert name in await manager.bus.emit("sum", [])


async def test_off_takes_everything_out_of_action_and_on_brings_it_back_in_order(
    home: Any, serve: Any
) -> None:
    for name in ("first", "second", "third"):
        write(home, name, priority={"first": 3, "second": 2, "third": 1}[name])
    async with home.manager() as manager, serve(manager) as client:
        names = ["first", "second", "third"]
        assert await manager.bus.emit("sum", []) == names
        before = World(manager)
        seen = (await client.get("/third")).headers["x-seen"]
        for name in ("second", "first", "third", "second"):
            others = [other for other in names if other != name]
            assert await manager.toggle_plugin(name, False) is False
            assert await manager.bus.emit("sum", []) == others
            assert (await client.get(f"/{name}")).status_code == 404
            assert (await client.post(f"/{name}/3", json={})).status_code == 404
            answer = await client.get(f"/{others[0]}")
            assert name not in answer.headers["x-seen"]
            with pytest.raises(NotFoundError):
                await manager.run_command(name)
            with pytest.raises(VekoError, match=name):
                manager.use(f"{name}.service")
            assert len(asyncio.all_tasks()) <= len(before.tasks) - 2, "spawned and repeated work"
            assert await manager.toggle_plugin(name, True) is True
            assert await manager.bus.emit("sum", []) == names
            await exercise(manager, client, name)
            assert (await client.get("/third")).headers["x-seen"] == seen
        after = World(manager)
        assert after.entries == before.entries
        assert len(after.tasks) == len(before.tasks)


async def test_unloading_leaves_no_trace(home: Any, serve: Any, collected: Collected) -> None:
    async with home.manager() as manager, serve(manager) as client:
        before = World(manager)
        write(home, "guest")
        await manager.load_plugin("guest")
        await exercise(manager, client, "guest")
        found = references(manager, "guest")
        assert World(manager) != before
        await manager.unload_plugin("guest")
        assert World(manager) == before
        collected(*found)


async def test_unloading_an_inactive_plugin_leaves_no_trace(
    home: Any, serve: Any, collected: Collected
) -> None:
    async with home.manager() as manager, serve(manager) as client:
        before = World(manager)
        write(home, "guest")
        await manager.load_plugin("guest")
        await exercise(manager, client, "guest")
        found = references(manager, "guest")
        await manager.toggle_plugin("guest", False)
        await manager.unload_plugin("guest")
        assert World(manager) == before
        collected(*found)


async def test_unloading_a_plugin_given_as_an_object_leaves_no_trace(
    home: Any, collected: Collected
) -> None:
    class Held:
        def load(self, context: Any) -> None:
            context.hook("sum", self.hook)

        def hook(self, value: int) -> int:
            return value + 1

    async with home.manager() as manager:
        before = World(manager)
        held = Held()
        await manager.load_plugin({"name": "guest", "version": "1", "load": held.load})
        assert await manager.bus.emit("sum", 1) == 2
        found = weakref.ref(held)
        del held
        await manager.unload_plugin("guest")
        assert World(manager) == before
        collected(found)


FAILING = """
    raise_now()
def raise_now(): raise ValueError("no luck")
"""
ERRORS = """
    def breaks(*args): raise ValueError("broke")
    async def breaks_later(*args): raise LookupError("broke")
    async def exits(*args): raise SystemExit(3)
    for handler in (breaks, breaks_later, exits):
        context.hook("event", handler)
        context.hook("request:start", handler)
        context.spawn(handler)
    context.add_route("GET", "/breaks", breaks)
    context.add_route("GET", "/exits", exits)
async def unload(): raise ValueError("never")
def deactivate(): raise ValueError("never")
"""


async def test_unloading_after_errors_leaves_no_trace(
    home: Any, serve: Any, collected: Collected
) -> None:
    errors: list[str] = []
    async with home.manager(error_threshold=1000) as manager, serve(manager) as client:
        manager.on("plugin:error", lambda name, error: errors.append(f"{name}: {error!r}"))
        before = World(manager)
        write(home, "guest", ERRORS)
        await manager.load_plugin("guest")
        for path in ("/breaks", "/exits"):
            assert (await client.get(path)).status_code == 500
        await manager.bus.emit("event")
        with pytest.raises(Exception, match="count"):
            await manager.run_command("guest", count="x", more=1)
        with pytest.raises(VekoError):
            await manager.load_plugin("guest")
        found = references(manager, "guest")
        await manager.unload_plugin("guest")
        assert World(manager) == before
        assert len(errors) >= 10
        collected(*found)


async def test_a_load_that_failed_leaves_nothing_but_its_record(
    home: Any, serve: Any, collected: Collected
) -> None:
    async with home.manager(max_retries=1) as manager, serve(manager) as client:
        write(home, "guest", FAILING)
        found: list[Callable[[], object]] = []
        manager.on("context:create", lambda context: found.append(weakref.ref(context)))
        before = World(manager)
        with pytest.raises(VekoError, match="no luck"):
            await manager.load_plugin("guest")
        assert len(found) == 2
        after = World(manager)
        after.records = [name for name in after.records if name != "guest"]
        assert after == before
        collected(*found)
        assert (await client.get("/guest")).status_code == 404
        write(home, "guest")
        await manager.load_plugin("guest")
        await exercise(manager, client, "guest")
        await manager.unload_plugin("guest")
        assert World(manager) == before


async def test_the_old_generation_dies_when_a_plugin_is_reloaded(
    home: Any, serve: Any, collected: Collected
) -> None:
    async with home.manager() as manager, serve(manager) as client:
        write(home, "guest")
        await manager.load_plugin("guest")
        before = World(manager)
        await exercise(manager, client, "guest")
        plugin = manager.get_plugin("guest")
        assert plugin is not None
        found = [weakref.ref(plugin.module), weakref.ref(plugin.current), *(
            weakref.ref(getattr(plugin.module, name)) for name in ("read", "Thing", "load")
        )]  # fmt: skip
        del plugin
        await manager.reload_plugin("guest")
        await exercise(manager, client, "guest")
        collected(*found)
        after = World(manager)
        assert len(after.tasks) == len(before.tasks)
        assert len(after.modules) == len(before.modules) == 1
        counts = {kind: len(entries) for kind, entries in after.entries.items()}
        assert counts == {kind: len(entries) for kind, entries in before.entries.items()}


def objects(name: str) -> int:
    """How many modules and functions of a plugin's generations are alive."""
    gc.collect()
    return sum(
        1
        for one in gc.get_objects()
        if type(one).__name__ in ("function", "module", "type")
        and str(getattr(one, "__module__", None) or getattr(one, "__name__", "")).startswith(
            f"veko_generation.{name}_"
        )
    )


async def test_a_hundred_loads_and_unloads_half_of_them_broken(home: Any, serve: Any) -> None:
    write(home, "other")
    async with home.manager() as manager, serve(manager) as client:
        for broken in (False, True):  # what is made once and kept
            write(home, "guest", FAILING if broken else "")
            if broken:
                with pytest.raises(VekoError):
                    await manager.load_plugin("guest")
            else:
                await manager.load_plugin("guest")
                await manager.unload_plugin("guest")
        before, alive = World(manager), objects("guest")
        for cycle in range(100):
            write(home, "guest", FAILING if cycle % 2 else f"\ncycle = {cycle}")
            if cycle % 2:
                with pytest.raises(VekoError, match="no luck"):
                    await manager.load_plugin("guest")
                continue
            await manager.load_plugin("guest")
            if cycle % 10 == 0:
                await exercise(manager, client, "guest")
            await manager.unload_plugin("guest")
        assert World(manager) == before
        assert objects("guest") <= alive
        await exercise(manager, client, "other")


async def test_a_hundred_reloads_half_of_them_broken(home: Any, serve: Any) -> None:
    write(home, "other")
    write(home, "guest")
    async with home.manager() as manager, serve(manager) as client:
        await manager.reload_plugin("guest")
        before, alive = World(manager), objects("guest")
        broken = [FAILING, "\ndef load(:", "\nraise OSError('import')", "\nload = None",
                  "\ndef activate(): raise OSError('activate')"]  # fmt: skip
        for cycle in range(100):
            if cycle % 2:
                write(home, "guest", broken[cycle // 2 % len(broken)])
                with pytest.raises(VekoError):
                    await manager.reload_plugin("guest")
            else:
                write(home, "guest", f"\ncycle = {cycle}")
                await manager.reload_plugin("guest")
                plugin = manager.get_plugin("guest")
                assert plugin is not None
                assert plugin.module.cycle == cycle
                del plugin
            if cycle % 10 == 1:
                await exercise(manager, client, "guest")
        after = World(manager)
        assert len(after.tasks) == len(before.tasks)
        assert len(after.modules) == len(before.modules)
        assert after.threads == before.threads
        counts = {kind: len(entries) for kind, entries in after.entries.items()}
        assert counts == {kind: len(entries) for kind, entries in before.entries.items()}
        assert objects("guest") <= alive + 2
        assert await manager.bus.emit("sum", []) == ["guest", "other"]
        await exercise(manager, client, "other")


async def test_stopping_leaves_no_trace(home: Any, serve: Any, collected: Collected) -> None:
    write(home, "guest")
    manager = home.manager()
    tasks = asyncio.all_tasks()
    modules = {name for name in sys.modules if name.startswith("veko_generation.")}
    async with manager:
        async with serve(manager) as client:
            await exercise(manager, client, "guest")
        found = references(manager, "guest")
    assert asyncio.all_tasks() == tasks
    assert {name for name in sys.modules if name.startswith("veko_generation.")} == modules
    collected(*found)
