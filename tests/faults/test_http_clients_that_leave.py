"""Clients that leave in the middle are nobody's fault, and hold nobody up."""

import asyncio
import re
import subprocess
from collections.abc import Callable
from typing import Any, Protocol

import pytest
from litestar import Request as LitestarRequest
from litestar import post
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Route as StarletteRoute

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
