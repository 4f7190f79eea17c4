"""Plugins in one file: `plugin = Plugin("name", "1.0.0")` and its decorators."""

import asyncio
import gc
import weakref
from pathlib import Path
from typing import Any

import httpx
import pytest

import veko
import veko_plugins
from veko import Event, Kernel, LoadError, ManifestError, Plugin, RouteError, StateError
from veko_plugins import PluginManager

SHOP = """
import msgspec

from veko_plugins import Plugin, Response


class Settings(msgspec.Struct):
    greeting: str = "hello"


plugin = Plugin("shop", "1.2.0", description="Sells", config_schema=Settings, priority=30)
seen = []


async def stamp(request, call_next):
    response = await call_next(request)
    response.headers["x-stamp"] = "yes"
    return response


@plugin.route("GET", "/hello/{who}", stamp)
def hello(who: str):
    return {"text": f"{plugin.config.greeting} {who}"}


@plugin.middleware
async def outer(request, call_next):
    response = await call_next(request)
    response.headers["x-outer"] = "yes"
    return response


@plugin.middleware(priority=5)
async def inner(request, call_next):
    response = await call_next(request)
    response.headers["x-inner"] = "yes"
    return response


@plugin.hook("price", 20)
def price(value):
    return value + 1


@plugin.command("shop:greet", "Greet somebody")
def greet(name: str, loud: bool = False) -> str:
    return name.upper() if loud else name


@plugin.websocket("/chat")
async def chat(socket):
    async for message in socket:
        await socket.send(message)


@plugin.every(3600)
def tick():
    seen.append("tick")


@plugin.on_load
def load(config, context):
    seen.append(f"load {config.greeting} {context.name}")


@plugin.on_activate
def activate():
    seen.append("activate")


@plugin.on_deactivate
async def deactivate():
    seen.append("deactivate")


@plugin.on_unload
def unload(app):
    seen.append(f"unload {app}")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("plugins").mkdir()
    return tmp_path / "plugins"


def manager_of(folder: Path, app: Any = None, **options: Any) -> PluginManager:
    given: dict[str, Any] = {"adapter": "asgi", "max_retries": 0, **options}
    return PluginManager(app, root=folder.parent, **given)


async def test_D10_a_plugin_in_one_file(folder: Path) -> None:
    folder.joinpath("shop.py").write_text(SHOP)
    async with manager_of(folder, "the app") as manager:
        record = manager.get_plugin("shop")
        assert record is not None
        assert (record.version, record.manifest.description) == ("1.2.0", "Sells")
        assert record.manifest.priority == 30
        assert record.exports["hello"] is record.module.hello
        assert "plugin" not in record.exports
        seen = record.module.seen
        assert seen == ["load hello shop", "activate"]
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/hello/ann")
            assert answer.json() == {"text": "hello ann"}
            names = {name for name in answer.headers if name.startswith("x-")}
            assert names == {"x-stamp", "x-outer", "x-inner"}
        assert await manager.bus.emit("price", 1) == 2
        assert await manager.run_command("shop:greet", "ann", loud=True) == "ANN"
        stats = manager.get_stats()
        assert (stats.routes, stats.middleware, stats.commands) == (1, 2, 1)
        await manager.toggle_plugin("shop", False)
        assert await manager.bus.emit("price", 1) == 1
        await manager.toggle_plugin("shop", True)
        assert await manager.bus.emit("price", 1) == 2
        await manager.unload_plugin("shop")
        assert seen[2:] == ["deactivate", "activate", "deactivate", "unload the app"]
        assert await manager.bus.emit("price", 1) == 1


async def test_a_new_version_of_the_file_replaces_it_and_is_collected(folder: Path) -> None:
    path = folder / "shop.py"
    path.write_text(SHOP)
    async with manager_of(folder) as manager:
        old = weakref.ref(manager.get_plugin("shop").plugin)  # type: ignore[union-attr]
        path.write_text(SHOP.replace("value + 1", "value + 100"))
        await manager.reload_plugin("shop", {"greeting": "bye"})
        assert await manager.bus.emit("price", 1) == 101
        gc.collect()
        assert old() is None


async def test_it_is_ordered_before_it_is_imported(folder: Path) -> None:
    order = "import builtins\nbuiltins.veko_order.append(__name__.split('.')[-1][:1])\n"
    head = "from veko import Plugin\nplugin = Plugin({}, '1.0.0', dependencies={})\n" + order
    folder.joinpath("a.py").write_text(head.format("'a'", "['b']"))
    folder.joinpath("b.py").write_text(head.format("'b'", "['c']"))
    folder.joinpath("c.py").write_text(head.format("'c'", "[]"))
    import builtins

    builtins.veko_order = seen = []  # type: ignore[attr-defined]
    try:
        async with manager_of(folder) as manager:
            assert manager.report.loaded == ["c", "b", "a"]
    finally:
        del builtins.veko_order  # type: ignore[attr-defined]
    assert len(seen) == 3


@pytest.mark.parametrize(
    "change",
    ["plugin.dependencies = ['b']", "plugin = Plugin('other', '2.0')", "del plugin.version"],
)
async def test_what_is_changed_later_counts(folder: Path, change: str) -> None:
    text = f"from veko import Plugin\nplugin = Plugin('a', '1.0.0')\n{change}\n"
    folder.joinpath("a.py").write_text(text)
    folder.joinpath("b.py").write_text("from veko import Plugin\nplugin = Plugin('b', '1.0.0')\n")
    async with manager_of(folder) as manager:
        if "dependencies" in change:
            assert manager.report.loaded == ["b", "a"]
        elif "other" in change:
            assert "other" in manager.report.loaded
        else:
            assert "version is missing" in manager.report.why("a")


async def test_the_kernel_alone_and_what_another_plugin_attaches() -> None:
    seen: list[object] = []
    clock = Plugin("clock", "1.0.0")

    @clock.on_load
    def load(context: veko.Context) -> None:
        def schedule(spec: str, fn: Any, *, times: int = 1) -> None:
            seen.append((context.name, spec, fn, times))

        context.attach("add_schedule", lambda other: schedule)

    user = Plugin("user", "1.0.0")

    @user.schedule("daily", times=3)
    def job() -> None: ...

    @user.hook(Event("asked", returns=True))
    def answer(value: int) -> int:
        return value + 1

    @user.spawn
    async def run() -> None:
        seen.append("ran")
        done.set()

    @user.provide("service")
    def service() -> str:
        return "served"

    done = asyncio.Event()
    async with Kernel() as kernel:
        await kernel.load(clock)
        await kernel.load(user)
        await done.wait()
        assert seen == [("clock", "daily", job, 3), "ran"]
        assert await kernel.bus.emit("asked", 1) == 2
        assert kernel.use("service")() == "served"


def test_a_plugin_is_the_same_class_in_both_packages() -> None:
    assert veko_plugins.Plugin is veko.Plugin


def test_subclasses_are_made_as_ever() -> None:
    class Other:
        def __init__(self, size: int = 3) -> None:
            self.size = size

    class Mine(Plugin, Other):
        name = "mine"
        version = "1.0.0"

        def load(self) -> None: ...

    class Taking(Plugin):
        def __init__(self, name: str, version: str) -> None:
            self.name, self.version = name, version

        def load(self) -> None: ...

        def route(self) -> str:
            return "mine"

    class Counting(Plugin, dict[str, int]):
        name = "counting"
        version = "1.0.0"

        def load(self) -> None: ...

    class Plain(Plugin):
        name = "plain"
        version = "1.0.0"

        def load(self) -> None: ...

    assert Mine(5).size == 5
    assert veko.as_plugin(Mine).exports["size"] == 3
    assert Taking("a", "1").route() == "mine"
    assert "route" in veko.as_plugin(Taking("a", "1")).exports
    assert Counting(a=1)["a"] == 1
    with pytest.raises(TypeError, match=r"Plain\(\) takes no arguments"):
        Plain("x")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Plain().route  # type: ignore[attr-defined]  # noqa: B018


async def test_a_decorator_that_is_called_and_not_applied_is_a_fault() -> None:
    plugin = Plugin("shop", "1.0.0")
    plugin.route("GET", "/x", print)
    plugin.hook("app:start")
    with pytest.raises(ManifestError) as caught:
        veko.as_plugin(plugin)
    assert [fault.path for fault in caught.value.faults] == [
        f"plugin.route('GET', '/x', {print!r}) (line {LINE})",
        f"plugin.hook('app:start') (line {LINE + 1})",
    ]
    named = Plugin("shop", "1.0.0")
    named.hook("ping", fn=lambda value: value + 1)
    async with Kernel() as kernel:
        await kernel.load(named)
        assert await kernel.bus.emit("ping", 1) == 2


LINE = test_a_decorator_that_is_called_and_not_applied_is_a_fault.__code__.co_firstlineno + 2


async def test_errors_name_the_line_of_the_decorator(tmp_path: Path) -> None:
    async def loaded(plugin: Plugin) -> veko.VekoError:
        async with PluginManager(
            root=tmp_path, adapter="asgi", storage="none", auto_load=False, max_retries=0
        ) as manager:
            with pytest.raises(veko.VekoError) as caught:
                await manager.load_plugin(plugin)
        assert caught.value.path == Path(__file__)
        return caught.value

    misspelled = Plugin("shop", "1.0.0")

    @misspelled.rout("GET", "/x")
    def one() -> None: ...

    error = await loaded(misspelled)
    assert isinstance(error, LoadError)
    assert "Did you mean 'add_route'?" in str(error)
    assert error.line == one.__code__.co_firstlineno

    wrong = Plugin("shop", "1.0.0")

    @wrong.route("FETCH", "/x")
    def two() -> None: ...

    error = await loaded(wrong)
    assert isinstance(error, RouteError)
    assert error.line == two.__code__.co_firstlineno

    many = Plugin("shop", "1.0.0")

    @many.command("a", "b", "c", "d")
    def three() -> None: ...

    assert "raised TypeError" in str(await loaded(many))


def test_mistakes_while_it_is_written() -> None:
    with pytest.raises(ManifestError, match="verzion is not a field"):
        Plugin("shop", verzion="1")
    plugin = Plugin("shop", "1.0.0")
    decorator = plugin.hook("x")
    decorator(print)
    with pytest.raises(veko.VekoError, match="decorates print already"):
        decorator(print)
    with pytest.raises(veko.VekoError, match="decorates 5, which is no function"):
        plugin.hook("x")(5)
    plugin.on_load(lambda: None)
    with pytest.raises(ManifestError, match="on_load decorates"):
        plugin.on_load(lambda: None)
    bad = Plugin("shop", "1.0.0")
    bad.on_load(lambda kontext: None)
    bad.on_unload(lambda kontext: None)
    with pytest.raises(ManifestError) as caught:
        veko.as_plugin(bad)
    assert {fault.path for fault in caught.value.faults} == {"load()", "unload()"}
    with pytest.raises(ManifestError, match=r"name is missing; version is missing"):
        veko.as_plugin(Plugin())


async def test_what_is_declared_too_late_is_refused() -> None:
    plugin = Plugin("shop", "1.0.0")
    async with Kernel() as kernel:
        await kernel.load(plugin)
        with pytest.raises(AttributeError, match="decorate functions before that"):
            plugin.hook("x")


async def test_the_context_is_the_one_that_is_live() -> None:
    failing = False
    plugin = Plugin("shop", "1.0.0", default_config={"number": 1})

    @plugin.on_load
    def load(context: Any) -> None:
        assert plugin.context is not None
        if failing:
            raise ValueError("not today")

    with pytest.raises(StateError, match="it is not loaded"):
        plugin.config  # noqa: B018
    async with Kernel() as kernel:
        await kernel.load(plugin)
        assert plugin.config == {"number": 1}
        failing = True
        with pytest.raises(LoadError):
            await kernel.reload(plugin, {"number": 2})
        assert plugin.config == {"number": 1}
        failing = False
        await kernel.reload(plugin, {"number": 2})
        assert plugin.config == {"number": 2}
        await kernel.unload("shop")
        with pytest.raises(StateError, match="plugin shop"):
            plugin.context  # noqa: B018


async def test_it_can_be_loaded_again_and_in_two_applications() -> None:
    plugin = Plugin("shop", "1.0.0")

    @plugin.hook("ping")
    def ping(value: int) -> int:
        return value + 1

    async with Kernel() as one, Kernel() as two:
        for _ in range(2):
            await one.load(plugin)
            await two.load(plugin)
            assert await one.bus.emit("ping", 1) == await two.bus.emit("ping", 1) == 2
            await one.unload("shop")
            await two.unload("shop")


async def test_it_runs_in_a_process_of_its_own(folder: Path) -> None:
    folder.joinpath("shop.py").write_text(
        "from veko_plugins import Plugin\n"
        'plugin = Plugin("shop", "1.0.0", isolation="process", default_config={"greeting": "hi"})\n'
        '@plugin.hook("price")\n'
        "def price(value):\n"
        "    return value + 1\n"
        '@plugin.command("greet", "Greets")\n'
        "def greet(name: str) -> str:\n"
        "    return plugin.config['greeting'] + ' ' + name\n"
    )
    async with manager_of(folder, dev_mode=True) as manager:
        assert manager.report.loaded == ["shop"], manager.report.failed
        assert await manager.bus.emit("price", 1) == 2
        assert await manager.run_command("greet", "ann") == "hi ann"
