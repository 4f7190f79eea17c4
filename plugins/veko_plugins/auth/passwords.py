"""Passwords: argon2id, in threads of their own, a few at a time.

One hash takes 64 MiB and about 0.1 s with the default settings. So few run at once, whatever
clients ask for; some more wait, and the rest is refused: the event loop and the memory are never
theirs. A password is checked in the same time whether its user exists or not.
"""

from __future__ import annotations

import base64
import secrets
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import anyio
import anyio.to_thread
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from .types import Busy

if TYPE_CHECKING:
    from .settings import Settings

__all__ = ["MAX_PASSWORD", "Passwords"]

MAX_PASSWORD: Final = 1024
"""Characters of a password."""
_WAITING: Final = 64
"""Passwords that wait for each one that is hashed."""
_Answer = TypeVar("_Answer")


class Passwords:
    """Hashes and checks passwords.

    Args:
        settings: What a hash costs, and how many run at once.
    """

    def __init__(self, settings: Settings) -> None:
        memory, time, lanes = settings.hash_memory, settings.hash_time, settings.hash_lanes
        self._hasher = PasswordHash((Argon2Hasher(time, max(memory, 8 * lanes), lanes),))
        self._shortest = settings.password_length
        self._room = settings.hash_concurrency
        self._limiter = anyio.CapacityLimiter(self._room)
        self._waiting = 0
        salt, digest = (_base64(secrets.token_bytes(size)) for size in (16, 32))
        # No password has this hash. It is checked where there is no user, which takes as long.
        self._decoy = (
            f"$argon2id$v=19$m={max(memory, 8 * lanes)},t={time},p={lanes}${salt}${digest}"
        )

    def accept(self, password: str, name: str) -> str:
        """Return a new password in the form that is hashed.

        Raises:
            ValueError: It is too short or too long, is the user's name, or has characters that
                cannot be encoded; the message is for the user.
        """
        made = _prepare(password)
        if made is None:
            raise ValueError(f"a password has at most {MAX_PASSWORD} characters")
        if len(made) < self._shortest:
            raise ValueError(f"a password has at least {self._shortest} characters")
        if made.casefold() == name:
            raise ValueError("the password is the name")
        return made

    async def hash(self, password: str) -> str:
        """Return the hash of a password that was accepted.

        Raises:
            Busy: Too many wait.
        """
        return await self._run(partial(self._hasher.hash, password))

    async def check(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Check a password.

        Args:
            password: The password, as the client sent it.
            hashed: The hash; `None` if there is no such user, which takes as long.

        Returns:
            Whether it is right, and a new hash if the settings have changed since it was hashed.

        Raises:
            Busy: Too many wait.
        """
        made = _prepare(password)
        if made is None or hashed is None:
            await self._run(partial(self._hasher.verify, "", self._decoy))
            return False, None
        return await self._run(partial(self._hasher.verify_and_update, made, hashed))

    async def _run(self, work: Callable[[], _Answer]) -> _Answer:
        if self._waiting >= self._room * _WAITING:
            raise Busy
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._waiting -= 1


def _prepare(password: str) -> str | None:
    """Return a password in one form, however it was typed; `None` if nobody has such a one."""
    if len(password) > MAX_PASSWORD:
        return None
    made = unicodedata.normalize("NFKC", password)
    try:
        made.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return None
    return made


def _base64(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()
