"""URLs of servers that applications share, each with a prefix of its own for its names."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from veko.errors import OptionError

__all__ = ["location_of", "split_prefix"]

_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")


def location_of(url: str) -> str:
    """Return a URL without user, password and parameters."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def split_prefix(url: str, what: str = "storage") -> tuple[str, str]:
    """Split the parameter `prefix`, which all names on the server begin with, from a URL.

    Args:
        url: The URL.
        what: What the server is used as, for messages.

    Returns:
        The URL without it, and the prefix; by default `veko`.

    Raises:
        OptionError: It is not a name.
    """
    parts = urlsplit(url)
    parameters = parse_qsl(parts.query, keep_blank_values=True)
    prefix = dict(parameters).get("prefix", "veko")
    if not _PREFIX.fullmatch(prefix):
        raise OptionError(
            f"{what} {location_of(url)}: prefix={prefix!r} is not a name",
            remedy="Use up to 31 lower-case letters, digits and _, beginning with a letter.",
        )
    rest = urlencode([one for one in parameters if one[0] != "prefix"])
    return urlunsplit(parts._replace(query=rest)), prefix
