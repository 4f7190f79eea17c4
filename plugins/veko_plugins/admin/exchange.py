"""What is asked and answered, whatever it comes over: HTTP, a Unix socket, or a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from .access import Caller
from .errors import problem_of

__all__ = [
    "CHANGE",
    "JSON",
    "PREFIX",
    "RELAYED",
    "Answer",
    "Asked",
    "encode",
    "query_of",
    "segments_of",
]

PREFIX: Final = "/_veko/api"
JSON: Final = "application/json"
RELAYED: Final = "veko-relayed"
"""The header by which a worker says that it relays; it counts at control sockets only."""
CHANGE: Final = "veko-change"
"""The header with the id of a change."""
_PROBLEM: Final = "application/problem+json"
_ALWAYS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request.

    Attributes:
        method: The method in capitals.
        path: The decoded segments below the prefix.
        query: The query parameters; the last of a repeated name wins.
        headers: The headers, names in lower case.
        body: The body.
        caller: The caller.
    """

    method: str
    path: tuple[str, ...]
    caller: Caller
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Answer(msgspec.Struct, kw_only=True):
    """A response; `stream` are the chunks of one that does not end by itself."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    stream: AsyncIterator[bytes] | None = None

    @classmethod
    def of(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the answer with a document."""
        own = {"content-type": JSON, **_ALWAYS, **(headers or {})}
        return cls(status=status, body=encode(value), headers=own)

    @classmethod
    def refusal(cls, error: BaseException) -> Answer:
        """Return the answer with the problem document of an error."""
        problem, headers = problem_of(error)
        own = {**_ALWAYS, **headers, "content-type": _PROBLEM}
        return cls(status=problem.status, body=encode(problem), headers=own)

    @classmethod
    def streamed(cls, chunks: AsyncIterator[bytes]) -> Answer:
        """Return an answer of server-sent events."""
        own = {"content-type": "text/event-stream; charset=utf-8", **_ALWAYS}
        return cls(headers={**own, "x-accel-buffering": "no"}, stream=chunks)


def encode(value: object) -> bytes:
    """Encode a document as JSON; what JSON does not have becomes text."""
    try:
        return msgspec.json.encode(value, enc_hook=str)
    except UnicodeEncodeError:  # half of a surrogate pair
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=str)
        return msgspec.json.encode(_replaced(plain), enc_hook=str)


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_replaced(key): _replaced(item) for key, item in value.items()}
    return [_replaced(item) for item in value] if isinstance(value, list) else value


def segments_of(path: str) -> tuple[str, ...]:
    """Return the decoded segments of a path as it was sent, without the query.

    A slash that was sent as `%2F` is part of its segment.
    """
    return tuple(unquote(part, errors="replace") for part in path.strip("/").split("/") if part)


def query_of(text: str) -> dict[str, str]:
    """Return the parameters of a query string."""
    return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))
