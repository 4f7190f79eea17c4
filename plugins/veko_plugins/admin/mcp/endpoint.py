"""MCP over HTTP: the endpoint `/_veko/mcp` of a running application.

Cost: nothing until the first client comes; then the package `mcp` is imported in a thread (half a
second), and one task watches for commands that come and go.
Promise: access is decided before, as for every request to the management API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from veko import Context

from ..access import Caller
from ..api import API
from ..errors import AdminError
from .here import CALLER

if TYPE_CHECKING:
    from .sessions import Sessions

__all__ = ["MCP_PATH", "MCPEndpoint"]

MCP_PATH: Final = "/_veko/mcp"


class MCPEndpoint:
    """The endpoint.

    Args:
        context: The context of the core plugin `admin`.
        api: What answers.
        pull: Returns the response of an ASGI application.
    """

    def __init__(self, context: Context, api: API, pull: Callable[..., Any]) -> None:
        self._context = context
        self._api = api
        self._pull = pull
        self._making = asyncio.Lock()
        self._sessions: Sessions | None = None

    async def answer(self, request: Any, caller: Caller) -> Any:
        """Answer a request of a client.

        Args:
            request: The request.
            caller: The caller, with the role.

        Raises:
            AdminError: The package `mcp` is not installed (501).
        """
        async with self._making:
            if self._sessions is None:
                self._sessions = await self._made()
        request.scope[CALLER] = caller
        return await self._pull(self._sessions.handle_request, request.scope, request.receive)

    def end(self) -> None:
        """End all sessions, because serving stops."""
        if self._sessions is not None:
            self._sessions.end()

    async def _made(self) -> Sessions:
        try:
            made = await anyio.to_thread.run_sync(_imported)
        except ModuleNotFoundError as error:
            raise AdminError(
                501,
                f"the MCP server needs the package {error.name}, which is not installed",
                remedy="pip install 'veko[mcp]'",
            ) from error
        return await self._context.enter(made(self._context.kernel, self._api))


def _imported() -> type[Sessions]:
    from .sessions import Sessions

    return Sessions
