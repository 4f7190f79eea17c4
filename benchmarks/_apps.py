"""The applications that benchmarks/serving.py compares: one route, `GET /hello`, that returns JSON.

With hooks, a plugin subscribes three handlers to `request:start` and three to `response:start`. The
default is a manager without any option, with three plugins that each hook both, as it is, before
its plans are compiled (cold), while an older registry is pinned, and with tracing of no request or
of each, sent to a collector in another process. `python benchmarks/_apps.py NAME` serves one
application on a free port, prints its URL, and ends when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
from _harness import never_hot
from _servers import child

ASGI = Callable[..., Any]
HANDLERS = 3
COLLECTOR = "collector"


async def hello() -> dict[str, str]:
    """Answer: the handler of every contender."""
    return {"hello": "world"}


def by_hand(hooks: int = 0) -> ASGI:
    """Return the smallest application that answers the route: the limit; with hooks in a row."""
    observers = [own() for _ in range(hooks)]
    missing = (
        {"type": "http.response.start", "status": 404, "headers": []},
        {"type": "http.response.body", "body": b""},
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/hello" or scope["method"] != "GET":
            for message in missing:
                await send(message)
            return
        for observe in observers:
            await observe(scope)
        body = msgspec.json.encode(await hello())
        for observe in observers:
            await observe(scope)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def litestar() -> ASGI:
    """Make the same handler in plain Litestar."""
    from litestar import Litestar, get

    return Litestar([get("/hello")(hello)], openapi_config=None, logging_config=None)


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


@contextlib.asynccontextmanager
async def by_kernel(adapter: str, hooks: bool, native: bool = False) -> AsyncIterator[ASGI]:
    """Load the same handler as the route of a plugin, with the hooks."""
    from veko import Kernel
    from veko_plugins.http import Routes

    def load(context: Any) -> None:
        if native:
            from litestar import get

            context.add_routes(get("/hello")(hello))
        else:
            context.add_route("GET", "/hello", hello)
        if hooks:
            for _ in range(HANDLERS):
                context.hook("request:start", own())
                context.hook("response:start", own())

    async with Kernel() as kernel:
        await kernel.load(Routes(adapter))
        await kernel.load({"name": "hello", "version": "1.0.0", "load": load})
        yield kernel.use("http").asgi


@contextlib.asynccontextmanager
async def by_manager(kind: str, **options: Any) -> AsyncIterator[ASGI]:
    """Make an application as it is by default: three plugins with hooks, limits and metrics."""
    from veko_plugins import PluginManager

    def plugin(number: int) -> dict[str, Any]:
        def load(context: Any) -> None:
            if number == 0:
                context.add_route("GET", "/hello", hello)
            context.hook("request:start", own())
            context.hook("response:start", own())

        return {"name": f"plugin{number}", "version": "1.0.0", "load": load}

    with contextlib.ExitStack() as stack:
        sections: dict[str, Any] = {}
        if kind in ("unsampled", "traced"):
            command = [sys.executable, str(Path(__file__)), COLLECTOR]
            _, url = stack.enter_context(child(command, max))
            sections["tracing"] = {"otlp": url, "sample": 1.0 if kind == "traced" else 0.0}
        if kind == "cold":
            stack.enter_context(never_hot())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        manager = PluginManager(
            root=folder, auto_load=False, storage="memory:", plugins=sections, **options
        )
        async with manager:
            for number in range(HANDLERS):
                await manager.load_plugin(plugin(number))
            if kind == "pinned":
                # A request that began before a change and has not ended.
                holder, context = manager.bus.pin_live(), contextvars.copy_context()
                context.run(holder.__enter__)
                manager.bus.on("another", own())
            yield manager.asgi
            if kind == "pinned":
                context.run(holder.__exit__, None, None, None)


def own() -> Any:
    """Return a new function for each subscription, as in real plugins."""

    async def observe(one: Any) -> None:
        return None

    return observe


BARE: dict[str, Callable[[], ASGI]] = {
    "by hand": by_hand, "by hand, hooks": functools.partial(by_hand, HANDLERS),
    "Litestar": litestar, "Starlette": starlette, "FastAPI": fastapi,
}  # fmt: skip
KERNEL: dict[str, tuple[Any, ...]] = {
    "veko asgi": ("asgi", False),
    "veko asgi, hooks": ("asgi", True),
    "veko litestar, hooks": ("litestar", True),
    "veko litestar's own, hooks": ("litestar", True, True),
    "veko starlette, hooks": ("starlette", True),
}
DEFAULT: dict[str, str] = {
    "veko default": "", "veko default, cold": "cold", "veko default, pinned": "pinned",
    "veko default, unsampled": "unsampled", "veko default, traced": "traced",
}  # fmt: skip
NAMES = (*BARE, *KERNEL, *DEFAULT)


@contextlib.asynccontextmanager
async def application(name: str, **options: Any) -> AsyncIterator[ASGI]:
    """Hold a contender ready; the options are the manager's, if it has one."""
    made = (BARE | KERNEL | DEFAULT)[name]
    if isinstance(made, str):
        async with by_manager(made, **options) as app:
            yield app
    elif isinstance(made, tuple):
        async with by_kernel(*made) as app:
            yield app
    else:
        yield made()


async def receive() -> Any:
    """Receive the end of an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(message: Any) -> None:
    """Send to nobody; an answer that is no success ends the benchmark."""
    if message["type"] == "http.response.start" and message["status"] != 200:
        raise SystemExit(f"answered {message['status']}")


HEADERS = [(b"host", b"127.0.0.1:8000"), (b"user-agent", b"wrk"), (b"accept", b"*/*")]


async def ask(app: ASGI, path: str = "/hello", headers: Any = HEADERS) -> None:
    """Make a request as a server does, with a new scope each time."""
    await app(
        {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET",
            "path": path, "raw_path": path.encode(), "root_path": "", "scheme": "http",
            "query_string": b"", "headers": headers, "state": {},
            "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 8_000),
        },
        receive,
        send,
    )  # fmt: skip


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
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        running = asyncio.ensure_future(server._serve([listener]))
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await running


def collect() -> None:
    """Accept spans until nobody holds the other end of standard input."""
    import http.server

    class Taker(http.server.BaseHTTPRequestHandler):
        """A collector that accepts everything at once."""

        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Taker)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == COLLECTOR:
        collect()
    else:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(sys.argv[1]))
