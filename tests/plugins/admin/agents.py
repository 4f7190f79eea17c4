"""Applications that agents operate, and agents: MCP clients with nothing but the tools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from veko_plugins import PluginManager
from veko_plugins.http import find_adapter

__all__ = ["Agent", "Site", "agent_at", "served"]

SECONDS = 30.0


class Agent:
    """An MCP client that calls tools."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def names(self) -> set[str]:
        """Return the names of the tools."""
        return {tool.name for tool in (await self.client.list_tools(cache_mode="bypass")).tools}

    async def result(self, tool: str, /, **arguments: Any) -> types.CallToolResult:
        """Call a tool."""
        return await self.client.call_tool(tool, arguments)

    async def call(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must succeed."""
        result = await self.result(tool, **arguments)
        assert not result.is_error, (tool, arguments, result.structured_content)
        assert result.structured_content is not None
        return result.structured_content

    async def refused(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Call a tool that must fail, and return the problem."""
        result = await self.result(tool, **arguments)
        assert result.is_error, (tool, arguments, result.structured_content)
        assert result.structured_content is not None
        return result.structured_content

    async def change(self, tool: str, /, **arguments: Any) -> str:
        """Plan a change, apply it, and return its id."""
        plan = await self.call(tool, **arguments, plan=True)
        assert plan["undoable"], plan
        change = await self.call(tool, **arguments)
        return str(change["id"])

    async def until(
        self, tool: str, found: Callable[[dict[str, Any]], bool], /, **arguments: Any
    ) -> dict[str, Any]:
        """Call a reading tool until a function of its answer is true."""
        async with asyncio.timeout(SECONDS):
            while True:
                answer = await self.call(tool, **arguments)
                if found(answer):
                    return answer
                await asyncio.sleep(0.02)


class Site:
    """An application that is served, as its users and its developers reach it."""

    def __init__(self, root: Path, url: str, http: httpx.AsyncClient, manager: PluginManager):
        self.root = root
        self.url = url
        self.http = http
        self.manager = manager
        self.token = (root / ".veko" / "admin-token").read_text("ascii").strip()

    async def other(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        """Another operator calls a tool."""
        async with agent_at(self) as agent:
            return await agent.call(tool, **arguments)


@asynccontextmanager
async def served(
    root: Path, files: dict[str, str], settings: str = "", adapter: str = "asgi"
) -> AsyncIterator[Site]:
    """Serve an application with the management API."""
    (root / "plugins").mkdir(exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (root / "veko.toml").write_text(f"enable_api = true\n{settings}", "utf-8")
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    manager = PluginManager(root=root, adapter=adapter, watchdog=0.1)
    async with manager:
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
            url = await listening
            async with httpx.AsyncClient(base_url=url, timeout=SECONDS, verify=False) as http:
                yield Site(root, url, http, manager)
        finally:
            stop.set()
            await server


@asynccontextmanager
async def agent_at(
    site: Site, *, token: str | None = None, mode: str = "auto", **options: Any
) -> AsyncIterator[Agent]:
    """Connect an agent to an application over HTTP."""
    headers = {"authorization": f"Bearer {token or site.token}", "connection": "close"}
    async with httpx2.AsyncClient(headers=headers, timeout=SECONDS, verify=False) as http:
        transport = streamable_http_client(f"{site.url}/_veko/mcp", http_client=http)
        async with Client(transport, mode=mode, **options) as client:
            yield Agent(client)
