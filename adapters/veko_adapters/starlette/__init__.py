"""HTTP by Starlette, and so by FastAPI: their routes, routers and applications behind our table.

A plain handler is called with what it names, converted by msgspec, as in every adapter; where it
annotates its request with Starlette's class it gets one, and it may answer with a response of
Starlette's. `context.add_routes` takes `Route`, `WebSocketRoute`, `Mount`, `Router` and FastAPI's
`APIRouter` apart into routes of our table; a `Starlette` or `FastAPI` application is mounted as a
whole, and its lifespan runs with the plugin's life. Inside, Starlette's own routing leads on, with
middleware, dependencies, response models and exception handlers: a request costs what it costs
there, and a copy of the scope.

Their errors come out as problems (RFC 9457), a `RequestValidationError` with every fault and its
place, unless the application has a handler of its own for them. FastAPI is never imported here.
"""

from ._adapter import StarletteAdapter

__all__ = ["StarletteAdapter"]
