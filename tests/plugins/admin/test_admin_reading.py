"""What one can look at, in Python, over HTTP and over the control socket."""

import asyncio
import os
from typing import Any

import httpx
import msgspec
import pytest
from tests.plugins.admin.conftest import Control, Home, http_client

from veko_plugins import PluginManager
from veko_plugins.admin import AdminError, Operations
from veko_plugins.ledger import Usage

pytestmark = pytest.mark.anyio


async def test_O13_the_api_is_served_with_the_option_and_not_without(home: Home) -> None:
    async with home.manager() as manager, http_client(manager) as http:
        answer = await http.get("plugins")
        assert answer.status_code == 200
        assert [row["name"] for row in answer.json()] == ["shop", "cart"]
    async with home.manager(enable_api=False) as manager, http_client(manager) as http:
        assert (await http.get("plugins")).status_code == 404
        assert manager.kernel.get("veko-admin") is None  # until it is asked for


async def test_the_status_counts_plugins_and_says_who_asks(http: httpx.AsyncClient) -> None:
    status = (await http.get("status")).json()
    assert status["role"] == "operate"
    assert status["pid"] == os.getpid()
    assert status["state"] == "running"
    assert status["stats"]["active"] == 2
    assert status["stats"]["routes"] == 3


async def test_plugins_that_failed_are_skipped_or_are_off_are_listed_with_the_reason(
    home: Home,
) -> None:
    home.plugin("broken", 'name = "broken"\nversion = "1.0.0"\ndef load(): raise ValueError("no")')
    home.plugin(
        "needy", 'name = "needy"\nversion = "1"\ndependencies = ["broken"]\ndef load(): pass'
    )
    home.plugin("typo", "name = = 1")
    async with home.manager(plugins={"cart": {"enabled": False}}) as manager:
        rows = {row.name: row for row in (await manager.administration()).plugins()}
    assert {name: row.state for name, row in rows.items()} == {
        "shop": "active",
        "broken": "failed",
        "typo": "failed",
        "needy": "skipped",
        "cart": "off",
    }
    assert "no" in (rows["broken"].error or "")
    assert "broken" in (rows["needy"].error or "")
    assert not rows["cart"].enabled


async def test_a_plugin_is_shown_with_all_that_it_registered(operations: Operations) -> None:
    shop = operations.plugin("shop")
    assert [(row.method, row.path, row.state) for row in shop.routes] == [
        ("GET", "/shop", "on"),
        ("GET", "/shop/{item:int}", "on"),
    ]
    assert [row.event for row in shop.hooks] == ["order:paid", "order:lost"]
    assert shop.services == ("stock",)
    assert [row.name for row in shop.commands] == ["restock"]
    assert shop.commands[0].parameters["required"] == ["amount"]
    assert shop.needed_by == ("cart",)
    assert operations.plugin("cart").needs == ("shop",)
    assert shop.permissions.asked == ("net:connect:pay.example",)
    assert shop.permissions.granted == ("*",)  # it runs in the application's process


async def test_no_secret_is_in_the_details_of_a_plugin(http: httpx.AsyncClient) -> None:
    answer = await http.get("plugins/shop")
    assert answer.json()["config"]["api_key"] == "********"
    assert answer.json()["secrets"] == ["api_key"]
    assert "hush-hush" not in answer.text  # nor as the default in the schema
    schema = answer.json()["config_schema"]
    found = next(iter(schema.get("$defs", {}).values()), schema)
    assert found["properties"]["api_key"]["writeOnly"] is True


async def test_the_last_errors_of_a_plugin_are_kept_with_their_tracebacks(home: Home) -> None:
    async with home.manager(error_threshold=1000) as manager:
        for number in range(30):
            await manager.bus.emit("order:lost", number)
        errors = (await manager.administration()).plugin("shop").errors
    assert len(errors) == 20
    assert errors[0].message == "order 29 is lost"
    assert errors[0].type == "ValueError"
    assert errors[0].event == "order:lost"
    assert (errors[0].file or "").endswith("shop.py")
    assert "raise ValueError" in errors[0].traceback


async def test_the_graph_has_declared_edges_and_used_services(operations: Operations) -> None:
    graph = operations.graph()
    assert {node.name for node in graph.nodes} == {"shop", "cart"}
    (edge,) = graph.edges
    assert (edge.plugin, edge.needs, edge.declared, edge.services) == (
        "cart", "shop", True, ("stock",),
    )  # fmt: skip
    assert "storage" in {node.name for node in operations.graph(core=True).nodes}


async def test_the_start_is_shown_in_waves(operations: Operations) -> None:
    steps = {step.plugin: step for step in operations.startup()}
    assert (steps["shop"].wave, steps["cart"].wave) == (0, 1)
    assert steps["cart"].waited_for == "shop"
    assert steps["shop"].end <= steps["cart"].end


async def test_every_list_is_answered(http: httpx.AsyncClient) -> None:
    for path in ("graph", "routes", "events", "health", "commands", "startup", "backups", "logs"):
        answer = await http.get(path, params={})
        assert (path, answer.status_code) == (path, 200), answer.text


async def test_the_ledger_is_shown(http: httpx.AsyncClient, operations: Operations) -> None:
    answer = await http.get("ledger")
    assert answer.status_code == 200, answer.text
    usage = msgspec.json.decode(answer.content, type=Usage)
    parts = usage.host + usage.unloaded + sum(one.cpu for one in usage.plugins)
    assert parts == pytest.approx(usage.cpu)
    assert {one.plugin for one in usage.plugins} == {"shop", "cart"}
    assert all(row.cpu is not None for row in operations.plugins())
    assert all(row.cpu is not None for row in operations.routes())


async def test_traces_are_refused_with_a_remedy_while_none_are_kept(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.get("traces")
    assert answer.status_code == 409
    assert "keep = 100" in answer.json()["remedy"]


async def test_kept_traces_are_shown_with_their_spans(home: Home) -> None:
    manager = home.manager(plugins={"tracing": {"keep": 10}})
    async with manager, http_client(manager) as http:
        assert (await http.get("http://localhost/shop")).status_code == 200
        (row,) = [r for r in (await http.get("traces")).json() if r["name"] == "GET /shop"]
        assert row["status"] == 200
        assert not row["failed"]
        trace = (await http.get(f"traces/{row['id']}")).json()
        assert len(trace["spans"]) == row["spans"]
        assert (await http.get("traces/feed")).status_code == 404


async def test_log_records_are_kept_and_filtered(
    manager: PluginManager, operations: Operations
) -> None:
    record = manager.kernel.get("shop")
    assert record is not None
    assert record.current is not None
    context = record.current.context
    before = operations.log(limit=1000)
    context.log("warning", "low on redis://user:secret@host apples")
    context.log("error", "out of apples")
    after = before[-1].id if before else 0
    rows = operations.log(after=after)
    assert [(row.level, row.plugin) for row in rows] == [("warning", "shop"), ("error", "shop")]
    assert "secret" not in rows[0].message
    assert [row.level for row in operations.log(after=after, level="error")] == ["error"]
    assert operations.log(after=after, plugin="cart") == ()


async def test_names_with_odd_characters_are_not_found_and_break_nothing(
    http: httpx.AsyncClient, manager: PluginManager, control: Control
) -> None:
    odd = ("a%2Fb", "..%2F..", "%00", "%F0%9F%8D%8E", "sh%6Fp%20", "%FF", "%ED%A0%80", "a" * 500)
    for name in odd:
        answer = await http.get(f"plugins/{name}")
        assert answer.status_code == 404, name
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await http.get("plugins/%73hop")).json()["plugin"]["name"] == "shop"
    async with control(manager) as client:
        for text in ("a/b", "../..", "\0", "🍎", "a b", "%", "?x", "#"):
            with pytest.raises(AdminError) as caught:
                await client.plugin(text)
            assert caught.value.status == 404


async def test_the_client_over_the_socket_returns_the_same_documents(
    manager: PluginManager, operations: Operations, control: Control
) -> None:
    async with control(manager) as client:
        assert (await client.status()).pid == os.getpid()
        shop, same = await client.plugin("shop"), operations.plugin("shop")
        assert (shop.routes, shop.commands, shop.config) == (
            same.routes,
            same.commands,
            same.config,
        )
        assert await client.graph() == operations.graph()
        assert await client.events() == operations.events()
        assert await client.routes() == operations.routes()
        assert await client.startup() == operations.startup()
        assert await client.commands() == operations.commands()
        assert [row.name for row in await client.health()] == ["shop", "cart"]
        assert await client.backups() == ()
        many: list[Any] = await asyncio.gather(*(client.plugins() for _ in range(40)))
        assert all([row.name for row in rows] == ["shop", "cart"] for rows in many)


async def test_a_thousand_plugins_are_listed(home: Home) -> None:
    made = [{"name": f"p{n}", "version": "1.0.0", "load": lambda: None} for n in range(1000)]
    async with home.manager() as manager, http_client(manager) as http:
        for plugin in made:
            await manager.kernel.load(plugin)
        rows = (await http.get("plugins")).json()
        assert len(rows) == 1002
        assert len((await http.get("graph")).json()["nodes"]) == 1002
        assert len((await http.get("startup")).json()) == 1002
