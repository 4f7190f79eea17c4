"""A client that goes away while its response is being streamed, its own body unread."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from veko_adapters.conformance import Site, served
from veko_adapters.conformance._wire import request, wire
from veko_plugins.http import Request, find_adapter

pytestmark = pytest.mark.anyio
SECONDS = 10.0
LARGE = 300 * 1024


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with served(find_adapter("litestar")) as found:
        yield found


@pytest.mark.parametrize("sent", [b"hello", b"he", b""], ids=["whole", "half", "none"])
@pytest.mark.parametrize("around", [False, True], ids=["bare", "behind middleware"])
async def test_a_client_that_goes_is_noticed_though_its_body_is_unread(
    site: Site, sent: bytes, around: bool
) -> None:
    over = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            over.set()

    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    def load(context: Any) -> None:
        context.add_route("POST", "/x", *([through] if around else []), lambda: endless())

    async with site.plugin(load), asyncio.timeout(SECONDS):
        async with wire(site.url) as client:
            await client.send(request("POST", "/x", "content-length: 5") + sent)
            assert b"200" in await client._reader.readuntil(b"first")
        await over.wait()
        assert site.errors() == 0


async def test_a_body_is_whole_for_who_reads_it_while_he_answers(site: Site) -> None:
    async def upper(request: Request) -> AsyncIterator[bytes]:
        yield b"begin "
        await asyncio.sleep(0)
        async for chunk in request.stream():
            yield chunk.upper()

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(LARGE // 1024):
            yield b"x" * 1024

    async with site.route("POST", "/x", upper), asyncio.timeout(SECONDS):
        answer = await site.client.post("/x", content=pieces())
        assert answer.content == b"begin " + b"X" * LARGE
        answer = await site.client.post("/x", content=b"y" * LARGE)
        assert answer.content == b"begin " + b"Y" * LARGE


async def test_a_body_that_was_kept_is_read_when_the_stream_is_long_under_way(site: Site) -> None:
    go = asyncio.Event()

    async def late(request: Request) -> AsyncIterator[bytes]:
        yield b"begin "
        await go.wait()
        yield await request.body()

    async with (
        asyncio.timeout(SECONDS),
        site.route("POST", "/x", late),
        wire(site.url) as client,
    ):
        await client.send(request("POST", "/x", "content-length: 5") + b"he")
        await client._reader.readuntil(b"begin ")
        await client.send(b"llo")
        go.set()
        assert b"hello" in await client._reader.readuntil(b"0\r\n\r\n")
