"""The plugin's namespace of the storage, mirrored in its worker.

The host's namespace is what counts. The worker reads its own copy, and sends what it writes; what
another generation of the plugin writes meanwhile is sent to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from veko import Context

from .protocol import Violation, is_plain
from .python.kinds import stored

__all__ = ["Changes", "entries_of", "write"]

Changes = tuple[dict[str, Any], list[str], bool]
"""Entries that are new, keys that are gone, and whether all others are gone too."""


def entries_of(context: Context, *, python: bool) -> dict[str, Any] | None:
    """Return all entries as the worker gets them; `None` if there is no storage.

    A script gets what it can hold; values of Python's own types stay in the storage.
    """
    try:
        namespace = context.attached("storage")
    except AttributeError:
        return None
    entries = dict(namespace.items())
    if python:
        return dict(stored(entries))
    return {key: value for key, value in entries.items() if is_plain(value)}


def changes_of(given: tuple[Any, ...]) -> Changes:
    """Return what a worker writes, checked.

    Raises:
        Violation: It is no set of changes.
    """
    changes, deleted, clear = (*given, {}, [], False)[:3] if len(given) < 3 else given[:3]
    if not isinstance(changes, dict) or not isinstance(deleted, list):
        raise Violation("wrote to the storage with something else than entries and keys")
    if not all(isinstance(key, str) for key in (*changes, *deleted)):
        raise Violation("wrote to the storage under a key that is no text")
    return changes, deleted, clear is True


def write(context: Context, changes: Changes) -> tuple[list[Awaitable[Any]], list[str]]:
    """Write at once.

    Returns:
        The handles, to await until all is durable; and the keys that are gone.

    Raises:
        StorageError: A value cannot be stored.
        AttributeError: There is no storage.
    """
    entries, deleted, clear = changes
    namespace = context.attached("storage")
    handles: list[Awaitable[Any]] = []
    gone = list(deleted)
    if clear:
        gone += namespace.keys()
        handles.append(namespace.clear())
    handles += [namespace.delete(key) for key in deleted]
    if entries:
        handles.append(namespace.update(entries))
    return handles, [key for key in gone if key not in entries]


def as_crossing(changes: Mapping[str, Any], *, python: bool) -> dict[str, Any]:
    """Return entries for a worker."""
    return dict(stored(changes)) if python else {k: v for k, v in changes.items() if is_plain(v)}
