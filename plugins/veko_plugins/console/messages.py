"""What a console and its client send each other: one JSON object a line.

A client opens a console for a plugin, then sends code. The console sends what the code prints while
it runs, and at its end its value or its error.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec

__all__ = [
    "Answer", "Asked", "Cancel", "Complete", "Done", "Open", "Opened", "Output",
    "Refused", "Run", "Words", "read_message", "written",
]  # fmt: skip


class Open(msgspec.Struct, frozen=True, tag=True):
    """The first message: looks into a plugin."""

    plugin: str


class Run(msgspec.Struct, frozen=True, tag=True):
    """Runs code; its value is laid out for a terminal of that width."""

    code: str
    width: int = 80


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Cancels the code that runs."""


class Complete(msgspec.Struct, frozen=True, tag=True):
    """Asks which words may end a line."""

    line: str


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The console is open: of which process and version, and which names it has."""

    pid: int
    version: str
    names: tuple[str, ...]


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The console does not open."""

    why: str


class Output(msgspec.Struct, frozen=True, tag=True):
    """Something was printed."""

    text: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """The code has ended.

    Attributes:
        value: Its last value, as text; `None` if it has none.
        error: Its traceback; `None` if it did not raise.
        leaves: Whether it called `exit()`.
    """

    value: str | None = None
    error: str | None = None
    leaves: bool = False


class Words(msgspec.Struct, frozen=True, tag=True):
    """The words that may end a line, and how many characters of it they replace."""

    words: tuple[str, ...]
    replaced: int


Asked = Open | Run | Cancel | Complete
Answer = Opened | Refused | Output | Done | Words
_encoder: Final = msgspec.json.Encoder()


def written(message: Asked | Answer) -> bytes:
    """Return a message as it is sent."""
    return _encoder.encode(message) + b"\n"


async def read_message(reader: asyncio.StreamReader, decoder: msgspec.json.Decoder[Any]) -> Any:
    """Read a message; `None` if the other end is gone.

    Raises:
        ValueError: It is not valid, or too long.
    """
    try:
        line = await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise ValueError("the message is too long") from error
    return decoder.decode(line)
