"""The events of requests, routes and middleware, and the emitters that a dispatcher binds once.

Those of WebSockets are in `sockets.events`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from veko import Event

from .messages.problem import HTTPError
from .messages.request import Request
from .messages.response import Response
from .route import Route

if TYPE_CHECKING:
    from veko import Bus

__all__ = [
    "EVENTS", "MIDDLEWARE_ADD", "MIDDLEWARE_REMOVE", "ROUTE_CREATE", "ROUTE_DELETE", "ROUTE_LOAD",
    "ROUTE_REFUSE", "ROUTE_UPDATE", "Signals",
]  # fmt: skip

ROUTE_LOAD: Final = Event(
    "route:load",
    list,
    returns=True,
    doc="A plugin's routes are about to be registered. Argument: the list of them. Raising "
    "refuses them.",
)
ROUTE_CREATE: Final = Event(
    "route:create",
    Route,
    returns=True,
    fails_closed=True,
    doc="A route is about to go live. Argument: the route. A handler may return a changed one; "
    "raising refuses it.",
)
ROUTE_UPDATE: Final = Event(
    "route:update", Route, doc="A live route was replaced. Argument: the new route."
)
ROUTE_REFUSE: Final = Event(
    "route:refuse",
    Route,
    doc="A live route is out of service, because a hook on `route:create` that came later, or "
    "changed, refused it. Arguments: the route, the error.",
)
ROUTE_DELETE: Final = Event("route:delete", Route, doc="A route was removed. Argument: the route.")
MIDDLEWARE_ADD: Final = Event(
    "middleware:add",
    object,
    returns=True,
    doc="A middleware is about to go live. Argument: the function. A handler may return another.",
)
MIDDLEWARE_REMOVE: Final = Event(
    "middleware:remove", object, doc="A middleware was removed. Argument: the function."
)
REQUEST_START: Final = Event(
    "request:start",
    Request,
    returns=True,
    stops=Response | HTTPError,
    fails_closed=True,
    doc="A request was matched and not yet handled. Argument: the request. Returning a "
    "`Response` answers it, raising an `HTTPError` refuses it.",
)
REQUEST_END: Final = Event(
    "request:end",
    Request,
    doc="A request has ended. Arguments: the request, its response.",
)
REQUEST_ERROR: Final = Event(
    "request:error",
    BaseException,
    returns=True,
    stops=Response,
    doc="Handling a request raised an error. Arguments: the error, the request. A handler may "
    "return another error, or a `Response` to send instead of the problem.",
)
RESPONSE_START: Final = Event(
    "response:start",
    Response,
    returns=True,
    doc="A response is ready and not yet sent. Arguments: the response, the request.",
)
RESPONSE_END: Final = Event(
    "response:end",
    Response,
    doc="A response was sent. Arguments: the response, the request.",
)
RESPONSE_ERROR: Final = Event(
    "response:error",
    Response,
    doc="Sending a response failed. Arguments: the response, the request.",
)
EVENTS: Final = (
    REQUEST_START, REQUEST_END, REQUEST_ERROR, RESPONSE_START, RESPONSE_END, RESPONSE_ERROR,
    ROUTE_LOAD, ROUTE_CREATE, ROUTE_UPDATE, ROUTE_DELETE, ROUTE_REFUSE, MIDDLEWARE_ADD,
    MIDDLEWARE_REMOVE,
)  # fmt: skip
"""All of them, in the order in which the catalogue lists them; those of WebSockets follow."""


class Signals:
    """The emitters of a request's events."""

    __slots__ = (
        "request_end",
        "request_error",
        "request_start",
        "response_end",
        "response_error",
        "response_start",
    )

    def __init__(self, bus: Bus) -> None:
        self.request_start = bus.emitter(REQUEST_START.name)
        self.request_end = bus.emitter(REQUEST_END.name)
        self.request_error = bus.emitter(REQUEST_ERROR.name)
        self.response_start = bus.emitter(RESPONSE_START.name)
        self.response_end = bus.emitter(RESPONSE_END.name)
        self.response_error = bus.emitter(RESPONSE_ERROR.name)
