"""The events of a request, and the emitters of a dispatcher for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from veko import Event

from .messages.problem import HTTPError
from .messages.request import Request
from .messages.response import Response

if TYPE_CHECKING:
    from veko import Bus

__all__ = ["EVENTS", "Signals"]

REQUEST_START = Event(
    "request:start",
    Request,
    returns=True,
    stops=Response | HTTPError,
    doc="A request was matched and not yet handled. A handler that returns a `Response` answers, "
    "one that raises an `HTTPError` refuses.",
)
REQUEST_END = Event(
    "request:end",
    Request,
    doc="A request is over: the request and its response.",
)
REQUEST_ERROR = Event(
    "request:error",
    BaseException,
    returns=True,
    stops=Response,
    doc="Handling a request raised: the error and the request. A handler may return another "
    "error, or a `Response` to send instead of the problem.",
)
RESPONSE_START = Event(
    "response:start",
    Response,
    returns=True,
    doc="A response is ready and not yet sent: the response and the request.",
)
RESPONSE_END = Event(
    "response:end",
    Response,
    doc="A response was sent: the response and the request.",
)
RESPONSE_ERROR = Event(
    "response:error",
    Response,
    doc="Sending a response failed: the response and the request.",
)
EVENTS = (
    REQUEST_START, REQUEST_END, REQUEST_ERROR, RESPONSE_START, RESPONSE_END, RESPONSE_ERROR,
)  # fmt: skip


class Signals:
    """The emitters of a dispatcher, bound once."""

    __slots__ = (
        "request_end",
        "request_error",
        "request_start",
        "response_end",
        "response_error",
        "response_start",
    )

    def __init__(self, bus: Bus) -> None:
        self.request_start = bus.emitter("request:start")
        self.request_end = bus.emitter("request:end")
        self.request_error = bus.emitter("request:error")
        self.response_start = bus.emitter("response:start")
        self.response_end = bus.emitter("response:end")
        self.response_error = bus.emitter("response:error")
