"""Users, passwords, tokens and guards: the core plugin `auth` and its service of the same name.

What an application without it imports are the events; the rest is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .events import User, auth_events

if TYPE_CHECKING:
    from .plugin import Authentication
    from .service import Auth
    from .settings import Settings
    from .tokens import Credentials, Tokens

__all__ = ["Auth", "Authentication", "Credentials", "Settings", "Tokens", "User", "auth_events"]

_FILES = {
    "Auth": "service",
    "Authentication": "plugin",
    "Credentials": "tokens",
    "Settings": "settings",
    "Tokens": "tokens",
}

if not TYPE_CHECKING:  # else every misspelled name would pass type checkers

    def __getattr__(name: str) -> Any:
        file = _FILES.get(name)
        if file is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        found = globals()[name] = getattr(import_module(f".{file}", __name__), name)
        return found
