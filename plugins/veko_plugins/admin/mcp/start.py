"""Starts the MCP server on standard input and output, if its package is installed."""

from __future__ import annotations

from pathlib import Path

from veko import OptionError

from ..documents import Role

__all__ = ["serve_mcp"]


async def serve_mcp(directory: Path, role: Role = "operate") -> None:
    """Offer a running application to an MCP client on standard input and output.

    Args:
        directory: The directory of the application, which may start and stop meanwhile.
        role: What the client may do.

    Raises:
        OptionError: The package `mcp` is not installed.
    """
    try:
        from .stdio import serve_stdio
    except ModuleNotFoundError as error:
        raise OptionError(
            f"the MCP server needs the package {error.name}, which is not installed",
            remedy="pip install 'veko[mcp]'",
        ) from error
    await serve_stdio(directory, role)
