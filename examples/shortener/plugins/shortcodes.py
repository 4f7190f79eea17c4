"""Adds `context.shortcodes` to every plugin, which makes codes that cannot be guessed.

A plugin as a class, and an extension of the manager: plugins that list it in `dependencies` can use
what it attaches to the context. A service (`context.provide`) is one object for all plugins; an
attachment is made for each plugin, from that plugin's context.
"""

import secrets
from collections.abc import Container

import msgspec

from veko import Plugin
from veko_plugins import Context

# Without 0 O 1 I l, which are easily confused when read aloud.
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
            # Logged under the name of the plugin whose codes run out.
            self._holder.log("warning", f"codes are running out, making one of {length} characters")


class ShortcodesPlugin(Plugin):
    name = "shortcodes"
    version = "1.0.0"
    description = "Attaches context.shortcodes"
    config_schema = Settings

    def load(self, config: Settings, context: Context) -> None:
        context.attach("shortcodes", lambda holder: Shortcodes(holder, config.length))
