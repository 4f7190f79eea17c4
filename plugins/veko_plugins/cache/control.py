"""What HTTP says about caching: directives, lifetimes, conditions (RFC 9111, RFC 9110).

Pure functions of header texts. In doubt a response is not stored: a number that is none makes it
stale, and what may be stored in one's own cache only is not stored in this one, which is shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from email.utils import parsedate_to_datetime
from hashlib import blake2b
from typing import Final

__all__ = [
    "allows_authorised", "directives", "etag_of", "is_current", "is_stored_for", "lifetime",
    "names", "seconds",
]  # fmt: skip

# Neither is ever tried twice at one position, so that a hostile header is read in linear time
# (`test_a_hostile_header_is_parsed_in_time`).
_PART: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_MOST_SECONDS: Final = 2**31
_FORBIDDEN: Final = ("no-store", "no-cache", "private")
_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


def directives(values: Iterable[str]) -> dict[str, str]:
    """Parse `Cache-Control`: the arguments by directive, in small letters, the first of each.

    Args:
        values: The values of all its headers.
    """
    found: dict[str, str] = {}
    for value in values:
        for part in _PART.findall(value):
            name, _, argument = (text.strip() for text in part.partition("="))
            if len(argument) > 1 and argument[0] == argument[-1] == '"':
                argument = argument[1:-1]
            elif argument and not _TOKEN.fullmatch(argument):
                name = ""
            if _TOKEN.fullmatch(name):
                found.setdefault(name.lower(), argument)
            elif part.strip():
                found["no-store"] = ""  # it says something that is not understood
    return found


def seconds(text: str | None) -> int | None:
    """Return the seconds of a directive: 0 if that is no number, `None` if it is not there."""
    if text is None:
        return None
    return min(int(text), _MOST_SECONDS) if text.isascii() and text.isdigit() else 0


def lifetime(
    control: dict[str, str], expires: Sequence[str], date: str | None, now: float, default: float
) -> float | None:
    """Return how long a response may be stored, in seconds; `None` if not at all.

    Args:
        control: Its `Cache-Control`.
        expires: The values of its `Expires`.
        date: Its `Date`.
        now: Seconds since the epoch.
        default: The lifetime of a response that says nothing.
    """
    if any(name in control for name in _FORBIDDEN):
        return None
    for name in ("s-maxage", "max-age"):
        given = seconds(control.get(name))
        if given is not None:
            return given or None
    if expires:
        until = _moment(expires[0])
        begin = _moment(date) if date else None
        left = None if until is None else until - (now if begin is None else begin)
        return left if left is not None and left > 0 else None
    return default


def allows_authorised(control: dict[str, str]) -> bool:
    """Return whether a response to an authorised request may answer others (RFC 9111, 3.5)."""
    return any(name in control for name in ("public", "s-maxage", "must-revalidate"))


def is_stored_for(control: dict[str, str], age: float, left: float) -> bool:
    """Return whether a request takes a stored response.

    Args:
        control: The `Cache-Control` of the request.
        age: How old the response is, in seconds.
        left: For how long it is fresh.
    """
    if "no-cache" in control:
        return False
    most, least = seconds(control.get("max-age")), seconds(control.get("min-fresh"))
    return (most is None or age <= most) and (least is None or left >= least)


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Return the header names in `Vary`, in small letters and in order."""
    found = {name.strip().lower() for value in values for name in value.split(",")}
    return tuple(sorted(found - {""}))


def etag_of(body: bytes) -> str:
    """Return a weak `ETag` of a body: weak, since a middleware may still compress it."""
    return f'W/"{blake2b(body, digest_size=12).hexdigest()}"'


def is_current(
    etag: str | None, modified: str | None, none_match: Sequence[str], since: str | None
) -> bool:
    """Return whether a client has a response already (RFC 9110, 13.2.2).

    Args:
        etag: The response's `ETag`.
        modified: Its `Last-Modified`.
        none_match: The values of the request's `If-None-Match`.
        since: Its `If-Modified-Since`.
    """
    if none_match:
        text = ",".join(none_match)
        if text.strip() == "*":
            return True
        own = _TAG.fullmatch(etag.strip()) if etag else None
        return own is not None and own[1] in _TAG.findall(text)
    if since and modified:
        had, has = _moment(since), _moment(modified)
        return had is not None and has is not None and has <= had
    return False


def _moment(text: str) -> float | None:
    """Return a date of HTTP in seconds since the epoch; `None` if it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
