"""What a plugin that leaves waits for: what can still call it, and nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from veko_adapters.conformance._wire import request, wire
from veko_plugins import PluginManager, Request
from veko_plugins.http import find_adapter

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asgi", "litestar", "starlette"])
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def served(
    adapter: str, root: Path, **options: Any
) -> AsyncIterator[tuple[PluginManager, str]]:
    """Serve a manager on a socket."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    async with PluginManager(
        root=root, adapter=adapter, storage="sqlite:///:memory:", auto_load=False, **options
    ) as manager:
        server = asyncio.create_task(
            find_adapter(adapter).serve(
                manager.asgi,
                "127.0.0.1",
                0,
                started=lambda host, port: listening.set_result(f"http://{host}:{port}"),
                stop=stop,
                drain_timeout=1.0,
            )
        )
        try:
            yield manager, await listening
        finally:
            stop.set()
            await server


def plugin(name: str, load: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "load": load, **more}


@pytest.mark.parametrize("change", ["toggle", "unload", "reload"])
async def test_a_slow_upload_to_one_plugin_holds_up_the_change_of_no_other(
    adapter: str, tmp_path: Path, change: str
) -> None:
    begun = asyncio.Event()

    async def upload(request: Request) -> int:
        begun.set()
        return len(await request.body())

    def other(version: str) -> dict[str, Any]:
        def load(context: Any) -> None:
            context.add_route("GET", "/other", lambda: version)

        return {"name": "other", "version": version, "load": load}

    async with served(adapter, tmp_path, drain_timeout=20.0) as (manager, url):
        await manager.load_plugin(
            plugin("uploads", lambda context: context.add_route("POST", "/upload", upload))
        )
        await manager.load_plugin(other("1.0.0"))
        async with wire(url) as connection:
            head = request("POST", "/upload", "content-length: 4")
            await connection.send(head + b"ab")
            await asyncio.wait_for(begun.wait(), 5)
            async with asyncio.timeout(4):
                if change == "toggle":
                    await manager.toggle_plugin("other")
                elif change == "unload":
                    await manager.unload_plugin("other")
                else:
                    await manager.kernel.reload(other("1.1.0"), drained=True)
            answer = await connection.ask(b"cd")
            assert answer is not None
            assert (answer.status, answer.body) == (200, b"4")


async def test_a_request_inside_a_request_sees_what_is_live(tmp_path: Path) -> None:
    """The plugin that it asks has left meanwhile, and did not wait for the request around it."""
    began, go = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    def inner(context: Any) -> None:
        context.add_route("GET", "/inner", lambda: "inner")

    def outer(context: Any) -> None:
        async def handler() -> int:
            began.set()
            await go.wait()
            transport = httpx.ASGITransport(manager.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return (await client.get("/inner")).status_code

        context.add_route("GET", "/outer", handler)

    async with (
        served("asgi", tmp_path, drain_timeout=20.0) as (manager, url),
        httpx.AsyncClient(base_url=url) as client,
    ):
        await manager.load_plugin(plugin("inner", inner, unload=lambda: ended.append("inner")))
        await manager.load_plugin(plugin("outer", outer))
        asking = asyncio.create_task(client.get("/outer"))
        await began.wait()
        async with asyncio.timeout(4):
            await manager.unload_plugin("inner")
            assert ended == ["inner"]
            go.set()
            assert (await asking).text == "404"


async def test_a_plugin_still_waits_for_its_own_requests(adapter: str, tmp_path: Path) -> None:
    began, go = asyncio.Event(), asyncio.Event()
    heard: list[str] = []

    def load(context: Any) -> None:
        async def handler() -> str:
            began.set()
            await go.wait()
            heard.append("answered")
            return "done"

        context.add_route("GET", "/own", handler)

    async with (
        served(adapter, tmp_path, drain_timeout=20.0) as (manager, url),
        httpx.AsyncClient(base_url=url) as client,
    ):
        await manager.load_plugin(plugin("p", load, unload=lambda: heard.append("unloaded")))
        asking = asyncio.create_task(client.get("/own"))
        await began.wait()
        unloading = asyncio.create_task(manager.unload_plugin("p"))
        await asyncio.sleep(0.05)
        assert heard == []
        go.set()
        assert (await asking).text == "done"
        await unloading
        assert heard == ["answered", "unloaded"]
