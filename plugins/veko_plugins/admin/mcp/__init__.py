"""The MCP server, through which agents operate an application.

What needs the package `mcp` is imported when the first client comes.
"""

from .endpoint import MCP_PATH, MCPEndpoint
from .start import serve_mcp

__all__ = ["MCP_PATH", "MCPEndpoint", "serve_mcp"]
