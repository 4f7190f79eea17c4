"""The index: what a plugin that waits for its first use has registered when it last loaded.

Each plugin has a file of its own, `.veko/first-use/NAME.json`. It has a key: a digest of the
plugin's files, its section in the settings, and the versions of Python and Veko. An index whose key
is another one is not used: the plugin loads at once and is indexed again.

Promise: nothing of a plugin runs to read its index. A file that is damaged counts as none.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from veko import Manifest, __version__
from veko.errors import ManifestError
from veko.extend import Entry

from .._lib.private_files import open_private, private_folder
from .._lib.secret_fields import secret_names
from .._source.content import Content

__all__ = ["Command", "Hook", "Index", "Indexes", "Registered", "Route", "key_of", "registered"]

_HTTP: Final = ("request:", "response:", "websocket:")
RESERVED: Final = frozenset(
    (
        "app", "auth", "budget", "cache", "config", "context", "database", "dev", "error", "file",
        "ledger", "log", "loop", "middleware", "plugin", "route", "source",
    )
)  # fmt: skip
"""First segments of events that Veko emits while plugins load, start or stop, or at any time."""


class Hook(msgspec.Struct, frozen=True, tag="hook"):
    """A hook, with the arguments of `context.hook`."""

    event: str
    priority: float
    observe: bool

    @property
    def http(self) -> bool:
        """Whether it is on an event of requests or WebSockets."""
        return self.event.startswith(_HTTP)


class Route(msgspec.Struct, frozen=True, tag="route"):
    """A route; the method of a WebSocket is `WEBSOCKET`."""

    method: str
    path: str


class Command(msgspec.Struct, frozen=True, tag="command"):
    """A command."""

    name: str
    description: str


Registered = Hook | Route | Command


class Index(msgspec.Struct, frozen=True):
    """What is known of a plugin without running it.

    Attributes:
        key: See `key_of`.
        manifest: Its manifest. A `config_schema` that is a type is replaced by a JSON Schema that
            marks the same fields as secret.
        registered: What it registered, in order.
    """

    key: str
    manifest: Manifest
    registered: tuple[Registered, ...]

    @classmethod
    def of(cls, key: str, manifest: Manifest, found: Iterable[Registered]) -> Index:
        """Make the index of a plugin that has loaded.

        Raises:
            ManifestError: Its `default_config` cannot be written down.
        """
        schema: Any = manifest.config_schema
        if schema is not None and not isinstance(schema, Mapping | bool):
            names = secret_names(schema)
            properties = {name: {"writeOnly": True} for name in names if name is not None}
            schema = {"properties": properties}
            if None in names:
                schema["additionalProperties"] = {"writeOnly": True}
        manifest = msgspec.structs.replace(manifest, config_schema=schema)
        try:
            msgspec.json.encode(manifest)
        except (TypeError, ValueError) as error:
            raise ManifestError(
                f'with activation = "first use", its default_config and config_schema must be '
                f"data: {error}",
                plugin=manifest.name,
                remedy="Use numbers, texts, lists and mappings, or remove `activation`.",
            ) from error
        return cls(key, manifest, tuple(found))


class Indexes:
    """The indexes of an application.

    Args:
        folder: The folder that they are in; it is made when the first one is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str, key: str) -> Index | None:
        """Return the index of a plugin, if it has that key."""
        try:
            found = msgspec.json.decode(self._file(name).read_bytes(), type=Index)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.key == key and found.manifest.name == name else None

    def write(self, index: Index) -> None:
        """Write an index in one step.

        Raises:
            OSError: It cannot be written.
        """
        private_folder(self._folder)
        file = self._file(index.manifest.name)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")  # several may serve
        with open(temporary, "wb", opener=open_private) as written:
            written.write(msgspec.json.encode(index))
        temporary.replace(file)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def key_of(content: Content, section: Mapping[str, Any]) -> str:
    """Return the key of an index.

    Args:
        content: The digests of the plugin's files.
        section: Its section in the settings.
    """
    texts = (__version__, sys.implementation.cache_tag, repr(sorted(content.items())))
    settings = msgspec.json.encode(dict(section), enc_hook=repr, order="deterministic")
    data = b"\n".join((*(str(text).encode() for text in texts), settings))
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def registered(
    entries: Collection[Entry], tasks: int, closed: Collection[str]
) -> tuple[list[Registered], str | None]:
    """Return what a plugin has registered, and why it cannot wait for its first use.

    Args:
        entries: What it registered.
        tasks: How many tasks and resources it holds.
        closed: The events that fail closed.

    Returns:
        All of it in order, and the reason; `None` if it can wait.
    """
    found: list[Registered] = []
    for entry in entries:
        value: Any = entry.value
        if entry.kind == "hook":
            why = _never_waits(value.event, value.observes, closed)
            if why is not None:
                return found, why
            found.append(Hook(value.event, value.priority, value.observes))
        elif entry.kind == "route":
            found.append(Route(value.method, value.path))
        elif entry.kind == "command":
            found.append(Command(value.name, value.description))
        else:
            return found, f"it registers {_KINDS.get(entry.kind, entry.kind)} {entry.key!r}"
    if tasks:
        return found, "it starts tasks or holds resources"
    if not found:
        return found, "it registers nothing, so nothing would ever use it"
    return found, None


_KINDS: Final = {
    "pattern": "a hook on the pattern", "service": "the service", "attach": "the attribute",
    "event": "the event", "middleware": "a middleware,",
}  # fmt: skip


def _never_waits(event: str, observes: bool, closed: Collection[str]) -> str | None:
    first, _, rest = event.partition(":")
    if event in closed and not observes:
        return f"it guards {event!r}"
    if first in RESERVED and not (first == "plugin" and ":" in rest):  # plugin:NAME:EVENT
        return f"it hooks {event!r}, which Veko emits while it starts, stops or changes"
    return None
