"""What a type checker makes of plugins in code: builder, decorators. Checked, never run."""

from typing import Any, assert_type

import msgspec

import veko
from veko import Event
from veko_plugins import (
    Context,
    Plugin,
    PluginBuilder,
    PluginManager,
    Request,
    Response,
    create_dev_plugin,
    create_plugin_builder,
    create_simple_plugin,
)
from veko_plugins.http import CallNext, WebSocket


class Settings(msgspec.Struct):
    size: int = 1


PRICE: Event[int] = Event("price", payload=int, returns=True)


async def stamp(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


async def talk(socket: WebSocket) -> None: ...


async def load(app: object, config: Settings, context: Context[Settings]) -> None:
    assert_type(context.config, Settings)


def dearer(price: int) -> int:
    return price + 1


def built() -> veko.Plugin:
    builder = create_plugin_builder()
    assert_type(builder, PluginBuilder)
    chained = (
        builder.name("built")
        .version("1.0.0")
        .description("Built.")
        .author("Somebody")
        .depends("a", ["b"])
        .config({"size": 1})
        .config_schema(Settings)
        .manifest(priority=20, license="MIT")
        .required()
        .route("GET", "/x", stamp, dearer, sync_to_thread=False)
        .websocket("/talk", talk)
        .middleware(stamp, 5)
        .hook("app:start", lambda: None)
        .hook(PRICE, dearer, 20, observe=True)
        .command("x", dearer, "Dearer")
        .every(1.5, lambda: None)
        .provide("x", 1)
        .load(load)
        .unload(lambda: None)
    )
    assert_type(chained, PluginBuilder)
    assert_type(chained.build(), veko.Plugin)
    return chained.build()


async def quick(manager: PluginManager) -> None:
    assert_type(manager.create_plugin_builder(), PluginBuilder)
    dev = manager.create_dev_plugin(
        "dev",
        routes={"/x": dearer, "POST /x": [stamp, dearer], ("PUT", "/x"): dearer},
        middleware=[stamp],
        hooks={"price": dearer, "other": [dearer, dearer]},
        commands={"x": dearer, "y": {"handler": dearer, "description": "Dearer"}},
        load=load,
    )
    assert_type(dev, veko.Plugin)
    assert_type(create_dev_plugin("dev"), veko.Plugin)
    assert_type(create_simple_plugin("simple", load, priority=3), veko.Plugin)
    await manager.load_plugin(dev)


plugin = Plugin("shop", "1.0.0", dependencies=["db>=2"], config_schema=Settings)


@plugin.route("GET", "/price/{price:int}", stamp, sync_to_thread=False)
def price(price: int) -> int:
    return price


@plugin.middleware
async def around(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


@plugin.middleware(priority=3)
async def inner(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


@plugin.hook("app:start", priority=3)
async def started() -> None: ...


@plugin.hook(PRICE)
def more(price: int) -> int:
    plugin.context.storage.set("more", price)
    return price + 1


@plugin.command("price", "Shows the price")
def show(price: int = 1) -> str:
    return str(price)


@plugin.websocket("/talk", stamp)
async def converse(socket: WebSocket) -> None: ...


@plugin.every(3.5)
def tick() -> None: ...


@plugin.on_load
async def ready(context: Context[Settings]) -> None:
    assert_type(plugin.context, Context[Any])


async def loaded(manager: PluginManager) -> None:
    assert_type(price(3), int)
    assert_type(await around(Request({}, receive), call), Response)
    assert_type(show(2), str)
    await manager.load_plugin(plugin)


async def receive() -> dict[str, Any]:
    return {}


async def call(request: Request) -> Response:
    return Response()
