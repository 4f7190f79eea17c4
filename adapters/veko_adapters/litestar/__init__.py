"""HTTP by Litestar: a plugin's handlers as a Litestar application of its own behind our table.

A plain handler is called with what it names, converted by msgspec; one whose annotations are
Litestar's (`FromHeader[str]`, `UploadFile`) or pydantic's becomes a Litestar route handler with a
signature made for it, and Litestar converts and checks. Litestar's own route handlers,
controllers and routers run with all they are: guards, dependencies, DTOs, middleware, exception
handlers. Litestar's routing is passed by, since the request is matched already: an endpoint goes
straight to the route's own stack.

What Litestar compiles costs about a millisecond a route, a plain handler some microseconds. What
a plain handler returns goes out with status 200; `None` is a 204.
"""

from ._adapter import LitestarAdapter
from ._endpoints import Native
from ._plugin import VekoPlugin

__all__ = ["LitestarAdapter", "Native", "VekoPlugin"]
