"""What the host and the launcher's process say to each other, and how it is framed.

Both ends are ours, and a worker has neither of them. A frame is its length (`u32`, big-endian) and
JSON; descriptors travel with the first bytes of a `Start`.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from .confinement import Confinement

_LENGTH = struct.Struct(">I")
MOST_DESCRIPTORS = 64
"""Descriptors that one `Start` may carry. The kernel allows 253."""


class Command(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker runs.

    Attributes:
        argv: The program, by its absolute path, and its arguments. `None` runs `entry`.
        entry: `"module:function"`, called without arguments in the forked Python process. The
            exit status is what it returns (`None` is 0).
        env: The worker's whole environment.
        cwd: The working folder. `None` makes a private one below the system's temporary folder,
            which `HOME` and `TMPDIR` name unless `env` does, and which is removed at the end.
        prints: Where descriptor 1 leads, which programs that it starts inherit: to `stdio` or, so
            that what they print is not mixed with messages, to `stderr`.
    """

    argv: tuple[str, ...] | None = None
    entry: str | None = None
    env: dict[str, str] = {}
    cwd: Path | None = None
    prints: Literal["stdio", "stderr"] = "stdio"

    def __post_init__(self) -> None:
        if (self.argv is None) == (self.entry is None):
            raise ValueError("a command has either argv or entry, not both")
        if self.argv is not None and (not self.argv or not Path(self.argv[0]).is_absolute()):
            raise ValueError(f"argv must begin with an absolute path, got {self.argv!r}")
        if self.entry is not None and not all(self.entry.partition(":")):
            raise ValueError(f"entry must be 'module:function', got {self.entry!r}")


class Start(Struct, tag="start", array_like=True, frozen=True):
    """Start a worker; `descriptors` of them travel with this frame: stdio, stderr, the others."""

    id: int
    command: Command
    confinement: Confinement | None
    descriptors: int


class Kill(Struct, tag="kill", array_like=True, frozen=True):
    """Kill a worker and every process that it started."""

    id: int


class Ready(Struct, tag="ready", array_like=True, frozen=True):
    """The launcher's process has imported what workers need.

    Attributes:
        threads: How many threads it has. More than one means that an imported module started some,
            which do not exist in forked workers.
    """

    threads: int


class Started(Struct, tag="started", array_like=True, frozen=True):
    """The worker is about to run what the command says."""

    id: int
    pid: int


class Failed(Struct, tag="failed", array_like=True, frozen=True):
    """The worker could not be started, or the launcher's process itself (then the id is 0)."""

    id: int
    step: str
    errno: int
    reason: str


class Ended(Struct, tag="ended", array_like=True, frozen=True):
    """The worker and every process that it started have ended.

    Attributes:
        status: Exit status, or the negative number of the signal.
        reason: Why the launcher ended it; empty if it did not.
    """

    id: int
    status: int
    reason: str


Request = Start | Kill
Report = Ready | Started | Failed | Ended


def encode(message: Request | Report) -> bytes:
    """Frame a message."""
    body = msgspec.json.encode(message, enc_hook=_encode_path)
    return _LENGTH.pack(len(body)) + body


def _encode_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} is no part of a message")


def _decode_path(kind: type, value: Any) -> Any:
    if issubclass(kind, Path) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"{kind.__name__} is no part of a message")


class Frames:
    """Messages out of a stream of bytes.

    Args:
        kind: What they may be: `Request` or `Report`.
    """

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind, dec_hook=_decode_path)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        """Yield the messages that are complete with these bytes."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield self._decoder.decode(body)
