"""A plugin's own part of the storage: a durable mapping from names to plain data.

Reading is a plain call that answers from memory; the reader owns the result. Writing changes memory
at once and returns a handle: await it to know that the write is durable, or ignore it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from veko.errors import StorageError

from .codec import Packed, check_key, pack, unpack
from .database import Overlay

__all__ = ["Namespace", "Operation", "Surround"]

Operation: TypeAlias = Literal["set", "update", "delete", "clear"]
Entries: TypeAlias = dict[str, bytes | None]
# Called before each write; it takes the write over by returning a handle for it.
Surround: TypeAlias = Callable[["Namespace", Operation, Entries], Awaitable[None] | None]
_Answer = TypeVar("_Answer")


class _Engine(Protocol):
    surround: Surround | None

    def read(self, namespace: str) -> dict[str, object]: ...
    def on_loop(self, work: Callable[[], _Answer]) -> _Answer: ...
    def check(self) -> bool: ...
    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Awaitable[None]: ...


class Namespace:
    """The entries of one plugin.

    Keys are strings of 1 to 512 characters. Values are plain data: `str`, `int`, `float`, `bool`,
    `None`, `bytes`, `list`, `tuple`, `set`, `dict`, `datetime`, `date`, `time`, `timedelta`,
    `Decimal`, `UUID`, and containers of these; share other objects with `context.provide`.

    Every method raises `StorageError` if the key or the value cannot be stored, or if the storage
    is closed; the handle of a write raises it if writing to disk fails. A failed write is undone in
    memory too. Both work in any thread: from another one than the event loop's, a write waits for
    a turn of the loop, and its handle can be awaited on the loop only.
    """

    __slots__ = ("_data", "_engine", "bypassed", "name", "queued")

    def __init__(self, name: str, engine: _Engine) -> None:
        self.name = name
        # Writes that the engine has not got yet, in order; readers see them.
        self.queued: list[Overlay] = []
        # Whether a later write overtook one of these, so that memory may differ from the disk.
        self.bypassed = False
        self._engine = engine
        self._data: dict[str, object] | None = None

    def __repr__(self) -> str:
        size = "not read yet" if self._data is None else f"{len(self._data)} entries"
        return f"<Namespace {self.name!r}: {size}>"

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of an entry; changing it does not change the storage.

        Args:
            key: The key.
            default: What to return if there is no such entry.
        """
        data = self._data
        if data is None:
            data = self._load()
        try:
            stored = data[key]
        except KeyError:
            check_key(key)
            return default
        except TypeError:
            check_key(key)
            raise
        if type(stored) is not Packed:
            return stored
        value = unpack(stored)
        if type(value) in (str, int, float, bool):
            data[key] = value  # read from disk, and immutable: keep it decoded
        return value

    def set(self, key: str, value: object) -> Awaitable[None]:
        """Store a value.

        Args:
            key: The key.
            value: Plain data.

        Returns:
            A handle to await until the value is durable.
        """
        check_key(key)
        kept, packed = pack(key, value)
        return self._write("set", {key: packed}, {key: kept})

    def update(self, mapping: Mapping[str, object]) -> Awaitable[None]:
        """Store several values in one transaction, all or none; return a handle as `set`."""
        if not isinstance(mapping, Mapping):
            raise StorageError(
                f"update takes a mapping, not {type(mapping).__name__}",
                plugin=self.name,
                remedy="Give a dict",
            )
        entries: Entries = {}
        kept: dict[str, object] = {}
        for key, value in mapping.items():
            check_key(key)
            kept[key], entries[key] = pack(key, value)
        return self._write("update", entries, kept)

    def delete(self, key: str) -> Awaitable[None]:
        """Delete an entry, if it exists; return a handle as `set`."""
        check_key(key)
        return self._write("delete", {key: None}, {})

    def clear(self) -> Awaitable[None]:
        """Delete all entries; return a handle as `set`."""
        return self._write("clear", {}, {})

    def keys(self) -> list[str]:
        """Return a list of the keys, in no particular order."""
        return list(self._data if self._data is not None else self._load())

    def items(self) -> list[tuple[str, object]]:
        """Return a list of the entries, in no particular order."""
        data = self._data if self._data is not None else self._load()
        return [(key, unpack(stored)) for key, stored in data.items()]

    def __contains__(self, key: object) -> bool:
        return key in (self._data if self._data is not None else self._load())

    def __len__(self) -> int:
        return len(self._data if self._data is not None else self._load())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def forget(self) -> None:
        """Drop what is in memory; the next use reads it from disk again."""
        self._data = None

    def _load(self) -> dict[str, object]:
        # A sync handler may read in a thread; no write on the loop may run in between.
        return self._engine.on_loop(self._load_here)

    def _load_here(self) -> dict[str, object]:
        data = self._engine.read(self.name)
        for changes in self.queued:
            overlay(data, changes)
        self._data = data
        return data

    def _write(
        self, operation: Operation, entries: Entries, kept: dict[str, object]
    ) -> Awaitable[None]:
        engine = self._engine
        if not engine.check():
            return engine.on_loop(partial(self._write, operation, entries, kept))
        handle: Awaitable[None] | None = None
        if engine.surround is not None:
            handle = engine.surround(self, operation, entries)
        if handle is None:
            handle = engine.write(self.name, entries, cleared=operation == "clear")
        data = self._data
        if data is not None:
            if operation == "delete":
                for key in entries:
                    data.pop(key, None)
            elif operation == "clear":
                data.clear()
            else:
                data.update(kept)
        return handle


def overlay(data: dict[str, object], changes: Overlay) -> None:
    """Apply pending changes to entries that were read from disk."""
    if changes.cleared:
        data.clear()
    for key, value in changes.entries.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = Packed(value)
