"""`veko mcp`: lets an agent operate the application that is being served."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from .parameters import debug_option, debugging, directory_argument

__all__ = ["mcp"]


@click.command()
@directory_argument
@click.option("--look", is_flag=True, help="Only tools that read; none that change anything.")
@debug_option
def mcp(directory: Path | None, look: bool) -> None:
    """Offer the application that is served from DIR to an agent, as an MCP server on stdio.

    It is not for a terminal: an MCP client starts it. It talks to the application through its
    control socket, so it needs no token, and the application may stop and start meanwhile.
    """
    raise SystemExit(offer(directory or Path(), look=look, debug=debugging()))


def offer(directory: Path, *, look: bool, debug: bool) -> int:
    """Serve MCP on stdio; return the exit code.

    Args:
        directory: The application's directory.
        look: Whether only the tools that read are offered.
        debug: Whether errors are shown with their traceback.
    """
    import asyncio

    from veko import VekoError
    from veko_plugins.admin import serve_mcp

    from .runner import print_error

    try:
        asyncio.run(serve_mcp(directory, "look" if look else "operate"))
    except VekoError as error:
        print_error(error, debug=debug)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
