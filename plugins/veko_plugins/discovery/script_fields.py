"""The fields that a script spells out, read without running it.

The exported object is found (`module.exports = {`, `export = {`, `export default {`, or the name of
a constant that is one), and those of its properties are read that are literals. Functions and other
expressions are skipped.

Cost: one walk over the exported object; some 50 µs for a small plugin.
Promise: in doubt there are no fields at all; then the plugin has to be started to know them.
"""

from __future__ import annotations

import re
from typing import Any, Final

__all__ = ["script_fields"]

_SPACE: Final = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_EXPORT: Final = re.compile(
    r"^(?:module\.exports\s*=|export\s*=|export\s+default\b)\s*(?:(\{)|([A-Za-z_$][\w$]*)\s*;?\s*$)",
    re.MULTILINE,
)
_OTHER: Final = re.compile(
    r"^(?:module\.)?exports\.[\w$]+\s*=|^export\s+(?:const|let|var|\{|\*)", re.MULTILINE
)
_KEY: Final = re.compile(r"(?:([A-Za-z_$][\w$]*)|'([^'\\\n]*)'|\"([^\"\\\n]*)\")\s*(:)?")
_STRING: Final = re.compile(
    r"'((?:[^'\\\n]|\\.)*)'|\"((?:[^\"\\\n]|\\.)*)\"|`([^`\\$]*)`", re.DOTALL
)
_NUMBER: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w$.])")
_WORD: Final = re.compile(r"(?:true|false|null)(?![\w$])")
_AFTER: Final = re.compile(r"(?:as\s+const|as\s+[A-Za-z_$][\w$.]*|satisfies\s+[A-Za-z_$][\w$.]*)?")
_REGEX: Final = re.compile(r"/(?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")
_ESCAPE: Final = re.compile(
    r"\\(?:u\{([0-9a-fA-F]+)\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.S
)
_SIMPLE: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "0": "\0",
    "\n": "",
}
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_DEEPEST: Final = 40


class _Uncertain(Exception):
    """The text is not what this file understands."""


class _Computed(Exception):
    """A value is no literal."""


def script_fields(text: str) -> dict[str, Any] | None:
    """Return the literal properties of the object that a script exports.

    Args:
        text: The source of the script.

    Returns:
        `None` if they are not certain: the exported object was not found, there are several, or
        something in it may add to it.
    """
    exports = list(_EXPORT.finditer(text))
    if len(exports) != 1 or _OTHER.search(text):
        return None
    brace, name = exports[0].start(1), exports[0][2]
    if name is not None:
        pattern = rf"^(?:const|let|var)\s+{re.escape(name)}\s*(?::[^=\n]+)?=\s*(\{{)"
        constants = list(re.finditer(pattern, text, re.MULTILINE))
        changed = re.search(rf"\b{re.escape(name)}\s*(?:\.\s*[\w$]+|\[[^\]]*\])?\s*=(?![=>])", text)
        if len(constants) != 1 or (changed and changed.start() < constants[0].start()):
            return None
        brace = constants[0].start(1)
    try:
        return _Reader(text, brace).fields()
    except (_Uncertain, IndexError, RecursionError):
        return None


class _Reader:
    """Reads an object from a position in a text."""

    def __init__(self, text: str, at: int) -> None:
        self.text = text
        self.at = at

    def fields(self) -> dict[str, Any]:
        """Read the exported object; values that are no literals are left out."""
        found: dict[str, Any] = {}
        self._take("{")
        while not self._comes("}"):
            begin = self.at
            key = _KEY.match(self.text, self.at)
            if key is None or (key[1] in ("get", "set", "async", "static") and key[4] is None):
                self._skip_value()  # a method
                if self.text[begin] in ".[":  # spread or computed: it may be any field
                    raise _Uncertain
            elif key[4] is None:
                name = key[1] or key[2] or key[3]
                if name in ("name", "version"):  # `{ name, load }`: a variable
                    raise _Uncertain
                self._skip_value()
            else:
                self.at = key.end()
                self._space()
                value_at = self.at
                try:
                    value = self._literal(0)
                    self._space()
                    self.at = _match(_AFTER, self.text, self.at).end()
                    self._space()
                    if self.text[self.at] not in ",}":
                        raise _Computed
                except _Computed:
                    self.at = value_at
                    if (key[1] or key[2] or key[3]) in ("name", "version", "dependencies"):
                        raise _Uncertain from None
                    self._skip_value()
                else:
                    found[key[1] or key[2] or key[3]] = value
            self._space()
            if self.text[self.at] == ",":
                self.at += 1
        return found

    def _space(self) -> None:
        self.at = _match(_SPACE, self.text, self.at).end()

    def _take(self, character: str) -> None:
        self._space()
        if self.text[self.at] != character:
            raise _Uncertain
        self.at += 1

    def _comes(self, character: str) -> bool:
        self._space()
        if self.text[self.at] != character:
            return False
        self.at += 1
        return True

    def _literal(self, depth: int) -> Any:
        text, at = self.text, self.at
        if depth > _DEEPEST:
            raise _Uncertain
        if text[at] == "[":
            return self._array(depth)
        if text[at] == "{":
            return self._object(depth)
        for pattern in (_STRING, _NUMBER, _WORD):
            found = pattern.match(text, at)
            if found is not None:
                self.at = found.end()
                return _value(pattern, found)
        raise _Computed

    def _array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        self.at += 1
        while not self._comes("]"):
            items.append(self._literal(depth + 1))
            self._space()
            if self.text[self.at] == ",":
                self.at += 1
            elif self.text[self.at] != "]":
                raise _Computed
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        items: dict[str, Any] = {}
        self.at += 1
        while not self._comes("}"):
            key = _KEY.match(self.text, self.at)
            if key is None or key[4] is None:
                raise _Computed
            self.at = key.end()
            self._space()
            items[key[1] or key[2] or key[3] or ""] = self._literal(depth + 1)
            self._space()
            if self.text[self.at] == ",":
                self.at += 1
            elif self.text[self.at] != "}":
                raise _Computed
        return items

    def _skip_value(self) -> None:
        """Move to the comma or brace that ends a property."""
        text, open_ = self.text, list[str]()
        before = ""
        while True:
            self._space()
            character = text[self.at]
            if not open_ and character in ",}":
                return
            if character in "'\"":
                self.at = _match(_STRING, text, self.at).end()
            elif character == "`":
                self._skip_template()
            elif character == "/" and before in "(,=:[!&|?{};+-*%<>~^":
                self.at = _match(_REGEX, text, self.at).end()
            else:
                if character in _CLOSING:
                    open_.append(_CLOSING[character])
                elif character in ")]}" and (not open_ or open_.pop() != character):
                    raise _Uncertain
                self.at += 1
            before = character

    def _skip_template(self) -> None:
        text = self.text
        self.at += 1
        while text[self.at] != "`":
            if text[self.at] == "\\":
                self.at += 2
            elif text.startswith("${", self.at):
                self.at += 2
                while text[self.at] != "}":
                    if text[self.at] in "{`'\"":  # too deep for what is only a look
                        raise _Uncertain
                    self.at += 1
                self.at += 1
            else:
                self.at += 1
        self.at += 1


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    found = pattern.match(text, at)
    if found is None:
        raise _Uncertain
    return found


def _value(pattern: re.Pattern[str], found: re.Match[str]) -> Any:
    if pattern is _STRING:
        text = found[1] if found[1] is not None else found[2] if found[2] is not None else found[3]
        return _ESCAPE.sub(_unescaped, text)
    if pattern is _WORD:
        return {"true": True, "false": False, "null": None}[found[0]]
    text = found[0]
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1] or found[2] or found[3]
    if code is None:
        return _SIMPLE.get(found[4], found[4])
    number = int(code, 16)
    if number > 0x10FFFF:
        raise _Uncertain
    return chr(number)
