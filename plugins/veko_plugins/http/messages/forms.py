"""Query strings and forms: names that may repeat, and uploaded files.

A form is held in memory as a whole, within the limit of the request's body. Multipart forms are
parsed by the distribution `multipart`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar, overload
from urllib.parse import parse_qsl

import msgspec

from .problem import HTTPError

__all__ = ["Fields", "Upload", "parse_form", "parse_query"]

V = TypeVar("V")
D = TypeVar("D")

_MAX_FIELDS: Final = 1_000
"""Fields of a query string or form; more are refused before they are parsed."""


class Fields(Mapping[str, V], Generic[V]):
    """A mapping of names that may repeat: `fields[name]` is the last value, `getall` gives all.

    Args:
        pairs: Names and values in the order in which they arrived.
    """

    __slots__ = ("_last", "pairs")

    def __init__(self, pairs: Iterable[tuple[str, V]] = ()) -> None:
        self.pairs = tuple(pairs)
        self._last = dict(self.pairs)

    def __getitem__(self, name: str) -> V:
        return self._last[name]

    @overload
    def get(self, name: str, default: None = None, /) -> V | None: ...
    @overload
    def get(self, name: str, default: V, /) -> V: ...
    @overload
    def get(self, name: str, default: D, /) -> V | D: ...
    def get(self, name: str, default: Any = None, /) -> Any:
        """Return the last value of a name, or the default."""
        return self._last.get(name, default)

    def getall(self, name: str) -> list[V]:
        """Return all values of a name, in order; none if the name is not there."""
        return [value for key, value in self.pairs if key == name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._last)

    def __len__(self) -> int:
        return len(self._last)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.pairs)!r})"


class Upload(msgspec.Struct, frozen=True):
    """A file in a form. It is in memory, so it counts towards the limit of the body.

    Attributes:
        filename: The name that the client sent. Do not use it as a path.
        content_type: The media type that the client claims.
        data: The content.
    """

    filename: str
    content_type: str
    data: bytes


def parse_query(raw: bytes) -> Fields[str]:
    """Parse a query string; bytes that are not UTF-8 become replacement characters.

    Raises:
        HTTPError: 400 if it has too many fields.
    """
    if not raw:
        return Fields()
    return Fields(_pairs(raw, "query string", errors="replace"))


def _pairs(raw: bytes, what: str, *, errors: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("utf-8", errors),
            keep_blank_values=True,
            errors=errors,
            max_num_fields=_MAX_FIELDS,
        )
    except UnicodeDecodeError as error:
        raise HTTPError(400, f"the {what} is not UTF-8: {error.reason}") from None
    except ValueError:
        raise HTTPError(400, f"the {what} has more than {_MAX_FIELDS} fields") from None


def parse_form(content_type: str, body: bytes) -> Fields[str | Upload]:
    """Parse the body of a URL-encoded or multipart form.

    Args:
        content_type: The request's `Content-Type` header.
        body: The request's body.

    Raises:
        HTTPError: 415 if it is not a form, 400 if it is malformed or has too many fields.
    """
    from multipart import (  # type: ignore[import-untyped]
        # Where python-multipart is installed too (the extra `mcp` brings it), its package stands in
        # front of the file; it hands on to the file, which pyright does not see.
        MultipartError,  # pyright: ignore[reportAttributeAccessIssue]
        PushMultipartParser,  # pyright: ignore[reportAttributeAccessIssue]
        parse_options_header,  # pyright: ignore[reportAttributeAccessIssue]
    )

    kind, options = parse_options_header(content_type)
    if kind == "application/x-www-form-urlencoded":
        return Fields(_pairs(body, "form", errors="strict"))
    if kind != "multipart/form-data":
        raise HTTPError(415, f"expected a form, got {kind or 'nothing'!r}")
    found: list[tuple[str, str | Upload]] = []
    try:
        with PushMultipartParser(
            options.get("boundary", ""), max_segment_count=_MAX_FIELDS
        ) as parser:
            chunks: list[bytes] = []
            name, filename, kind = "", None, ""
            for event in parser.parse(body):
                if isinstance(event, (bytes, bytearray)):
                    chunks.append(bytes(event))
                elif event is not None:
                    chunks = []
                    if not event.name:
                        raise ValueError("a part has no name")
                    name, filename = event.name, event.filename
                    kind = event.content_type or "application/octet-stream"
                elif filename is not None:
                    found.append((name, Upload(filename, kind, b"".join(chunks))))
                else:
                    found.append((name, b"".join(chunks).decode()))
    except (MultipartError, ValueError) as error:
        raise HTTPError(400, f"the form is malformed: {error}") from None
    return Fields(found)
