"""Bodies and messages that no decoder can take are the client's fault, in every kind of handler."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from litestar import Request as LitestarRequest
from litestar import WebSocket as LitestarWebSocket
from litestar import post, websocket
from litestar.params import JSONBody
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route as StarletteRoute
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from veko_adapters.conformance import served
from veko_adapters.conformance._wire import request, wire
from veko_plugins.http import Request, WebSocket, find_adapter

pytestmark = pytest.mark.anyio

ADAPTERS = ("asgi", "litestar", "starlette")
JSON = "content-type: application/json"
PARTS = "content-type: multipart/form-data; boundary=X"
PART = b"--X\r\n%b\r\n\r\n%b\r\n--X--\r\n"
NAME = b'content-disposition: form-data; name="a"'
DEEP = b"[" * 100_000
BALANCED = DEEP + b"]" * 100_000

# -- handlers


@post("/x/json")
async def litestar_json(request: LitestarRequest) -> Any:
    return await request.json()


@post("/x/typed")
async def litestar_typed(data: JSONBody[Any]) -> Any:
    return data


@post("/x/form")
async def litestar_form(request: LitestarRequest) -> list[str]:
    return [*(await request.form())]


@websocket("/x/socket")
async def litestar_socket(socket: LitestarWebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    await socket.send_json(await socket.receive_json())


async def starlette_json(request: StarletteRequest) -> JSONResponse:
    return JSONResponse(await request.json())


async def starlette_socket(socket: StarletteWebSocket) -> None:
    await socket.accept()
    await socket.send_json(await socket.receive_json())


LITESTAR: list[Any] = [litestar_json, litestar_typed, litestar_form, litestar_socket]
STARLETTE = [
    StarletteRoute("/json", starlette_json, methods=["POST"]),
    WebSocketRoute("/socket", starlette_socket),
]


async def plain_json(request: Request) -> Any:
    return await request.json()


async def plain_typed(data: Any) -> Any:
    return data


async def plain_form(request: Request) -> list[str]:
    return [*(await request.form())]


async def plain_socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json(await socket.receive_json())


def plain(context: Any) -> None:
    context.add_route("POST", "/x/json", plain_json)
    context.add_route("POST", "/x/typed", plain_typed)
    context.add_route("POST", "/x/form", plain_form)
    context.add_websocket("/x/socket", plain_socket)


def native_litestar(context: Any) -> None:
    context.add_routes(*LITESTAR)


def native_starlette(context: Any) -> None:
    for route in STARLETTE:
        context.add_routes(route, path="/x")


KINDS = [
    *((name, plain) for name in ADAPTERS),
    ("litestar", native_litestar),
    ("starlette", native_starlette),
]


def name_of(value: Any) -> str:
    return getattr(value, "__name__", str(value))


async def refuses(
    name: str, load: Callable[[Any], None], path: str, header: str, body: bytes
) -> None:
    """See that a body is answered with a 4xx and counts against nobody."""
    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await connection.ask(request("POST", path, header, body=body))
        assert answer is not None
        assert (answer.status in {400, 415}, record.error_count) == (True, 0), answer.status


@pytest.mark.parametrize(
    "body", [DEEP, BALANCED, b'{"a":' * 50_000, b"{"], ids=["open", "closed", "objects", "no JSON"]
)
@pytest.mark.parametrize(("name", "load"), KINDS, ids=name_of)
async def test_json_that_cannot_be_decoded_is_refused(
    name: str, load: Callable[[Any], None], body: bytes
) -> None:
    await refuses(name, load, "/x/json", JSON, body)


@pytest.mark.parametrize(
    ("name", "load"),
    [*((name, plain) for name in ADAPTERS), ("litestar", native_litestar)],
    ids=name_of,
)
async def test_deep_json_for_a_typed_parameter_is_refused(
    name: str, load: Callable[[Any], None]
) -> None:
    await refuses(name, load, "/x/typed", JSON, BALANCED)


@pytest.mark.parametrize("message", [DEEP, BALANCED, b"{"], ids=["open", "closed", "no JSON"])
@pytest.mark.parametrize(("name", "load"), KINDS, ids=name_of)
async def test_a_message_that_is_no_json_closes_the_socket_with_1007(
    name: str, load: Callable[[Any], None], message: bytes
) -> None:
    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        url = f"{site.url.replace('http', 'ws')}/x/socket"
        async with asyncio.timeout(10), connect(url) as socket:
            await socket.send(message.decode())
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, record.error_count) == (1007, 0)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (PARTS, PART % (NAME, b"\xff\xfe")),
        (PARTS, PART % (b'content-disposition: form-data; name="\xff"', b"a")),
        (PARTS, PART % (b'content-disposition: form-data; name="a"; filename="\xff"', b"a")),
        (PARTS, PART % (NAME + b"\r\ncontent-type: text/plain; charset=nonsense", b"a")),
        (PARTS + "; charset=nonsense", PART % (NAME, b"a")),
        (PARTS, PART % (NAME + b"\r\ncontent-type: text/plain; charset=utf-16", b"a")),
        (PARTS, PART % (NAME + b"\r\ncontent-type: text/plain; charset=hex", b"zz")),
        (PARTS, PART % (NAME + b"\r\ncontent-type: text/plain; charset=idna", b"\xff")),
    ],
    ids=["value", "name", "file name", "charset", "charset of all", "UTF-16", "hex", "idna"],
)
@pytest.mark.parametrize(
    ("name", "load"),
    [*((name, plain) for name in ADAPTERS), ("litestar", native_litestar)],
    ids=name_of,
)
async def test_a_multipart_form_that_is_no_text_is_nobodys_fault(
    name: str, load: Callable[[Any], None], header: str, body: bytes
) -> None:
    """An unknown charset may be passed over; what must not be is a 500, or a fault."""
    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await connection.ask(request("POST", "/x/form", header, body=body))
        assert answer is not None
        assert (answer.status < 500, record.error_count) == (True, 0), answer.status


ECHO = {
    "json": (JSON, b'{"name":"\\ud800"}'),
    "typed": (JSON, b'"\\ud800"'),
}


@pytest.mark.parametrize("path", ECHO)
@pytest.mark.parametrize(("name", "load"), KINDS, ids=name_of)
async def test_an_echo_of_a_lone_surrogate_is_nobodys_fault(
    name: str, load: Callable[[Any], None], path: str
) -> None:
    if load is native_starlette:
        path = "json"  # Starlette has no typed bodies
    header, body = ECHO[path]
    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await connection.ask(request("POST", f"/x/{path}", header, body=body))
        assert answer is not None
        assert (answer.status < 500, record.error_count) == (True, 0), answer.status


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("path", ["/text", "/list"])
async def test_an_answer_that_echoes_a_lone_surrogate_is_nobodys_fault(
    name: str, path: str
) -> None:
    """A handler is given text with a surrogate by `json.loads`, and answers with it."""

    async def echo(request: Request) -> Any:
        text = json.loads(await request.body())
        return [text] if request.path == "/list" else text

    def load(context: Any) -> None:
        context.add_route("POST", path, echo)

    async with served(find_adapter(name)) as site, site.plugin(load) as record:
        async with wire(site.url) as connection:
            answer = await connection.ask(request("POST", path, JSON, body=b'"\\ud800"'))
        assert answer is not None
        assert (answer.status < 500, record.error_count) == (True, 0), answer.status
