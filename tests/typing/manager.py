"""What a type checker makes of the manager's interface. Checked, never run."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, assert_type

from veko import Bus, Event, Handle, Plugin, PluginRecord, Subscription
from veko_plugins import (
    Context,
    LoadReport,
    PluginBuilder,
    PluginInfo,
    PluginManager,
    Request,
    Response,
    Route,
    Stats,
)
from veko_plugins.http import Adapter, CallNext, WebSocket
from veko_plugins.manager import ManagerOptions


class Connection:
    async def query(self, text: str) -> list[str]:
        return [text]


@asynccontextmanager
async def connected() -> AsyncIterator[Connection]:
    yield Connection()


async def talk(socket: WebSocket) -> None:
    assert_type(await socket.receive(), str | bytes)
    async for message in socket:
        await socket.send(message)


async def timed(request: Request, call_next: CallNext) -> Response:
    response = await call_next(request)
    assert_type(response, Response)
    response.headers["x-timed"] = "yes"
    return response


async def receive() -> dict[str, Any]:
    return {"type": "http.request"}


async def read(request: Request) -> dict[str, str]:
    assert_type(request.method, str)
    assert_type(request.path, str)
    assert_type(request.url, str)
    assert_type(request.cookies, dict[str, str])
    assert_type(request.state, dict[str, Any])
    assert_type(await request.body(), bytes)
    return {"path": request.path}


class Typed(Plugin):
    name = "typed"
    version = "1.0.0"
    default_config = {"size": 1}

    async def load(self, app: object, config: dict[str, int], context: Context) -> None:
        connection = await context.enter(connected())
        assert_type(connection, Connection)
        assert_type(await connection.query("a"), list[str])

        @context.hook("request:start", priority=20)
        async def started(request: Request) -> Request:
            return request

        assert_type(await started(Request({}, receive)), Request)
        assert_type(context.hook("app:start", self.start), Subscription)
        assert_type(context.remove_hook("app:start", self.start), bool)
        assert_type(context.add_route("GET", "/typed", timed, read), Handle)
        assert_type(context.add_websocket("/typed", timed, talk), Handle)
        assert_type(context.add_middleware(timed, priority=5), Handle)
        assert_type(context.add_command("typed", self.start, "Starts."), Handle)
        assert_type(context.provide("connection", connection), Handle)
        context.declare(Event("typed:happened", payload=int, doc="An example."))
        await context.storage.set("count", 1)
        count: int = context.storage.get("count", 0)
        await context.storage.set("count", count + 1)
        assert_type(context.storage.keys(), list[str])
        context.log("info", "loaded", {"size": config["size"]}, user="ada")
        assert_type(context.get_plugin("other"), PluginRecord | None)
        assert_type(context.list_plugins(), list[PluginRecord])
        context.spawn(connection.query, "b").cancel()
        context.every(60, self.start).cancel()
        await context.emit("happened", 1)

    def start(self) -> None: ...


def guard(route: Route) -> Route | None:
    assert_type(route.method, str)
    assert_type(route.plugin, str)
    return None


def made_with_options(app: object, adapter: Adapter, given: dict[str, Any]) -> None:
    PluginManager(app, root="app", plugins_dir=Path("plugins"), adapter="asgi", max_retries=3)
    PluginManager(adapter=adapter, storage=None, required=["one"], watch_ignore=("*.log",))
    PluginManager(core={"storage": Typed, "routes": None}, plugins={"typed": {"size": 1}})
    PluginManager(probation=5, timeout=2.5, **given)
    options: ManagerOptions = {"dev_mode": True, "otlp": "http://localhost:4318"}
    PluginManager(**options)


async def manager(app: object) -> None:
    async with PluginManager(app, plugins_dir=["plugins"], timeout=5.0) as manager:
        assert_type(manager, PluginManager)
        assert_type(manager.bus, Bus)
        assert_type(manager.state, str)
        plugin = await manager.load_plugin(Typed, {"size": 2})
        assert_type(plugin, PluginRecord)
        assert_type(plugin.name, str)
        assert_type(plugin.active, bool)
        await manager.load_plugin("name")
        await manager.load_plugin(Path("name.py"))
        await manager.load_plugin(Typed())
        await manager.load_plugin({"name": "x", "version": "1", "load": lambda: None})
        assert_type(await manager.load_all_plugins(), LoadReport)
        assert_type(await manager.reload_plugin("name", {"size": 3}), PluginRecord)
        assert_type(await manager.toggle_plugin("name"), bool)
        assert_type(manager.get_plugin("name"), PluginRecord | None)
        assert_type(manager.list_plugins(), list[PluginInfo])
        assert_type(manager.get_stats(), Stats)
        assert_type(manager.get_stats().routes, int)
        assert_type(manager.error_count("name"), int)
        assert_type(manager.use(Connection), Connection)
        assert_type(manager.use("connection"), Any)
        assert_type(manager.hooks, dict[str, tuple[Subscription, ...]])
        assert_type(manager.events(), list[Event[Any]])
        manager.on("plugin:loaded", lambda name, plugin: print(name, plugin)).cancel()
        await manager.run_command("typed", 1, verbose=True)
        await manager.unload_plugin("name", cascade=True)
        built = (
            manager.create_plugin_builder()
            .name("built")
            .depends("typed", ["other"])
            .route("GET", "/built", timed, read)
            .middleware(timed)
            .hook("route:create", guard, 20)
            .command("built", lambda: 1)
        )
        assert_type(built, PluginBuilder)
        assert_type(built.build(), Plugin)
        assert_type(manager.create_simple_plugin("simple", lambda: None), Plugin)
