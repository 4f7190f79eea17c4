"""Notices when the tools change, because commands of plugins came or went."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import msgspec

from .toolbox import Toolbox
from .verbs import Failed, Verbs

__all__ = ["watch_tools"]

_PAUSE: Final = 0.2  # seconds: many changes at once are one
_AGAIN: Final = 0.5  # seconds until an application that is gone is asked again
_log = logging.getLogger("veko.mcp")


async def watch_tools(
    verbs: Verbs, toolbox: Toolbox, changed: Callable[[], Awaitable[None]]
) -> None:
    """Call a function whenever the tools of commands have changed; runs until it is cancelled.

    Args:
        verbs: The application, which may stop and start meanwhile.
        toolbox: Its tools.
        changed: Called after each change.
    """
    known: bytes | None = None
    while True:
        try:
            async for _ in verbs.moves():
                found = msgspec.json.encode(dict(await toolbox.commands()))
                if known is not None and found != known:
                    await changed()
                known = found
                await anyio.sleep(_PAUSE)
        except (Failed, OSError) as error:
            _log.debug("the application does not say what changes: %s", error)
        await anyio.sleep(_AGAIN)
