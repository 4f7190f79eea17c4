"""The port of storages that several processes share: what an adapter for a server provides.

An adapter is a `StorageBackend`; its distribution registers a function from the URL to it as an
entry point of the group `veko.storage`, named like the URL's scheme. The engine above it
(`SharedEngine`) does all else: it mirrors the entries in memory, collects the writes of a turn,
tries again, watches and expires. `veko_adapters.conformance.storage` checks an adapter.

Every change has a revision, an integer that grows in the order of the changes, the same for all
processes. Namespaces and keys are strings of 1 to 512 characters of any kind, also NUL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from veko.errors import OptionError, StorageError

from .._lib.entry_points import find_entry_points
from .._lib.masking import masked_text
from .database import Changes

__all__ = [
    "HEARTBEAT",
    "Changes",
    "Contents",
    "Lagged",
    "Record",
    "StorageBackend",
    "Unreachable",
    "find_backend",
    "schemes",
]

GROUP: Final = "veko.storage"
OURS: Final = {
    "redis": "redis",
    "rediss": "redis",
    "postgresql": "postgres",
    "postgres": "postgres",
    "nats": "nats",
    "tls": "nats",
}
"""The extra of each of our own schemes."""
HEARTBEAT: Final = 5.0
"""Seconds; `StorageBackend.follow` yields something at least so often."""


class Unreachable(StorageError):
    """The server does not answer, or the connection was lost; the engine tries again."""


class Lagged(StorageError):
    """`StorageBackend.follow` cannot continue without a gap; the engine loads all entries again."""


class Contents(msgspec.Struct, frozen=True):
    """All entries, as of one revision or with changes of later ones.

    Attributes:
        entries: Encoded values by key, by namespace.
        revision: Changes after this one are not in it, or may be repeated by `follow`.
    """

    entries: dict[str, dict[str, bytes]]
    revision: int


class Record(msgspec.Struct, frozen=True):
    """A committed change to one namespace.

    Attributes:
        revision: Its revision; changes of one transaction may have the same.
        namespace: The namespace.
        entries: Encoded values by key; `None` deletes the key.
        cleared: Whether the namespace is emptied first.
    """

    revision: int
    namespace: str
    entries: Mapping[str, bytes | None]
    cleared: bool = False


@runtime_checkable
class StorageBackend(Protocol):
    """A server that stores entries for several processes.

    Every method may be cancelled at any moment; a connection whose answer is outstanding is then
    given up. Each raises `Unreachable` if the server cannot be reached, and another `StorageError`
    if it refuses. After `Unreachable`, the next call connects again.

    Attributes:
        location: The URL without its password, for messages.
    """

    location: str

    async def open(self) -> None:
        """Connect, and create what is needed on the server."""
        ...

    async def load(self) -> Contents:
        """Return all entries."""
        ...

    def follow(self, revision: int) -> AsyncIterator[Sequence[Record]]:
        """Yield the changes after a revision, in order, as they are committed.

        A transaction is in one sequence. An empty sequence says that the connection still works;
        it comes at least every `HEARTBEAT` seconds.

        Raises:
            Lagged: Changes are missing.
        """
        ...

    async def write(self, changes: Sequence[Changes], token: str) -> int:
        """Carry out changes in one transaction; what is not `whole` may also be carried out singly.

        Args:
            changes: For each namespace: whether it is emptied first, and what is set or deleted.
            token: Names this transaction; if the server has carried it out already, nothing is
                done again.

        Returns:
            Its revision, once it is as durable as the server makes it.
        """
        ...

    async def get(self, namespace: str, key: str) -> bytes | None:
        """Return the encoded value of an entry as it is at the server, or `None`."""
        ...

    async def compare_and_set(
        self, namespace: str, key: str, expected: bytes | None, value: bytes | None, token: str
    ) -> int | None:
        """Set (or delete, for `None`) an entry if its encoded value is the expected one.

        Returns:
            The revision; `None` if the value was another one.
        """
        ...

    async def close(self) -> None:
        """Close all connections, at once; a second call does nothing."""
        ...


def schemes() -> list[str]:
    """Return the schemes of installed adapters, sorted."""
    return sorted({entry.name for entry in find_entry_points(GROUP)})


def find_backend(url: str) -> StorageBackend:
    """Return a new backend for a URL, not open yet.

    Raises:
        OptionError: No installed distribution registers its scheme, the adapter's client is not
            installed, or the URL is not valid.
    """
    scheme, shown = url.partition(":")[0], masked_text(url)
    found = {entry.name: entry for entry in find_entry_points(GROUP)}.get(scheme)
    if found is None:
        known = ", ".join(["sqlite:///path", "memory:", *(f"{name}://" for name in schemes())])
        raise OptionError(
            f"storage {shown!r}: the scheme {scheme!r} is unknown", remedy=f"Use one of {known}"
        )
    try:
        backend = found.load()(url)
    except ImportError as error:
        raise OptionError(
            f"storage {shown!r} needs {error.name or error}",
            remedy=f"pip install 'veko[{OURS.get(scheme, scheme)}]'",
        ) from error
    if not isinstance(backend, StorageBackend):
        raise OptionError(
            f"{type(backend).__name__} is not a storage backend",
            remedy="See veko_plugins.storage.StorageBackend",
        )
    return backend
