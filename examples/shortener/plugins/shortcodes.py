"""Gives every plugin `context.shortcodes`, which makes codes that nobody can guess.

A plugin as a class, and one that extends the manager: what it attaches to the context is there
for whoever names it in `dependencies`. A service (`context.provide`) is one object for all; what
is attached is made anew for each plugin, from that plugin's own context.
"""

import secrets
from collections.abc import Container

import msgspec

from veko import Plugin
from veko_plugins import Context

# Without 0 O 1 I l: codes are read out over the phone.
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_TRIES = 5


class Settings(msgspec.Struct, frozen=True):
    length: int = 7


class Shortcodes:
    """`context.shortcodes` of one plugin."""

    def __init__(self, holder: Context, length: int) -> None:
        self._holder = holder
        self._length = length

    def new(self, taken: Container[str]) -> str:
        """Return a code that is not in `taken`."""
        length = self._length
        while True:
            for _ in range(_TRIES):
                code = "".join(secrets.choice(_ALPHABET) for _ in range(length))
                if code not in taken:
                    return code
            length += 1
            # In the name of the plugin that asked: it is that one's codes that run out.
            self._holder.log("warning", f"codes are running out, making one of {length} characters")


class ShortcodesPlugin(Plugin):
    name = "shortcodes"
    version = "1.0.0"
    description = "Attaches context.shortcodes"
    config_schema = Settings

    def load(self, config: Settings, context: Context) -> None:
        context.attach("shortcodes", lambda holder: Shortcodes(holder, config.length))
