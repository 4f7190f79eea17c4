"""HTTP without a framework: the fast path.

A plain handler is called with what it names, converted by msgspec, and what it returns goes out:
between the routing table and the handler stands one function. A handler of a framework is none
here, but any ASGI application is mounted whole: `context.add_routes(app, path="/app")`.
"""

from ._adapter import ASGIAdapter

__all__ = ["ASGIAdapter"]
