"""Plugins as they are saved: which are active, and with what configuration.

The core plugins `state` and `backup` share this. The configuration is saved without
`default_config`, so that the defaults of a newer version apply. Secrets and values that cannot be
written (such as functions) are left out; their paths are saved, and restoring takes them from the
current configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from veko import Context, PluginRecord, __version__

from .._lib.secret_fields import secret_names
from .documents import Header
from .json_values import from_json, to_json
from .without_secrets import put_back, without

__all__ = [
    "Exactly",
    "SavedPlugin",
    "completed_config",
    "given_config",
    "header",
    "loaded_plugins",
    "read_plugins",
    "saved_plugins",
    "written_paths",
]  # fmt: skip

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


class Exactly(dict[str, Any]):
    """A configuration that replaces the plugin's section of the settings, not merged with it."""


class SavedPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as it was when it was saved.

    Attributes:
        name: Its name.
        version: Its version.
        source: The file or folder it came from, for information: it is not loaded from there.
        active: Whether it was active.
        config: Its configuration without defaults, as `json_values` writes it.
        left_out: Paths of secrets and other values that are missing in `config`.
    """

    name: str
    version: str
    source: str | None = None
    active: bool
    config: dict[str, Any] = {}
    left_out: list[tuple[str, ...]] = []


def header(format: str, version: int) -> Header:
    """Return the first line of a document that is written now.

    Args:
        format: The kind of document: `veko-backup`, `veko-state`.
        version: The version of that format.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    return Header(format=format, version=version, made_at=now, veko=__version__)


def loaded_plugins(context: Context) -> list[PluginRecord]:
    """Return the loaded plugins of the application, in load order."""
    return [record for record in context.kernel.records() if record.loaded and not record.core]


def given_config(record: PluginRecord) -> dict[str, Any]:
    """Return the configuration that a plugin was given, without its defaults."""
    return dict(record.current.given) if record.current is not None else {}


def saved_plugins(records: Iterable[PluginRecord]) -> list[SavedPlugin]:
    """Return plugins as they are to be saved."""
    return [_captured(record) for record in records]


def _captured(record: PluginRecord) -> SavedPlugin:
    config, left = without(given_config(record), secret_names(record.manifest.config_schema))
    written = _written(config, (), left)
    return SavedPlugin(
        name=record.name,
        version=record.version,
        source=None if record.source is None else str(record.source),
        active=record.active,
        config=written,
        left_out=left,
    )


def _written(
    config: Mapping[Any, Any], path: tuple[str, ...], left: list[tuple[str, ...]]
) -> dict[str, Any]:
    """Return a configuration as JSON; add the paths of values that cannot be written to `left`."""
    written: dict[str, Any] = {}
    for key, value in config.items():
        if not isinstance(key, str):
            left.append((*path, str(key)))
            continue
        try:
            msgspec.json.encode({key: (plain := to_json(value))})
        except (TypeError, ValueError, RecursionError):
            if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
                plain = _written(value, (*path, key), left)
            else:
                left.append((*path, key))
                continue
        written[key] = plain
    return written


def read_plugins(lines: Iterable[Any]) -> dict[str, SavedPlugin]:
    """Read saved plugins, by name.

    Args:
        lines: Decoded JSON, one value for each plugin.

    Raises:
        ValueError: A value is not a saved plugin, or a name occurs twice.
    """
    found: dict[str, SavedPlugin] = {}
    for line in lines:
        saved = msgspec.convert(line, SavedPlugin)
        if not _NAME.fullmatch(saved.name) or saved.name in found:
            raise ValueError(f"{saved.name!r} is not the name of a plugin, or occurs twice")
        found[saved.name] = saved
    return found


def completed_config(
    saved: SavedPlugin, current: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Complete a saved configuration with what was left out of it.

    Args:
        saved: The plugin.
        current: The configuration that has the values that were left out.

    Returns:
        The configuration, and the paths of values that `current` lacks too.

    Raises:
        ValueError: The saved configuration is damaged.
    """
    given = {key: from_json(value) for key, value in saved.config.items()}
    return put_back(given, saved.left_out, current)


def written_paths(paths: Iterable[tuple[str, ...]]) -> list[str]:
    """Return paths as text: `database.password`."""
    return [".".join(path) for path in paths]
