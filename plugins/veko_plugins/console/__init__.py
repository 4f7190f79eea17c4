"""The console: code that runs in the event loop of a running application, for `veko debug`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .plugin import Console

if TYPE_CHECKING:
    from .client import Connection, connect, find_consoles
    from .messages import Done

__all__ = ["Connection", "Console", "Done", "connect", "find_consoles"]

_FILE_OF = {
    "Connection": "client", "connect": "client", "find_consoles": "client", "Done": "messages"
}  # fmt: skip

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        file = _FILE_OF.get(name)
        if file is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(f".{file}", __name__), name)
        return found
