"""What a client may cost is bounded alike for every kind of handler and on every server."""

import asyncio
import re
import subprocess
from collections.abc import Callable
from typing import Any, Protocol

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
