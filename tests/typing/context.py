"""What a type checker makes of contexts: configuration, services, the log, what is attached."""

from typing import Any, Protocol, assert_type

import msgspec

import veko
import veko_plugins
from veko import Event, Handle, Kernel, Subscription

greeting = Event("greeting", payload=str, returns=True, doc="An example.")


class Settings(msgspec.Struct):
    volume: int = 11


class Database:
    async def query(self, text: str) -> list[str]:
        return [text]


class Schedule(Protocol):
    def daily(self, hour: int) -> Handle: ...


class Scheduled(veko_plugins.Context[Settings]):
    """A context with what another plugin attaches."""

    schedule: Schedule


async def of_the_kernel(context: veko.Context[Settings]) -> None:
    assert_type(context.config, Settings)
    assert_type(context.config.volume, int)
    assert_type(await context.update_config({"volume": 3}), Settings)
    assert_type(context.use(Database), Database)
    assert_type(await context.when(Database), Database)
    assert_type(context.use("database"), Any)
    assert_type(await context.when("database"), Any)
    assert_type(context.provide("database", Database()), Handle)
    assert_type(context.attached("schedule"), Any)
    context.log("success", "done", 3, user="ada")

    def louder(text: str) -> str:
        return text.upper()

    async def later(text: str, *rest: object) -> None: ...

    assert_type(context.hook(greeting, louder), Subscription)
    assert_type(context.hook(greeting, later, priority=5, timeout=None), Subscription)
    context.hook(greeting, lambda: None)
    context.remove_hook(greeting, louder)

    @context.hook(greeting)
    def quieter(text: str) -> str:
        return text.lower()

    assert_type(quieter("HELLO"), str)


def untyped(context: veko.Context) -> None:
    assert_type(context.config, Any)


async def of_core_plugins(context: veko_plugins.Context[dict[str, int]]) -> None:
    assert_type(context.config, dict[str, int])
    assert_type(context.add_route("GET", "/", of_the_kernel), Handle)
    assert_type(context.add_routes(object(), path="/api"), list[Handle])
    assert_type(context.use(Database), Database)


def core_untyped(context: veko_plugins.Context) -> None:
    assert_type(context.config, Any)


def of_others(context: Scheduled) -> None:
    assert_type(context.schedule.daily(7), Handle)
    assert_type(context.config.volume, int)


async def of_the_host(kernel: Kernel) -> None:
    assert_type(kernel.use(Database), Database)
    assert_type(await kernel.when(Database), Database)
    assert_type(kernel.use("database"), Any)
