"""The tools in MCP's messages. Only this file and its users import the package `mcp`.

It serves both eras of the protocol: 2026-07-28, where a client listens for changes by a request of
its own, and the handshake before it, where changes are sent on the session's own stream.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import anyio
import mcp_types as types
import msgspec
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ToolsListChanged
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from veko import __version__

from .toolbox import Described, Toolbox, UnknownTool
from .verbs import Failed

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext
    from mcp.server.models import InitializationOptions
    from mcp.server.session import ServerSession

__all__ = ["MCP"]

INSTRUCTIONS: Final = """\
These tools operate a running Veko application, which is made of plugins.

To find what is wrong: status, then list_plugins with problems=true, then list_errors, show_plugin,
read_logs and list_traces. list_changes says what was changed lately: often that is the cause.

To repair: call a tool with plan=true first and read what would happen. Every change returns an id,
and undo takes it back. toggle_plugin stops a plugin that does harm at once. After a change, look
again whether it helped; if not, undo it.

search_docs and read_docs have Veko's documentation. Commands of plugins are tools, too, named
command_…; they run the plugin's code, and undo does not take back what they do.
"""
SESSIONS: Final = 64
"""Sessions at once, and clients that listen."""
LONGEST: Final = 256 * 1024
"""Characters of an answer; a longer one would fill the context of any model."""
_PATIENCE: Final = 1.0  # seconds


class MCP:
    """An MCP server for the tools of one application.

    Args:
        toolbox: Returns the tools of the client that sent a request.

    Attributes:
        server: The server, for any transport.
    """

    def __init__(self, toolbox: Callable[[ServerRequestContext[Any]], Toolbox]) -> None:
        self._toolbox = toolbox
        self._changes = InMemorySubscriptionBus()
        self._listening = ListenHandler(self._changes, max_subscriptions=SESSIONS)
        self._sessions: OrderedDict[str, ServerSession] = OrderedDict()
        self.server: Server[Any] = _Server(
            "veko",
            version=__version__,
            title="Veko",
            instructions=INSTRUCTIONS,
            on_list_tools=self._list,
            on_call_tool=self._call,
            on_subscriptions_listen=self._listening,
        )

    async def tools_changed(self) -> None:
        """Notify every client that the list of tools has changed."""
        await self._changes.publish(ToolsListChanged())
        for session in list(self._sessions.values()):
            with anyio.move_on_after(_PATIENCE):  # a client that does not read
                await session.send_tool_list_changed()

    def close(self) -> None:
        """End the streams of clients that listen."""
        self._listening.close()
        self._sessions.clear()

    async def _list(
        self, context: ServerRequestContext[Any], _: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        self._remember(context)
        found = await self._toolbox(context).tools()
        return types.ListToolsResult(tools=[_tool(one) for one in found])

    async def _call(
        self, context: ServerRequestContext[Any], asked: types.CallToolRequestParams
    ) -> types.CallToolResult:
        self._remember(context)
        try:
            answer = await self._toolbox(context).call(asked.name, asked.arguments or {})
        except UnknownTool as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        except Failed as failed:
            return _result(failed.problem, failed=True)
        return _result(answer)

    def _remember(self, context: ServerRequestContext[Any]) -> None:
        """Keep the session of a client that cannot listen by a request, to notify it."""
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return
        request = context.request
        key = "" if request is None else request.headers.get("mcp-session-id", "")
        self._sessions[key] = context.session
        self._sessions.move_to_end(key)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)


class _Server(Server[Any]):
    """A server whose handshake says that the list of tools may change."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        return super().create_initialization_options(
            notification_options or NotificationOptions(tools_changed=True),
            experimental_capabilities,
            extensions,
        )


def _tool(one: Described) -> types.Tool:
    hints = one.hints
    return types.Tool(
        name=one.name,
        title=one.title,
        description=one.description,
        input_schema=one.schema,
        annotations=types.ToolAnnotations(
            title=one.title,
            read_only_hint=hints.reads,
            destructive_hint=hints.destroys,
            idempotent_hint=hints.repeats,
            open_world_hint=hints.opens,
        ),
    )


def _result(document: dict[str, Any], *, failed: bool = False) -> types.CallToolResult:
    """Return an answer as structured content, and as text for clients without it."""
    text = msgspec.json.encode(document).decode()
    if len(text) > LONGEST:
        document = {"cut": f"the answer has {len(text)} characters", "begins": text[:LONGEST]}
        text = msgspec.json.encode(document).decode()
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)],
        structured_content=document,
        is_error=failed,
    )
