"""What type checkers refuse of contexts. Checked by tests/test_typing.py, never run."""

import msgspec

import veko
import veko_plugins
from veko import Event, Kernel

PAID = Event("order:paid", payload=int, returns=True)


class Settings(msgspec.Struct):
    volume: int = 11


class Database:
    pass


class Extended(veko_plugins.Context):
    orders: Database


def takes_text(text: str) -> None: ...


def attributes(kernel: veko.Context, core: veko_plugins.Context, extended: Extended) -> None:
    kernel.add_route("GET", "/", takes_text)  # refused
    core.schedule(7, takes_text)  # refused
    core.add_rout("GET", "/", takes_text)  # refused
    extended.orders.query("text")  # refused
    extended.ordres  # refused
    core.attached(3)  # refused


def settings(kernel: veko.Context[Settings], core: veko_plugins.Context[Settings]) -> None:
    kernel.config.volumme  # refused
    text: str = core.config.volume  # refused
    print(text)


async def services(context: veko.Context, kernel: Kernel) -> None:
    text: str = context.use(Database)  # refused
    text = await context.when(Database)  # refused
    text = kernel.use(Database)  # refused
    context.use(3)  # refused
    context.use(Database())  # refused
    kernel.use("database", by=None)  # refused
    print(text)


def hooks(context: veko.Context) -> None:
    context.hook(PAID, takes_text)  # refused
    context.hook("order:paid", 3)  # refused
    context.hook("order:paid", takes_text, timeout="5")  # refused
    context.hook(3)  # refused
    context.remove_hook(3, takes_text)  # refused
    context.stage("kind", "key", 1)  # refused
    context.every("5", takes_text)  # refused


def logs(context: veko.Context) -> None:
    context.log("warn", "a level that does not exist")  # refused
    context.log("info", 3)  # refused


def routes(context: veko_plugins.Context) -> None:
    context.add_route("GET")  # refused
    context.add_route("GET", "/", 3)  # refused
    context.add_middleware(takes_text, priority="high")  # refused
    context.add_command(3, takes_text)  # refused


async def loads(kernel: Kernel) -> None:
    await kernel.load({"name": "p"}, retried=True)  # refused
    await kernel.toggle("p", active="off")  # refused
