"""Configurations by path: ETags, masks, faults at their paths."""

from typing import Any

import httpx
import msgspec
import pytest
from tests.plugins.admin.conftest import Control, Home, http_client

from veko_plugins import PluginManager
from veko_plugins.admin import AdminError, Operations

pytestmark = pytest.mark.anyio


def held(manager: PluginManager, name: str = "shop") -> Any:
    record = manager.kernel.get(name)
    assert record is not None
    return record.config


async def test_a_form_that_sends_all_back_changes_nothing(
    http: httpx.AsyncClient, manager: PluginManager
) -> None:
    shown = await http.get("plugins/shop/config")
    assert shown.json() == {"size": 10, "title": "shop", "api_key": "********", "limits": {}}
    etag = shown.headers["etag"]
    sent = await http.put("plugins/shop/config", json=shown.json(), headers={"if-match": etag})
    assert sent.status_code == 200, sent.text
    assert sent.json()["plan"]["changes"] == []
    assert sent.headers["etag"] == etag
    assert held(manager).api_key == "hush-hush"
    record = manager.kernel.get("shop")
    assert record is not None
    assert record.current is not None
    assert record.current.given == {}  # no default became a part of the configuration


async def test_parts_are_read_replaced_merged_and_removed(
    http: httpx.AsyncClient, manager: PluginManager
) -> None:
    any_version = {"if-match": "*"}
    path = "plugins/shop/config/limits"
    assert (await http.put(path, json={"a": 1, "b": 2}, headers=any_version)).status_code == 200
    assert held(manager).limits == {"a": 1, "b": 2}
    assert (await http.patch(path, json={"c": 3})).status_code == 200
    assert held(manager).limits == {"a": 1, "b": 2, "c": 3}
    assert (await http.put(f"{path}/a", json=9, headers=any_version)).status_code == 200
    assert (await http.delete(f"{path}/b")).status_code == 200
    assert held(manager).limits == {"a": 9, "c": 3}
    assert (await http.get(f"{path}/a")).json() == 9
    assert (await http.get(f"{path}/b")).status_code == 404
    assert (await http.delete(f"{path}/b")).status_code == 404
    assert (await http.put(f"{path}/x~1y", json=1, headers=any_version)).status_code == 200
    assert held(manager).limits["x/y"] == 1
    assert (await http.get(f"{path}/x%2Fy")).json() == 1
    assert (await http.put(path, json={}, headers=any_version)).status_code == 200
    assert held(manager).limits == {}
    assert (await http.delete("plugins/shop/config/limits")).status_code == 200


async def test_of_two_operators_at_once_one_is_refused(
    http: httpx.AsyncClient, manager: PluginManager
) -> None:
    etag = (await http.get("plugins/shop/config")).headers["etag"]
    first = await http.put("plugins/shop/config/size", json=11, headers={"if-match": etag})
    assert first.status_code == 200
    second = await http.put("plugins/shop/config/size", json=12, headers={"if-match": etag})
    assert second.status_code == 412
    assert second.headers["etag"] == first.headers["etag"]
    assert held(manager).size == 11
    again = {"if-match": second.headers["etag"]}
    assert (await http.put("plugins/shop/config/size", json=12, headers=again)).status_code == 200
    without = await http.put("plugins/shop/config/size", json=13)
    assert without.status_code == 428
    stale = await http.patch("plugins/shop/config", json={"size": 1}, headers={"if-match": etag})
    assert stale.status_code == 412
    same = await http.get("plugins/shop/config", headers={"if-none-match": again["if-match"]})
    assert same.status_code == 200
    now = same.headers["etag"]
    unchanged = await http.get("plugins/shop/config", headers={"if-none-match": now})
    assert unchanged.status_code == 304


async def test_every_fault_is_told_at_its_path(
    http: httpx.AsyncClient, manager: PluginManager
) -> None:
    bad = {"size": 0, "title": 5, "limits": {"a": "many"}, "api_key": 7}
    for query in ("", "?plan=1"):
        answer = await http.patch(f"plugins/shop/config{query}", json=bad)
        assert answer.status_code == 422
        faults = {one["path"]: one["message"] for one in answer.json()["faults"]}
        assert faults.keys() == {"size", "title", "limits.a", "api_key"}
        assert "7" not in faults["api_key"]
    assert held(manager).size == 10
    for value in (None, 5, "text", [1]):
        sent = msgspec.json.encode(value)
        headers = {"if-match": "*", "content-type": "application/json"}
        answer = await http.put("plugins/shop/config", content=sent, headers=headers)
        assert answer.status_code == 422, value
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(200):
        inner["a"] = inner = {}
    assert (await http.patch("plugins/shop/config", json={"limits": deep})).status_code == 422
    into = await http.put("plugins/shop/config/size/x", json=1, headers={"if-match": "*"})
    assert into.status_code == 422


async def test_a_secret_is_set_kept_and_never_shown(
    http: httpx.AsyncClient, manager: PluginManager
) -> None:
    any_version = {"if-match": "*"}
    set_new = await http.patch("plugins/shop/config", json={"api_key": "brand-new"})
    assert set_new.status_code == 200
    assert "brand-new" not in set_new.text
    assert held(manager).api_key == "brand-new"
    shown = (await http.get("plugins/shop/config")).json()
    kept = await http.put("plugins/shop/config", json={**shown, "size": 21}, headers=any_version)
    assert kept.status_code == 200
    assert (held(manager).api_key, held(manager).size) == ("brand-new", 21)
    assert (await http.get("plugins/shop/config/api_key")).json() == "********"
    masked = await http.patch("plugins/shop/config", json={"title": "********"})
    assert masked.status_code == 422  # it is no secret, so there is nothing to keep
    assert "brand-new" not in (await http.get("plugins/shop")).text
    assert "brand-new" not in (await http.get("changes")).text
    removed = await http.delete("plugins/shop/config/api_key")
    assert removed.status_code == 200
    assert held(manager).api_key == "hush-hush"


async def test_secrets_in_lists_and_without_a_schema_are_hidden_and_kept(home: Home) -> None:
    home.plugin(
        "bare",
        """
        name = "bare"
        version = "1.0.0"
        default_config = {
            "servers": [{"host": "a", "password": "p1"}, {"host": "b", "password": "p2"}],
            "url": "redis://user:p3@host/0", "api_token": "p4", "ttl": 5,
        }
        def load(): pass
        """,
    )
    async with home.manager() as manager, http_client(manager) as http:
        answer = await http.get("plugins/bare")
        for secret in ("p1", "p2", "p3", "p4"):
            assert f'"{secret}"' not in answer.text
            assert f":{secret}@" not in answer.text
        config = (await http.get("plugins/bare/config")).json()
        config["servers"][1]["host"] = "c"
        config["ttl"] = 6
        sent = await http.put("plugins/bare/config", json=config, headers={"if-match": "*"})
        assert sent.status_code == 200, sent.text
        now = held(manager, "bare")
        assert now["servers"] == [
            {"host": "a", "password": "p1"}, {"host": "c", "password": "p2"},
        ]  # fmt: skip
        assert (now["url"], now["api_token"], now["ttl"]) == ("redis://user:p3@host/0", "p4", 6)
        config["servers"].append({"host": "d", "password": "********"})
        sent = await http.put("plugins/bare/config", json=config, headers={"if-match": "*"})
        assert sent.status_code == 422
        assert sent.json()["faults"][0]["path"] == "servers[2].password"


async def test_a_version_tells_nothing_about_a_secret(home: Home) -> None:
    async def etag() -> str:
        section = {"admin": {}, "shop": {"api_key": "guess-me"}}
        async with home.manager(plugins=section, enable_api=False) as manager:
            return (await manager.administration()).config("shop").etag

    assert await etag() != await etag()  # it is made with a key


async def test_a_plugin_that_reads_its_configuration_at_loading_is_reloaded(
    home: Home,
) -> None:
    home.plugin(
        "once",
        """
        name = "once"
        version = "1.0.0"
        default_config = {"path": "/one"}
        def load(context):
            context.add_route("GET", context.config["path"], lambda: 1, sync_to_thread=False)
        """,
    )
    async with home.manager() as manager, http_client(manager) as http:
        plan = await http.patch("plugins/once/config?reload=1&plan=1", json={"path": "/two"})
        assert [one["step"] for one in plan.json()["plugins"]] == ["configure", "reload"]
        change = await http.patch("plugins/once/config?reload=1", json={"path": "/two"})
        assert (await http.get("http://localhost/two")).status_code == 200
        assert (await http.get("http://localhost/one")).status_code == 404
        await http.post(f"changes/{change.json()['id']}/undo")
        assert (await http.get("plugins/once/config/path")).json() == "/one"


async def test_the_client_configures(
    manager: PluginManager, operations: Operations, control: Control
) -> None:
    async with control(manager) as client:
        view = await client.config("shop")
        assert view.value["size"] == 10
        change = await client.configure("shop", 5, ("size",), how="put", etag=view.etag)
        assert change.plan.changes == ("size",)
        with pytest.raises(AdminError) as caught:
            await client.configure("shop", 6, ("size",), how="put", etag=view.etag)
        assert caught.value.status == 412
        with pytest.raises(AdminError) as caught:
            await client.configure("shop", {"size": -4})
        assert (caught.value.status, caught.value.faults[0].path) == (422, "size")
        assert (await client.config("shop", ("size",))).value == 5
        await client.undo(change.id)
        assert operations.config("shop", ("size",)).value == 10


async def test_a_part_of_veko_is_configured_until_the_next_start(
    http: httpx.AsyncClient,
) -> None:
    answer = await http.patch("plugins/logging/config", json={"levels": {"shop": "debug"}})
    assert answer.status_code == 200, answer.text
    assert "until the next start" in answer.json()["plan"]["warnings"][0]
    bad = await http.patch("plugins/logging/config", json={"levels": {"shop": "loud"}})
    assert bad.status_code == 422


async def test_an_item_of_a_default_list_is_changed_beside_secrets(home: Home) -> None:
    home.plugin(
        "typed",
        """
        from typing import Annotated
        import msgspec

        class Server(msgspec.Struct):
            host: str
            key: Annotated[str, msgspec.Meta(extra={"secret": True})] = "s0"

        class Settings(msgspec.Struct):
            servers: list[Server] = msgspec.field(
                default_factory=lambda: [Server("a", "s1"), Server("b", "s2")]
            )

        name = "typed"
        version = "1.0.0"
        config_schema = Settings
        def load(): pass
        """,
    )
    async with home.manager() as manager, http_client(manager) as http:
        headers = {"if-match": "*"}
        sent = await http.put("plugins/typed/config/servers/1/host", json="c", headers=headers)
        assert sent.status_code == 200, sent.text
        servers = held(manager, "typed").servers
        assert [(one.host, one.key) for one in servers] == [("a", "s1"), ("c", "s2")]
