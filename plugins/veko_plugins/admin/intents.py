"""Intents: what is to be changed, as data. They are planned, applied, and relayed to other workers.

A change is planned and applied from the same intent, so what was planned is what is done.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

__all__ = ["Configure", "Intent", "Load", "Reload", "Restore", "Toggle", "Undo", "Unload"]


class Load(msgspec.Struct, frozen=True, tag_field="verb", tag="load", forbid_unknown_fields=True):
    """Load a plugin.

    Attributes:
        plugin: Its name, or the path of its file or folder in a folder of plugins.
        config: Values over its section of the settings.
    """

    plugin: str
    config: dict[str, Any] = {}


class Unload(
    msgspec.Struct, frozen=True, tag_field="verb", tag="unload", forbid_unknown_fields=True
):
    """Unload a plugin.

    Attributes:
        plugin: Its name.
        cascade: Whether those that need it are unloaded first, instead of refusing.
    """

    plugin: str
    cascade: bool = False


class Toggle(
    msgspec.Struct, frozen=True, tag_field="verb", tag="toggle", forbid_unknown_fields=True
):
    """Switch a plugin on or off.

    Attributes:
        plugin: Its name.
        active: On or off; the opposite of what it is if left out.
        cascade: Whether those that need it are switched off first, instead of refusing.
    """

    plugin: str
    active: bool | None = None
    cascade: bool = False


class Reload(
    msgspec.Struct, frozen=True, tag_field="verb", tag="reload", forbid_unknown_fields=True
):
    """Replace a plugin by what its files hold now, and with it those that need it.

    Attributes:
        plugin: Its name.
    """

    plugin: str


class Configure(
    msgspec.Struct, frozen=True, tag_field="verb", tag="configure", forbid_unknown_fields=True
):
    """Change the configuration of a plugin.

    Attributes:
        plugin: Its name.
        path: Where in it; empty for the whole of it.
        how: `put` replaces what is there, `patch` merges into it, `delete` removes it: then the
            default holds.
        value: The new value; where it has `********`, the secret stays as it is.
        etag: The version that it is based on; `None` for whatever there is.
        reload: Whether the plugin is reloaded then, for one that reads its configuration when it
            loads.
    """

    plugin: str
    path: tuple[str, ...] = ()
    how: Literal["put", "patch", "delete"] = "patch"
    value: Any = None
    etag: str | None = None
    reload: bool = False


class Restore(
    msgspec.Struct, frozen=True, tag_field="verb", tag="restore", forbid_unknown_fields=True
):
    """Restore a backup.

    Attributes:
        backup: The name of its file in the folder of backups.
    """

    backup: str


class Undo(msgspec.Struct, frozen=True, tag_field="verb", tag="undo", forbid_unknown_fields=True):
    """Take a change back.

    Attributes:
        change: Its id.
    """

    change: str


Intent: TypeAlias = Load | Unload | Toggle | Reload | Configure | Restore | Undo
