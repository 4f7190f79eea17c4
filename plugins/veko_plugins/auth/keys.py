"""The keys that sign tokens: the newest signs, former ones are still accepted until they lapse.

They are in `.veko/auth-keys.json`, generated at the first start and readable by its owner only, or
given in the settings. Each has an id (`kid`) that stands in the tokens. Every process looks for a
changed file once a second at most, so that a rotation reaches all workers, and needs no restart.

Promise: there is no default key; a file that others can read is refused; of several processes that
start for the first time, all use the keys of one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import stat
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from joserfc.jwk import OctKey
from msgspec import Meta

from veko import OptionError

from .._lib.private_files import create_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Keys"]

_log: Final = logging.getLogger("veko.auth")
_BYTES: Final = 32
# Seconds between two looks at the file.
_LOOK: Final = 1.0
_READABLE: Final = stat.S_IRWXG | stat.S_IRWXO


class _Key(msgspec.Struct, frozen=True):
    kid: Annotated[str, Meta(min_length=1, max_length=64)]
    secret: Annotated[bytes, Meta(min_length=_BYTES)]
    # When it was replaced, in seconds since the epoch; `None` for the one that signs.
    replaced: float | None = None

    def __repr__(self) -> str:
        return f"<key {self.kid}>"


class _File(msgspec.Struct, frozen=True):
    keys: Annotated[tuple[_Key, ...], Meta(min_length=1)]


class Keys:
    """The keys of an application.

    Args:
        path: The file; `None` if the keys are given.
        given: The secrets in the settings, the one that signs first.
        lifetime: Seconds for which a replaced key is accepted: as long as a token may live.

    Attributes:
        version: How often the keys were read.
    """

    def __init__(self, path: Path | None, given: Sequence[str] = (), *, lifetime: float) -> None:
        self.version = 0
        self._path = path
        self._lifetime = lifetime
        self._seen: tuple[int, ...] | None = None
        self._looked = 0.0
        self._keys: dict[str, _Key] = {}
        self._made: dict[str, OctKey] = {}
        if path is None:
            for secret in given:
                raw = hashlib.sha256(secret.encode()).digest()
                kid = hashlib.sha256(b"veko kid" + raw).hexdigest()[:16]
                self._keys[kid] = _Key(kid, raw)

    def __repr__(self) -> str:
        return f"<Keys {', '.join(self._keys)}>"

    def open(self) -> None:
        """Read the file; create it with a new key if there is none.

        Raises:
            OptionError: It cannot be read or written, others can read it, or it is damaged.
        """
        if self._path is None:
            return
        try:
            private_folder(self._path.parent)
            if not self._path.exists():
                self._create(self._path, (_new(),))
            self._read(self._path)
        except OSError as error:
            raise OptionError(
                f"the keys of auth cannot be read or written: {error.strerror}",
                path=self._path,
                remedy="Let the application write there, or set `secret` in [plugins.auth].",
            ) from error

    def newest(self) -> tuple[str, OctKey]:
        """Return the id and the key that sign."""
        self.refresh()
        kid = next(iter(self._keys))
        return kid, self._made_of(self._keys[kid])

    def find(self, kid: object) -> OctKey | None:
        """Return the key of an id; `None` if there is none, or it has lapsed."""
        self.refresh(missing=kid not in self._keys)
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None or (key.replaced and key.replaced + self._lifetime < time.time()):
            return None
        return self._made_of(key)

    def rotate(self, *, at_once: bool = False) -> str:
        """Sign with a new key from now on, and return its id.

        Args:
            at_once: Whether former keys are dropped now, which ends all sessions: for a key that
                others know.

        Raises:
            OptionError: The keys are given in the settings, or the file cannot be written.
        """
        path = self._path
        if path is None:
            raise OptionError(
                "the keys of auth are given in the settings",
                remedy="Set a new `secret` in [plugins.auth], and put the one before first in "
                "`former_secrets`.",
            )
        now, new = time.time(), _new()
        kept = (
            key if key.replaced else msgspec.structs.replace(key, replaced=now)
            for key in self._keys.values()
        )
        keys = (new, *(k for k in kept if not at_once and (k.replaced or 0) + self._lifetime > now))
        try:
            self._create(path, keys, replace=True)
            self._read(path)
        except OSError as error:
            raise OptionError(
                f"the keys of auth cannot be written: {error.strerror}", path=path
            ) from error
        return new.kid

    def _made_of(self, key: _Key) -> OctKey:
        made = self._made.get(key.kid)
        if made is None:
            made = self._made[key.kid] = OctKey.import_key(key.secret)
        return made

    def refresh(self, *, missing: bool = False) -> None:
        """Read the file again if it has changed; at most once a second, unless an id is missing."""
        now = time.monotonic()
        if self._path is None or not (missing or now - self._looked >= _LOOK):
            return
        self._looked = now
        try:
            if _mark(self._path.stat()) != self._seen:
                self._read(self._path)
        except FileNotFoundError:
            return  # deleted: what is known is used until the next start, which generates a new one
        except (OSError, OptionError) as error:
            _log.error("the keys of auth have changed, and the former ones stay: %s", error)

    def _read(self, path: Path) -> None:
        found = path.stat()
        self._seen = _mark(found)  # also of a bad file, which is reported once
        if os.name == "posix" and found.st_mode & _READABLE:
            raise OptionError(
                "others than its owner can read or write the keys of auth",
                path=path,
                remedy=f"chmod 600 {path}, and replace the keys if somebody has read them: "
                "veko run rotate-auth-keys --at-once",
            )
        try:
            keys = msgspec.json.decode(path.read_bytes(), type=_File).keys
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise OptionError(
                "the file with the keys of auth is damaged",
                path=path,
                remedy="Restore it, or delete it: a new key is generated, and everybody has to log "
                "in again.",
            ) from None
        self.version += 1
        self._keys = {key.kid: key for key in keys}
        self._made.clear()

    @staticmethod
    def _create(path: Path, keys: tuple[_Key, ...], *, replace: bool = False) -> None:
        """Write the file, whole or not at all; one that exists stays unless it is replaced."""
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with os.fdopen(create_private(beside), "wb") as file:
                file.write(msgspec.json.encode(_File(keys)))
                file.flush()
                os.fsync(file.fileno())
            if replace:
                beside.replace(path)
                return
            try:
                path.hardlink_to(beside)
            except FileExistsError:
                return  # another process was faster: its keys are read
        finally:
            beside.unlink(missing_ok=True)


def _new() -> _Key:
    return _Key(secrets.token_hex(8), secrets.token_bytes(_BYTES))


def _mark(found: os.stat_result) -> tuple[int, ...]:
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode
