"""Clients that leave in the middle are nobody's fault, and hold nobody up."""

import asyncio
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from litestar import Request as LitestarRequest
from litestar import post
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute
from websockets.sync.client import connect

from veko_adapters.conformance import served
from veko_adapters.conformance._wire import request, wire
from veko_plugins.http import Request, find_adapter

ADAPTERS = ("asgi", "litestar", "starlette")
CLIENTS = 13
PARTS = "content-type: multipart/form-data; boundary=X"
HALF_A_FORM = b'--X\r\ncontent-disposition: form-data; name="a"\r\n\r\nabc'


class Running(Protocol):
    process: subprocess.Popen[str]

    @property
    def text(self) -> str: ...
    def wait_for(self, pattern: str) -> re.Match[str]: ...
    def ends(self) -> int: ...


Start = Callable[..., Running]


# -- what counts


@post("/x/body")
async def litestar_body(request: LitestarRequest) -> str:
    return str(len(await request.body()))


@post("/x/form")
async def litestar_form(request: LitestarRequest) -> str:
    return str(len(await request.form()))


async def starlette_body(request: StarletteRequest) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


STARLETTE = StarletteRoute("/body", starlette_body, methods=["POST"])


async def plain_body(request: Request) -> int:
    return len(await request.body())


async def plain_form(request: Request) -> int:
    return len(await request.form())


async def plain_stream(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


def plain(context: Any) -> None:
    context.add_route("POST", "/x/body", plain_body)
    context.add_route("POST", "/x/stream", plain_stream)
    context.add_route("POST", "/x/form", plain_form)


def mounted(context: Any) -> None:
    context.add_routes(Starlette(routes=[STARLETTE]), path="/x")


def native_litestar(context: Any) -> None:
    context.add_routes(litestar_body, litestar_form)


def native_starlette(context: Any) -> None:
    context.add_routes(STARLETTE, path="/x")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "load", "path"),
    [
        *((name, plain, path) for name in ADAPTERS for path in ("/x/body", "/x/stream", "/x/form")),
        *((name, mounted, "/x/body") for name in ADAPTERS),
        ("litestar", native_litestar, "/x/body"),
        ("litestar", native_litestar, "/x/form"),
        ("starlette", native_starlette, "/x/body"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_client_that_leaves_in_its_body_is_nobodys_fault(
    name: str, load: Callable[[Any], None], path: str
) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    ended: asyncio.Queue[None] = asyncio.Queue()

    def watched(context: Any) -> None:
        load(context)
        context.hook("request:start", lambda request: begun.put_nowait(None))
        context.hook("request:end", lambda request, response: ended.put_nowait(None))

    async with served(find_adapter(name)) as site, site.plugin(watched) as record:
        for _ in range(CLIENTS):
            async with wire(site.url) as connection:
                await connection.send(
                    request("POST", path, PARTS, "content-length: 1000") + HALF_A_FORM
                )
                async with asyncio.timeout(5):
                    await begun.get()
        async with asyncio.timeout(5):
            for _ in range(CLIENTS):
                await ended.get()
        assert record.error_count == 0


@pytest.mark.anyio
@pytest.mark.parametrize("name", ADAPTERS)
async def test_a_client_that_leaves_a_stream_is_nobodys_fault(name: str) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    ended: asyncio.Queue[None] = asyncio.Queue()

    async def endless() -> Any:
        begun.put_nowait(None)
        try:
            while True:
                yield b"x" * 1_000
                await asyncio.sleep(0)
        finally:
            ended.put_nowait(None)

    def load(context: Any) -> None:
        context.add_route("GET", "/x", endless)

    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        for _ in range(CLIENTS):
            async with wire(site.url) as connection, asyncio.timeout(5):
                await connection.send(request("GET", "/x"))
                await begun.get()
            async with asyncio.timeout(5):
                await ended.get()
        assert record.error_count == 0


# -- what others wait for

ROWS = 20_000
STREAMS = """
name = "streams"
version = "1.0.0"

async def endless():
    while True:
        yield b"x" * 1_000

made = 0

def rows():
    global made
    for number in range(ROWS):
        made += 1
        sum(range(2_000))  # a row takes its time, so that the client always reads faster
        yield b"%d\\n" % number

async def arows():
    for row in rows():
        yield row

async def push(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"x" * 1_000, "more_body": True})

async def tick(socket):
    number = 0
    while True:
        await socket.send(f"{number}")
        number += 1

def load(context):
    NATIVE
    context.add_routes(push, path="/push")
    context.add_websocket("/ticks", tick)
    context.add_route("GET", "/endless", endless)
    context.add_route("GET", "/rows", rows)
    context.add_route("GET", "/arows", arows)
    context.add_route("GET", "/quick", lambda: made)
"""


@pytest.fixture
def application(tmp_path: Path) -> Path:
    root = tmp_path / "app"
    (root / "plugins").mkdir(parents=True)
    (root / "plugins" / "streams.py").write_text(STREAMS.replace("ROWS", str(ROWS)))
    return root


NATIVE = {
    "asgi": "pass",
    "litestar": """
    from litestar import get
    from litestar.response import Stream
    @get("/native")
    async def native() -> Stream:
        return Stream(endless)
    context.add_routes(native)
""",
    "starlette": """
    from starlette.responses import StreamingResponse
    from starlette.routing import Route
    async def native(request):
        return StreamingResponse(endless())
    context.add_routes(Route("/native", native))
""",
}


def serve(start: Start, root: Path, adapter: str) -> tuple[Running, int]:
    (root / "veko.toml").write_text(f"adapter = {adapter!r}\n")
    file = root / "plugins" / "streams.py"
    file.write_text(file.read_text().replace("NATIVE", NATIVE[adapter].strip()))
    veko = start("serve", root, "--port", 0, "--grace", 2)
    return veko, int(veko.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])


def ask(port: int, *paths: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    requests = [f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n" for path in paths]
    connection.sendall("".join(requests).encode())
    return connection


STREAMED = [
    *((name, path) for name in ADAPTERS for path in ("/endless", "/push")),
    ("litestar", "/native"),
    ("starlette", "/native"),
]


@pytest.mark.parametrize(("adapter", "path"), STREAMED)
def test_a_stream_that_never_waits_ends_with_its_client(
    start: Start, application: Path, adapter: str, path: str
) -> None:
    veko, port = serve(start, application, adapter)
    with ask(port, path) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=5).text == "0"
    veko.process.send_signal(signal.SIGTERM)
    assert veko.process.wait(10) == 0


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("path", ["/endless", "/push"])
def test_a_stream_with_a_request_behind_it_ends_with_its_client(
    start: Start, application: Path, adapter: str, path: str
) -> None:
    """The second request is pipelined: the server has begun to read it when the client leaves."""
    veko, port = serve(start, application, adapter)
    with ask(port, path, "/quick") as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=5).text == "0"
    assert idle(veko.process.pid), "the stream goes on"
    veko.process.send_signal(signal.SIGTERM)
    assert veko.ends() == 0
    assert "failed" not in veko.text


def idle(pid: int) -> bool:
    """Return whether a process stops using the processor."""
    for _ in range(50):
        before = processor_time(pid)
        time.sleep(0.2)
        if processor_time(pid) - before < 5:
            return True
    return False


def processor_time(pid: int) -> int:
    """Return the processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_socket_that_never_waits_lets_others_through(
    start: Start, application: Path, adapter: str
) -> None:
    veko, port = serve(start, application, adapter)
    done = threading.Event()

    def read(socket: Any) -> None:
        while not done.is_set():
            socket.recv()

    with connect(f"ws://127.0.0.1:{port}/ticks") as socket:
        reader = threading.Thread(target=read, args=(socket,))
        reader.start()
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=5).text == "0"
        finally:
            done.set()
            reader.join(30)
    assert idle(veko.process.pid), "the socket's handler goes on"


@pytest.mark.parametrize("path", ["/rows", "/arows"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_large_export_lets_others_through(
    start: Start, application: Path, adapter: str, path: str
) -> None:
    _, port = serve(start, application, adapter)
    flowing = threading.Event()

    def read(export: socket.socket) -> None:
        end = b""
        while not end.endswith(b"0\r\n\r\n") and (data := export.recv(1 << 20)):
            end = (end + data)[-5:]
            flowing.set()

    with ask(port, path) as export:
        reader = threading.Thread(target=read, args=(export,))
        reader.start()
        try:
            assert flowing.wait(10)
            made = int(httpx.get(f"http://127.0.0.1:{port}/quick", timeout=30).text)
        finally:
            reader.join(30)
    assert made < ROWS / 2, "the other was answered when most of the rows were out"
