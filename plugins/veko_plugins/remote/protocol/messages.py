"""The messages of the protocol: JSON arrays whose first element names the kind.

Decoding refuses what does not fit: a wrong number of elements, a wrong type, an id below 1. The
values inside (`args`, `value`) are plain JSON here; `values` gives meaning to the marked ones.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec

__all__ = [
    "PROTOCOL",
    "Call",
    "Cancel",
    "Drop",
    "Fail",
    "Failure",
    "Hello",
    "Message",
    "Note",
    "Ok",
    "Ping",
    "Pong",
    "decode",
]

PROTOCOL: Final = 1
"""The version of the protocol."""

Id = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, tag=str.lower):
    """A message; the name of its class in lower case is its first element."""


class Failure(msgspec.Struct, omit_defaults=True):
    """An error as it crosses the border; see `RemoteError` for the fields."""

    type: str
    message: str
    stack: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    status: Annotated[int, msgspec.Meta(ge=100, le=599)] | None = None
    code: str | int | None = None
    remedy: str | None = None
    more: dict[str, Any] = {}


class Hello(_Message):
    """The first message of each side."""

    facts: dict[str, Any]


class Call(_Message):
    """A call; `parent` is the id of the other side's call in which it was made, or 0."""

    id: Id
    target: str | Id
    args: list[Any]
    parent: Count


class Ok(_Message):
    """What a call returned."""

    id: Id
    value: Any


class Fail(_Message):
    """What a call raised."""

    id: Id
    error: Failure


class Cancel(_Message):
    """The caller no longer waits for the answer."""

    id: Id


class Note(_Message):
    """A call that is not answered."""

    target: str | Id
    args: list[Any]


class Drop(_Message):
    """Handles that the sender no longer needs, each with how often it had received it."""

    handles: list[tuple[Id, Id]]


class Ping(_Message):
    """To be answered at once by a `Pong` with the same number."""

    number: Count


class Pong(_Message):
    """The answer to a `Ping`."""

    number: Count


Message = Hello | Call | Ok | Fail | Cancel | Note | Drop | Ping | Pong

_DECODER: Final[msgspec.json.Decoder[Message]] = msgspec.json.Decoder(Message)

_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL
)
"""Escapes in JSON text, one by one; the group is half of a surrogate pair that stands alone."""


def decode(text: bytes | bytearray | memoryview) -> Message:
    r"""Return the message of a frame.

    JavaScript's strings may hold half a surrogate pair, and a client can send one in a JSON body
    (`"\ud800"`). It becomes U+FFFD, as everywhere in the web: it must not end the connection.

    Args:
        text: JSON.

    Raises:
        msgspec.MsgspecError: It is no JSON, or no message.
        UnicodeDecodeError: It is not UTF-8.
        RecursionError: It is nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        whole = _ESCAPES.sub(lambda found: rb"\ufffd" if found[1] else found[0], bytes(text))
        return _DECODER.decode(whole)
