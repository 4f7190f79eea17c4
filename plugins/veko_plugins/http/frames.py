"""What the frames of HTTP on a stack say: which route a request is for, which middleware runs.

For plugins that sample stacks (`ledger`). Calls themselves record nothing for it.
"""

from __future__ import annotations

import functools
from types import CodeType, FrameType
from typing import Final, NamedTuple

from veko.extend import Call, local_of

from .dispatch import Dispatcher
from .middleware import CALL_NEXT, IN_MIDDLEWARE
from .route import Route, part_of
from .sockets.dispatch import SocketDispatcher
from .threads import IN_THREAD

__all__ = ["Part", "part_in"]


class Part(NamedTuple):
    """What a frame of HTTP has called.

    Attributes:
        plugin: The plugin of the route or of the middleware; `None` for what Veko does itself.
        route: The route, as `GET /x`; `None` in a middleware.
        handler: The code of the route's handler; `None` if it is not a function.
    """

    plugin: str | None
    route: str | None = None
    handler: CodeType | None = None


def part_in(frame: FrameType) -> Part | None:
    """Return what a frame of HTTP has called; `None` for other frames."""
    code = frame.f_code
    if code is CALL_NEXT:  # the middleware further out only waits for what it wraps
        return Part(None)
    if code is IN_MIDDLEWARE:
        return Part(local_of(frame, "plugin"))
    if code is IN_THREAD:
        return _of(local_of(frame, "self").route)
    if code in _DISPATCHING:
        target = local_of(frame, "target")
        return None if target is None else _of(target.route)
    return None


_DISPATCHING: Final = {Dispatcher._http.__code__, SocketDispatcher.__call__.__code__}


def _of(route: Route) -> Part:
    function: object = route.handler
    while isinstance(function, functools.partial):
        call: Call | None = vars(function).get("call")  # of one with probes around it
        function = function.func if call is None else call.handler
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return Part(route.plugin, part_of(route), code)
