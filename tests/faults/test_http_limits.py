"""What a client may cost is bounded alike for every kind of handler and on every server."""

import asyncio
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from litestar import Request as LitestarRequest
from litestar import post
from litestar.params import JSONBody
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

from veko_adapters.conformance import served
from veko_adapters.conformance._wire import request, wire
from veko_plugins.http import MAX_BODY, find_adapter

ADAPTERS = ("asgi", "litestar", "starlette")
CHUNK = 512 * 1024


class Running(Protocol):
    process: subprocess.Popen[str]

    def wait_for(self, pattern: str) -> re.Match[str]: ...


Start = Callable[..., Running]

# -- the limit of a body

took = 0
"""Bytes that the handlers below were given."""


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    global took
    more = True
    while more:
        message = await receive()
        took += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@post("/x")
async def litestar_stream(request: LitestarRequest) -> None:
    global took
    async for chunk in request.stream():
        took += len(chunk)


@post("/x")
async def litestar_body(request: LitestarRequest) -> None:
    global took
    took += len(await request.body())


@post("/x")
async def litestar_data(data: JSONBody[Any]) -> None:
    global took
    took += len(data)


async def starlette_stream(request: StarletteRequest) -> PlainTextResponse:
    global took
    async for chunk in request.stream():
        took += len(chunk)
    return PlainTextResponse("")


KINDS = {
    **{f"{name} mounted": (name, asgi) for name in ADAPTERS},
    "litestar stream": ("litestar", litestar_stream),
    "litestar body": ("litestar", litestar_body),
    "litestar data": ("litestar", litestar_data),
    "starlette": ("starlette", StarletteRoute("/x", starlette_stream, methods=["POST"])),
}


@pytest.mark.anyio
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in chunks"])
@pytest.mark.parametrize(("name", "handler"), KINDS.values(), ids=KINDS)
async def test_the_limit_of_a_body_holds_for_every_kind_of_handler(
    name: str, handler: Any, announced: bool
) -> None:
    global took
    took = 0
    text = '"' + "a" * (MAX_BODY + CHUNK)
    body = f'{text}"'.encode()

    def load(context: Any) -> None:
        context.add_routes(handler, **({"path": "/x"} if handler is asgi else {}))

    async with (
        served(find_adapter(name)) as site,
        site.plugin(load) as record,
        wire(site.url) as connection,
    ):
        length = f"content-length: {len(body)}" if announced else "transfer-encoding: chunked"
        await connection.send(request("POST", "/x", "content-type: application/json", length))
        answering = asyncio.create_task(connection.answer())
        for start in range(0, len(body), CHUNK):
            if answering.done():
                break
            piece = body[start : start + CHUNK]
            await connection.send(piece if announced else b"%x\r\n%b\r\n" % (len(piece), piece))
        if not announced:
            await connection.send(b"0\r\n\r\n")
        answer = await answering
        assert answer is None or answer.status == 413, answer.status
        assert took <= MAX_BODY
        assert record.error_count == 0


# -- what a form costs others

FORMS = """
name = "forms"
version = "1.0.0"

async def form(request):
    await request.body()
    print("decoding", flush=True)
    form = await request.form()
    print("decoded", flush=True)
    return len(form["a"])

async def data(data: dict) -> int:
    print("decoded", flush=True)
    return len(data["a"])

def load(context):
    context.add_route("POST", "/form", form)
    context.add_route("POST", "/data", data)
    context.add_route("GET", "/quick", lambda: print("answered", flush=True) or "quick")
"""
SIZE = 6 * 1024 * 1024


@pytest.mark.parametrize("kind", ["one", "many"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_large_form_lets_others_through(
    start: Start, tmp_path: Path, adapter: str, kind: str
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "forms.py").write_text(FORMS)
    (tmp_path / "veko.toml").write_text(f"adapter = {adapter!r}\n")
    veko = start("serve", tmp_path, "--port", 0, cwd=tmp_path)
    port = int(veko.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
    body = b"a=" + b"%41" * (SIZE // 3)
    if kind == "many":  # within the number of fields that a form may have
        body = b"&".join([b"a=" + b"%41" * (SIZE // 3 // 500)] * 500)
    head = b"POST /form HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n"
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(head + b"content-length: %d\r\n\r\n" % len(body) + body)
        veko.wait_for("decoding")
        assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=30).text == "quick"
        assert veko.wait_for("^(answered|decoded)")[1] == "answered", "it waited for the form"
        client.settimeout(30)
        assert client.recv(1_000).startswith(b"HTTP/1.1 200")


# -- what may be ahead, and where a request is for


@pytest.mark.anyio
async def test_requests_are_sent_ahead_within_a_limit() -> None:
    async with served(find_adapter("asgi")) as site, site.route("GET", "/x", lambda: "x"):
        async with wire(site.url) as connection:
            await connection.send(request("GET", "/x") * 100)
            for _ in range(100):
                answer = await connection.answer()
                assert answer is not None
                assert answer.status == 200
        async with wire(site.url) as connection:
            await connection.send(request("GET", "/x") * 1_000)
            assert (await connection.rest()).count(b"HTTP/1.1 200") <= 101
        assert (await site.client.get("/x")).text == "x"


@pytest.mark.anyio
async def test_a_request_names_one_host() -> None:
    async with served(find_adapter("asgi")) as site, wire(site.url) as connection:
        answer = await connection.ask(request("GET", "/", "host: other"))
        assert answer is not None
        assert answer.status == 400


# -- what frames cost others

HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SOCKETS = """
name = "sockets"
version = "1.0.0"

async def echo(socket):
    async for message in socket:
        await socket.send(str(len(message)))

def load(context):
    context.add_websocket("/echo", echo)
    context.add_route("GET", "/quick", lambda: "quick")
"""


def fragment(opcode: int, data: bytes, *, last: bool = False) -> bytes:
    return bytes([opcode | (0x80 if last else 0), 0x80 | len(data)]) + bytes(4) + data


def test_many_fragments_let_others_through(start: Start, tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "sockets.py").write_text(SOCKETS)
    veko = start("serve", tmp_path, "--port", 0, cwd=tmp_path)
    port = int(veko.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
    count = 200_000
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(HANDSHAKE)
        assert client.recv(1_000).startswith(b"HTTP/1.1 101")
        client.sendall(fragment(1, b"a") + fragment(0, b"x") * count)
        assert httpx.get(f"http://127.0.0.1:{port}/quick", timeout=1).text == "quick"
        client.sendall(fragment(0, b"b", last=True))
        assert client.recv(1_000).endswith(str(count + 2).encode())


# -- granian

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, HEADERS, GOAWAY, RST, CONTINUATION = 4, 1, 7, 3, 9
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK writes it without its table and without Huffman."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def frames(connection: socket.socket) -> list[tuple[int, int, bytes]]:
    """Read frames until the request is answered or refused."""
    found: list[tuple[int, int, bytes]] = []
    with connection.makefile("rb") as file:
        while len(head := file.read(9)) == 9:
            payload = file.read(int.from_bytes(head[:3], "big"))
            found.append((head[3], int.from_bytes(head[5:9], "big"), payload))
            if found[-1][0] in {HEADERS, GOAWAY, RST}:
                break
    return found


@pytest.mark.parametrize(("count", "size"), [(1_000, 10), (90, 2_000)], ids=["many", "large"])
def test_granian_bounds_the_headers_of_HTTP_2_or_does_not_speak_it(
    start: Start, tmp_path: Path, count: int, size: int
) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "one.py").write_text(
        'name = "one"\nversion = "1.0.0"\n\ndef load(context):\n'
        '    context.add_route("GET", "/", lambda request: len(request.headers))\n'
    )
    veko = start("serve", tmp_path, "--port", 0, "--server", "granian", cwd=tmp_path)
    port = int(veko.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1])
    block = b"".join(
        literal(name, value)
        for name, value in [
            (b":method", b"GET"), (b":path", b"/"), (b":scheme", b"http"), (b":authority", b"x"),
            *((b"x-%d" % number, b"a" * 10) for number in range(count)),
        ]
    )  # fmt: skip
    if size > 127:
        length = b"\x7f" + bytes([(size - 127) & 127 | 128, (size - 127) >> 7])
        block += b"".join(b"\0\x04y-%02d" % n + length + b"a" * size for n in range(count))
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, 1, 0))
        try:
            for number, piece in enumerate(pieces):
                last = END_HEADERS if number == len(pieces) - 1 else 0
                if number:
                    client.sendall(frame(CONTINUATION, last, 1, piece))
                else:
                    client.sendall(frame(HEADERS, last | END_STREAM, 1, piece))
            answers = frames(client)
        except ConnectionError:
            answers = []
        # In HPACK's static table, 8 is `:status: 200`; refusals have other numbers.
        served_it = [one for one in answers if one[0] == HEADERS and one[2][:1] == b"\x88"]
        assert not served_it, f"{len(block)} bytes of {count} headers and more were taken"
    assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
