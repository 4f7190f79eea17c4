"""`create_dev_plugin` and `create_simple_plugin`."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from veko import ManifestError, RouteError, VekoError
from veko_plugins import PluginManager, create_dev_plugin, create_simple_plugin


async def test_D1_create_dev_plugin(tmp_path: Path) -> None:
    seen: list[object] = []

    async def stamp(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-stamp"] = response.headers.get("x-stamp", "") + "+"
        return response

    def received(data: dict[str, int]) -> dict[str, int]:
        return data

    async with PluginManager(root=tmp_path, adapter="asgi", max_retries=0) as manager:
        plugin = manager.create_dev_plugin(
            "test-plugin",
            routes={
                "/test": lambda: {"test": True},
                "/hello/{name}": [stamp, lambda name: {"message": f"hello {name}"}],
                "POST /test": received,
                ("PUT", "/test"): received,
            },
            middleware=[stamp],
            hooks={
                "request:start": lambda request: seen.append(request.path),
                "price": [lambda value: value + 1, lambda value: value * 2],
            },
            commands={
                "test:command": {"handler": lambda: "ran", "description": "A test"},
                "test:other": lambda: "ran too",
            },
            load=lambda context: seen.append(context.name),
        )
        record = await manager.load_plugin(plugin)
        assert (record.name, record.version) == ("test-plugin", "1.0.0")
        assert seen == ["test-plugin"]
        transport = httpx.ASGITransport(app=manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get("/test")
            assert (answer.json(), answer.headers["x-stamp"]) == ({"test": True}, "+")
            answer = await client.get("/hello/ann")
            assert (answer.json()["message"], answer.headers["x-stamp"]) == ("hello ann", "++")
            assert (await client.post("/test", json={"a": 1})).json() == {"a": 1}
            assert (await client.put("/test", json={"a": 2})).json() == {"a": 2}
        assert seen[1:3] == ["/test", "/hello/ann"]
        assert await manager.bus.emit("price", 1) == 4
        assert await manager.run_command("test:command") == "ran"
        assert await manager.run_command("test:other") == "ran too"
        await manager.unload_plugin("test-plugin")
        assert manager.get_stats().routes == 0


async def test_a_dev_plugin_of_nothing_loads(tmp_path: Path) -> None:
    async with PluginManager(root=tmp_path, adapter="asgi") as manager:
        assert (await manager.load_plugin(create_dev_plugin("empty"))).active


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"routes": {"GTE /x": print}}, RouteError, "Did you mean 'GET'"),
        ({"routes": {5: print}}, VekoError, "5 is no route"),
        ({"routes": [print]}, VekoError, "routes must be a mapping"),
        ({"routes": {"x": print}}, RouteError, "does not start with"),
        ({"routes": {"/x": "print"}}, VekoError, "must be a function"),
        ({"routes": {"/x": print, "GET /x": print}}, ManifestError, "is added 2 times"),
        ({"middleware": "mw"}, VekoError, "a middleware must be a function"),
        ({"hooks": {"x": [5]}}, VekoError, "the handler of x"),
        ({"commands": {"x": {"handle": print}}}, VekoError, "the command x has 'handle'"),
        ({"commands": {"x": None}}, VekoError, "the command x must be a function"),
        ({"load": 5}, VekoError, "must be a function"),
    ],
    ids=str,
)
def test_what_a_dev_plugin_refuses(
    given: dict[str, Any], error: type[VekoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        create_dev_plugin("x", **given)


def test_D10_a_simple_plugin_with_its_manifest() -> None:
    plugin = create_simple_plugin("simple", lambda: None, version="2.0.0", priority=3)
    assert (plugin.manifest.version, plugin.manifest.priority) == ("2.0.0", 3)
    with pytest.raises(ManifestError, match="Did you mean 'version'"):
        create_simple_plugin("simple", lambda: None, verzion="2.0.0")
