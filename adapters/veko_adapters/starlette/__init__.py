"""HTTP by Starlette, and so by FastAPI: their routes, routers and applications behind our table.

A plain handler is called with its arguments, converted by msgspec, as in every adapter. If it
annotates its request with Starlette's class it gets one, and it may return Starlette's responses.
`context.add_routes` turns `Route`, `WebSocketRoute`, `Mount`, `Router` and FastAPI's `APIRouter`
into routes of our table. A `Starlette` or `FastAPI` application is mounted as a whole, and its
lifespan lasts as long as the plugin is loaded. Starlette's own routing continues inside, with
middleware, dependencies, response models and exception handlers. Cost: the same as there, and a
copy of the scope.

Their errors become problems (RFC 9457), a `RequestValidationError` with every fault and its
location, unless the application has its own handler for them. FastAPI is never imported here.
"""

from ._adapter import StarletteAdapter

__all__ = ["StarletteAdapter"]
