"""A route or middleware that is cancelled is gone for the very next request."""

from typing import Any

import httpx

from veko_plugins import PluginManager


async def test_what_is_cancelled_is_gone_at_once(tmp_path: Any) -> None:
    handles: list[Any] = []

    async def shut(request: Any, call_next: Any) -> Any:
        raise ValueError("shut")

    def load(context: Any) -> None:
        context.add_route("GET", "/stays", lambda: "here")
        handles.append(context.add_route("GET", "/goes", lambda: "here"))
        handles.append(context.add_middleware(shut))

    async with PluginManager(root=tmp_path, auto_load=False) as manager:
        await manager.load_plugin({"name": "p", "version": "1", "load": load})
        transport = httpx.ASGITransport(manager.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/stays")).status_code == 500
            for handle in handles:
                handle.cancel()
                handle.cancel()
            assert (await client.get("/stays")).text == "here"
            assert (await client.get("/goes")).status_code == 404
