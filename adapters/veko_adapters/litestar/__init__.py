"""HTTP by Litestar: a plugin's handlers as a Litestar application of their own behind our table.

A plain handler is called with its arguments, converted by msgspec. One with Litestar's annotations
(`FromHeader[str]`, `UploadFile`) or pydantic's becomes a Litestar route handler with a synthesised
signature, and Litestar converts and validates. Litestar's own route handlers, controllers and
routers keep everything: guards, dependencies, DTOs, middleware, exception handlers. Litestar's
routing is skipped, since the request is already matched: an endpoint calls the route's own stack.

Cost: about a millisecond for each route that Litestar compiles, some microseconds for a plain
handler. A plain handler answers with status 200; `None` is a 204.
"""

from ._adapter import LitestarAdapter
from ._endpoints import Native
from ._plugin import VekoPlugin

__all__ = ["LitestarAdapter", "Native", "VekoPlugin"]
