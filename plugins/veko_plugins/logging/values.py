"""Values as a log line shows them: without secrets, and bounded.

Cost: one walk over the first entries of a value, whatever its size; a text is searched for secrets
only if it has a character that stands before one.
Promise: a value is shown in at most `_CHARACTERS` characters and `_ENTRIES` entries, and showing it
never raises. Masking too much is safer than too little.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import date, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from .._lib.masking import MASK, masked_text, sounds_secret

__all__ = ["Shown", "cut", "one_line", "unmarked"]

_CHARACTERS: Final = 32_768
_ENTRIES: Final = 500
_TEXT: Final = 8_192
_KEY: Final = 200
_REPR: Final = 1_024
_DEPTH: Final = 8
_SHORT: Final = 64
_PLAIN: Final = frozenset((bool, float, type(None)))
_BITS: Final = 256
_CONTROL: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SECRETS: Final = (
    r"passw|pwd|passphrase|secret|token|api_?-?key|private_?-?key|authorization|credential|cookie"
)
_QUOTED: Final = r"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?)"""
# `password=x`, `'api_key': 'x'`. Not `token: x`, which is prose: "unexpected token: )".
_ASSIGNED: Final = re.compile(
    rf"""((?<![\w-])[\w-]{{0,40}}(?:{_SECRETS})[\w-]{{0,40}}(?:=|["']\s{{0,2}}[:=]\s{{0,2}}))"""
    rf"""(?:{_QUOTED}|[^\s,;&)\]}}]+)""",
    re.I,
)
_HEADER: Final = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie)(\s?:\s?)[^\r\n]+", re.I)
# `Bearer dXNlcjpw`, and not "basic authorization": a token has more than letters of one case.
_SCHEME: Final = re.compile(
    r"\b(Bearer|Basic)\s+(?-i:(?=\S*(?:[\d._=+/-]|[a-z][A-Z])))[\w.~+/=-]{8,}", re.I
)


@functools.lru_cache(4096)
def _sounds_secret(name: str) -> bool:
    return sounds_secret(name)


def _hides(name: object) -> bool:
    """Return whether a name hides its value; short ones, which come again, are looked up."""
    if type(name) is str and len(name) <= _SHORT:
        return _sounds_secret(name)
    return name is not None and sounds_secret(name)


def unmarked(text: str) -> str:
    """Return a text without the secrets that it shows to be such: `password=********`."""
    if text.isalnum():
        return text
    text = masked_text(text)
    if "=" in text or "':" in text or '":' in text or "' :" in text or '" :' in text:
        text = _ASSIGNED.sub(rf"\1{MASK}", text)
    if ":" in text and ("ookie" in text or "uthorization" in text or "UTHORIZATION" in text):
        text = _HEADER.sub(rf"\1\2{MASK}", text)
    if "earer" in text or "asic" in text or "EARER" in text:
        text = _SCHEME.sub(rf"\1 {MASK}", text)
    return text


def one_line(text: str) -> str:
    """Escape characters that could fake another line, control a terminal or turn text around."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def cut(text: str, most: int) -> str:
    """Return a text of at most about so many characters: its begin and its end."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} ... {len(text) - 2 * half} characters ... {text[-half:]}"


class Shown:
    """Makes values showable; one for each record, since what it shows in all is bounded."""

    __slots__ = ("_characters", "_entries")

    def __init__(self) -> None:
        self._characters = _CHARACTERS
        self._entries = _ENTRIES

    def value(self, value: object, name: object = None, depth: int = 0) -> object:
        """Return a value as plain data.

        Args:
            value: Any value.
            name: The name that it has; one that sounds secret hides it.
            depth: How deep it lies in a larger one.
        """
        if name is not None and _hides(name):
            return MASK
        kind = type(value)
        if kind is str:
            return self._text(value, _TEXT)  # type: ignore[arg-type]
        if kind in _PLAIN:
            return value
        if kind is int:
            bits = value.bit_length()  # type: ignore[attr-defined]
            return value if bits <= _BITS else f"an int of {bits} bits"
        try:
            if kind is dict:  # before the others: to ask whether something is a Mapping takes long
                return self._mapping(value.items(), len(value), depth)  # type: ignore[attr-defined,arg-type]
            if kind is list or kind is tuple:
                return self._sequence(value, depth)  # type: ignore[arg-type]
            return self._other(value, depth)
        except Exception as error:  # whatever a property, an iterator or a repr raises
            return f"<{kind.__name__} that cannot be shown: {type(error).__name__}>"

    def _text(self, text: str, most: int) -> str:
        if len(text) > most or len(text) > self._characters:
            text = cut(text, min(most, max(self._characters, _SHORT)))
        self._characters -= len(text)
        return unmarked(text)

    def _other(self, value: Any, depth: int) -> object:
        if isinstance(value, Mapping):
            return self._mapping(value.items(), len(value), depth)
        if isinstance(value, list | tuple | AbstractSet):
            return self._sequence(value, depth)
        if isinstance(value, msgspec.Struct):
            names = value.__struct_fields__
            return self._mapping(
                ((name, getattr(value, name)) for name in names), len(names), depth
            )
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = tuple(field.name for field in dataclasses.fields(value))
            return self._mapping(
                ((name, getattr(value, name)) for name in names), len(names), depth
            )
        if isinstance(value, enum.Enum):
            return self.value(value.value, None, depth + 1) if depth < _DEPTH else "..."
        if isinstance(value, date | time):
            return value.isoformat()
        if isinstance(value, UUID | Decimal):
            return str(value)
        if isinstance(value, bytes | bytearray):
            more = f" ... {len(value) - _REPR} bytes" if len(value) > _REPR else ""
            return self._text(f"{bytes(value[:_REPR])!r}{more}", 4 * _REPR)
        return self._text(repr(value), _REPR)

    def _sequence(self, value: Collection[object], depth: int) -> object:
        if depth >= _DEPTH:
            return "..."
        shown: list[object] = []
        for one in value:
            if not self._has_room():
                shown.append(f"... {len(value) - len(shown)} more")
                break
            shown.append(self.value(one, None, depth + 1))
        return shown

    def _mapping(self, pairs: Iterable[tuple[object, object]], count: int, depth: int) -> object:
        if depth >= _DEPTH:
            return "..."
        shown: dict[str, object] = {}
        for key, one in pairs:
            if not self._has_room():
                shown["..."] = f"{count - len(shown)} more"
                break
            name = key if type(key) is str else str(key)
            shown[self._text(name, _KEY)] = self.value(one, name, depth + 1)
        return shown

    def _has_room(self) -> bool:
        self._entries -= 1
        return self._entries >= 0 and self._characters > 0
