"""Keys of entries in a storage or a cache: what is a valid one."""

from __future__ import annotations

from typing import Final

from veko import VekoError

__all__ = ["MAX_KEY", "check_entry_key"]

MAX_KEY: Final = 512
"""The most characters of a key."""


def check_entry_key(key: object, what: str, error: type[VekoError]) -> None:
    """Check a key.

    Args:
        key: The key.
        what: What it is, for messages: `"storage key"`.
        error: The type of the error.

    Raises:
        VekoError: It is not a `str`, is empty, too long, or has lone surrogates.
    """
    if not isinstance(key, str):
        raise error(
            f"a {what} must be a str, not {type(key).__name__}: {key!r:.80}",
            remedy="Use str(key).",
        )
    if not 0 < len(key) <= MAX_KEY:
        size = f"{len(key)} characters" if key else "empty"
        raise error(
            f"a {what} has 1 to {MAX_KEY} characters, this one is {size}: {key[:40]!r}",
            remedy="Use a hash of it." if key else "Name the entry.",
        )
    try:
        key.encode()
    except UnicodeEncodeError as failure:
        raise error(
            f"the {what} {key[:40]!a} is not valid Unicode: {failure.reason}",
            remedy="Leave out lone surrogates, or use a hash of it.",
        ) from None
