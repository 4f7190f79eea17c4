"""Values: how what JSON cannot say crosses the border.

A value is plain JSON, or a *mark*: an object whose only key is the nonce of the connection, a
random text that the host chose and that no client can know. So data that came from outside cannot
be taken for a mark. `Marker` makes marks of functions, bytes, iterators, errors, dates and sets;
`Reader` makes values of marks.

Cost: a value without marks is looked through once and then encoded in C; a received frame is
looked through only if the nonce occurs in its text (`bytes.find`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec

from .errors import GoneError, Violation
from .handles import Exports, Imports, Lent
from .messages import Failure

__all__ = ["Kinds", "Marker", "Reader", "Unsendable", "failure_of", "is_plain"]

_LONG: Final = 16 * 2**10
"""Characters from which a text travels in the tail, where it need not be escaped and parsed."""
_LONGEST_MESSAGE: Final = 4_000
_FIXED: Final = frozenset({int, float, bool, type(None), msgspec.Raw})
"""Classes whose values are JSON as they are; `Raw` is JSON that was encoded before."""
_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """Kinds of marks beyond those that the protocol itself gives meaning to.

    Attributes:
        encode: By class (subclasses too): returns the kind and what belongs to it, which may hold
            functions, bytes and the like again.
        decode: By kind: is called with what belongs to it and returns the value. Raising
            `ValueError` or `TypeError` (msgspec's are such) ends the connection: the mark is
            malformed.
        other: Is called for a value that cannot cross the border, and returns one that can.
        failure: Describes an error.
    """

    encode: Mapping[type, Callable[[Any], Sequence[Any]]] = {}
    decode: Mapping[str, Callable[..., Any]] = {}
    other: Callable[[object], Any] | None = None
    failure: Callable[[BaseException], Failure] | None = None


def failure_of(error: BaseException) -> Failure:
    """Describe an error by its class, its message and what HTTP and Veko know of it."""
    status = getattr(error, "status", None)
    code = getattr(error, "code", None)
    remedy = getattr(error, "remedy", None)
    name = getattr(error, "type", None)
    return Failure(
        type=name if isinstance(name, str) else type(error).__name__,
        message=str(error)[:_LONGEST_MESSAGE],
        status=status if isinstance(status, int) and 100 <= status <= 599 else None,
        code=code if isinstance(code, str | int) else None,
        remedy=remedy if isinstance(remedy, str) else None,
    )


def is_plain(value: object) -> bool:
    """Return whether a value is JSON as it is: its classes are exactly those that JSON knows."""
    kind = type(value)
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str or (type(item) not in _SCALARS and not is_plain(item)):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]  # noqa: SIM110 (a generator is slower)
            if type(item) not in _SCALARS and not is_plain(item):
                return False
        return True
    return kind in _SCALARS


class Unsendable(TypeError):
    """A value cannot cross the border.

    Args:
        value: The value.
        why: A message that follows the path to it.
    """

    def __init__(self, value: object, why: str) -> None:
        super().__init__(f"the value: {why}")
        self._value = value
        self._why = why

    def within(self, whole: object) -> TypeError:
        """Return the error with the path from a whole value to what cannot cross."""
        return TypeError(f"{_path(whole, self._value) or 'the value'}: {self._why}")


def _path(whole: object, part: object) -> str | None:
    """Return the path from a value to a part of it; `None` if it is not in it."""
    if whole is part:
        return ""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(whole, Mapping):
        if any(key is part for key in whole):
            return ""
        items = whole.items()
    elif isinstance(whole, list | tuple):
        items = enumerate(whole)
    for key, item in items:
        if (below := _path(item, part)) is not None:
            step = f"[{key}]" if isinstance(whole, list | tuple) else f".{key}"
            return step + below
    return None


class Marker:
    """Makes marks, for one frame.

    Args:
        nonce: The key of marks.
        exports: Gets the functions that are sent.
        kinds: Further kinds.

    Attributes:
        tail: The bytes that belong to the marks.
    """

    def __init__(self, nonce: str, exports: Exports, kinds: Kinds) -> None:
        self._nonce = nonce
        self._exports = exports
        self._kinds = kinds
        self._sent: list[int] = []
        self._size = 0
        self.tail: list[bytes | bytearray | memoryview] = []

    def undo(self) -> None:
        """Take back the handles that were counted: the frame is not sent."""
        for handle in self._sent:
            self._exports.drop(handle, 1)
        self._sent.clear()

    def mark(self, value: Any) -> Any:
        """Return a value with marks instead of what JSON cannot say.

        Raises:
            Unsendable: It holds something that cannot cross the border.
        """
        kind = type(value)
        if kind in _FIXED:
            return value
        if kind is str:
            return value if value.isascii() and len(value) < _LONG else self._text(value)
        if kind is dict:  # most values are texts in an object: they cost no call
            made = {}
            for key, item in value.items():
                kind = type(item)
                if kind not in _FIXED and not (
                    kind is str and item.isascii() and len(item) < _LONG
                ):
                    item = self.mark(item)  # noqa: PLW2901
                made[key if type(key) is str else self._key(key)] = item
            return made
        if kind is list or kind is tuple:
            return [self.mark(item) for item in value]
        return self._other(value)

    def _other(self, value: Any) -> Any:
        for known in type(value).__mro__:
            encode = self._kinds.encode.get(known)
            if encode is not None:
                kind, *rest = encode(value)
                return self._made(kind, *(self.mark(item) for item in rest))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes("bytes", value)
        if isinstance(value, Lent):
            return self._handle(value.kind, value.handle, value.name)
        if (own := self._exports.imports.handle_of(value)) is not None:
            return self._made("own", own)
        if isinstance(value, Mapping):
            return {self._key(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        if isinstance(value, BaseException):
            failure = (self._kinds.failure or failure_of)(value)
            return self._made("error", msgspec.to_builtins(failure))
        if isinstance(value, datetime | date):
            return self._made("date", _instant(value).isoformat())
        if isinstance(value, AbstractSet):
            return self._made("set", [self.mark(item) for item in value])
        if isinstance(value, str):  # a subclass, such as a member of StrEnum
            return self.mark(str.__str__(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if hasattr(value, "__aiter__"):
            return self._handle("iter", self._exports.add(aiter(value), shared=False), "")
        if callable(value) and not isinstance(value, type):
            name = getattr(value, "__qualname__", type(value).__qualname__)
            return self._handle("fn", self._exports.add(value), name)
        if self._kinds.other is not None:
            return self.mark(self._kinds.other(value))
        raise Unsendable(
            value,
            f"{_article(type(value).__qualname__)} cannot be sent to another process. "
            "Send JSON, bytes, dates, sets, functions or async iterators instead.",
        )

    @staticmethod
    def _key(key: object) -> str:
        if isinstance(key, str):
            return str.__str__(key)
        if isinstance(key, int | float) and not isinstance(key, bool):
            return str(key)
        raise Unsendable(
            key,
            f"a key is {_article(type(key).__qualname__)}. Keys must be texts or numbers to be "
            "sent to another process.",
        )

    def _text(self, value: str) -> Any:
        value = _whole(value)
        return value if len(value) < _LONG else self._bytes("text", value.encode())

    def _bytes(self, kind: str, value: bytes | bytearray | memoryview) -> Any:
        if isinstance(value, memoryview) and not (value.c_contiguous and value.itemsize == 1):
            value = value.tobytes()
        mark = self._made(kind, self._size, len(value))
        self.tail.append(value)
        self._size += len(value)
        return mark

    def _handle(self, kind: str, handle: int, name: str) -> Any:
        self._exports.sent(handle)
        self._sent.append(handle)
        return self._made(kind, handle, name) if kind == "fn" else self._made(kind, handle)

    def _made(self, *parts: Any) -> dict[str, tuple[Any, ...]]:
        return {self._nonce: parts}


class Reader:
    """Makes values of the marks in one frame.

    Args:
        nonce: The key of marks.
        exports: What was sent to the other side, which may send it back.
        imports: Gets the functions that arrive.
        kinds: Further kinds.
        tail: The frame's tail.
    """

    def __init__(
        self, nonce: str, exports: Exports, imports: Imports, kinds: Kinds, tail: memoryview
    ) -> None:
        self._nonce = nonce
        self._exports = exports
        self._imports = imports
        self._kinds = kinds
        self._tail = tail

    def read(self, value: Any) -> Any:
        """Return a value with the marks in it replaced.

        Raises:
            Violation: A mark is malformed.
            GoneError: A function came back that was withdrawn.
        """
        kind = type(value)
        if kind is list:
            return [self.read(item) for item in value]
        if kind is not dict:
            return value
        mark = value.get(self._nonce) if len(value) == 1 else None
        if mark is None:
            return {key: self.read(item) for key, item in value.items()}
        if type(mark) is not list or not mark or type(mark[0]) is not str:
            raise Violation("sent a mark that is not a list that begins with its kind")
        return self._value(*mark)

    def _value(self, kind: str, *parts: Any) -> Any:
        decode = self._kinds.decode.get(kind)
        own = None if decode is not None else _READERS.get(kind)
        try:
            if decode is not None:
                return decode(*(self.read(part) for part in parts))
            if own is not None:
                return own(self, *parts)
        except (GoneError, Violation):
            raise
        except (TypeError, ValueError, ArithmeticError) as error:
            raise Violation(f"sent a malformed mark {kind[:40]!r}: {error}") from error
        raise Violation(f"sent a mark of the unknown kind {kind[:40]!r}")

    def _bytes(self, offset: object, size: object) -> bytes:
        if type(offset) is not int or type(size) is not int:
            raise TypeError("offset and size are not integers")
        if not 0 <= offset <= offset + size <= len(self._tail):
            raise ValueError(f"{size} bytes at {offset} are not in a tail of {len(self._tail)}")
        return bytes(self._tail[offset : offset + size])

    def _text(self, offset: object, size: object) -> str:
        return str(self._bytes(offset, size), "utf-8")

    def _function(self, handle: object, name: object) -> Any:
        return self._imports.function(_positive(handle), name[:200] if type(name) is str else "")

    def _iterator(self, handle: object) -> Any:
        return self._imports.iterator(_positive(handle))

    def _own(self, handle: object) -> Any:
        return self._exports.get(_positive(handle))

    def _date(self, text: object) -> datetime | str:
        if type(text) is not str:
            raise TypeError("the date is no text")
        try:
            found = datetime.fromisoformat(text)
        except ValueError:  # JavaScript knows the year 10000, and a client may have named it
            return text
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)

    def _set(self, items: object) -> set[Any] | list[Any]:
        if type(items) is not list:
            raise TypeError("the set is no list")
        read = [self.read(item) for item in items]
        try:
            return set(read)
        except TypeError:  # JavaScript's sets may hold objects, which cannot be in one of Python's
            return read

    def _error(self, facts: object) -> Exception:
        return self._imports.error(msgspec.convert(facts, Failure))


_READERS: Final[Mapping[str, Callable[..., Any]]] = {
    "bytes": Reader._bytes,
    "text": Reader._text,
    "fn": Reader._function,
    "iter": Reader._iterator,
    "own": Reader._own,
    "date": Reader._date,
    "set": Reader._set,
    "error": Reader._error,
}


def _whole(text: str) -> str:
    """Return a text without halves of surrogate pairs, as JavaScript's `toWellFormed` does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _positive(handle: object) -> int:
    if type(handle) is not int or not 1 <= handle <= 2**53:
        raise TypeError("the handle is not a positive integer")
    return handle


def _instant(value: date) -> datetime:
    """Return the moment that a date stands for: as in JavaScript, one without a zone is UTC."""
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _article(name: str) -> str:
    return f"an {name}" if name[:1] in "AEIOUaeiou" else f"a {name}"
