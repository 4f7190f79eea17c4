"""Answers: streams, events and cookies, and values that cannot be an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from veko_plugins.http import CallNext, HTTPError, Request, Response

from ._site import Site, served
from ._wire import request, wire

pytestmark = pytest.mark.anyio


class Odd(BaseException):
    pass


async def test_a_chunk_goes_out_before_the_next_is_made(site: Site) -> None:
    turns: asyncio.Queue[str] = asyncio.Queue()

    async def handler() -> AsyncIterator[str]:
        while (text := await turns.get()) != "end":
            yield text

    async with (
        site.route("GET", "/x", handler) as client,
        asyncio.timeout(10),
        client.stream("GET", "/x") as answer,
    ):
        # The headers arrive before the first chunk is made.
        texts = answer.aiter_text()
        for text in ("one", "two"):
            turns.put_nowait(text)
            assert await anext(texts) == text
        turns.put_nowait("end")
        assert [text async for text in texts] == []


async def test_a_stream_that_nobody_reads_is_not_begun(site: Site) -> None:
    begun: list[str] = []

    async def handler() -> AsyncIterator[str]:
        begun.append("begun")
        yield "x"

    async with site.route("GET", "/x", handler) as client:
        head = await client.head("/x")
        assert (head.status_code, head.content, begun) == (200, b"", [])


async def test_server_sent_events(site: Site) -> None:
    ended = asyncio.Event()
    ticks: asyncio.Queue[None] = asyncio.Queue()

    async def events() -> AsyncIterator[str]:
        try:
            yield "event: hello\ndata: 1\n\n"
            while True:
                await ticks.get()
                yield ": still here\n\n"
        finally:
            ended.set()

    def handler(request: Request) -> Response:
        return Response(
            events(), headers={"cache-control": "no-store"}, media_type="text/event-stream"
        )

    async with site.plugin(lambda context: context.add_route("GET", "/events", handler)) as record:
        async with (
            asyncio.timeout(10),
            httpx.AsyncClient(base_url=site.url, trust_env=False) as client,
            client.stream("GET", "/events") as answer,
        ):
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert "content-length" not in answer.headers
            lines = answer.aiter_lines()
            assert [await anext(lines) for _ in range(3)] == ["event: hello", "data: 1", ""]
            ticks.put_nowait(None)
            assert [await anext(lines) for _ in range(2)] == [": still here", ""]
            assert not ended.is_set()
        async with asyncio.timeout(10):
            await ended.wait()
        assert record.error_count == 0


async def test_middleware_around_a_stream_sees_the_client_go_away(site: Site) -> None:
    ended: list[str] = []
    done = asyncio.Event()

    async def forever() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.Event().wait()
        finally:
            ended.append("handler")

    async def around(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        stream = response.stream
        assert stream is not None

        async def louder() -> AsyncIterator[str]:
            try:
                async for chunk in stream:
                    yield str(chunk).upper()
            finally:
                ended.append("middleware")
                done.set()

        return Response(louder())

    async with site.plugin(lambda c: c.add_route("GET", "/x", around, forever)) as record:
        async with (
            asyncio.timeout(10),
            httpx.AsyncClient(base_url=site.url, trust_env=False) as client,
            client.stream("GET", "/x") as answer,
        ):
            assert await anext(answer.aiter_text()) == "X"
        async with asyncio.timeout(10):
            await done.wait()
        assert ended == ["handler", "middleware"]
        assert record.error_count == 0


async def test_several_cookies_each_in_a_header_of_its_own(site: Site) -> None:
    def handler(request: Request) -> Response:
        answer = Response("x", headers=[("set-cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")])
        answer.headers.add("set-cookie", "c=3; HttpOnly; SameSite=Lax")
        return answer

    async with site.route("GET", "/x", handler) as client:
        answer = await client.get("/x")
    client.cookies.clear()
    assert answer.headers.get_list("set-cookie") == [
        "a=1; Path=/", "b=2", "c=3; HttpOnly; SameSite=Lax",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["a\r\nx-evil: 1", "a\nx-evil: 1", "a\r\n\r\nevil", "a\0", "\u2028"]
)
@pytest.mark.parametrize("where", ["value", "name", "set", "add", "media", "redirect", "error"])
async def test_no_header_brings_another_along(site: Site, where: str, text: str) -> None:
    def handler(request: Request) -> Response:
        if where == "value":
            return Response("x", headers={"x-a": text})
        if where == "name":
            return Response("x", headers={text: "a"})
        if where == "media":
            return Response("x", media_type=text)
        if where == "redirect":
            return Response(status=302, headers={"location": f"/{text}"})
        if where == "error":
            raise HTTPError(400, "x", headers={"x-a": text})
        answer = Response("x")
        if where == "set":
            answer.headers["x-a"] = text
        else:
            answer.headers.add("set-cookie", f"a={text}")
        return answer

    async with site.plugin(lambda context: context.add_route("GET", "/x", handler)) as record:
        answer = await site.client.get("/x")
        assert answer.status_code == 500
        assert not {"x-evil", "x-a", "set-cookie", "location"} & {*answer.headers}
        assert record.error_count == 1


@pytest.mark.parametrize("server", ["uvicorn", "granian"])
async def test_a_body_is_as_long_as_it_is(site: Site, server: str) -> None:
    def handler(status: int, length: str) -> Response:
        return Response("hello", status, headers={"content-length": length})

    def load(context: Any) -> None:
        context.add_route("GET", "/x/{status:int}/{length}", handler)
        context.add_route("HEAD", "/only", lambda: Response(headers={"content-length": "7"}))

    pytest.importorskip(server)
    adapter = site.kernel.use("http").adapter
    async with (
        served(adapter, server=server) as other,
        other.plugin(load) as record,
        wire(other.url) as connection,
    ):

        async def answered(method: str, target: str) -> tuple[int, str | None, bytes]:
            answer = await connection.ask(request(method, target))
            assert answer is not None
            return answer.status, answer.header("content-length"), answer.body

        for length in ("2", "20", "0"):
            assert await answered("GET", f"/x/200/{length}") == (200, "5", b"hello")
            assert await answered("HEAD", f"/x/200/{length}") == (200, "5", b"")
            for status in (204, 304):
                assert await answered("GET", f"/x/{status}/{length}") == (status, None, b"")
        assert await answered("HEAD", "/only") == (200, "7", b"")
        assert record.error_count == 0


@pytest.mark.parametrize(
    ("answer", "sent"),
    [
        ("a\ud800", b"a?"),
        (["\ud800"], rb'["\ud800"]'),
        ({"\ud800": "\xe9"}, rb'{"\ud800":"\u00e9"}'),
    ],
)
async def test_a_lone_surrogate_is_replaced_or_escaped(
    site: Site, answer: Any, sent: bytes
) -> None:
    """A client can send one to a handler that echoes it."""
    async with site.plugin(lambda c: c.add_route("GET", "/x", lambda: answer)) as record:
        response = await site.client.get("/x")
        assert (response.status_code, response.content, record.error_count) == (200, sent, 0)


def _deep() -> Any:
    found: list[Any] = []
    for _ in range(20_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "make",
    [
        object, _deep, lambda: {"a": object()}, lambda: {(1, 2): 3},
        lambda: (x for x in "ab"), lambda: Response,
        lambda: Response(status=0), lambda: Response(status=99), lambda: Response(status=100),
        lambda: Response(status=101), lambda: Response(status=600),
        lambda: Response("x", headers={"transfer-encoding": "chunked"}),
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_a_fault_of_its_handler(site: Site, make: Any) -> None:
    async with (
        site.plugin(lambda c: c.add_route("GET", "/x", lambda request: make())) as record,
        wire(site.url) as connection,
    ):
        for count in (1, 2):
            answer = await connection.ask(request("GET", "/x"))
            assert answer is not None
            assert answer.status == 500
            assert answer.body == (
                b'{"type":"about:blank","title":"Internal Server Error","status":500}'
            )
            assert record.error_count == count


@pytest.mark.parametrize(
    "make",
    [
        Odd, SystemExit, asyncio.CancelledError, StopIteration, StopAsyncIteration, RecursionError,
        MemoryError, TimeoutError, lambda: BaseExceptionGroup("all", [Odd()]),
        lambda: HTTPError(200), lambda: HTTPError(999),
    ],
)  # fmt: skip
async def test_whatever_a_handler_raises_is_a_500_and_counted(site: Site, make: Any) -> None:
    async def later(request: Request) -> None:
        raise make()

    def at_once(request: Request) -> None:
        raise make()

    async def broken(request: Request) -> AsyncIterator[str]:
        yield "x"
        raise make()

    def load(context: Any) -> None:
        for handler in (later, at_once, broken):
            context.add_route("GET", f"/{handler.__name__}", handler)

    async with site.plugin(load) as record:
        for path in ("/later", "/at_once"):
            answer = await site.client.get(path)
            assert answer.status_code == 500
            assert answer.headers["content-type"] == "application/problem+json"
        with pytest.raises(httpx.RemoteProtocolError):
            await site.client.get("/broken")
        assert record.error_count == 3
    async with site.route("GET", "/x", lambda: "x") as client:
        assert (await client.get("/x")).text == "x"


async def test_an_answer_on_a_kept_connection_is_not_held_back(site: Site) -> None:
    """Two writes on a socket that waits for acknowledgements take 40 ms each time."""
    took: list[float] = []
    async with site.route("GET", "/x", lambda: "x"), wire(site.url) as connection:
        for _ in range(20):
            began = time.perf_counter()
            assert await connection.ask(request("GET", "/x"))
            took.append(time.perf_counter() - began)
    assert min(took[5:]) < 0.03


async def test_another_server_serves_it_too(site: Site) -> None:
    adapter = site.kernel.use("http").adapter

    async def chunks() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    def load(context: Any) -> None:
        context.add_route("GET", "/x/{key:int}", lambda key, q: [key, q])
        context.add_route("POST", "/sum", lambda data: sum(data))
        context.add_route("GET", "/stream", chunks)
        context.add_route("GET", "/fail", lambda request: object())

    pytest.importorskip("granian")
    async with served(adapter, server="granian") as other, other.plugin(load) as record:
        get = other.client.get
        assert (await get("/x/7?q=é")).json() == [7, "é"]
        assert (await other.client.post("/sum", json=[1, 2])).json() == 3
        assert (await get("/stream")).text == "ab"
        assert (await other.client.head("/x/7?q=1")).status_code == 200
        for path, status in (("/nothing", 404), ("/x/7", 400), ("/fail", 500)):
            answer = await get(path)
            assert (path, answer.status_code) == (path, status)
            assert answer.headers["content-type"] == "application/problem+json"
        assert record.error_count == 1
