"""The applications that benchmarks/serving.py compares: one route, `GET /hello`, that returns JSON.

With hooks, a plugin subscribes three handlers to `request:start` and three to `response:start`;
the other applications have no hooks. `python benchmarks/_apps.py NAME` serves one application on a
free port, prints the port, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

ASGI = Callable[..., Any]
HANDLERS = 3


async def hello() -> dict[str, str]:
    """Answer: the handler of every contender."""
    return {"hello": "world"}


def hello_def() -> dict[str, str]:
    """Answer, in a thread."""
    return {"hello": "world"}


def by_hand() -> ASGI:
    """Return the smallest application that answers the route: the limit."""
    missing = (
        {"type": "http.response.start", "status": 404, "headers": []},
        {"type": "http.response.body", "body": b""},
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/hello" or scope["method"] != "GET":
            for message in missing:
                await send(message)
            return
        body = msgspec.json.encode(await hello())
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def litestar() -> ASGI:
    """Make the same handler in plain Litestar."""
    from litestar import Litestar, get

    return Litestar([get("/hello")(hello)], openapi_config=None, logging_config=None)


def litestar_def() -> ASGI:
    """Make a `def` handler in plain Litestar."""
    from litestar import Litestar, get

    route = get("/hello", sync_to_thread=True)(hello_def)
    return Litestar([route], openapi_config=None, logging_config=None)


def starlette() -> ASGI:
    """Make the same handler in plain Starlette."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def answer(request: Any) -> JSONResponse:
        return JSONResponse(await hello())

    return Starlette(routes=[Route("/hello", answer)])


def fastapi() -> ASGI:
    """Make the same handler in plain FastAPI."""
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)
    app.get("/hello")(hello)
    return app


def fastapi_def() -> ASGI:
    """Make a `def` handler in plain FastAPI."""
    from fastapi import FastAPI

    app = FastAPI(openapi_url=None)
    app.get("/hello")(hello_def)
    return app


@contextlib.asynccontextmanager
async def veko(
    adapter: str, hooks: bool, native: bool = False, handler: Callable[..., Any] = hello
) -> AsyncIterator[ASGI]:
    """Load the same handler as the route of a plugin, with the hooks."""
    from veko import Kernel
    from veko_plugins.http import Routes

    def load(context: Any) -> None:
        if native:
            from litestar import get

            context.add_routes(get("/hello")(hello))
        else:
            context.add_route("GET", "/hello", handler)
        if hooks:
            for _ in range(HANDLERS):
                context.hook("request:start", own())
                context.hook("response:start", own())

    async with Kernel() as kernel:
        await kernel.load(Routes(adapter))
        await kernel.load({"name": "hello", "version": "1.0.0", "load": load})
        yield kernel.use("http").asgi


def own() -> Any:
    """Return a new function for each subscription, as in real plugins."""

    async def observe(one: Any) -> None:
        return None

    return observe


BARE: dict[str, Callable[[], ASGI]] = {
    "by hand": by_hand, "Litestar": litestar, "Starlette": starlette, "FastAPI": fastapi,
    "Litestar, def": litestar_def, "FastAPI, def": fastapi_def,
}  # fmt: skip
VEKO: dict[str, tuple[Any, ...]] = {
    "veko asgi": ("asgi", False, False),
    "veko asgi, hooks": ("asgi", True, False),
    "veko starlette, hooks": ("starlette", True, False),
    "veko litestar": ("litestar", False, False),
    "veko litestar, hooks": ("litestar", True, False),
    "veko litestar's own, hooks": ("litestar", True, True),
    "veko asgi, def": ("asgi", False, False, hello_def),
    "veko litestar, def": ("litestar", False, False, hello_def),
}
NAMES = (*BARE, *VEKO)


@contextlib.asynccontextmanager
async def application(name: str) -> AsyncIterator[ASGI]:
    """Hold a contender ready."""
    if name in BARE:
        yield BARE[name]()
    else:
        async with veko(*VEKO[name]) as app:
            yield app


async def serve(name: str) -> None:
    """Serve a contender until nobody holds the other end of standard input."""
    import uvicorn

    async with application(name) as app:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, loop="none", http="httptools", lifespan="off", log_config=None, access_log=False,
            server_header=False, proxy_headers=False, ws="none",
        )  # fmt: skip
        server = uvicorn.Server(config)
        print(listener.getsockname()[1], flush=True)
        running = asyncio.ensure_future(server._serve([listener]))
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await running


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
