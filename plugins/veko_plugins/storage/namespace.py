"""A plugin's own part of the storage: a durable mapping from names to plain data.

Reading is a plain call that answers from memory; the reader owns the result. Writing changes memory
at once and returns a handle: await it to know that the write is durable, or ignore it.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from veko.errors import StorageError

from .changes import Watch
from .codec import Expiring, Packed, check_key, expiry_of, pack, unpack
from .database import Overlay

__all__ = ["ABSENT", "Absent", "Encoded", "Namespace", "Operation", "Surround", "matches"]


class Absent(enum.Enum):
    """The type of `ABSENT`."""

    ABSENT = "ABSENT"


ABSENT: Final = Absent.ABSENT
"""No entry, where a value is expected or given: see `Namespace.compare_and_set`."""

Operation: TypeAlias = Literal["set", "update", "delete", "clear"]
Entries: TypeAlias = dict[str, bytes | None]
# Called before each write; it takes the write over by returning a handle for it.
Surround: TypeAlias = Callable[["Namespace", Operation, Entries], Awaitable[None] | None]
# What `pack` makes of a value; `None` deletes.
Encoded: TypeAlias = tuple[object, bytes] | None
_Answer = TypeVar("_Answer")


class _Engine(Protocol):
    surround: Surround | None

    def read(self, namespace: str) -> dict[str, object]: ...
    def on_loop(self, work: Callable[[], _Answer]) -> _Answer: ...
    def check(self) -> bool: ...
    def write(
        self, namespace: str, entries: Mapping[str, bytes | None], *, cleared: bool = False
    ) -> Awaitable[None]: ...
    async def swap(
        self, namespace: Namespace, key: str, expected: object, value: Encoded
    ) -> bool: ...
    def watch(self, namespace: str, prefix: str) -> Watch: ...
    def expire(self, namespace: str, key: str, until: float) -> None: ...


def matches(current: object, expected: object) -> bool:
    """Return whether an entry's value, or `ABSENT`, is what `compare_and_set` expects."""
    if current is ABSENT:
        return expected is None or expected is ABSENT
    return expected is not ABSENT and current == expected


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

    __slots__ = ("_data", "_engine", "_until", "bypassed", "name", "queued")

    def __init__(self, name: str, engine: _Engine) -> None:
        self.name = name
        # Writes that the engine has not got yet, in order; readers see them.
        self.queued: list[Overlay] = []
        # Whether a later write overtook one of these, so that memory may differ from the disk.
        self.bypassed = False
        self._engine = engine
        self._data: dict[str, object] | None = None
        # The moment, in seconds since the epoch, of each entry in memory that expires.
        self._until: dict[str, float] = {}

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
        elif type(value) is Expiring:
            return value.value if value.until > time.time() else default
        return value

    def set(self, key: str, value: object, *, ttl: float | None = None) -> Awaitable[None]:
        """Store a value.

        Args:
            key: The key.
            value: Plain data.
            ttl: Seconds after which the entry is gone, by this host's clock; `None` for never.

        Returns:
            A handle to await until the value is durable.
        """
        check_key(key)
        until = None if ttl is None else self._moment(ttl)
        kept, packed = pack(key, value, until)
        return self._write("set", {key: packed}, {key: kept}, until)

    async def compare_and_set(
        self, key: str, expected: object, value: object, *, ttl: float | None = None
    ) -> bool:
        """Store a value if the entry has the expected one, atomically in all processes.

        Earlier writes to the namespace are carried out first. It is called on the event loop.

        Args:
            key: The key.
            expected: The value that the entry must have. `None` also stands for no entry, as with
                `get`; `ABSENT` stands for that alone.
            value: Plain data; `ABSENT` deletes the entry.
            ttl: As for `set`.

        Returns:
            Whether the value was stored, which is then durable.
        """
        check_key(key)
        until = None if ttl is None else self._moment(ttl)
        encoded = None if value is ABSENT else pack(key, value, until)
        return await self._engine.swap(self, key, expected, encoded)

    def watch(self, prefix: str = "") -> Watch:
        """Return an async iterator of the `Change`s of entries whose keys begin with a prefix.

        It has all changes that are committed from now on, this process's own too; where processes
        share a storage, in one order for all, and those of the last moment may be repeated. If a
        key changes again before its change is taken, only the later one is there. It ends when the
        storage closes; `close()` ends it earlier.
        """
        return self._engine.watch(self.name, prefix)

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
        return list(self._current())

    def items(self) -> list[tuple[str, object]]:
        """Return a list of the entries, in no particular order."""
        until = self._until
        return [
            (key, _plain(unpack(stored)) if key in until else unpack(stored))
            for key, stored in self._current().items()
        ]

    def __contains__(self, key: object) -> bool:
        return key in self._current()

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def forget(self) -> None:
        """Drop what is in memory; the next use reads it from disk again."""
        self._data = None

    # The methods below are for this package.

    def put(self, key: str, encoded: Encoded) -> Awaitable[None]:
        """Set an entry to an encoded value, or delete it."""
        if encoded is None:
            return self._write("delete", {key: None}, {})
        kept, packed = encoded
        return self._write("set", {key: packed}, {key: kept}, expiry_of(packed))

    def show(self, key: str, stored: bytes | None) -> None:
        """Show an entry as another process has set or deleted it."""
        if self._data is None:
            return
        self._until.pop(key, None)
        if stored is None:
            self._data.pop(key, None)
        else:
            self._data[key] = Packed(stored)
            self._note(key, expiry_of(stored))

    def drop_expired(self, key: str) -> bool:
        """Forget an entry if its moment has come; return whether it is to be deleted."""
        if self._data is None:
            return False
        if self._until.get(key, math.inf) <= time.time():
            del self._until[key]
            self._data.pop(key, None)
            return True
        return key not in self._data

    def _moment(self, ttl: float) -> float:
        if type(ttl) not in (int, float) or not 0 < ttl < math.inf:
            raise StorageError(
                f"ttl must be a number of seconds above 0, got {ttl!r}",
                plugin=self.name,
                remedy="Leave it out for an entry that stays",
            )
        return time.time() + ttl

    def _note(self, key: str, until: float | None) -> None:
        if until is not None:
            self._until[key] = until
            self._engine.expire(self.name, key, until)

    def _current(self) -> dict[str, object]:
        data = self._data if self._data is not None else self._load()
        if self._until:
            now = time.time()
            for key in [key for key, until in [*self._until.items()] if until <= now]:
                self._until.pop(key, None)
                data.pop(key, None)
        return data

    def _load(self) -> dict[str, object]:
        # A sync handler may read in a thread; no write on the loop may run in between.
        return self._engine.on_loop(self._load_here)

    def _load_here(self) -> dict[str, object]:
        data = self._engine.read(self.name)
        for changes in self.queued:
            overlay(data, changes)
        self._data = data
        self._until.clear()
        for key, stored in data.items():
            if type(stored) is Packed and (until := expiry_of(stored)) is not None:
                self._note(key, until)
        return data

    def _write(
        self,
        operation: Operation,
        entries: Entries,
        kept: dict[str, object],
        until: float | None = None,
    ) -> Awaitable[None]:
        engine = self._engine
        if not engine.check():
            return engine.on_loop(partial(self._write, operation, entries, kept, until))
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
            if self._until:
                for key in entries if operation != "clear" else [*self._until]:
                    self._until.pop(key, None)
        for key in entries if until is not None else ():
            self._note(key, until)
        return handle


def _plain(value: object) -> object:
    return value.value if isinstance(value, Expiring) else value


def overlay(data: dict[str, object], changes: Overlay) -> None:
    """Apply pending changes to entries that were read from disk."""
    if changes.cleared:
        data.clear()
    for key, value in changes.entries.items():
        if value is None:
            data.pop(key, None)
        else:
            data[key] = Packed(value)
