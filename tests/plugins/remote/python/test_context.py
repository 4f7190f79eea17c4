"""The context of a Python plugin in a worker: storage, services, plugins, events, commands."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from veko.errors import ConfigError, ServiceError, StorageError, VekoError
from veko_plugins.remote.python.kinds import Named

from .conftest import Host, Start


async def run(host: Host, name: str, *args: Any, **named: Any) -> Any:
    return await host.run("add_command", name, list(args), named)


async def test_storage_has_one_interface_in_and_out_of_process(start: Start) -> None:
    host = await start(
        """
        import asyncio
        from decimal import Decimal

        def load(context):
            storage = context.storage

            async def buy():
                storage.set("count", storage.get("count") + 1)
                storage.update({"price": Decimal("1.50"), "pair": (1, 2)})
                storage.delete("old")
                await storage.set("last", {"a": [1]})
                return [storage.get("count"), sorted(storage.keys()), "old" in storage,
                        str(storage.get("price")), type(storage.get("pair")).__name__]

            async def later():
                await asyncio.to_thread(storage.set, "thread", True)
                storage.clear()
                await storage.set("after", 1)

            async def failing():
                handle = storage.set("count", 99)
                assert storage.get("count") == 99
                try:
                    await handle
                except Exception as error:
                    return [type(error).__name__, storage.get("count")]

            context.add_command("buy", buy)
            context.add_command("later", later)
            context.add_command("failing", failing)
            context.add_command("get", lambda key: storage.get(key))
        """,
        storage={"count": 1, "old": b"x", "when": Decimal(3)},
    )
    found = await run(host, "buy")
    assert found == [2, ["count", "last", "pair", "price", "when"], False, "1.50", "tuple"]
    # One turn of the loop crosses as one transaction.
    changes = {"count": 2, "price": Decimal("1.50"), "pair": (1, 2), "last": {"a": [1]}}
    assert host.writes == [(changes, ["old"], False)]
    host.connection.note("storage_changed", {"count": 40}, ["last"])
    assert await run(host, "get", "count") == 40
    assert await run(host, "get", "last") is None
    host.refuse = StorageError("the disk is full")
    assert await run(host, "failing") == ["StorageError", 40]
    host.refuse = None
    await run(host, "later")
    assert host.writes[-1] == ({"after": 1}, [], True)


async def test_what_cannot_be_stored_says_so_in_the_worker(start: Start) -> None:
    host = await start("""
        def load(context):
            def store():
                context.storage.set("x", object())
            context.add_command("store", store)
    """)
    with pytest.raises(StorageError, match=r"cannot store 'x'.*object.*context\.provide"):
        await run(host, "store")
    assert host.writes == []


async def test_services_of_data_and_functions_cross_both_ways(start: Start) -> None:
    services = {
        "rates": {"value": {"eur": 2}},
        "mail": {"functions": ["send"], "constants": {"limit": 3}},
        "engine": {"reason": "it is a database connection"},
    }
    host = await start(
        """
        class Cart:
            size = 3
            async def add(self, item, times=1):
                return [item] * times

        def load(context):
            cart = Cart()
            context.provide("cart", cart)
            context.provide("settings", {"a": 1})
            assert context.use("cart") is cart  # its own is the object itself

            async def use():
                mail = context.use("mail")
                rates = context.use("rates")
                rates["eur"] = 9
                return [context.use("rates")["eur"], mail.limit, await mail.send("ada", copy=True)]

            async def wait():
                return await (await context.when("late")).ask()

            def missing(name: str):
                return context.use(name)

            context.add_command("use", use)
            context.add_command("wait", wait)
            context.add_command("missing", missing)
        """,
        services=services,
    )
    descriptor = host.more["provide", "cart"][2]
    assert descriptor["constants"] == {"size": 3}
    assert await descriptor["functions"]["add"]("tea", 2) == ["tea", "tea"]
    assert await descriptor["functions"]["add"]("tea", Named({"times": 3})) == ["tea"] * 3
    assert host.more["provide", "settings"][2] == {"value": {"a": 1}}
    host.answers["service_call"] = "sent"
    assert await run(host, "use") == [2, 3, "sent"]
    assert host.asked[-1] == ("service_call", "mail", "send", ["ada"], {"copy": True})
    host.answers |= {"when": {"functions": ["ask"], "constants": {}}, "service_call": "here"}
    assert await run(host, "wait") == "here"
    with pytest.raises(ServiceError, match="there is no service 'nothing'"):
        await run(host, "missing", "nothing")
    with pytest.raises(ServiceError, match="cannot be used from another process: it is a database"):
        await run(host, "missing", "engine")
    host.connection.note("services", {"mail": None, "nothing": {"value": 5}})
    assert await run(host, "missing", "nothing") == 5
    with pytest.raises(ServiceError, match="there is no service 'mail'"):
        await run(host, "missing", "mail")


async def test_other_plugins_are_seen_and_called(start: Start) -> None:
    infos = [
        {"name": "db", "version": "2.1", "state": "active", "loaded": True, "active": True},
        {"name": "off", "version": "1", "state": "inactive", "loaded": True, "active": False},
    ]
    host = await start(
        """
        def load(context):
            async def look():
                db = context.get_plugin("db")
                return [db.name, db.version, db.state, db.exports["size"], db.module.size,
                        await db.exports["query"]("select"),
                        [(one.name, one.active) for one in context.list_plugins()],
                        context.get_plugin("nothing"), context.get_plugin("shop").name]
            async def nested():
                api = context.get_plugin("db").exports.api
                return [api.limit, await api.fetch(1), sorted(context.get_plugin("db").exports)]

            context.add_command("nested", nested)
            context.add_command("look", look)
            context.add_command("uptime", lambda: context.get_plugin("db").uptime)
        """,
        plugins=infos,
        exports={
            "db": {"functions": ["query", "api.fetch"], "constants": {"size": 4, "api.limit": 7}}
        },
    )
    host.answers["plugin_call"] = ["row"]
    found = await run(host, "look")
    assert found == ["db", "2.1", "active", 4, 4, ["row"], [["db", True], ["off", False]], None,
                     "shop"]  # fmt: skip
    assert host.asked[-1] == ("plugin_call", "db", "query", ["select"])
    assert await run(host, "nested") == [7, ["row"], ["api", "query", "size"]]
    assert host.asked[-1] == ("plugin_call", "db", "api.fetch", [1])
    with pytest.raises(AttributeError, match="of the plugin db another process does not know"):
        await run(host, "uptime")
    host.connection.note("plugins", infos[:1])
    assert (await run(host, "look"))[6] == [["db", True]]


async def test_its_exports_are_called_by_name(start: Start) -> None:
    host = await start("""
        RATE = 3

        async def double(number, times=2):
            return number * times

        def load(context): ...
    """)
    description = host.answers["description"]
    assert description["functions"] == ["double"]
    assert description["constants"] == {"RATE": 3}
    assert description["steps"] == ["load"]
    assert await host.call("plugin_call", "double", [4]) == 8
    with pytest.raises(VekoError, match="exports no function 'load'"):
        await host.call("plugin_call", "load", [])


async def test_events_and_the_log_go_to_the_host(start: Start) -> None:
    host = await start("""
        import threading
        from dataclasses import dataclass
        from enum import Enum
        from msgspec import Struct

        class Kind(Enum):
            LOOSE = "loose"

        @dataclass
        class Size:
            cm: int

        class Item(Struct):
            name: str
            size: Size
            kind: Kind

        def load(context):
            context.log("warning", "low", {"left": 3}, item="tea")
            print("printed, not sent")

            async def sell():
                return await context.emit("sold", "tea", 2)

            def threaded():
                thread = threading.Thread(target=context.log, args=("info", "from a thread"))
                thread.start()
                thread.join()

            async def show():
                await context.emit("shown", Item("tea", Size(3), Kind.LOOSE))

            async def nothing():
                await context.emit("shown", object())

            context.add_command("show", show)
            context.add_command("nothing", nothing)
            context.add_command("sell", sell)
            context.add_command("threaded", threaded)
    """)
    assert host.logged == [("warning", "low", {"left": 3}, {"item": "tea"})]
    await run(host, "show")
    assert host.asked == [("emit", "shown", [{"name": "tea", "size": {"cm": 3}, "kind": "loose"}])]
    host.asked.clear()
    with pytest.raises(VekoError, match="a value of type object cannot be sent"):
        await run(host, "nothing")
    host.answers["emit"] = "receipt"
    assert await run(host, "sell") == "receipt"
    assert host.asked == [("emit", "sold", ["tea", 2])]
    await run(host, "threaded")
    assert host.logged[-1] == ("info", "from a thread", None, {})


async def test_commands_are_described_and_get_what_their_annotations_name(start: Start) -> None:
    host = await start('''
        from enum import Enum
        from pathlib import Path

        class Size(Enum):
            S = "small"

        def pack(target: Path, size: Size = Size.S, *, times: int = 1, tags: list[str] = []):
            """Pack it.

            Args:
                target: Where to.
            """
            return [type(target).__name__, size.name, times, tags]

        def load(context):
            context.add_command("pack", pack, "Packs")
    ''')
    _, _, _, description, options = host.more["add_command", "pack"]
    assert description == "Packs"
    assert [(one["name"], one["type"], one["required"], one["many"]) for one in options] == [
        ("target", "Path", True, False),
        ("size", ["small"], False, False),
        ("times", "int", False, False),
        ("tags", "str", False, True),
    ]
    assert options[0]["help"] == "Where to."
    assert await run(host, "pack", "a/b", "small", times=2) == ["PosixPath", "S", 2, []]


CONFIG = """
    from {module} import {base}
    {decorator}
    class Settings{parent}:
        limit: int
        folder: str = "data"
    config_schema = Settings
    def load(context, config):
        async def change(limit):
            return (await context.update_config({{"limit": limit}})).limit
        context.add_command("get", lambda: [type(context.config).__name__, context.config.limit])
        context.add_command("change", change)
"""
_FORMS = {
    "struct": {"module": "msgspec", "base": "Struct", "decorator": "", "parent": "(Struct)"},
    "dataclass": {
        "module": "dataclasses", "base": "dataclass", "decorator": "@dataclass", "parent": "",
    },
    "pydantic": {
        "module": "pydantic", "base": "BaseModel", "decorator": "", "parent": "(BaseModel)",
    },
}  # fmt: skip


@pytest.mark.parametrize("form", _FORMS)
async def test_the_config_is_of_the_type_that_the_schema_names(start: Start, form: str) -> None:
    host = await start(CONFIG.format(**_FORMS[form]), config={"limit": 3})
    assert host.answers["description"]["schema"] == "type"
    assert await run(host, "get") == ["Settings", 3]
    with pytest.raises(ConfigError) as refused:
        await host.call("check_config", {"limit": "many", "folder": 1})
    assert {fault.path for fault in refused.value.faults} == {"limit", "folder"}
    assert await host.call("check_config", {"limit": 4}) is None

    async def update(changes: dict[str, Any]) -> dict[str, Any]:
        host.connection.note("config", {"limit": changes["limit"]})
        return changes

    host.answers["update_config"] = update
    assert await run(host, "change", 8) == 8
    assert await run(host, "get") == ["Settings", 8]


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("context.add_kind(None)", "context.add_kind does not work in a process of its own"),
        ("context.intercept(print)", "context.intercept does not work in a process of its own"),
        ("context.probe(print)", "context.probe does not work in a process of its own"),
        ("context.attach('x', print)", "context.attach does not work in a process of its own"),
        ("context.register('own', 'x', 1)", "of the kind 'own' cannot be registered"),
        ("context.provide('x', object())", "offers nothing that another process can use"),
        ("context.use(dict)", "types do not cross"),
        ("context.shortcodes.new()", "what other plugins attach to contexts stays with the host"),
        ("context.spwan", "Did you mean 'spawn'"),
        ("context.app.router", "its object stays with the host"),
        (
            "context.declare(Event('x', fails_closed=True))",
            "the event 'x' cannot fail closed",
        ),
    ],
)
async def test_what_cannot_work_in_a_worker_says_so(start: Start, call: str, why: str) -> None:
    host = await start(
        f"""
        from veko import Event
        def load(context):
            {call}
        """,
        steps=0,
    )
    with pytest.raises((VekoError, AttributeError), match=why):
        await host.call("load", {"config": {}, "storage": None})


async def test_a_registration_after_load_is_awaited_until_the_host_has_it(start: Start) -> None:
    host = await start("""
        def load(context):
            handles = {}

            async def open(path):
                handles[path] = context.add_route("GET", path, lambda: "late")
                await handles[path]
                return "live"

            async def close(path):
                handles[path].cancel()

            context.add_command("open", open)
            context.add_command("close", close)
            context.add_command("hook", lambda: bool(context.hook("a:b", print)))
            context.add_command("unhook", lambda: context.remove_hook("a:b", print))
    """)
    assert await run(host, "open", "/late") == "live"
    assert (await host.request("/late"))[2] == b"late"
    await run(host, "close", "/late")
    number = host.more["add_route", ("GET", "/late")][0]
    await host.until(lambda: number in host.removed)
    host.refuse = VekoError("a guard refused it")
    with pytest.raises(VekoError, match="a guard refused it"):
        await run(host, "open", "/refused")
    host.refuse = None
    assert await run(host, "open", "/refused") == "live"  # it is not taken in the worker either
    await run(host, "hook")
    await run(host, "unhook")
    await host.until(lambda: host.more["hook", "a:b"][0] in host.removed)
