"""Overrides: what an operator has changed while the application ran, over its settings.

They are kept in `.veko/overrides.jsonl` and hold from the next start on as well: which plugins are
left out, and which values of which configurations differ from the settings. An override is a
difference, so what the settings say elsewhere, or later, still counts.

Promise: the file is written completely or not at all, and only its owner can read it: unlike saved
states it holds secrets that were set, as the settings file does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from .documents import BackupError, read_document, write_document
from .json_values import from_json, to_json
from .plugins import header

__all__ = ["NOTHING", "Override", "Overrides", "difference"]

FORMAT: Final = "veko-overrides"
VERSION: Final = 1
_MISSING: Final = object()
Steps = tuple[str, ...]


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from the settings of one plugin.

    Attributes:
        name: The plugin.
        off: Why it is not loaded: `switched off` or `unloaded`; `None` if it is.
        values: Values of its configuration by path, as `json_values` writes them.
        removed: Paths that the settings have and the configuration has not.
    """

    name: str
    off: str | None = None
    values: tuple[tuple[Steps, Any], ...] = ()
    removed: tuple[Steps, ...] = ()

    def applied(self, section: Mapping[str, Any]) -> dict[str, Any]:
        """Return a section of the settings with the values of this override."""
        config = dict(section)
        for path in self.removed:
            config = _without(config, path)
        for path, value in self.values:
            config = _with(config, path, from_json(value))
        return config

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return self.off is None and not self.values and not self.removed


NOTHING: Final = Override(name="")


class Overrides:
    """The overrides of an application.

    Args:
        path: The file; `None` to keep none.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._by_name: dict[str, Override] = {}

    @property
    def kept(self) -> bool:
        """Whether they are kept over a restart."""
        return self._path is not None

    def read(self) -> None:
        """Read the file, if there is one.

        Raises:
            BackupError: It is damaged, or cannot be read.
        """
        self._by_name = {}
        if self._path is None or not self._path.exists():
            return
        _, *lines = read_document(self._path, FORMAT, VERSION)
        try:
            found = [msgspec.json.decode(line, type=Override) for line in lines]
        except msgspec.DecodeError as error:
            raise BackupError(
                f"the file of overrides is not what Veko writes: {error}",
                path=self._path,
                remedy="Remove it: the settings alone hold then.",
            ) from error
        self._by_name = {one.name: one for one in found}

    def write(self) -> None:
        """Write the file; without overrides it is removed.

        Raises:
            BackupError: It cannot be written; the file that was there stays.
        """
        if self._path is None:
            return
        if not self._by_name:
            self._path.unlink(missing_ok=True)
            return
        values = sorted(self._by_name.values(), key=lambda one: one.name)
        write_document(self._path, header(FORMAT, VERSION), values, replace=True)

    def of(self, name: str) -> Override:
        """Return the override of a plugin."""
        return self._by_name.get(name, NOTHING)

    def put(self, name: str, override: Override) -> None:
        """Set the override of a plugin; `write` keeps it."""
        if override.empty:
            self._by_name.pop(name, None)
        else:
            self._by_name[name] = msgspec.structs.replace(override, name=name)

    def __iter__(self) -> Iterator[Override]:
        return iter(tuple(self._by_name.values()))


def difference(
    base: Mapping[str, Any], wanted: Mapping[str, Any], path: Steps = ()
) -> tuple[list[tuple[Steps, Any]], list[Steps], list[Steps]]:
    """Return what makes one configuration of another.

    Args:
        base: What the settings say.
        wanted: What is to be.
        path: The path of both in a larger one.

    Returns:
        The values that differ, as they are written; the paths that are gone; and the paths of
        values that cannot be written.
    """
    values: list[tuple[Steps, Any]] = []
    removed = [(*path, str(key)) for key in base if key not in wanted]
    unwritable: list[Steps] = []
    for key, value in wanted.items():
        here, before = (*path, str(key)), base.get(key, _MISSING)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = difference(before, value, here)
            values += inner[0]
            removed += inner[1]
            unwritable += inner[2]
            continue
        try:
            written = to_json(value)
            if before is not _MISSING and to_json(before) == written:
                continue
        except (TypeError, RecursionError):
            if value is not before:
                unwritable.append(here)
            continue
        values.append((here, written))
    return values, removed, unwritable


def _with(config: Mapping[str, Any], path: Steps, value: object) -> dict[str, Any]:
    first, *rest = path
    inner = config.get(first)
    if rest:
        value = _with(inner if isinstance(inner, Mapping) else {}, tuple(rest), value)
    return {**config, first: value}


def _without(config: Mapping[str, Any], path: Steps) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {key: value for key, value in config.items() if key != first}
    inner = config.get(first)
    if not isinstance(inner, Mapping):
        return dict(config)
    return {**config, first: _without(inner, tuple(rest))}
