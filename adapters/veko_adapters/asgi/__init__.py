"""HTTP without a framework: the fast path.

A plain handler is called with its arguments, converted by msgspec, and its return value is sent:
one function is between the routing table and the handler. Handlers of frameworks are not supported
here, but any ASGI application can be mounted: `context.add_routes(app, path="/app")`.
"""

from ._adapter import ASGIAdapter

__all__ = ["ASGIAdapter"]
