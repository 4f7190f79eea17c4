"""Packing: messages with values into frames, and back.

Cost: a message without marks is looked through once, in Python, and encoded in C; a frame is looked
through only if the nonce occurs in its text.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import msgspec

from .errors import Violation
from .framing import frame
from .handles import Exports, Imports
from .messages import Message, decode
from .values import Kinds, Marker, Reader, Unsendable, is_plain

__all__ = ["JSON_LIMIT", "LIMIT", "Packer"]

LIMIT: Final = 16 * 2**20
"""Bytes that a frame may have."""
JSON_LIMIT: Final = 2**20
"""Bytes of JSON among them. Decoding 1 MiB takes 5 ms if it is ordinary data and 20 ms at worst;
16 MiB would block the loop for 1.1 s at worst. Bytes and long texts travel in the tail."""
_LARGE: Final = 64 * 2**10
"""Bytes of JSON from which the garbage collector is held back while they are decoded: it would look
through what is being made again and again (1 MiB of `[]`: 39 ms instead of 16 ms)."""


class Packer:
    """Packs messages for the other side, and unpacks its frames.

    Args:
        exports: Gets the functions that are sent.
        imports: Gets the functions that arrive.
        kinds: Kinds of values beyond those of the protocol.

    Attributes:
        limit: The most bytes that the other side takes in a frame.
        json_limit: The most bytes of JSON among them.
    """

    def __init__(self, exports: Exports, imports: Imports, kinds: Kinds) -> None:
        self._exports = exports
        self._imports = imports
        self._kinds = kinds
        self._nonce = ""
        self._nonce_text = b""
        self.limit = LIMIT
        self.json_limit = JSON_LIMIT

    @property
    def nonce(self) -> str:
        """The key of marks; empty until it is known."""
        return self._nonce

    @nonce.setter
    def nonce(self, nonce: str) -> None:
        self._nonce = nonce
        self._nonce_text = f'"{nonce}"'.encode()

    def pack(self, message: tuple[Any, ...]) -> bytes:
        """Return the frame of a message.

        Raises:
            TypeError: It holds a value that cannot cross.
            ValueError: The other side would end the connection because of its size.
        """
        try:
            if is_plain(message):
                text = msgspec.json.encode(message)
                if len(text) < _LARGE:
                    return frame(text)
        except (UnicodeEncodeError, RecursionError):  # half a surrogate pair; too deep
            pass
        marker = Marker(self._nonce, self._exports, self._kinds)
        try:
            return self._bounded(msgspec.json.encode(marker.mark(message)), marker.tail)
        except RecursionError:
            marker.undo()
            raise TypeError("a value that is nested this deeply cannot be sent") from None
        except Unsendable as error:
            marker.undo()
            raise error.within(message[2:]) from None
        except BaseException:
            marker.undo()
            raise

    def _bounded(self, text: bytes, tail: Sequence[bytes | bytearray | memoryview]) -> bytes:
        size = len(text) + sum(map(len, tail))
        if size > self.limit:
            raise ValueError(
                f"{size} bytes are too many for a message, at most {self.limit} may be sent"
            )
        if len(text) > self.json_limit:
            raise ValueError(
                f"{len(text)} bytes of JSON are too many for a message, at most {self.json_limit} "
                "may be sent. Send bytes or text instead, or several values."
            )
        return frame(text, tail)

    def unpack(
        self, buffer: bytearray, start: int, end: int, last: int
    ) -> tuple[Message, Reader | None]:
        """Return a message, and what reads the marks in it, if it has any.

        Args:
            buffer: Holds the frame.
            start: Where its JSON starts.
            end: Where its JSON ends, and its tail starts.
            last: Where its tail ends.

        Raises:
            Violation: It is no message.
        """
        view = memoryview(buffer)
        message = _decoded(view[start:end])
        if not self._nonce or buffer.find(self._nonce_text, start, end) < 0:
            return message, None
        tail = view[end:last]
        return message, Reader(self._nonce, self._exports, self._imports, self._kinds, tail)


def _decoded(text: memoryview) -> Message:
    held = len(text) >= _LARGE and gc.isenabled()
    if held:
        gc.disable()
    try:
        return decode(text)
    except msgspec.ValidationError as error:
        _refuse("sent a message that does not fit", error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse("sent a frame that is not JSON", error)
    except RecursionError:
        raise Violation("sent a message that is nested too deeply") from None
    finally:
        if held:
            gc.enable()


def _refuse(what: str, error: Exception) -> NoReturn:
    raise Violation(f"{what}: {str(error)[:200]}") from None
