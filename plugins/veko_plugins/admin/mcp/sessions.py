"""The sessions of MCP clients over HTTP, as a part of the application that runs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import anyio
from anyio.abc import TaskStatus
from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from veko import Kernel

from ..access import Caller
from ..api import API
from ..errors import AdminError
from .here import CALLER, Here
from .server import MCP, SESSIONS
from .toolbox import Toolbox
from .watch import watch_tools

__all__ = ["Sessions"]

_IDLE: Final = 1800.0  # seconds until a session without requests ends
_BODY: Final = 1024 * 1024
_WATCHER: Final = "_shutdown_watcher"


class Sessions:
    """The sessions; `async with` runs them, and ends them with the plugin.

    Args:
        kernel: The kernel.
        api: What answers.
    """

    def __init__(self, kernel: Kernel, api: API) -> None:
        self._kernel = kernel
        self._api = api
        self._mcp = MCP(self._toolbox)
        self._manager = StreamableHTTPSessionManager(
            self._mcp.server,
            session_idle_timeout=_IDLE,
            max_sessions=SESSIONS,
            max_request_body_size=_BODY,
        )
        self._ended = anyio.Event()
        self._running = AsyncExitStack()
        self._others: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._others = _watchers()
        group = await self._running.enter_async_context(anyio.create_task_group())
        await group.start(self._run)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.end()
        await self._running.aclose()
        for task in _watchers() - self._others:
            task.cancel()

    async def _run(self, *, task_status: TaskStatus[None]) -> None:
        verbs = Here(self._kernel, self._api, Caller("look", "mcp"))
        async with self._manager.run(), anyio.create_task_group() as group:
            group.start_soon(watch_tools, verbs, Toolbox(verbs, "look"), self._mcp.tools_changed)
            task_status.started()
            await self._ended.wait()
            self._mcp.close()
            group.cancel_scope.cancel()

    def end(self) -> None:
        """End all sessions and their streams, because serving stops."""
        self._ended.set()

    async def handle_request(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a client, as an ASGI application.

        Raises:
            AdminError: The sessions have ended (503).
        """
        if self._ended.is_set():
            raise AdminError(503, "the application stops", remedy="Ask again when it is back.")
        await self._manager.handle_request(scope, receive, send)

    def _toolbox(self, context: ServerRequestContext[Any]) -> Toolbox:
        request = context.request
        assert request is not None  # every message came by a request over HTTP
        caller: Caller = request.scope[CALLER]
        client = context.session.client_params
        name = client.client_info.name if client is not None else "a client"
        who = Caller(caller.role, "mcp", f"{name[:80]} at {caller.address}")
        return Toolbox(Here(self._kernel, self._api, who), caller.role)


def _watchers() -> set[asyncio.Task[Any]]:
    """Return the tasks that `sse_starlette` starts with its first stream and never ends.

    Each looks twice a second whether uvicorn's own signal handler has run, which Veko replaces.
    """
    return {
        task
        for task in asyncio.all_tasks()
        if getattr(task.get_coro(), "__qualname__", "") == _WATCHER
    }
