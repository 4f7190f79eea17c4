"""Users in the storage: one entry each, with the sessions in it, changed by compare-and-set.

The key is that of the name, so two workers cannot register one name; and whatever happens to a user
(a new password, a login, a revoked session) is one change of one entry, so none is overtaken.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import anyio

from .events import User
from .limits import pauses
from .types import Namespace

__all__ = ["Contended", "Record", "Users"]

Record: TypeAlias = dict[str, Any]
"""A user's entry: id, name, hash, roles, created, disabled, sessions."""

_PREFIX: Final = "user:"
# Seconds for the hooks on a registration; the name is free again after a crash in between.
_RESERVED: Final = 60.0


class Contended(Exception):
    """Others have changed an entry again and again."""


class Users:
    """All users.

    Args:
        storage: Where they are kept.
        granted: Returns the permissions of a user who has some roles.
    """

    def __init__(
        self, storage: Namespace, granted: Callable[[tuple[str, ...]], frozenset[str]]
    ) -> None:
        self._storage = storage
        self._granted = granted

    def get(self, key: str, name: str | None = None) -> Record | None:
        """Return an entry.

        Args:
            key: The key of the name.
            name: The name; another one that looks alike is another user.
        """
        found: Record | None = self._storage.get(_PREFIX + key)
        if found is None or "hash" not in found or (name is not None and found["name"] != name):
            return None
        return found

    def is_taken(self, key: str) -> bool:
        """Return whether a name, or one that looks alike, is taken."""
        return self._storage.get(_PREFIX + key) is not None

    def __iter__(self) -> Iterator[Record]:
        for key in self._storage:
            if key.startswith(_PREFIX) and (found := self.get(key.removeprefix(_PREFIX))):
                yield found

    def shown(self, record: Record) -> User:
        """Return a user as plugins see one."""
        roles = tuple(record["roles"])
        return User(
            record["id"],
            record["name"],
            roles,
            self._granted(roles),
            datetime.fromtimestamp(record["created"], UTC),
            record["disabled"],
        )

    def new(self, name: str, roles: tuple[str, ...]) -> Record:
        """Return an entry that is not stored yet, and has no password."""
        return {
            "id": uuid.uuid4().hex, "name": name, "roles": list(roles), "created": time.time(),
            "disabled": False, "sessions": {},
        }  # fmt: skip

    async def reserve(self, key: str, record: Record) -> bool:
        """Take a name, for a minute; return whether it was free."""
        return await self._storage.compare_and_set(_PREFIX + key, None, record, ttl=_RESERVED)

    async def confirm(self, key: str, record: Record, hashed: str) -> bool:
        """Give a reserved entry its password; return whether it was still there."""
        return await self._storage.compare_and_set(
            _PREFIX + key, record, {**record, "hash": hashed}
        )

    async def remove(self, key: str, record: Record) -> bool:
        """Remove an entry, if nobody has changed it."""
        # An entry without a value counts as none, and is gone a second later.
        return await self._storage.compare_and_set(_PREFIX + key, record, None, ttl=1.0)

    async def change(self, key: str, edit: Callable[[Record], Record | None]) -> Record | None:
        """Change an entry.

        Args:
            key: The key of the name.
            edit: Returns the new entry for the present one, which it may change; `None` leaves it
                as it is. It is called again if another process was faster.

        Returns:
            The entry as it is now; `None` if there is no such user.

        Raises:
            Contended: Others have changed it again and again.
        """
        for pause in pauses():
            before, copy = self.get(key), self.get(key)
            if before is None or copy is None:
                return None
            after = edit(copy)
            if after is None:
                return before
            if await self._storage.compare_and_set(_PREFIX + key, before, after):
                return after
            # Memory may be a moment behind the server that has decided.
            await anyio.sleep(pause)
        raise Contended
