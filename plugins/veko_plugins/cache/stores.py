"""Stores: what is underneath, and which one a URL means.

`memory:` is our own, bounded one; `file:PATH` and `redis://…` are Litestar's. Any other store of
Litestar's serves as well: `PluginManager(core={"cache": CachePlugin(ValkeyStore(...))})`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote

from veko.errors import OptionError

from .._lib.masking import masked_text
from .memory import MemoryStore

__all__ = ["Store", "store_of"]

_KNOWN: Final = "memory:, file:path/to/a/folder, redis://host:6379/0"


class Store(Protocol):
    """Where entries are. Methods may raise anything, and be slow: see `guarded`.

    Attributes:
        location: What it is called in messages, without a password.
        shared: Whether several processes use it.
    """

    location: str
    shared: bool

    async def open(self) -> None:
        """Connect, as far as that does not need the server.

        Raises:
            OptionError: It cannot be used as it is configured.
        """
        ...

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return the values of keys, in one round trip if there are any."""
        ...

    async def set(self, key: str, value: bytes, ttl: float | None) -> bool:
        """Set a value for some seconds; `None`: until it is deleted. Returns whether it is set."""
        ...

    async def add_many(self, values: Mapping[str, bytes], ttl: float | None) -> list[bytes]:
        """Set each value where there is none; return those that are there then."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete keys; those that do not exist are no mistake."""
        ...

    async def claim(self, key: str, token: str, seconds: float) -> bool:
        """Claim a key among all processes, for some seconds at most; `False`: another has it."""
        ...

    async def release(self, key: str, token: str) -> None:
        """Give a claim up, if it is still one's own."""
        ...

    async def ping(self) -> None:
        """Return if it works."""
        ...

    async def sweep(self) -> None:
        """Remove what has expired, if it does not do so by itself."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


def store_of(url: str, directory: Path, max_bytes: int, timeout: float) -> Store:
    """Return the store of a URL, not open yet.

    Args:
        url: `memory:`, `file:PATH`, or `redis://…`.
        directory: What a relative path starts at.
        max_bytes: How much memory, or disk, the entries may take here; a server has its own bound.
        timeout: Seconds that an operation may take.

    Raises:
        OptionError: The URL is not valid, or what it needs is not installed.
    """
    shown = masked_text(url)
    scheme, separator, rest = url.partition(":")
    if not separator or scheme not in {"memory", "file", "redis", "rediss", "unix"}:
        raise OptionError(f"cache {shown!r} is not a URL that is known", remedy=f"Use {_KNOWN}.")
    if scheme == "memory":
        if rest.strip("/"):
            raise OptionError(f"cache {shown!r}: nothing follows memory:", remedy="Use memory:.")
        return MemoryStore(max_bytes)
    extras = "litestar" if scheme == "file" else "litestar,redis"
    try:
        if scheme == "file":
            path = unquote(rest.removeprefix("//") if rest.startswith("///") else rest)
            if not path or path.startswith("//"):
                raise OptionError(
                    f"cache {shown!r} has no path", remedy="Use file:path/to/a/folder."
                )
            from .files import FolderStore

            return FolderStore(directory / path, max_bytes)
        from .redis import RedisStore

        return RedisStore(url, timeout)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"litestar", "redis"}:
            raise
        raise OptionError(
            f"cache {shown!r} needs {error.name}, which is not installed",
            remedy=f"pip install 'veko[{extras}]', or use cache = \"memory:\".",
        ) from error
