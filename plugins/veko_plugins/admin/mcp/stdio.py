"""MCP over standard input and output, for clients that start the server themselves: `veko mcp`."""

from __future__ import annotations

from pathlib import Path

import anyio
from mcp.server.stdio import stdio_server

from ..documents import Role
from .server import MCP
from .there import There
from .toolbox import Toolbox
from .watch import watch_tools

__all__ = ["serve_stdio"]


async def serve_stdio(directory: Path, role: Role) -> None:
    """Serve until standard input ends.

    Args:
        directory: The directory of the application, which may start and stop meanwhile.
        role: What the client may do.
    """
    verbs = There(directory)
    toolbox = Toolbox(verbs, role)
    mcp = MCP(lambda _: toolbox)
    async with stdio_server() as (incoming, outgoing), anyio.create_task_group() as group:
        if role == "operate":
            group.start_soon(watch_tools, verbs, toolbox, mcp.tools_changed)
        options = mcp.server.create_initialization_options()
        await mcp.server.run(incoming, outgoing, options)
        group.cancel_scope.cancel()
