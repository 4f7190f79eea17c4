"""Which plugins are on, with what configuration: as it is written down, and made so again.

The core plugins `state` and `backup` share this. What is written is the configuration that was
given, without `default_config`: a newer version's defaults count. Secrets and what cannot be
written (a function) are left out, by path, and taken from the configuration of now when it is
restored.
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

__all__ = ["Exactly", "Part", "SavedPlugin", "capture", "dotted", "given_of", "header",
           "plugins_of", "standing", "whole"]  # fmt: skip

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


class Exactly(dict[str, Any]):
    """A configuration that no section of the settings is put under."""


class SavedPlugin(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as it stood.

    Attributes:
        name: Its name.
        version: Its version.
        source: Where it came from; to be read, it is not loaded from there.
        active: Whether it was on.
        config: What it was configured with, as `json_values` writes it.
        left_out: Where in it something is missing: secrets, and what cannot be written down.
    """

    name: str
    version: str
    source: str | None = None
    active: bool
    config: dict[str, Any] = {}
    left_out: list[tuple[str, ...]] = []


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin as it is to be.

    Attributes:
        name: Its name.
        origin: What it is loaded from.
        given: All that it is configured with, before its defaults.
        active: Whether it is to be on.
    """

    name: str
    origin: Any
    given: dict[str, Any]
    active: bool


def header(format: str, version: int) -> Header:
    """Return the first line of a document that is written now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Header(format=format, version=version, made_at=now, veko=__version__)


def standing(context: Context) -> list[PluginRecord]:
    """Return the loaded plugins of the application, in order of arrival."""
    return [record for record in context.kernel.records() if record.loaded and not record.core]


def given_of(record: PluginRecord) -> dict[str, Any]:
    """Return what a loaded plugin is configured with, before its defaults."""
    return dict(record.current.given) if record.current is not None else {}


def capture(records: Iterable[PluginRecord]) -> list[SavedPlugin]:
    """Write down how plugins stand."""
    return [_captured(record) for record in records]


def _captured(record: PluginRecord) -> SavedPlugin:
    config, left = without(given_of(record), secret_names(record.manifest.config_schema))
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
    """Write a configuration as JSON; what cannot be written is added to what is left out."""
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


def plugins_of(lines: Iterable[Any]) -> dict[str, SavedPlugin]:
    """Read plugins, by name.

    Raises:
        ValueError: Something else is among them.
    """
    found: dict[str, SavedPlugin] = {}
    for line in lines:
        saved = msgspec.convert(line, SavedPlugin)
        if not _NAME.fullmatch(saved.name) or saved.name in found:
            raise ValueError(f"{saved.name!r} is no name of a plugin, or comes twice")
        found[saved.name] = saved
    return found


def whole(
    saved: SavedPlugin, current: Mapping[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Return a saved configuration with what was left out as it is now, and what is not there.

    Raises:
        ValueError: It is not what was written.
    """
    given = {key: from_json(value) for key, value in saved.config.items()}
    return put_back(given, saved.left_out, current)


def dotted(paths: Iterable[tuple[str, ...]]) -> list[str]:
    """Write paths as they are read."""
    return [".".join(path) for path in paths]
