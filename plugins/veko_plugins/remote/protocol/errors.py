"""What can go wrong between a host and its worker."""

from __future__ import annotations

from veko import VekoError

from .messages import Failure

__all__ = [
    "ConnectionLost",
    "GoneError",
    "Overloaded",
    "ProtocolError",
    "RemoteError",
    "Violation",
]


class Violation(Exception):
    """The other side breaks the protocol: the message says what it does, without a subject.

    It ends the connection with a `ProtocolError` of that message. A method or note may raise it for
    arguments that no honest other side sends.
    """


class ConnectionLost(VekoError):
    """The connection to the other side has ended; the message says why."""


class ProtocolError(ConnectionLost):
    """The other side broke the protocol, so the connection was ended."""


class Overloaded(VekoError):
    """The other side has not read what it was sent, and no more is kept for it."""


class GoneError(VekoError):
    """A function was called, or given back, after its owner had withdrawn it."""


class RemoteError(VekoError):
    """A call failed on the other side.

    Args:
        failure: What the other side said of it.

    Attributes:
        type: The class of the error, as the other side named it.
        stack: The other side's stack, one frame a line; empty if it sent none.
        file: The source file, before any translation; `None` if unknown.
        column: The column in that file, from 1.
        status: The HTTP status that the error stands for.
        code: The error's code, such as `ENOENT`.
        more: What else the other side knows of it, plain JSON; its meaning depends on the runtime.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(
            failure.message, path=failure.file, line=failure.line, remedy=failure.remedy
        )
        self.type = failure.type
        self.stack = failure.stack or ""
        self.file = failure.file
        self.column = failure.column
        self.status = failure.status
        self.code = failure.code
        self.more = failure.more
