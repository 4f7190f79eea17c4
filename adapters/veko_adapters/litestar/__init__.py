"""HTTP by Litestar: a plugin's handlers as a Litestar application of its own behind our table.

A handler that wants nothing or just the request is called as it is. One that names its arguments
becomes a Litestar route handler with a signature made for it, and Litestar converts and checks
them. Litestar's own route handlers, controllers and routers run with all they are: guards,
dependencies, DTOs, middleware, exception handlers. Litestar's routing is passed by, since the
request is matched already: an endpoint goes straight to the route's own stack.

A handler that names arguments costs about a millisecond to compile, one that takes the request
some microseconds. What a plain handler returns goes out with status 200; `None` is a 204.
"""

from ._adapter import LitestarAdapter, Native

__all__ = ["LitestarAdapter", "Native"]
