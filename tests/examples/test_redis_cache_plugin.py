"""The example `redis_cache`: end to end over HTTP, on a private Redis."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from veko_plugins import PluginManager, Response

from ..storages.conftest import PASSWORD, Server, running

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugins" / "redis_cache"
SHOP = """
from veko_plugins import Context, Response

name = "shop"
version = "1.0.0"
dependencies = ["redis-cache"]
calls = 0


def load(context: Context) -> None:
    def prices() -> dict[str, int]:
        global calls
        calls += 1
        return {"call": calls}

    cached = context.use("redis-cache").middleware(60)
    context.add_route("GET", "/prices", cached, prices)
    context.add_route("POST", "/prices", cached, prices)
    context.add_route("GET", "/text", cached, lambda: "text")
    context.add_route("GET", "/api/all", prices)
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[Server]:
    with running("redis") as made:
        yield made


def application(root: Path, server: Server, **settings: object) -> Path:
    plugins = root / "plugins"
    shutil.copytree(EXAMPLE, plugins / "redis_cache", ignore=shutil.ignore_patterns("__pycache__"))
    plugins.joinpath("shop.py").write_text(SHOP)
    settings = {"port": server.port, "host": "127.0.0.1", "username": "veko", **settings}
    lines = [f"{name} = {value!r}" for name, value in settings.items()]
    text = "\n".join(["[plugins.redis-cache]", f'password = "{PASSWORD}"', *lines, ""])
    (root / "veko.toml").write_text(text)
    return root


@asynccontextmanager
async def serving(
    root: Path, **options: Any
) -> AsyncIterator[tuple[PluginManager, httpx.AsyncClient]]:
    manager = PluginManager(root=root, storage="memory:", max_retries=0, **options)
    async with (
        manager,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(manager.asgi), base_url="http://shop"
        ) as client,
    ):
        yield manager, client


def keys(server: Server) -> set[str]:
    with redis.Redis.from_url(server.url) as client:
        return {key.decode() for key in client.scan_iter()}


def connections(server: Server) -> int:
    with redis.Redis.from_url(server.url) as client:
        return len(client.client_list()) - 1


def test_P2_json_responses_over_http(
    tmp_path: Path, server: Server, start: Callable[..., Any]
) -> None:
    with redis.Redis.from_url(server.url) as other:
        other.set("another's", 1)
    served = start("serve", application(tmp_path, server), "--port", "0")
    url = served.wait_for(r"Listening on (\S+)")[1]
    assert "connected to Redis" in served.text
    with httpx.Client(base_url=url, timeout=30) as client:
        first, second = client.get("/prices"), client.get("/prices")
        assert first.json() == second.json() == {"call": 1}
        assert [one.headers["x-cache"] for one in (first, second)] == ["miss", "hit"]
        assert first.headers["content-type"] == second.headers["content-type"]
        assert client.get("/prices?page=2").json() == {"call": 2}
        assert client.post("/prices").json() == {"call": 3}
        assert client.get("/prices", headers={"authorization": "me"}).json() == {"call": 4}
        assert [client.get("/text").text for _ in range(2)] == ["text", "text"]
        stats = client.get("/cache/stats").json()
        assert stats["redis"]["used_memory"] > 0
        assert (stats["hits"], stats["misses"]) == (1, 4)
        assert len(keys(server)) == 3
        assert client.delete("/cache/clear").json()["deleted"] == 2
        assert client.get("/prices").json() == {"call": 5}
    assert PASSWORD not in served.text
    assert connections(server) > 0
    served.process.terminate()
    assert served.ends() == 0
    assert connections(server) == 0
    assert "another's" in keys(server)


@pytest.mark.parametrize("adapter", ["asgi", "starlette", "litestar"])
async def test_P2_all_below_a_path_and_closed_at_unload(
    tmp_path: Path, server: Server, adapter: str
) -> None:
    root = application(tmp_path, server, paths=["/api/"])
    async with serving(root, adapter=adapter) as (manager, client):
        assert [p.type for p in manager.list_plugins() if p.name == "redis-cache"] == ["cache"]
        for _ in range(2):
            assert (await client.get("/api/all")).json() == {"call": 1}
        assert connections(server) > 0
        await manager.unload_plugin("shop")
        await manager.unload_plugin("redis-cache")
        assert connections(server) == 0
        assert (await client.get("/cache/stats")).status_code == 404


async def test_P2_its_hooks_answer_the_service_cache(tmp_path: Path, server: Server) -> None:
    async with serving(application(tmp_path, server), cache="memory:") as (manager, _):
        cache = manager.use("cache")
        await cache.set("a", {"b": [1]}, ttl=60)
        assert await manager.bus.first("cache:get", ":a") == {"b": [1]}
        assert keys(server) == {"redis-cache::a"}
        with redis.Redis.from_url(server.url) as other:
            other.set("redis-cache::b", '{"from": "redis"}')
            assert 50 < other.ttl("redis-cache::a") <= 60
        assert await cache.get("b") == {"from": "redis"}
        await cache.delete("a")
        assert keys(server) == {"redis-cache::b"}
        await cache.clear()
        assert await cache.get("b") is None
        assert keys(server) == set()
        await manager.bus.emit("cache:set", "c", 1, 60.0)
        assert await manager.bus.first("cache:get", "c") == 1


async def test_P2_a_redis_that_is_gone_fails_no_request(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with serving(application(tmp_path, server)) as (_, client):
        assert (await client.get("/prices")).json() == {"call": 1}
        server.kill()
        answers = [await client.get("/prices") for _ in range(10)]
        assert [answer.json() for answer in answers] == [{"call": n} for n in range(2, 12)]
        assert (await client.get("/cache/stats")).json()["redis"] is None
        assert (await client.delete("/cache/clear")).json()["deleted"] == 0
        warnings = [r for r in caplog.records if "is not reached" in r.getMessage()]
        assert len(warnings) == 1
        server.start()
        async with asyncio.timeout(30):
            while (await client.get("/prices")).headers["x-cache"] != "hit":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert any("is back" in r.getMessage() for r in caplog.records)


async def test_P2_what_is_not_for_everybody_is_not_stored(tmp_path: Path, server: Server) -> None:
    async with serving(application(tmp_path, server)) as (manager, client):
        answers = {
            "cookie": Response({}, headers={"set-cookie": "a=b"}),
            "private": Response({}, headers={"cache-control": "private"}),
            "error": Response({}, 404),
            "vary": Response({}, headers={"vary": "accept-language"}),
            "broken": Response("{", media_type="application/json"),
        }

        def load(context: Any) -> None:
            cached = context.use("redis-cache").middleware()
            for path, answer in answers.items():
                context.add_route("GET", f"/{path}", cached, lambda answer=answer: answer)

        await manager.load_plugin(manager.create_simple_plugin("pages", load))
        for path in answers:
            for _ in range(2):
                assert (await client.get(f"/{path}")).headers["x-cache"] == "miss", path
            client.cookies.clear()
        assert keys(server) == set()
