"""Requests that outlast the generation they began in: 503 or a closed connection, none hangs."""

import asyncio
from typing import Any

import httpx
import pytest

from veko_plugins import PluginManager, Request

pytestmark = pytest.mark.anyio


class Slow:
    """A plugin whose routes wait, before or in the middle of an answer."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    def form(self, name: str, version: str) -> dict[str, Any]:
        async def wait() -> str:
            self.begun.set()
            await self.go.wait()
            return version

        def load(context: Any) -> None:
            context.add_route("GET", f"/{name}/slow", wait)
            context.add_route("GET", f"/{name}", lambda: version)
            context.hook("response:start", mark)

        def mark(response: Any, request: Request) -> None:
            response.headers[f"x-{name}"] = version

        return {"name": name, "version": version, "load": load}


@pytest.mark.parametrize("adapter", ["litestar"])
async def test_a_request_that_is_cut_is_answered_503(adapter: str, tmp_path: Any) -> None:
    slow = Slow()
    told: list[str] = []
    async with (
        PluginManager(
            root=tmp_path, storage="sqlite:///:memory:", auto_load=False, drain_timeout=0.05,
            adapter=adapter,
        ) as manager,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(manager.asgi), base_url="http://veko"
        ) as client,
    ):  # fmt: skip
        manager.on("plugin:error", lambda name, error: told.append(str(error)))
        await manager.load_plugin(slow.form("p", "1"))
        await manager.load_plugin(slow.form("q", "1"))
        cut = asyncio.create_task(client.get("/p/slow"))
        await slow.begun.wait()
        slow.begun.clear()
        other = asyncio.create_task(client.get("/q/slow"))
        await slow.begun.wait()
        await manager.kernel.reload(slow.form("p", "2"))
        answer = await cut
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        assert any("1 calls into generation 1 still ran" in one for one in told)
        assert (await client.get("/p")).text == "2"
        assert not other.done(), "the requests of others go on"
        slow.go.set()
        answer = await other
        assert (answer.status_code, answer.text) == (200, "1")
        assert answer.headers["x-p"] == "2", "what is gone is called by nobody"
