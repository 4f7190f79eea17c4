"""Headers: a case-insensitive view of the byte pairs that ASGI carries.

The pairs stay as they are. A lookup walks them, which is cheaper than an index for the dozen
headers of a request. A name or value that could begin another header (a line break, a NUL, a space
in a name) raises where it is set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final

__all__ = ["Headers", "RawHeaders", "encode_header", "received"]

RawHeaders = list[tuple[bytes, bytes]]

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def encode_header(name: str, value: str) -> tuple[bytes, bytes]:
    """Encode a header for ASGI.

    Raises:
        ValueError: The name is not a token (RFC 9110), the value is not text or has a control
            character or one outside Latin-1, or the header is `Transfer-Encoding`, which only the
            server sets.
    """
    try:
        raw_name, raw_value = name.encode("ascii").lower(), value.encode("latin-1").strip(b" \t")
    except UnicodeEncodeError as error:
        raise ValueError(f"header {name!r} cannot be encoded: {error.reason}") from None
    except AttributeError:
        raise ValueError(f"header {name!r} must be text, got {value!r}; use str(...)") from None
    if not _NAME.fullmatch(raw_name):
        raise ValueError(f"{name!r} is not a valid header name")
    if _BAD_VALUE.search(raw_value):
        raise ValueError(f"the value of header {name!r} has a control character")
    if raw_name == b"transfer-encoding":
        # With a content-length beside it, clients and proxies would disagree on where it ends.
        raise ValueError("transfer-encoding cannot be set: the server decides it")
    return raw_name, raw_value


def received(pairs: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """Return the headers that a framework sends, names in lower case.

    Raises:
        ValueError: A name is not a token, or a value has a control character.
    """
    raw = [(name.lower(), value) for name, value in pairs]
    for name, value in raw:
        if not _NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise ValueError(f"the header {name!r} has an invalid name or value")
    return raw


class Headers(MutableMapping[str, str]):
    """Headers of a request or a response; names are case-insensitive.

    Setting a name replaces all headers of that name; `add` keeps the others (`Set-Cookie`).

    Args:
        raw: The pairs of bytes, names in lower case. The list is not copied.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: RawHeaders | None = None) -> None:
        self.raw: RawHeaders = [] if raw is None else raw

    @classmethod
    def of(cls, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> Headers:
        """Return headers from a mapping or from pairs.

        Raises:
            ValueError: A name or value is not valid.
        """
        pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
        return cls([encode_header(name, value) for name, value in pairs])

    def __getitem__(self, name: str) -> str:
        key = name.lower().encode("latin-1", "replace")
        for raw_name, value in self.raw:
            if raw_name == key:
                return value.decode("latin-1")
        raise KeyError(name)

    def getall(self, name: str) -> list[str]:
        """Return the values of all headers of that name, in order."""
        key = name.lower().encode("latin-1", "replace")
        return [value.decode("latin-1") for raw_name, value in self.raw if raw_name == key]

    def __setitem__(self, name: str, value: str) -> None:
        pair = encode_header(name, value)
        self.raw[:] = [other for other in self.raw if other[0] != pair[0]]
        self.raw.append(pair)

    def add(self, name: str, value: str) -> None:
        """Add a header, beside those of the same name.

        Raises:
            ValueError: The name or value is not valid.
        """
        self.raw.append(encode_header(name, value))

    def __delitem__(self, name: str) -> None:
        key = name.lower().encode("latin-1", "replace")
        rest = [other for other in self.raw if other[0] != key]
        if len(rest) == len(self.raw):
            raise KeyError(name)
        self.raw[:] = rest

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name, _ in self.raw))

    def __len__(self) -> int:
        return len({name for name, _ in self.raw})

    def __repr__(self) -> str:
        return f"Headers({[(n.decode('latin-1'), v.decode('latin-1')) for n, v in self.raw]})"
